//! The peers of a file as hubs, of which one is used at a time.

use std::time::Duration;

use ipnet::IpNet;

use super::keys::Word;
use super::problem::Problems;
use super::sections::Peer;
use crate::settings::Hub;

/// Tells what is missing or does not go together; gives the hubs when nothing is wrong with them.
pub(super) fn finish(
    peers: Vec<Peer>,
    problems: &mut Problems,
) -> Option<(Vec<Hub>, Option<Duration>)> {
    if peers.is_empty() {
        problems.add(0, "there is no section [Peer]", "add one that says where the hub is");
    }
    for peer in &peers {
        require(peer, problems);
    }
    if let Some((first, others)) = peers.split_first() {
        for (index, peer) in others.iter().enumerate() {
            compare(first, peer, problems);
            let before = peers.iter().take(index + 1);
            differ(before, peer, problems);
        }
    }
    let keep_alive = peers.first().and_then(|peer| peer.keep_alive.get()).and_then(|(_, it)| *it);
    let hubs: Option<Vec<_>> = peers.into_iter().map(hub).collect();
    Some((hubs.filter(|hubs| !hubs.is_empty())?, keep_alive))
}

fn require(peer: &Peer, problems: &mut Problems) {
    let Peer { line, public_key, endpoint, allowed_ips, .. } = peer;
    public_key.require(*line, problems, Word::PublicKey, "add the public key of the hub");
    endpoint.require(
        *line,
        problems,
        Word::Endpoint,
        "add `Endpoint = hub.example.net:51820`; a site calls its hub, never the other way round",
    );
    allowed_ips.require(
        *line,
        problems,
        Word::AllowedIps,
        "add `AllowedIPs = ` and the networks behind the hub",
    );
}

/// Hubs that take turns have to do the same.
fn compare(first: &Peer, peer: &Peer, problems: &mut Problems) {
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
    let keep_alive = |peer: &Peer| peer.keep_alive.get().and_then(|(_, value)| *value);
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
fn differ<'a>(mut before: impl Iterator<Item = &'a Peer>, peer: &Peer, problems: &mut Problems) {
    let Some((line, endpoint)) = peer.endpoint.get() else { return };
    let same = before.find(|other| other.endpoint.get().is_some_and(|(_, it)| it == endpoint));
    if let Some(other) = same {
        let what = format!("this endpoint is the one of the peer in line {} already", other.line);
        problems.add(line, what, "remove one of the two peers");
    }
}

fn hub(peer: Peer) -> Option<Hub> {
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
fn networks(peer: &Peer) -> Vec<IpNet> {
    let mut networks: Vec<_> = peer.allowed_ips.networks.iter().map(IpNet::trunc).collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}
