//! The words of the file.

/// A part of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Section {
    Interface,
    Peer,
}

/// What may stand before the `=`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Word {
    PrivateKey,
    Address,
    Mtu,
    ListenPort,
    Dns,
    Table,
    FwMark,
    PreUp,
    PostUp,
    PreDown,
    PostDown,
    SaveConfig,
    PublicKey,
    PresharedKey,
    Endpoint,
    AllowedIps,
    PersistentKeepalive,
}

const KEYS: [(Section, Word); 17] = [
    (Section::Interface, Word::PrivateKey),
    (Section::Interface, Word::Address),
    (Section::Interface, Word::Mtu),
    (Section::Interface, Word::ListenPort),
    (Section::Interface, Word::Dns),
    (Section::Interface, Word::Table),
    (Section::Interface, Word::FwMark),
    (Section::Interface, Word::PreUp),
    (Section::Interface, Word::PostUp),
    (Section::Interface, Word::PreDown),
    (Section::Interface, Word::PostDown),
    (Section::Interface, Word::SaveConfig),
    (Section::Peer, Word::PublicKey),
    (Section::Peer, Word::PresharedKey),
    (Section::Peer, Word::Endpoint),
    (Section::Peer, Word::AllowedIps),
    (Section::Peer, Word::PersistentKeepalive),
];

impl Section {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Interface => "[Interface]",
            Self::Peer => "[Peer]",
        }
    }
}

impl Word {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PrivateKey => "PrivateKey",
            Self::Address => "Address",
            Self::Mtu => "MTU",
            Self::ListenPort => "ListenPort",
            Self::Dns => "DNS",
            Self::Table => "Table",
            Self::FwMark => "FwMark",
            Self::PreUp => "PreUp",
            Self::PostUp => "PostUp",
            Self::PreDown => "PreDown",
            Self::PostDown => "PostDown",
            Self::SaveConfig => "SaveConfig",
            Self::PublicKey => "PublicKey",
            Self::PresharedKey => "PresharedKey",
            Self::Endpoint => "Endpoint",
            Self::AllowedIps => "AllowedIPs",
            Self::PersistentKeepalive => "PersistentKeepalive",
        }
    }
}

/// The key of that name, in whatever case, and the section that it belongs to.
pub(super) fn find(name: &str) -> Option<(Section, Word)> {
    KEYS.into_iter().find(|(_, key)| key.name().eq_ignore_ascii_case(name))
}

/// The section of that name, in whatever case.
pub(super) fn section(line: &str) -> Option<Section> {
    let is = |section: &Section| section.name().eq_ignore_ascii_case(line);
    [Section::Interface, Section::Peer].into_iter().find(is)
}

/// The keys of a section that say something about the tunnel.
pub(super) fn names(section: Section) -> String {
    let useful = |key: &Word| {
        use Word::{FwMark, PostDown, PostUp, PreDown, PreUp, SaveConfig};
        ![FwMark, PreUp, PostUp, PreDown, PostDown, SaveConfig].contains(key)
    };
    let here = KEYS.into_iter().filter(|(of, key)| *of == section && useful(key));
    here.map(|(_, key)| key.name()).collect::<Vec<_>>().join(", ")
}
