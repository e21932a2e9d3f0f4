//! Keeps a device's addresses and routes, whatever others do to the host's network.

use tracing::{debug, info, warn};

use crate::netlink::{ChangeMonitor, HostInterface, InterfaceError, Repaired};

/// What is kept, and what is heard of.
#[derive(Debug)]
pub(super) struct InterfaceReconciler {
    interface: HostInterface,
    monitor: ChangeMonitor,
    /// What could not be done, as it was said.
    last_error: Option<String>,
}

impl InterfaceReconciler {
    /// Has to be called in a tokio runtime, before anything can be missing.
    pub(super) fn new(link: HostInterface) -> Self {
        let news = ChangeMonitor::listen().unwrap_or_else(|error| {
            warn!(%error, "a route that somebody takes from the tunnel's device stays away");
            ChangeMonitor::disabled()
        });
        Self { interface: link, monitor: news, last_error: None }
    }

    /// Never ends. Cancel safe.
    pub(super) async fn run(&mut self) {
        loop {
            self.monitor.changed().await;
            self.reconcile();
        }
    }

    /// A device that is down stays so: somebody wants it. Its routes come when it goes up.
    fn reconcile(&mut self) {
        let said = match self.interface.repair() {
            Ok(Repaired::Nothing) => None,
            Ok(Repaired::Something) => {
                info!("what the tunnel's device had lost of its addresses and routes is set again");
                None
            }
            Err(InterfaceError::Down | InterfaceError::Gone) => {
                debug!("the tunnel's device is down");
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(said) = said.as_ref().filter(|said| self.last_error.as_ref() != Some(said)) {
            warn!("{said}");
        }
        self.last_error = said;
    }
}
