//! What the sections of a file say, before it is known whether they say enough.

use std::time::Duration;

use ipnet::IpNet;

use super::keys::{Section, Word};
use super::problem::{Note, Problems};
use super::value::{self, Wrong};
use super::{DEFAULT_MTU, Table, WgQuick, peers};
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::path::LocalPort;
use crate::settings::{Endpoint, Settings};

/// A value that may be given once; a wrong one was given and told.
#[derive(Debug)]
pub(super) struct Once<T>(Option<(usize, Option<T>)>);

/// A list that may be continued; told once if a part of it was wrong.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) networks: Vec<IpNet>,
    is_given: bool,
}

/// Everything so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    opened: Option<usize>,
    private_key: Once<PrivateKey>,
    addresses: List,
    mtu: Once<u16>,
    port: Once<LocalPort>,
    table: Once<Table>,
    mark: Once<()>,
    saved: Once<()>,
    peers: Vec<Peer>,
    notes: Vec<Note>,
}

/// A hub so far.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) line: usize,
    pub(super) public_key: Once<PublicKey>,
    pub(super) preshared_key: Once<PresharedKey>,
    pub(super) endpoint: Once<Endpoint>,
    pub(super) allowed_ips: List,
    pub(super) keep_alive: Once<Option<Duration>>,
}

/// One line with a key that has its place.
struct Entry<'a> {
    key: Word,
    value: &'a str,
    line: usize,
    problems: &'a mut Problems,
}

impl Draft {
    pub(super) fn open(&mut self, section: Section, line: usize, problems: &mut Problems) {
        match (section, self.opened) {
            (Section::Peer, _) => self.peers.push(Peer { line, ..Peer::default() }),
            (Section::Interface, None) => self.opened = Some(line),
            (Section::Interface, Some(first)) => problems.add(
                line,
                format!("[Interface] begins in line {first} already"),
                "move the keys together below one [Interface]",
            ),
        }
    }

    pub(super) fn interface(
        &mut self,
        key: Word,
        value: &str,
        line: usize,
        problems: &mut Problems,
    ) {
        let entry = Entry { key, value, line, problems };
        match key {
            Word::PrivateKey => entry.once(&mut self.private_key, value::key),
            Word::Address => entry.list(&mut self.addresses),
            Word::Mtu => entry.once(&mut self.mtu, value::mtu),
            Word::ListenPort => entry.once(&mut self.port, value::port),
            Word::Table => entry.once(&mut self.table, value::table),
            Word::FwMark => entry.once(&mut self.mark, value::no_mark),
            Word::SaveConfig => entry.once(&mut self.saved, value::not_saved),
            Word::Dns => self.notes.push(Note {
                line,
                what: "`DNS` has no effect: the names of hubs are looked up the way this host does",
            }),
            Word::PreUp | Word::PostUp | Word::PreDown | Word::PostDown => entry.wrong((
                "is a command, and this program never runs commands from a file".to_owned(),
                "remove the line, and have a service of yours run it if it is needed".to_owned(),
            )),
            Word::PublicKey
            | Word::PresharedKey
            | Word::Endpoint
            | Word::AllowedIps
            | Word::PersistentKeepalive => {}
        }
    }

    pub(super) fn peer(&mut self, key: Word, value: &str, line: usize, problems: &mut Problems) {
        let Some(peer) = self.peers.last_mut() else { return };
        let entry = Entry { key, value, line, problems };
        match key {
            Word::PublicKey => entry.once(&mut peer.public_key, value::key),
            Word::PresharedKey => entry.once(&mut peer.preshared_key, value::key),
            Word::Endpoint => entry.once(&mut peer.endpoint, value::endpoint),
            Word::AllowedIps => entry.list(&mut peer.allowed_ips),
            Word::PersistentKeepalive => entry.once(&mut peer.keep_alive, value::keep_alive),
            Word::PrivateKey
            | Word::Address
            | Word::Mtu
            | Word::ListenPort
            | Word::Dns
            | Word::Table
            | Word::FwMark
            | Word::PreUp
            | Word::PostUp
            | Word::PreDown
            | Word::PostDown
            | Word::SaveConfig => {}
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
                Word::PrivateKey,
                "add the line that `edge-gateway keygen` or `wg genkey` made",
            );
            self.addresses.require(
                line,
                problems,
                Word::Address,
                "add `Address = ` and this site's address in the tunnel",
            );
        }
        let hubs = peers::finish(self.peers, problems);
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
            table: self.table.value().unwrap_or(Table::Auto),
            notes: self.notes,
        })
    }
}

impl Entry<'_> {
    fn once<T>(self, place: &mut Once<T>, parse: impl FnOnce(&str) -> Result<T, Wrong>) {
        if let Some((first, _)) = &place.0 {
            let what = format!("`{}` is in line {first} already", self.key.name());
            self.problems.add(self.line, what, "remove one of them");
            return;
        }
        match parse(self.value) {
            Ok(value) => place.0 = Some((self.line, Some(value))),
            Err(wrong) => {
                place.0 = Some((self.line, None));
                self.wrong(wrong);
            }
        }
    }

    fn list(self, place: &mut List) {
        place.is_given = true;
        match value::networks(self.value) {
            Ok(networks) => {
                for network in networks {
                    if !place.networks.contains(&network) {
                        place.networks.push(network);
                    }
                }
            }
            Err(wrong) => self.wrong(wrong),
        }
    }

    fn wrong(self, (what, help): Wrong) {
        self.problems.add(self.line, format!("`{}` {what}", self.key.name()), help);
    }
}

impl<T> Once<T> {
    pub(super) fn value(self) -> Option<T> {
        self.0.and_then(|(_, value)| value)
    }

    /// The value and its line.
    pub(super) fn get(&self) -> Option<(usize, &T)> {
        let (line, value) = self.0.as_ref()?;
        Some((*line, value.as_ref()?))
    }

    pub(super) fn require(&self, section: usize, problems: &mut Problems, key: Word, help: &str) {
        if self.0.is_none() {
            problems.add(section, format!("`{}` is missing here", key.name()), help);
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl List {
    pub(super) fn require(&self, section: usize, problems: &mut Problems, key: Word, help: &str) {
        if !self.is_given {
            problems.add(section, format!("`{}` is missing here", key.name()), help);
        }
    }
}
