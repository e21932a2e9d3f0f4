//! Messages to the service manager (sd_notify(3)); without one they do nothing.

use sd_notify::NotifyState;

/// Reports that the gateway has started.
pub(super) fn notify_ready() {
    notify(NotifyState::Ready);
}

/// Reports that the gateway is shutting down.
pub(super) fn notify_stopping() {
    notify(NotifyState::Stopping);
}

/// Resets the watchdog of the service manager.
pub(super) fn notify_watchdog() {
    notify(NotifyState::Watchdog);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
