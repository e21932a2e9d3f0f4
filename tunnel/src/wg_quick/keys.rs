//! The words of the file.

/// A part of the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SectionKind {
    Interface,
    Peer,
}

/// What may stand before the `=`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum WgKey {
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

const KEYS: [(SectionKind, WgKey); 17] = [
    (SectionKind::Interface, WgKey::PrivateKey),
    (SectionKind::Interface, WgKey::Address),
    (SectionKind::Interface, WgKey::Mtu),
    (SectionKind::Interface, WgKey::ListenPort),
    (SectionKind::Interface, WgKey::Dns),
    (SectionKind::Interface, WgKey::Table),
    (SectionKind::Interface, WgKey::FwMark),
    (SectionKind::Interface, WgKey::PreUp),
    (SectionKind::Interface, WgKey::PostUp),
    (SectionKind::Interface, WgKey::PreDown),
    (SectionKind::Interface, WgKey::PostDown),
    (SectionKind::Interface, WgKey::SaveConfig),
    (SectionKind::Peer, WgKey::PublicKey),
    (SectionKind::Peer, WgKey::PresharedKey),
    (SectionKind::Peer, WgKey::Endpoint),
    (SectionKind::Peer, WgKey::AllowedIps),
    (SectionKind::Peer, WgKey::PersistentKeepalive),
];

impl SectionKind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Interface => "[Interface]",
            Self::Peer => "[Peer]",
        }
    }
}

impl WgKey {
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
pub(super) fn find_key(name: &str) -> Option<(SectionKind, WgKey)> {
    KEYS.into_iter().find(|(_, key)| key.name().eq_ignore_ascii_case(name))
}

/// The section of that name, in whatever case.
pub(super) fn find_section(line: &str) -> Option<SectionKind> {
    let is = |section: &SectionKind| section.name().eq_ignore_ascii_case(line);
    [SectionKind::Interface, SectionKind::Peer].into_iter().find(is)
}

/// The keys of a section that say something about the tunnel.
pub(super) fn key_names(section: SectionKind) -> String {
    let useful = |key: &WgKey| {
        use WgKey::{FwMark, PostDown, PostUp, PreDown, PreUp, SaveConfig};
        ![FwMark, PreUp, PostUp, PreDown, PostDown, SaveConfig].contains(key)
    };
    let here = KEYS.into_iter().filter(|(of, key)| *of == section && useful(key));
    here.map(|(_, key)| key.name()).collect::<Vec<_>>().join(", ")
}
