//! The peers of a file as hubs, of which one is used at a time.

use std::time::Duration;

use ipnet::IpNet;

use super::keys::WgKey;
use super::problem::Problems;
use super::sections::ParsedPeer;
use crate::settings::Hub;

/// Tells what is missing or does not go together; gives the hubs when nothing is wrong with them.
pub(super) fn check_peers(
    peers: Vec<ParsedPeer>,
    problems: &mut Problems,
) -> Option<(Vec<Hub>, Option<Duration>)> {
    if peers.is_empty() {
        problems.add(0, "there is no section [Peer]", "add one that says where the hub is");
    }
    for peer in &peers {
        require_keys(peer, problems);
    }
    if let Some((first, others)) = peers.split_first() {
        for (index, peer) in others.iter().enumerate() {
            require_same_role(first, peer, problems);
            let before = peers.iter().take(index + 1);
            reject_same_endpoint(before, peer, problems);
        }
    }
    let keep_alive = peers.first().and_then(|peer| peer.keep_alive.get()).and_then(|(_, it)| *it);
    let hubs: Option<Vec<_>> = peers.into_iter().map(hub).collect();
    Some((hubs.filter(|hubs| !hubs.is_empty())?, keep_alive))
}

fn require_keys(peer: &ParsedPeer, problems: &mut Problems) {
    let ParsedPeer { line, public_key, endpoint, allowed_ips, .. } = peer;
    public_key.require(*line, problems, WgKey::PublicKey, "add the public key of the hub");
    endpoint.require(
        *line,
        problems,
        WgKey::Endpoint,
        "add `Endpoint = hub.example.net:51820`; a site calls its hub, never the other way round",
    );
    allowed_ips.require(
        *line,
        problems,
        WgKey::AllowedIps,
        "add `AllowedIPs = ` and the networks behind the hub",
    );
}

/// Hubs that take turns have to do the same.
fn require_same_role(first: &ParsedPeer, peer: &ParsedPeer, problems: &mut Problems) {
    if networks(first) != networks(peer) {
        problems.add(
            peer.line,
            format!(
                "this peer allows other addresses than the one in line {}, and only one hub is used \
                 at a time",
                first.line
            ),
            "give both the same AllowedIPs, or use a file and a tunnel for each",
        );
    }
    let keep_alive = |peer: &ParsedPeer| peer.keep_alive.get().and_then(|(_, value)| *value);
    if keep_alive(first) != keep_alive(peer) {
        problems.add(
            peer.line,
            format!(
                "this peer has another PersistentKeepalive than the one in line {}",
                first.line
            ),
            "give both the same",
        );
    }
}

/// Hubs at the same place could not be told apart.
fn reject_same_endpoint<'a>(
    mut before: impl Iterator<Item = &'a ParsedPeer>,
    peer: &ParsedPeer,
    problems: &mut Problems,
) {
    let Some((line, endpoint)) = peer.endpoint.get() else { return };
    let same = before.find(|other| other.endpoint.get().is_some_and(|(_, it)| it == endpoint));
    if let Some(other) = same {
        let what = format!("this endpoint is the one of the peer in line {} already", other.line);
        problems.add(line, what, "remove one of the two peers");
    }
}

fn hub(peer: ParsedPeer) -> Option<Hub> {
    let allowed_ips = networks(&peer);
    let endpoint = peer.endpoint.value()?;
    Some(Hub {
        name: endpoint.to_string(),
        endpoint,
        public_key: peer.public_key.value()?,
        preshared_key: peer.preshared_key.value(),
        allowed_ips,
    })
}

/// Each once, without what stands behind the network's part, and sorted.
fn networks(peer: &ParsedPeer) -> Vec<IpNet> {
    let mut networks: Vec<_> = peer.allowed_ips.networks.iter().map(IpNet::trunc).collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}
