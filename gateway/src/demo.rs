//! The whole chain in one process: two simulated PLCs, the gateway, and a broker.
//!
//! Everything between them is the product itself, with a configuration file that it loads like any
//! other. Only the two ends are simulated, and they listen on loopback only. With a broker of the
//! user, the gateway connects to that one directly.

mod arrivals;
mod checker;
mod hub;
mod site;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use provisioning::config::Broker;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::arrivals::Arrivals;
use self::checker::DemoChecker;
pub use self::checker::DemoResult;
use self::site::DemoSite;
use crate::app;
use crate::supervise::Stage;

/// Longest wait for the simulated ends to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug, Default)]
pub struct DemoSetup {
    /// Ends the demo after this time.
    pub duration: Option<Duration>,
    /// A broker to publish to, instead of the demo's own behind the tunnel.
    pub broker: Option<Broker>,
}

/// What there is to show.
#[derive(Debug)]
pub enum DemoEvent {
    /// Everything runs. Commands can be sent at this address, or at the broker of the options.
    Started {
        /// Where the demo's own broker listens on loopback.
        broker: Option<SocketAddr>,
    },
    /// A message arrived at the broker.
    Arrived(ArrivedMessage),
}

/// One message as it arrived at the broker.
#[derive(Debug)]
pub struct ArrivedMessage {
    /// Topic.
    pub topic: String,
    /// Payload; a text if it is not JSON.
    pub payload: Value,
}

/// Runs the chain until `stop` is cancelled or the time is over, and checks what arrived.
///
/// `show` is called with every event, in order.
///
/// # Errors
/// Fails when a part cannot be started, and when `show` fails.
pub async fn run(
    options: DemoSetup,
    stop: CancellationToken,
    mut show: impl FnMut(DemoEvent) -> anyhow::Result<()>,
) -> anyhow::Result<DemoResult> {
    let end = options.duration.map(|duration| Instant::now() + duration);
    let fatal = CancellationToken::new();
    let ends = Stage::new("simulated ends");
    let DemoSite { loaded, broker, plcs, directory: _directory } =
        DemoSite::start(options.broker.as_ref(), &ends, &fatal).await?;
    let (mut arrivals, address) = Arrivals::start(broker, &loaded.config, &ends, &fatal).await?;
    show(DemoEvent::Started { broker: address })?;

    let gateway_stop = stop.child_token();
    let mut no_bundles = None;
    let gateway = app::run(loaded, None, &mut no_bundles, gateway_stop.clone());
    tokio::pin!(gateway);
    let mut checker = DemoChecker::new(plcs);
    let done = loop {
        tokio::select! {
            arrival = arrivals.next() => on_arrival(arrival, &mut checker, &mut show).await?,
            done = &mut gateway => break done,
            () = sleep_until_end(end), if !gateway_stop.is_cancelled() => gateway_stop.cancel(),
        }
    };
    done.context("the gateway of the demo has stopped")?;
    while let Some(arrival) = arrivals.next_of_the_last().await {
        on_arrival(arrival, &mut checker, &mut show).await?;
    }
    ends.drain(DRAIN_TIMEOUT).await;
    Ok(checker.finish())
}

async fn on_arrival(
    arrival: ArrivedMessage,
    checker: &mut DemoChecker,
    show: &mut impl FnMut(DemoEvent) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    checker.on_message(&arrival).await;
    show(DemoEvent::Arrived(arrival))
}

async fn sleep_until_end(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
