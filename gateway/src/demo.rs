//! The whole chain in one process: two simulated PLCs, the gateway, the sink as broker.
//!
//! Everything between is the product itself, with a configuration file that it loads as any other.
//! Only the ends are simulated, and they listen on loopback only.

mod hub;
mod judge;
mod site;

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::judge::Judge;
pub use self::judge::Verdict;
use self::site::Site;
use crate::app;
use crate::sink::{self, Heard};
use crate::supervise::Stage;

/// Messages on their way from the sink to the screen.
const HEARD: usize = 64;
/// Longest wait for the gateway to drain.
const GRACE: Duration = Duration::from_secs(10);

/// One message as it arrived at the sink.
#[derive(Debug)]
pub struct Arrival {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Value,
}

/// Runs the chain until `stop` fires or `duration` is over, and judges what arrived.
///
/// `print` gets every message of the gateway.
///
/// # Errors
/// Fails when something cannot be started, and when `print` does.
pub async fn run(
    duration: Option<Duration>,
    stop: CancellationToken,
    mut print: impl FnMut(&Arrival) -> anyhow::Result<()>,
) -> anyhow::Result<Verdict> {
    let end = duration.map(|duration| Instant::now() + duration);
    let fatal = CancellationToken::new();
    let ends = Stage::new("simulated ends");
    let Site { loaded, sink, plcs, directory: _directory } = Site::start(&ends, &fatal).await?;
    let (sender, mut heard) = mpsc::channel(HEARD);
    ends.spawn(fatal.clone(), |stop| sink::serve(sink, Vec::new(), sender, stop));

    let gateway_stop = stop.child_token();
    let gateway = app::run(loaded, gateway_stop.clone());
    tokio::pin!(gateway);
    let mut judge = Judge::new(plcs);
    let done = loop {
        tokio::select! {
            Some(heard) = heard.recv() => hear(heard, &mut judge, &mut print).await?,
            done = &mut gateway => break done,
            () = until(end), if !gateway_stop.is_cancelled() => gateway_stop.cancel(),
        }
    };
    done.context("the gateway of the demo has stopped")?;
    while let Ok(heard) = heard.try_recv() {
        hear(heard, &mut judge, &mut print).await?;
    }
    ends.drain(GRACE).await;
    Ok(judge.verdict())
}

async fn hear(
    heard: Heard,
    judge: &mut Judge,
    print: &mut impl FnMut(&Arrival) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Heard::Message(sink::Message { topic, payload, .. }) = heard else { return Ok(()) };
    let payload = serde_json::from_slice(&payload)
        .with_context(|| format!("a payload on {topic} is not JSON"))?;
    let arrival = Arrival { topic, payload };
    judge.hear(&arrival).await;
    print(&arrival)
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
