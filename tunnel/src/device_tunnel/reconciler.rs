//! Restores addresses and routes of the tunnel's interface that others remove.

use tracing::{debug, info, warn};

use crate::netlink::{ChangeMonitor, HostInterface, InterfaceError, Repaired};

/// An interface and the notifications of changes to it.
#[derive(Debug)]
pub(super) struct InterfaceReconciler {
    interface: HostInterface,
    monitor: ChangeMonitor,
    /// Text of the last error, to log each error once.
    last_error: Option<String>,
}

impl InterfaceReconciler {
    /// Starts to watch the interface. Must be called in a tokio runtime, before anything can be
    /// removed. If watching fails, that is logged, and removed routes are not restored.
    pub(super) fn new(interface: HostInterface) -> Self {
        let monitor = ChangeMonitor::listen().unwrap_or_else(|error| {
            warn!(%error, "routes that are removed from the tunnel's interface are not restored");
            ChangeMonitor::disabled()
        });
        Self { interface, monitor, last_error: None }
    }

    /// Restores what is removed; never ends. Cancel safe.
    pub(super) async fn run(&mut self) {
        loop {
            self.monitor.changed().await;
            self.reconcile();
        }
    }

    fn reconcile(&mut self) {
        let error = match self.interface.repair() {
            Ok(Repaired::Nothing) => None,
            Ok(Repaired::Something) => {
                info!("restored addresses or routes of the tunnel's interface");
                None
            }
            // An administrator took it down, so it stays down; its routes are set when it is up.
            Err(InterfaceError::Down | InterfaceError::Gone) => {
                debug!("the tunnel's interface is down");
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = error.as_ref().filter(|error| self.last_error.as_ref() != Some(error))
        {
            warn!("{error}");
        }
        self.last_error = error;
    }
}
