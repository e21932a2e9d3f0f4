//! Sections and keys of a file, and which values may be shown in an error.

use super::MAX_SHOWN_KEY;

/// A kind of section.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SectionKind {
    Interface,
    Peer,
}

/// A key.
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

/// All keys with their sections and names.
const KEYS: [(SectionKind, WgKey, &str); 17] = [
    (SectionKind::Interface, WgKey::PrivateKey, "PrivateKey"),
    (SectionKind::Interface, WgKey::Address, "Address"),
    (SectionKind::Interface, WgKey::Mtu, "MTU"),
    (SectionKind::Interface, WgKey::ListenPort, "ListenPort"),
    (SectionKind::Interface, WgKey::Dns, "DNS"),
    (SectionKind::Interface, WgKey::Table, "Table"),
    (SectionKind::Interface, WgKey::FwMark, "FwMark"),
    (SectionKind::Interface, WgKey::PreUp, "PreUp"),
    (SectionKind::Interface, WgKey::PostUp, "PostUp"),
    (SectionKind::Interface, WgKey::PreDown, "PreDown"),
    (SectionKind::Interface, WgKey::PostDown, "PostDown"),
    (SectionKind::Interface, WgKey::SaveConfig, "SaveConfig"),
    (SectionKind::Peer, WgKey::PublicKey, "PublicKey"),
    (SectionKind::Peer, WgKey::PresharedKey, "PresharedKey"),
    (SectionKind::Peer, WgKey::Endpoint, "Endpoint"),
    (SectionKind::Peer, WgKey::AllowedIps, "AllowedIPs"),
    (SectionKind::Peer, WgKey::PersistentKeepalive, "PersistentKeepalive"),
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
    pub(super) fn name(self) -> &'static str {
        KEYS.iter().find(|(_, key, _)| *key == self).map_or("", |(_, _, name)| name)
    }

    /// Returns whether the key describes the tunnel: not a command, not rejected with every value.
    const fn is_setting(self) -> bool {
        use WgKey::{FwMark, PostDown, PostUp, PreDown, PreUp, SaveConfig};
        !matches!(self, FwMark | PreUp | PostUp | PreDown | PostDown | SaveConfig)
    }

    /// Returns whether an error may show the value. A private key is easily pasted as a public one.
    const fn is_public(self) -> bool {
        use WgKey::{PostDown, PostUp, PreDown, PreUp, PresharedKey, PrivateKey, PublicKey};
        !matches!(self, PrivateKey | PresharedKey | PublicKey | PreUp | PostUp | PreDown | PostDown)
    }
}

/// Returns the key of this name in upper or lower case, and its section.
pub(super) fn find_key(name: &str) -> Option<(SectionKind, WgKey)> {
    let found = KEYS.iter().find(|(_, _, known)| known.eq_ignore_ascii_case(name));
    found.map(|(section, key, _)| (*section, *key))
}

/// Returns the section of this header in upper or lower case.
pub(super) fn find_section(line: &str) -> Option<SectionKind> {
    let is = |section: &SectionKind| section.name().eq_ignore_ascii_case(line);
    [SectionKind::Interface, SectionKind::Peer].into_iter().find(is)
}

/// Returns the names of the keys of a section that describe the tunnel.
pub(super) fn key_names(section: SectionKind) -> String {
    let here = KEYS.into_iter().filter(|(of, key, _)| *of == section && key.is_setting());
    here.map(|(_, _, name)| name).collect::<Vec<_>>().join(", ")
}

/// Returns whether a name is one of the keys that AmneziaWG adds: Jc, Jmin, Jmax, and S, H or I
/// with a number.
pub(super) fn is_amnezia(name: &str) -> bool {
    let is_junk = ["Jc", "Jmin", "Jmax"].iter().any(|key| key.eq_ignore_ascii_case(name));
    let mut letters = name.chars();
    let is_numbered = letters.next().is_some_and(|first| "SHIshi".contains(first))
        && letters.next().is_some_and(|number| ('1'..='5').contains(&number))
        && letters.next().is_none();
    is_junk || is_numbered
}

/// Returns whether an unknown name may be shown: a word that could be a misspelt key.
pub(super) fn is_printable(name: &str) -> bool {
    name.len() <= MAX_SHOWN_KEY && name.chars().all(|c| c.is_ascii_alphabetic())
}

/// Returns the text with each byte of what may be a secret replaced by `*`, so that byte positions
/// are kept. Comments are redacted too: old keys are often commented out.
pub(super) fn redacted(text: &str) -> String {
    text.split_inclusive('\n').map(redact_line).collect()
}

fn redact_line(line: &str) -> String {
    let code = line.find('#').unwrap_or(line.len());
    let (code, comment) = line.split_at_checked(code).unwrap_or((line, ""));
    let code = match code.split_once('=') {
        _ if code.trim_start().starts_with('[') => redact_words(code),
        Some((name, value)) => {
            let key = find_key(name.trim()).map(|(_, key)| key);
            let name = match key.is_some() || is_printable(name.trim()) {
                true => name.to_owned(),
                false => asterisks(name),
            };
            let value = match key.is_some_and(WgKey::is_public) {
                true => redact_words(value),
                false => asterisks(value),
            };
            format!("{name}={value}")
        }
        None => asterisks(code),
    };
    code + &asterisks(comment)
}

/// Redacts words that are long enough for a key, which was perhaps pasted at the wrong place.
fn redact_words(text: &str) -> String {
    let is_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let words = text.split_inclusive(|c| !is_base64(c));
    words
        .map(|word| if word.len() > MAX_SHOWN_KEY { asterisks(word) } else { word.to_owned() })
        .collect()
}

/// Returns one `*` per byte; white space is kept.
fn asterisks(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_whitespace() { c.to_string() } else { "*".repeat(c.len_utf8()) })
        .collect()
}
