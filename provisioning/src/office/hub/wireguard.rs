//! The WireGuard interface of a hub, for wg-quick.

use std::fmt::Write as _;

use tunnel::PrivateKey;

use super::HubView;

/// Starts a service after the tunnel: it listens at the tunnel's address.
pub(super) const AFTER_TUNNEL: &str = "\
# Made by edge-provision; changes here are lost.
[Unit]
Wants=wg-quick@edge.service
After=wg-quick@edge.service
";

/// Returns `/etc/wireguard/edge.conf`. It holds the private key: `wg syncconf` removes the key of an
/// interface whose file has none.
pub(super) fn interface(view: &HubView<'_>, key: &PrivateKey) -> String {
    let plan = &view.fleet.settings().plan;
    let mut text = format!(
        "# Made by edge-provision; changes here are lost.\n\
         [Interface]\n\
         # {}\n\
         Address = {}/{}\n\
         ListenPort = {}\n\
         PrivateKey = {}\n\
         MTU = 1420\n\
         # For the office, which reaches the metrics of the sites through the hub.\n\
         PostUp = sysctl -q -w net.ipv4.conf.%i.forwarding=1\n",
        view.hub.name,
        view.hub.address,
        plan.network.prefix_len(),
        view.hub.endpoint.port,
        key.expose().as_str(),
    );
    for hub in view.cluster_peers() {
        // A String accepts every text.
        let _ = write!(
            text,
            "\n[Peer]\n# {}, for the cluster of brokers\nPublicKey = {}\nEndpoint = {}\n\
             AllowedIPs = {}/32\n",
            hub.name, hub.public_key, hub.endpoint, hub.address
        );
    }
    let sites = view.sites.iter().filter_map(|entry| {
        entry.site.public_key.map(|key| (entry.site.id.as_str(), entry.site.address, key))
    });
    let office = &view.fleet.settings().office;
    let office = office.iter().map(|peer| (peer.name.as_str(), peer.address, peer.public_key));
    for (name, address, key) in office.chain(sites) {
        // A String accepts every text.
        let _ = write!(text, "\n[Peer]\n# {name}\nPublicKey = {key}\nAllowedIPs = {address}/32\n");
    }
    text
}
