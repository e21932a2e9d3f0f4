//! The sections of a file, and the checks that involve several keys.

use std::ops::Range;
use std::time::Duration;

use ipnet::IpNet;
use tunnel::{
    Endpoint, Hub, LocalPort, MTU_RANGE, PresharedKey, PrivateKey, PublicKey, RoutePolicy, Settings,
};

use super::keys::{SectionKind, WgKey};
use super::value::{self, ValueProblem};
use super::{DEFAULT_MTU, KeyLine, ProblemList};
use crate::diagnostics::{Problem, SourceSpan};

/// A value that may be set once, with its place; without a value when it was invalid.
#[derive(Debug)]
struct SingleValue<T>(Option<(Range<usize>, Option<T>)>);

/// A list that may be continued by another line.
#[derive(Debug, Default)]
struct NetworkList {
    networks: Vec<IpNet>,
    /// The key was in the file, also when its value was invalid.
    is_set: bool,
}

/// The sections that have been read.
#[derive(Debug, Default)]
pub(super) struct ParsedSections {
    /// Header of `[Interface]`.
    interface: Option<Range<usize>>,
    private_key: SingleValue<PrivateKey>,
    addresses: NetworkList,
    mtu: SingleValue<u16>,
    port: SingleValue<LocalPort>,
    routes: SingleValue<RoutePolicy>,
    mark: SingleValue<()>,
    saved: SingleValue<()>,
    peers: Vec<ParsedPeer>,
    notes: Vec<Problem>,
}

/// A `[Peer]`.
#[derive(Debug, Default)]
struct ParsedPeer {
    header: Range<usize>,
    public_key: SingleValue<PublicKey>,
    preshared_key: SingleValue<PresharedKey>,
    endpoint: SingleValue<Endpoint>,
    allowed_ips: NetworkList,
    keep_alive: SingleValue<Option<Duration>>,
}

/// The contents of a valid file without its notes.
pub(super) struct Contents {
    pub(super) settings: Settings,
    pub(super) port: LocalPort,
    pub(super) routes: RoutePolicy,
    pub(super) notes: Vec<Problem>,
}

impl ParsedSections {
    pub(super) fn open(
        &mut self,
        section: SectionKind,
        header: Range<usize>,
        problems: &mut ProblemList,
    ) {
        match (section, &self.interface) {
            (SectionKind::Peer, _) => {
                self.peers.push(ParsedPeer { header, ..ParsedPeer::default() });
            }
            (SectionKind::Interface, None) => self.interface = Some(header),
            (SectionKind::Interface, Some(first)) => problems.add_related(
                header,
                "there are two sections [Interface]",
                "move all keys below one [Interface]",
                (first.clone(), "the first one is here"),
            ),
        }
    }

    pub(super) fn read_interface(
        &mut self,
        key: WgKey,
        line: &KeyLine<'_>,
        problems: &mut ProblemList,
    ) {
        let mut entry = Entry { key, line, problems };
        match key {
            WgKey::PrivateKey => entry.set(&mut self.private_key, value::key),
            WgKey::Address => entry.extend(&mut self.addresses),
            WgKey::Mtu => entry.set(&mut self.mtu, value::mtu),
            WgKey::ListenPort => entry.set(&mut self.port, value::port),
            WgKey::Table => entry.set(&mut self.routes, value::routes),
            WgKey::FwMark => entry.set(&mut self.mark, value::no_mark),
            WgKey::SaveConfig => {
                entry.set(&mut self.saved, value::saved);
                if line.value.eq_ignore_ascii_case("true") {
                    self.notes.push(Problem::new(
                        SourceSpan::File(line.name_span.clone()),
                        "`SaveConfig` has no effect: this file is never written",
                        "remove the line",
                    ));
                }
            }
            WgKey::Dns => self.notes.push(Problem::new(
                SourceSpan::File(line.name_span.clone()),
                "`DNS` has no effect: this host's resolver looks up the names of hubs",
                "remove the line",
            )),
            // Panels write these keys without a value.
            WgKey::PreUp | WgKey::PostUp | WgKey::PreDown | WgKey::PostDown
                if line.value.is_empty() => {}
            // Commands are rejected with every value: a file must not be able to run programs.
            WgKey::PreUp | WgKey::PostUp | WgKey::PreDown | WgKey::PostDown => {
                entry.reject_command();
            }
            WgKey::PublicKey
            | WgKey::PresharedKey
            | WgKey::Endpoint
            | WgKey::AllowedIps
            | WgKey::PersistentKeepalive => {}
        }
    }

