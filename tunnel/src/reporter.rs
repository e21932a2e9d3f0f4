//! Shared by all drivers: name resolution and publication of reports.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time;

use crate::core::{DropReason, Now, Tunnel, TunnelEvent, TunnelReport, TunnelState};
use crate::netlink::HostNetwork;
use crate::settings::Endpoint;

/// Time after which a look-up counts as failed. A DNS server that drops AAAA queries costs the
/// resolver three time-outs of 5 s, each of two dead servers as many.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(50);
/// Minimum time between two reports while the state does not change.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Returns all addresses of a name; none if it does not resolve within [`LOOKUP_TIMEOUT`].
pub(crate) async fn resolve(endpoint: Endpoint) -> Vec<SocketAddr> {
    let found = time::timeout(LOOKUP_TIMEOUT, lookup_host((endpoint.host.as_str(), endpoint.port)));
    found.await.ok().and_then(Result::ok).map(Iterator::collect).unwrap_or_default()
}

/// Returns the event with the routers and DNS servers of this host; empty lists where a sandbox
/// hides them.
pub(crate) fn host_network_event(tunnel: &Tunnel) -> TunnelEvent {
    let host = HostNetwork::read().unwrap_or_default();
    let resolvers_inside = host.resolvers_inside(tunnel.host_routes());
    TunnelEvent::HostNetwork { routers: host.routers(), resolvers_inside }
}

/// Publishes reports: at each change of state, which is also logged, and once a second while the
/// tunnel is in use.
#[derive(Debug)]
pub(crate) struct Reporter {
    publish: watch::Sender<TunnelReport>,
    last_published: Instant,
}

impl Reporter {
    pub(crate) fn new(tunnel: &Tunnel, now: Now) -> (Self, watch::Receiver<TunnelReport>) {
        let report = tunnel.report(now);
        // What is wrong from the start on is no change of state later.
        if is_problem(report.state) {
            log_change(&report);
        }
        let (publish, reports) = watch::channel(report);
        (Self { publish, last_published: now.instant }, reports)
    }

    /// Publishes a report that the tunnel itself cannot make, and logs it unless the last one said
    /// the same.
    pub(crate) fn publish(&mut self, report: TunnelReport, now: Now) {
        if report.diagnosis != self.publish.borrow().diagnosis {
            log_change(&report);
        }
        self.publish.send_replace(report);
        self.last_published = now.instant;
    }

    /// Publishes a report if the state has changed or the last one is a second old.
    pub(crate) fn publish_if_due(&mut self, tunnel: &Tunnel, now: Now) {
        // `state` is cheap, `report` allocates: this runs for every batch of packets.
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

/// Totals of drops outside the core, to pass on what was added since the last time.
#[derive(Debug, Default)]
pub(crate) struct DropDeltas([u64; DropReason::ALL.len()]);

impl DropDeltas {
    /// Returns by how much the total for a reason has grown since the last call, if it has.
    pub(crate) fn since_last(&mut self, reason: DropReason, total: u64) -> Option<u64> {
        let last = self.0.get_mut(reason as usize)?;
        let more = total.saturating_sub(*last);
        *last = total;
        (more > 0).then_some(more)
    }
}

fn log_change(report: &TunnelReport) {
    let (hub, state) = (report.hub.as_str(), report.state.label());
    if is_problem(report.state) {
        tracing::warn!(hub, state, "{}", report.diagnosis);
    } else {
        tracing::info!(hub, state, "{}", report.diagnosis);
    }
}

const fn is_problem(state: TunnelState) -> bool {
    !matches!(
        state,
        TunnelState::Up | TunnelState::Waiting | TunnelState::Connecting | TunnelState::LookingUp
    )
}
