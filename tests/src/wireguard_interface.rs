//! A WireGuard interface of wireguard-go with settings from a file, as wg-quick would make it.

use crate::{ControlSocket, EVENT_TIMEOUT, Namespace, Process, TempDir, eventually, temp_dir};

/// An interface in a namespace. Dropping it removes it.
#[derive(Debug)]
pub struct WireguardInterface {
    _process: Process,
    _socket: ControlSocket,
    _dir: TempDir,
}

impl WireguardInterface {
    /// Makes the interface with settings for `wg setconf`, and gives it an address.
    #[must_use]
    pub fn start(namespace: &Namespace, name: &str, settings: &str, address: &str) -> Self {
        // All namespaces share the directory of the control sockets, so the name that wireguard-go
        // gets must be unique.
        let device = format!("w{}", namespace.name().replace("edge-", ""));
        let socket = ControlSocket::of(&device);
        let arguments = ["--foreground", &device];
        let process = Process::start(namespace.command("wireguard-go").args(arguments));
        eventually("wireguard-go takes settings", EVENT_TIMEOUT, || {
            let shown = namespace.command("wg").args(["show", &device]).output();
            shown.expect("wg is installed").status.success().then_some(())
        });
        let dir = temp_dir();
        let file = dir.write_private("settings", settings);
        namespace.run("wg", &["setconf", &device, &file]);
        namespace.ip(&["link", "set", &device, "name", name]);
        namespace.ip(&["address", "add", address, "dev", name]);
        namespace.ip(&["link", "set", name, "up"]);
        Self { _process: process, _socket: socket, _dir: dir }
    }
}
