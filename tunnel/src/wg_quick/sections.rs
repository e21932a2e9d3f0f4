//! What the sections of a file say, before it is known whether they say enough.

use std::time::Duration;

use ipnet::IpNet;

use super::keys::{SectionKind, WgKey};
use super::problem::{Note, Problems};
use super::value::{self, Wrong};
use super::{DEFAULT_MTU, RoutePolicy, WgQuick, peers};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::settings::{Endpoint, Settings};
use crate::transport::LocalPort;

/// A value that may be given once; a wrong one was given and told.
#[derive(Debug)]
pub(super) struct SingleValue<T>(Option<(usize, Option<T>)>);

/// A list that may be continued; told once if a part of it was wrong.
#[derive(Debug, Default)]
pub(super) struct NetworkList {
    pub(super) networks: Vec<IpNet>,
    is_given: bool,
}

/// Everything so far.
#[derive(Debug, Default)]
pub(super) struct ParsedSections {
    opened: Option<usize>,
    private_key: SingleValue<PrivateKey>,
    addresses: NetworkList,
    mtu: SingleValue<u16>,
    port: SingleValue<LocalPort>,
    table: SingleValue<RoutePolicy>,
    mark: SingleValue<()>,
    saved: SingleValue<()>,
    peers: Vec<ParsedPeer>,
    notes: Vec<Note>,
}

/// A hub so far.
#[derive(Debug, Default)]
pub(super) struct ParsedPeer {
    pub(super) line: usize,
    pub(super) public_key: SingleValue<PublicKey>,
    pub(super) preshared_key: SingleValue<PresharedKey>,
    pub(super) endpoint: SingleValue<Endpoint>,
    pub(super) allowed_ips: NetworkList,
    pub(super) keep_alive: SingleValue<Option<Duration>>,
}

/// One line with a key that has its place.
struct KeyLine<'a> {
    key: WgKey,
    value: &'a str,
    line: usize,
    problems: &'a mut Problems,
}

impl ParsedSections {
    pub(super) fn open(&mut self, section: SectionKind, line: usize, problems: &mut Problems) {
        match (section, self.opened) {
            (SectionKind::Peer, _) => self.peers.push(ParsedPeer { line, ..ParsedPeer::default() }),
            (SectionKind::Interface, None) => self.opened = Some(line),
            (SectionKind::Interface, Some(first)) => problems.add(
                line,
                format!("[Interface] begins in line {first} already"),
                "move the keys together below one [Interface]",
            ),
        }
    }

    pub(super) fn interface(
        &mut self,
        key: WgKey,
        value: &str,
        line: usize,
        problems: &mut Problems,
    ) {
        let entry = KeyLine { key, value, line, problems };
        match key {
            WgKey::PrivateKey => entry.once(&mut self.private_key, value::key),
            WgKey::Address => entry.list(&mut self.addresses),
            WgKey::Mtu => entry.once(&mut self.mtu, value::mtu),
            WgKey::ListenPort => entry.once(&mut self.port, value::port),
            WgKey::Table => entry.once(&mut self.table, value::table),
            WgKey::FwMark => entry.once(&mut self.mark, value::no_mark),
            WgKey::SaveConfig => entry.once(&mut self.saved, value::not_saved),
            WgKey::Dns => self.notes.push(Note {
                line,
                what: "`DNS` has no effect: the names of hubs are looked up the way this host does",
            }),
            WgKey::PreUp | WgKey::PostUp | WgKey::PreDown | WgKey::PostDown => entry.reject((
                "is a command, and this program never runs commands from a file".to_owned(),
                "remove the line, and have a service of yours run it if it is needed".to_owned(),
            )),
            WgKey::PublicKey
            | WgKey::PresharedKey
            | WgKey::Endpoint
            | WgKey::AllowedIps
            | WgKey::PersistentKeepalive => {}
        }
    }

    pub(super) fn peer(&mut self, key: WgKey, value: &str, line: usize, problems: &mut Problems) {
        let Some(peer) = self.peers.last_mut() else { return };
        let entry = KeyLine { key, value, line, problems };
        match key {
            WgKey::PublicKey => entry.once(&mut peer.public_key, value::key),
            WgKey::PresharedKey => entry.once(&mut peer.preshared_key, value::key),
            WgKey::Endpoint => entry.once(&mut peer.endpoint, value::endpoint),
            WgKey::AllowedIps => entry.list(&mut peer.allowed_ips),
            WgKey::PersistentKeepalive => entry.once(&mut peer.keep_alive, value::keep_alive),
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

    /// Tells what is missing, and gives the whole when nothing is.
    pub(super) fn finish(self, problems: &mut Problems) -> Option<WgQuick> {
        let line = self.opened.unwrap_or(0);
        if self.opened.is_none() {
            problems.add(0, "there is no section [Interface]", "begin the file with `[Interface]`");
        } else {
            self.private_key.require(
                line,
                problems,
                WgKey::PrivateKey,
                "add the line that `edge-gateway keygen` or `wg genkey` made",
            );
            self.addresses.require(
                line,
                problems,
                WgKey::Address,
                "add `Address = ` and this site's address in the tunnel",
            );
        }
        let hubs = peers::check_peers(self.peers, problems);
        let (hubs, keep_alive) = hubs?;
        let settings = Settings {
            private_key: self.private_key.value()?,
            addresses: self.addresses.networks,
            mtu: self.mtu.value().unwrap_or(DEFAULT_MTU),
            keep_alive,
            hubs,
        };
        Some(WgQuick {
            settings,
            port: self.port.value().unwrap_or(LocalPort::Any),
            table: self.table.value().unwrap_or(RoutePolicy::Auto),
            notes: self.notes,
        })
    }
}

impl KeyLine<'_> {
    fn once<T>(self, place: &mut SingleValue<T>, parse: impl FnOnce(&str) -> Result<T, Wrong>) {
        if let Some((first, _)) = &place.0 {
            let what = format!("`{}` is in line {first} already", self.key.name());
            self.problems.add(self.line, what, "remove one of them");
            return;
        }
        match parse(self.value) {
            Ok(value) => place.0 = Some((self.line, Some(value))),
            Err(wrong) => {
                place.0 = Some((self.line, None));
                self.reject(wrong);
            }
        }
    }

    fn list(self, place: &mut NetworkList) {
        place.is_given = true;
        match value::networks(self.value) {
            Ok(networks) => {
                for network in networks {
                    if !place.networks.contains(&network) {
                        place.networks.push(network);
                    }
                }
            }
            Err(wrong) => self.reject(wrong),
        }
    }

    fn reject(self, (what, help): Wrong) {
        self.problems.add(self.line, format!("`{}` {what}", self.key.name()), help);
    }
}

impl<T> SingleValue<T> {
    pub(super) fn value(self) -> Option<T> {
        self.0.and_then(|(_, value)| value)
    }

    /// The value and its line.
    pub(super) fn get(&self) -> Option<(usize, &T)> {
        let (line, value) = self.0.as_ref()?;
        Some((*line, value.as_ref()?))
    }

    pub(super) fn require(&self, section: usize, problems: &mut Problems, key: WgKey, help: &str) {
        if self.0.is_none() {
            problems.add(section, format!("`{}` is missing here", key.name()), help);
        }
    }
}

impl<T> Default for SingleValue<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl NetworkList {
    pub(super) fn require(&self, section: usize, problems: &mut Problems, key: WgKey, help: &str) {
        if !self.is_given {
            problems.add(section, format!("`{}` is missing here", key.name()), help);
        }
    }
}
