//! Two machines, a cable, and wireguard-go as the hub.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Namespace, NamespacePair, TempDir, WireguardGo, eventually, temp_dir};
use tunnel::{PrivateKey, PublicKey};

/// The machines and the hub, without the measured program.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) pair: NamespacePair,
    pub(crate) mtu: u16,
    pub(crate) wireguard_go: PathBuf,
    pub(crate) directory: TempDir,
    pub(crate) site_key: PrivateKey,
    pub(crate) hub_key: PublicKey,
    _hub: WireguardGo,
}

impl World {
    pub(crate) fn new(mtu: u16, wireguard_go: &Path) -> Self {
        let (pair, directory, site_key) =
            (NamespacePair::new(), temp_dir(), PrivateKey::generate());
        let hub = WireguardGo::start_program(wireguard_go, &pair, site_key.public_key(), mtu);
        let (hub_key, wireguard_go) = (hub.public_key(), wireguard_go.to_owned());
        Self { pair, mtu, wireguard_go, directory, site_key, hub_key, _hub: hub }
    }

    /// Writes the site as a wg-quick file and returns its path.
    pub(crate) fn conf(&self) -> PathBuf {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = {}/32\nMTU = {}\n\n[Peer]\nPublicKey = \
             {}\nEndpoint = {}\nAllowedIPs = {}/32\nPersistentKeepalive = 25\n",
            self.site_key.expose().as_str(),
            WireguardGo::SITE_ADDRESS,
            self.mtu,
            self.hub_key,
            WireguardGo::ENDPOINT,
            WireguardGo::ADDRESS,
        );
        let path = self.directory.write("site.conf", &text);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the test owns the file");
        path
    }
}

/// Waits until a program has created its device and accepts settings.
pub(crate) fn wait_for_device(namespace: &Namespace, device: &str) {
    eventually("the device is there", Duration::from_secs(10), || {
        let shown =
            namespace.command("wg").args(["show", device]).output().expect("wg is installed");
        shown.status.success().then_some(())
    });
}
