//! Messages to the service manager (sd_notify(3)); without one they do nothing. A service manager
//! that does not read them blocks nothing.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::time::Duration;

/// Address of the service manager, as it passes it on.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Returns whether systemd started this process: it takes notifications, or the log.
pub(crate) fn is_service() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set(SOCKET_VARIABLE) || is_set("JOURNAL_STREAM")
}

/// The unit that restarts the service when a file of the service changes, as `systemctl enable`
/// links it: it then starts with the service.
const SECRETS_UNIT_LINK: &str =
    "etc/systemd/system/edge-gateway.service.wants/edge-gateway-secrets.path";
/// Where `systemctl mask` disables that unit.
const SECRETS_UNIT_MASK: &str = "etc/systemd/system/edge-gateway-secrets.path";

/// Reports that the gateway has started.
pub(super) fn notify_ready() {
    notify("READY=1\nSTATUS=running");
}

/// Reports that the gateway cannot start, why, and that the process stays to try again.
pub(crate) fn notify_waiting(reason: &str) {
    // A message is a list of lines.
    let reason = reason.lines().next().unwrap_or_default();
    notify(&format!("READY=1\nSTATUS=not started: {reason}"));
}

/// Reports that the gateway starts again by itself, in the same process.
pub(super) fn notify_restarting() {
    notify("STATUS=starting with another configuration");
}

/// Reports that the gateway is busy before it can start: neither the time for a start nor that of
/// the watchdog ends within `time`.
pub(crate) fn notify_busy(time: Duration) {
    let micros = time.as_micros();
    notify(&format!(
        "WATCHDOG=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS=waiting for the disk, or for \
         edge-gateway-box-apply"
    ));
}

/// Reports that the gateway is shutting down.
pub(super) fn notify_stopping() {
    notify("STOPPING=1");
}

/// Resets the watchdog of the service manager. Says again that the gateway has started: the first
/// message is lost if it came while the service manager took none.
pub(crate) fn notify_watchdog() {
    notify("READY=1\nWATCHDOG=1");
}

/// Returns whether systemd restarts the gateway when a file with a secret changes.
pub(super) fn restarts_on_new_secrets(root: &Path) -> bool {
    let is_link = |path: &str| root.join(path).is_symlink();
    is_link(SECRETS_UNIT_LINK) && !is_link(SECRETS_UNIT_MASK)
}

fn notify(message: &str) {
    let Some(address) = env::var_os(SOCKET_VARIABLE) else { return };
    if let Err(error) = send(&address, message) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

fn send(address: &OsStr, message: &str) -> io::Result<()> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    // systemd takes no message while it waits for a slow disk, and its queue may be full.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_unit_that_is_enabled_and_not_masked_restarts_the_gateway() {
        let root = env::temp_dir().join(format!("edge-systemd-{}", fastrand::u64(..)));
        let (link, mask) = (root.join(SECRETS_UNIT_LINK), root.join(SECRETS_UNIT_MASK));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        assert!(!restarts_on_new_secrets(&root));
        symlink("/lib/systemd/system/edge-gateway-secrets.path", link).unwrap();
        assert!(restarts_on_new_secrets(&root));
        symlink("/dev/null", mask).unwrap();
        assert!(!restarts_on_new_secrets(&root));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn messages_reach_a_path_and_an_abstract_name_and_never_wait() {
        let name = format!("edge-gateway-notify-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        for (address, receiver) in
            [(path.as_os_str(), by_path), (format!("@{name}").as_ref(), by_name)]
        {
            send(address, "READY=1").unwrap();
            let mut text = [0; 16];
            let size = receiver.recv(&mut text).unwrap();
            assert_eq!(text.get(..size), Some(b"READY=1".as_slice()));
            // Nothing reads the rest: the queue of the socket fills up.
            let full = (0..100_000).find_map(|_| send(address, "WATCHDOG=1").err()).unwrap();
            assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        }
        fs::remove_file(&path).unwrap();
    }
}
