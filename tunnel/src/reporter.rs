//! What every driver does alike: looks names up, and tells how the tunnel is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time;

use crate::core::{DropReason, Now, Tunnel, TunnelReport, TunnelState};
use crate::settings::Endpoint;

/// A look-up that takes longer has failed.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Reports are not more frequent than this while the state does not change.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// All addresses of a name; none if it cannot be found in time.
pub(crate) async fn resolve(endpoint: Endpoint) -> Vec<SocketAddr> {
    let found = time::timeout(LOOKUP_TIMEOUT, lookup_host((endpoint.host.as_str(), endpoint.port)));
    found.await.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default()
}

/// Publishes reports: at every change of state, which is also logged, and once a second while the
/// tunnel is used.
#[derive(Debug)]
pub(crate) struct Reporter {
    publish: watch::Sender<TunnelReport>,
    last_published: Instant,
}

impl Reporter {
    pub(crate) fn new(tunnel: &Tunnel, now: Now) -> (Self, watch::Receiver<TunnelReport>) {
        let (publish, reports) = watch::channel(tunnel.report(now));
        (Self { publish, last_published: now.instant }, reports)
    }

    /// Publishes if there is a reason.
    pub(crate) fn publish_if_due(&mut self, tunnel: &Tunnel, now: Now) {
        let is_new = tunnel.state(now) != self.publish.borrow().state;
        if is_new || now.instant >= self.last_published + MIN_REPORT_INTERVAL {
            let report = tunnel.report(now);
            if is_new {
                log_change(&report);
            }
            self.publish.send_replace(report);
            self.last_published = now.instant;
        }
    }
}

/// What was lost outside the core, of which it only learns.
#[derive(Debug, Default)]
pub(crate) struct DropDeltas([u64; DropReason::ALL.len()]);

impl DropDeltas {
    /// What has come to the sum of all losses for a reason since it was told last, if anything.
    pub(crate) fn since_last(&mut self, reason: DropReason, sum: u64) -> Option<u64> {
        let told = self.0.get_mut(reason as usize)?;
        let more = sum.saturating_sub(*told);
        *told = sum;
        (more > 0).then_some(more)
    }
}

fn log_change(report: &TunnelReport) {
    let (hub, state) = (report.hub.as_str(), report.state.label());
    if matches!(report.state, TunnelState::Up | TunnelState::Waiting | TunnelState::Connecting) {
        tracing::info!(hub, state, "{}", report.diagnosis);
    } else {
        tracing::warn!(hub, state, "{}", report.diagnosis);
    }
}