    pub(super) fn read_peer(&mut self, key: WgKey, line: &KeyLine<'_>, problems: &mut ProblemList) {
        let Some(peer) = self.peers.last_mut() else { return };
        let mut entry = Entry { key, line, problems };
        match key {
            WgKey::PublicKey => entry.set(&mut peer.public_key, value::key),
            WgKey::PresharedKey => entry.set(&mut peer.preshared_key, value::key),
            WgKey::Endpoint => entry.set(&mut peer.endpoint, value::endpoint),
            WgKey::AllowedIps => entry.extend(&mut peer.allowed_ips),
            WgKey::PersistentKeepalive => entry.set(&mut peer.keep_alive, value::keep_alive),
            WgKey::PrivateKey
            | WgKey::Address
            | WgKey::Mtu
            | WgKey::ListenPort
            | WgKey::Dns
            | WgKey::Table
            | WgKey::FwMark
            | WgKey::PreUp
            | WgKey::PostUp
            | WgKey::PreDown
            | WgKey::PostDown
            | WgKey::SaveConfig => {}
        }
    }

    /// Reports missing keys and peers that differ. Returns the contents unless a value is missing
    /// or invalid.
    pub(super) fn finish(self, problems: &mut ProblemList) -> Option<Contents> {
        match &self.interface {
            None => problems.add_to_file(
                "there is no section [Interface]",
                "begin the file with `[Interface]`",
            ),
            Some(header) => {
                let help = "add the key that `edge-gateway keygen` or `wg genkey` has written";
                require(self.private_key.is_set(), header, WgKey::PrivateKey, help, problems);
                let help = "add `Address = ` and the address of this site in the tunnel";
                require(self.addresses.is_set, header, WgKey::Address, help, problems);
            }
        }
        check_peers(&self.peers, problems);
        let keep_alive = self.peers.first().and_then(ParsedPeer::keep_alive);
        let networks_span = self.peers.first().map(|peer| peer.header.clone());
        let hubs: Option<Vec<_>> = self.peers.into_iter().map(ParsedPeer::into_hub).collect();
        let settings = Settings {
            private_key: self.private_key.into_value()?,
            addresses: self.addresses.networks,
            mtu: self.mtu.into_value().unwrap_or(DEFAULT_MTU),
            keep_alive,
            hubs: hubs?,
        };
        let is_policy_known = !self.routes.is_set() || self.routes.get().is_some();
        let routes = self.routes.into_value().unwrap_or(RoutePolicy::Auto);
        if let Some(span) = networks_span.filter(|_| is_policy_known) {
            check_settings(&settings, routes, span, problems);
        }
        Some(Contents {
            settings,
            port: self.port.into_value().unwrap_or(LocalPort::Any),
            routes,
            notes: self.notes,
        })
    }
}

fn check_peers(peers: &[ParsedPeer], problems: &mut ProblemList) {
    let Some((first, others)) = peers.split_first() else {
        let help = "add a section [Peer] with the public key and the address of the hub";
        problems.add_to_file("there is no section [Peer]", help);
        return;
    };
    for peer in peers {
        check_keys(peer, problems);
    }
    for (before, peer) in (1..).zip(others) {
        check_same_role(first, peer, problems);
        reject_same_endpoint(peers.iter().take(before), peer, problems);
    }
}

fn check_keys(peer: &ParsedPeer, problems: &mut ProblemList) {
    let ParsedPeer { header, public_key, endpoint, allowed_ips, .. } = peer;
    let help = "add the public key of the hub";
    require(public_key.is_set(), header, WgKey::PublicKey, help, problems);
    let help = "add `Endpoint = hub.example.net:51820`; a site always connects to its hub";
    require(endpoint.is_set(), header, WgKey::Endpoint, help, problems);
    let help = "add `AllowedIPs = ` and the networks that are reached through the hub";
    require(allowed_ips.is_set, header, WgKey::AllowedIps, help, problems);
}

fn require(
    is_set: bool,
    header: &Range<usize>,
    key: WgKey,
    help: &str,
    problems: &mut ProblemList,
) {
    if !is_set {
        problems.add(header.clone(), format!("`{}` is missing in this section", key.name()), help);
    }
}

/// Checks that a peer can replace the first one: a hub is replaced when it does not respond.
fn check_same_role(first: &ParsedPeer, peer: &ParsedPeer, problems: &mut ProblemList) {
    let related = || (first.header.clone(), "the first peer is here");
    if first.networks() != peer.networks() {
        problems.add_related(
            peer.header.clone(),
            "this peer has other AllowedIPs than the first one, but only one hub is used at a time",
            "give both the same AllowedIPs, or use a file and a tunnel for each",
            related(),
        );
    }
    if first.keep_alive() != peer.keep_alive() {
        problems.add_related(
            peer.header.clone(),
            "this peer has another PersistentKeepalive than the first one",
            "give both the same",
            related(),
        );
    }
}

