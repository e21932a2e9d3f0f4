//! Restores what others change at the tunnel's interface: its MTU, addresses and routes.

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::core::TunnelEvent;
use crate::netlink::{ChangeMonitor, HostInterface, Repair};

/// An interface and the notifications of changes to it.
#[derive(Debug)]
pub(super) struct InterfaceReconciler {
    interface: HostInterface,
    monitor: ChangeMonitor,
    events: mpsc::WeakSender<TunnelEvent>,
    /// Texts of the last problems, to log each problem once.
    last_problems: Vec<String>,
    is_up: bool,
}

impl InterfaceReconciler {
    /// Starts to watch the interface after its first repair. Must be called in a tokio runtime,
    /// before anything can be removed. If watching fails, that is logged, and nothing is restored.
    pub(super) fn new(
        interface: HostInterface,
        first: &Repair,
        events: mpsc::WeakSender<TunnelEvent>,
    ) -> Self {
        let monitor = ChangeMonitor::listen().unwrap_or_else(|error| {
            warn!(%error, "routes that are removed from the tunnel's interface are not restored");
            ChangeMonitor::disabled()
        });
        let mut reconciler =
            Self { interface, monitor, events, last_problems: Vec::new(), is_up: true };
        reconciler.log_problems(first);
        reconciler
    }

    /// Restores what is changed; never ends. Cancel safe.
    pub(super) async fn run(&mut self) {
        loop {
            self.monitor.changed().await;
            match self.interface.repair() {
                Ok(repair) => self.on_repaired(&repair).await,
                // It was removed, which ends the tunnel.
                Err(error) => warn!("{error}"),
            }
        }
    }

    async fn on_repaired(&mut self, repair: &Repair) {
        if repair.has_changed {
            info!("restored MTU, addresses or routes of the tunnel's interface");
        }
        self.log_problems(repair);
        // An administrator took it down, so it stays down; its routes are set when it is up.
        if self.is_up != repair.is_up {
            self.is_up = repair.is_up;
            let event = match repair.is_up {
                true => TunnelEvent::InterfaceUp,
                false => TunnelEvent::InterfaceDown { name: self.interface.name() },
            };
            if let Some(events) = self.events.upgrade() {
                // It fails only when the tunnel has ended.
                let _ = events.send(event).await;
            }
        }
    }

    fn log_problems(&mut self, repair: &Repair) {
        let problems: Vec<String> = repair.problems.iter().map(ToString::to_string).collect();
        for problem in problems.iter().filter(|problem| !self.last_problems.contains(problem)) {
            warn!("{problem}");
        }
        self.last_problems = problems;
    }
}
