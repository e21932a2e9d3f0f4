//! The names that a bundle may contain.

/// Name of the manifest.
pub const MANIFEST: &str = "manifest.toml";
/// Name of the configuration.
pub const GATEWAY_TOML: &str = "gateway.toml";
/// Name of the secrets, an archive that age has encrypted to the box.
pub const SEALED_SECRETS: &str = "secrets.age";
/// Directory of secrets in clear.
pub const SECRETS_DIR: &str = "secrets";

/// Maximum length of a name within its directory.
const MAX_LEN: usize = 64;

/// Returns whether a bundle may contain a file of this name: the manifest, `gateway.toml`,
/// `secrets.age`, `network/*.nmconnection` and `network/*.network`, `certificates/*.pem`, and
/// `secrets/*`.
///
/// ```
/// use provisioning::bundle::is_member_name;
///
/// assert!(is_member_name("network/10-edge-machine.network"));
/// assert!(!is_member_name("network/../gateway.toml"));
/// assert!(!is_member_name("edge-gateway.service"));
/// ```
#[must_use]
pub fn is_member_name(name: &str) -> bool {
    match name.split_once('/') {
        None => [MANIFEST, GATEWAY_TOML, SEALED_SECRETS].contains(&name),
        Some(("network", name)) => has_extension(name, &["nmconnection", "network"]),
        Some(("certificates", name)) => has_extension(name, &["pem"]),
        Some((SECRETS_DIR, name)) => is_plain(name),
        Some(_) => false,
    }
}

/// Returns whether a file of this name may be among the secrets that are encrypted to a box: any
/// secret, and a keyfile of NetworkManager, which may hold a password.
#[cfg(feature = "enrolment")]
pub(crate) fn is_sealed_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((SECRETS_DIR, name)) => is_plain(name),
        Some(("network", name)) => has_extension(name, &["nmconnection"]),
        _ => false,
    }
}

fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let is_one = |extension: &str| extensions.contains(&extension);
    is_plain(name) && name.rsplit_once('.').is_some_and(|(_, extension)| is_one(extension))
}

/// Returns whether a name is made of words joined by `-`, `_` or `.`, none of them empty.
fn is_plain(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    name.len() <= MAX_LEN && name.split(['-', '_', '.']).all(is_word)
}