/// Rejects a peer at the address of another: their datagrams could not be distinguished.
fn reject_same_endpoint<'a>(
    mut before: impl Iterator<Item = &'a ParsedPeer>,
    peer: &ParsedPeer,
    problems: &mut ProblemList,
) {
    let Some((span, endpoint)) = peer.endpoint.get() else { return };
    let other = before
        .find_map(|other| other.endpoint.get().filter(|(_, other)| *other == endpoint))
        .map(|(other, _)| other.clone());
    if let Some(other) = other {
        problems.add_related(
            span.clone(),
            "two peers have the same endpoint",
            "remove one of the two peers",
            (other, "first used here"),
        );
    }
}

/// Reports what the machine cannot set: the routes, and an MTU below that of IPv6.
fn check_settings(
    settings: &Settings,
    policy: RoutePolicy,
    peer: Range<usize>,
    problems: &mut ProblemList,
) {
    if let Err(error) = tunnel::host_routes(&settings.hubs, &settings.addresses, policy) {
        let help = "list the networks behind the hub in AllowedIPs, or write `Table = off` in \
                    [Interface] and make your own routes";
        problems.add(peer.clone(), error.to_string(), help);
    }
    let networks = settings.hubs.iter().flat_map(|hub| &hub.allowed_ips);
    let has_v6 = settings.addresses.iter().chain(networks).any(|net| net.addr().is_ipv6());
    if settings.mtu < *MTU_RANGE.start() && has_v6 {
        let help = "write 1280 or more, or remove the IPv6 addresses and networks";
        problems.add(peer, format!("`MTU = {}` is too small for IPv6", settings.mtu), help);
    }
}

impl ParsedPeer {
    fn into_hub(self) -> Option<Hub> {
        let allowed_ips = self.networks();
        let endpoint = self.endpoint.into_value()?;
        Some(Hub {
            name: endpoint.to_string(),
            endpoint,
            public_key: self.public_key.into_value()?,
            preshared_key: self.preshared_key.into_value(),
            allowed_ips,
        })
    }

    fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive.get().and_then(|(_, value)| *value)
    }

    /// Returns each allowed network once, with the bits after its prefix cleared, sorted.
    fn networks(&self) -> Vec<IpNet> {
        let mut networks: Vec<_> = self.allowed_ips.networks.iter().map(IpNet::trunc).collect();
        networks.sort_unstable();
        networks.dedup();
        networks
    }
}

/// A key in its section.
struct Entry<'a, 'b> {
    key: WgKey,
    line: &'a KeyLine<'b>,
    problems: &'a mut ProblemList,
}

impl Entry<'_, '_> {
    fn set<T>(
        &mut self,
        target: &mut SingleValue<T>,
        parse: impl FnOnce(&str) -> Result<T, ValueProblem>,
    ) {
        let KeyLine { name_span, value_span, value, .. } = self.line;
        if let Some((first, _)) = &target.0 {
            self.problems.add_related(
                name_span.clone(),
                format!("`{}` is set twice", self.key.name()),
                "remove one of them",
                (first.clone(), "first set here"),
            );
            return;
        }
        let parsed = parse(value).map_err(|problem| self.reject(problem)).ok();
        target.0 = Some((value_span.clone(), parsed));
    }

    fn extend(&mut self, list: &mut NetworkList) {
        list.is_set = true;
        match value::networks(self.line.value) {
            Ok(networks) => {
                for network in networks {
                    if !list.networks.contains(&network) {
                        list.networks.push(network);
                    }
                }
            }
            Err(problem) => self.reject(problem),
        }
    }

    fn reject(&mut self, (message, help): ValueProblem) {
        let message = format!("`{}` {message}", self.key.name());
        self.problems.add(self.line.value_span.clone(), message, help);
    }

    fn reject_command(&mut self) {
        self.problems.add(
            self.line.name_span.clone(),
            format!("`{}` is a command, and commands from a file are never run", self.key.name()),
            "remove the line; if the command is needed, run it from a service",
        );
    }
}

impl<T> SingleValue<T> {
    const fn is_set(&self) -> bool {
        self.0.is_some()
    }

    fn into_value(self) -> Option<T> {
        self.0.and_then(|(_, value)| value)
    }

    /// Returns a valid value and its place.
    fn get(&self) -> Option<(&Range<usize>, &T)> {
        let (span, value) = self.0.as_ref()?;
        Some((span, value.as_ref()?))
    }
}

impl<T> Default for SingleValue<T> {
    fn default() -> Self {
        Self(None)
    }
}
