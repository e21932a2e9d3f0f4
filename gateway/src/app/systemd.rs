//! Messages to the service manager (sd_notify(3)); without one they do nothing.

use std::path::Path;

use sd_notify::NotifyState;

/// The unit that restarts the service when a file of the service changes, as `systemctl enable`
/// links it: it then starts with the service.
const SECRETS_UNIT_LINK: &str =
    "etc/systemd/system/edge-gateway.service.wants/edge-gateway-secrets.path";
/// Where `systemctl mask` disables that unit.
const SECRETS_UNIT_MASK: &str = "etc/systemd/system/edge-gateway-secrets.path";

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

/// Returns whether systemd restarts the gateway when a file with a secret changes.
pub(super) fn restarts_on_new_secrets(root: &Path) -> bool {
    let is_link = |path: &str| root.join(path).is_symlink();
    is_link(SECRETS_UNIT_LINK) && !is_link(SECRETS_UNIT_MASK)
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_unit_that_is_enabled_and_not_masked_restarts_the_gateway() {
        let root = std::env::temp_dir().join(format!("edge-systemd-{}", fastrand::u64(..)));
        let (link, mask) = (root.join(SECRETS_UNIT_LINK), root.join(SECRETS_UNIT_MASK));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        assert!(!restarts_on_new_secrets(&root));
        symlink("/lib/systemd/system/edge-gateway-secrets.path", link).unwrap();
        assert!(restarts_on_new_secrets(&root));
        symlink("/dev/null", mask).unwrap();
        assert!(!restarts_on_new_secrets(&root));
        fs::remove_dir_all(root).unwrap();
    }
}
