//! The whole chain in one process: two simulated PLCs, the gateway, and the mock broker.
//!
//! Everything between them is the product itself, with a configuration file that it loads like any
//! other. Only the two ends are simulated, and they listen on loopback only.

mod checker;
mod hub;
mod site;

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::checker::DemoChecker;
pub use self::checker::DemoResult;
use self::site::DemoSite;
use crate::app;
use crate::mock_broker::{self, MockBrokerEvent};
use crate::supervise::Stage;

/// Events of the mock broker that may wait to be printed.
const EVENT_CAPACITY: usize = 64;
/// Longest wait for the simulated ends to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// One message as it arrived at the broker.
#[derive(Debug)]
pub struct ArrivedMessage {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: Value,
}

/// Runs the chain until `stop` is cancelled or `duration` is over, and checks what arrived.
///
/// `print` is called with every message of the gateway.
///
/// # Errors
/// Fails when a part cannot be started, and when `print` fails.
pub async fn run(
    duration: Option<Duration>,
    stop: CancellationToken,
    mut print: impl FnMut(&ArrivedMessage) -> anyhow::Result<()>,
) -> anyhow::Result<DemoResult> {
    let end = duration.map(|duration| Instant::now() + duration);
    let fatal = CancellationToken::new();
    let ends = Stage::new("simulated ends");
    let DemoSite { loaded, broker_listener, plcs, directory: _directory } =
        DemoSite::start(&ends, &fatal).await?;
    let (sender, mut events) = mpsc::channel(EVENT_CAPACITY);
    ends.spawn(fatal.clone(), |stop| mock_broker::serve(broker_listener, Vec::new(), sender, stop));

    let gateway_stop = stop.child_token();
    let gateway = app::run(loaded, gateway_stop.clone());
    tokio::pin!(gateway);
    let mut checker = DemoChecker::new(plcs);
    let done = loop {
        tokio::select! {
            Some(event) = events.recv() => on_broker_event(event, &mut checker, &mut print).await?,
            done = &mut gateway => break done,
            () = sleep_until_end(end), if !gateway_stop.is_cancelled() => gateway_stop.cancel(),
        }
    };
    done.context("the gateway of the demo has stopped")?;
    while let Ok(event) = events.try_recv() {
        on_broker_event(event, &mut checker, &mut print).await?;
    }
    ends.drain(DRAIN_TIMEOUT).await;
    Ok(checker.finish())
}

async fn on_broker_event(
    event: MockBrokerEvent,
    checker: &mut DemoChecker,
    print: &mut impl FnMut(&ArrivedMessage) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let MockBrokerEvent::Message(mock_broker::PublishedMessage { topic, payload, .. }) = event
    else {
        return Ok(());
    };
    let payload = serde_json::from_slice(&payload)
        .with_context(|| format!("a payload on {topic} is not JSON"))?;
    let arrival = ArrivedMessage { topic, payload };
    checker.on_message(&arrival).await;
    print(&arrival)
}

async fn sleep_until_end(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
