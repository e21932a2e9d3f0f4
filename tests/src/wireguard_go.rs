//! wireguard-go as the hub, in a network namespace.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tunnel::{PrivateKey, PublicKey};

use crate::{EVENT_TIMEOUT, Namespace, NamespacePair, Process, TempDir, eventually, temp_dir};

/// The control socket of a wireguard-go, which a killed one leaves behind and which makes wg fail
/// for the next device of this name. Dropping this removes it; drop it after the process.
#[derive(Debug)]
pub struct ControlSocket(PathBuf);

impl ControlSocket {
    /// Removes what a device of this name has left, whose process number is in use again.
    #[must_use]
    pub fn of(device: &str) -> Self {
        let socket = Self(Path::new("/var/run/wireguard").join(format!("{device}.sock")));
        socket.remove();
        socket
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A hub for one site. Dropping it kills it.
#[derive(Debug)]
pub struct WireguardGo {
    process: Option<(Process, ControlSocket)>,
    program: String,
    /// Unique, since all namespaces share the directory of its control socket.
    device: String,
    dir: TempDir,
    address: &'static str,
    site: PublicKey,
    key: PrivateKey,
    /// Preshared key, in base64.
    preshared: Option<String>,
}

impl WireguardGo {
    /// Address of the hub inside the tunnel.
    pub const ADDRESS: &str = "10.9.0.2";
    /// Address of the second hub inside the tunnel.
    pub const SECOND_ADDRESS: &str = "10.9.0.3";
    /// Address of the site inside the tunnel, its only allowed IP.
    pub const SITE_ADDRESS: &str = "10.9.0.1";
    /// UDP address that the hub listens on.
    pub const ENDPOINT: &str = "192.0.2.2:51820";

    /// Starts Debian's wireguard-go in the hub's namespace.
    #[must_use]
    pub fn start(pair: &NamespacePair, site: PublicKey, mtu: u16) -> Self {
        Self::start_program(Path::new("wireguard-go"), pair, site, mtu)
    }

    /// Starts the wireguard-go at this path.
    #[must_use]
    pub fn start_program(program: &Path, pair: &NamespacePair, site: PublicKey, mtu: u16) -> Self {
        Self::start_at(Self::ADDRESS, program, &pair.hub, (site, mtu))
    }

    /// Starts Debian's wireguard-go in another namespace, as the second hub of the site, with
    /// [`Self::SECOND_ADDRESS`].
    #[must_use]
    pub fn start_second(namespace: &Namespace, site: PublicKey, mtu: u16) -> Self {
        Self::start_at(Self::SECOND_ADDRESS, Path::new("wireguard-go"), namespace, (site, mtu))
    }

    fn start_at(
        address: &'static str,
        program: &Path,
        namespace: &Namespace,
        (site, mtu): (PublicKey, u16),
    ) -> Self {
        let (dir, program) = (temp_dir(), program.display().to_string());
        let key = PrivateKey::generate();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let device = format!("hub{}.{number}", std::process::id());
        let mut hub =
            Self { process: None, program, device, dir, address, site, key, preshared: None };
        hub.start_again(namespace, mtu);
        hub
    }

    /// Starts it after it was killed, with the same key.
    pub fn start_again(&mut self, namespace: &Namespace, mtu: u16) {
        assert!(self.process.is_none(), "the hub already runs");
        let socket = ControlSocket::of(&self.device);
        let arguments = ["--foreground", &self.device];
        let mut process = Process::start(namespace.command(&self.program).args(arguments));
        eventually("wireguard-go takes settings", EVENT_TIMEOUT, || {
            assert!(process.is_running(), "wireguard-go has ended: {}", process.log().text());
            let shown = namespace.command("wg").args(["show", &self.device]).output();
            shown.expect("wg is installed").status.success().then_some(())
        });
        self.process = Some((process, socket));
        let key = self.dir.write("hub.key", &self.key.expose()).display().to_string();
        let (site, allowed) = (self.site.to_string(), format!("{}/32", Self::SITE_ADDRESS));
        let settings = ["set", &self.device, "private-key", &key, "listen-port", "51820"];
        let peer = ["peer", &site, "allowed-ips", &allowed];
        namespace.run("wg", &[&settings[..], &peer[..]].concat());
        if let Some(key) = self.preshared.clone() {
            self.set_preshared_key(namespace, &key);
        }
        let address = format!("{}/24", self.address);
        namespace.ip(&["address", "replace", &address, "dev", &self.device]);
        namespace.ip(&["link", "set", &self.device, "mtu", &mtu.to_string(), "up"]);
    }

    /// Sets the preshared key of the site, as `wg genpsk` prints it. It survives a restart.
    pub fn set_preshared_key(&mut self, namespace: &Namespace, key: &str) {
        let file = self.dir.write("preshared.key", key).display().to_string();
        self.preshared = Some(key.to_owned());
        self.set_peer(namespace, &["preshared-key", &file]);
    }

    /// Sets the endpoint of the site, so that the hub can initiate a handshake.
    pub fn set_site_endpoint(&self, namespace: &Namespace, endpoint: SocketAddr) {
        self.set_peer(namespace, &["endpoint", &endpoint.to_string()]);
    }

    fn set_peer(&self, namespace: &Namespace, settings: &[&str]) {
        self.set_site(namespace, self.site, settings);
    }

    /// Sets a peer, and adds it if there is none with this key (wg(8), `set`).
    pub fn set_site(&self, namespace: &Namespace, site: PublicKey, settings: &[&str]) {
        let site = site.to_string();
        namespace.run("wg", &[&["set", &self.device, "peer", &site], settings].concat());
    }

    /// Returns the name of its network device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Returns whether a handshake was completed since its start (wg(8), `latest-handshakes`).
    #[must_use]
    pub fn has_handshake(&self, namespace: &Namespace) -> bool {
        let shown = namespace.run("wg", &["show", &self.device, "latest-handshakes"]);
        !shown.trim().ends_with("\t0")
    }

    /// Kills it; its device is removed with it.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Returns its public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }
}
