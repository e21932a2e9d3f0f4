//! Packages of edge-gateway that a bundle names: version, architecture and SHA-256.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Name of the package.
const PACKAGE: &str = "edge-gateway";
/// Maximum length of a version.
const MAX_VERSION: usize = 32;
/// Length of a SHA-256 in bytes.
const DIGEST_BYTES: usize = 32;

/// Maximum size of a package: 32 MiB, ten times that of this version.
pub const MAX_PACKAGE_BYTES: usize = 32 << 20;

/// Name of the file of a package, as Debian forms it.
///
/// ```
/// use provisioning::bundle::PackageName;
///
/// let name: PackageName = "edge-gateway_0.2.0_arm64.deb".parse()?;
/// assert_eq!((name.version(), name.architecture()), ("0.2.0", "arm64"));
/// assert!("edge-gateway_0.2.0_../x.deb".parse::<PackageName>().is_err());
/// # Ok::<(), provisioning::bundle::PackageNameError>(())
/// ```
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PackageName {
    version: String,
    architecture: String,
}

/// A text is not the name of a package of edge-gateway.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it is not called edge-gateway_VERSION_ARCHITECTURE.deb")]
pub struct PackageNameError;

/// SHA-256 of a package; its text is 64 digits, a to f in lower case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PackageDigest(pub [u8; DIGEST_BYTES]);

/// A text is not a SHA-256.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("it is not a SHA-256 of 64 hexadecimal digits in lower case")]
pub struct PackageDigestError;

impl PackageName {
    /// Returns the name of a package.
    ///
    /// # Errors
    /// When one of the two cannot be a part of it.
    pub fn new(version: &str, architecture: &str) -> Result<Self, PackageNameError> {
        let is_architecture = (1..=MAX_VERSION).contains(&architecture.len())
            && architecture.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !is_version(version) || !is_architecture {
            return Err(PackageNameError);
        }
        Ok(Self { version: version.to_owned(), architecture: architecture.to_owned() })
    }

    /// Returns the version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the architecture, as dpkg calls it.
    #[must_use]
    pub fn architecture(&self) -> &str {
        &self.architecture
    }
}

impl fmt::Display for PackageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PACKAGE}_{}_{}.deb", self.version, self.architecture)
    }
}

impl FromStr for PackageName {
    type Err = PackageNameError;

    fn from_str(text: &str) -> Result<Self, PackageNameError> {
        let rest = text.strip_prefix(PACKAGE).and_then(|rest| rest.strip_prefix('_'));
        let rest = rest.and_then(|rest| rest.strip_suffix(".deb"));
        let parts = rest.and_then(|rest| rest.split_once('_')).ok_or(PackageNameError)?;
        Self::new(parts.0, parts.1)
    }
}

#[cfg(feature = "root-helper")]
impl PackageDigest {
    /// Returns the SHA-256 of a package.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        Self(digest.as_ref().try_into().unwrap_or_default())
    }
}

impl fmt::Display for PackageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for PackageDigest {
    type Err = PackageDigestError;

    fn from_str(text: &str) -> Result<Self, PackageDigestError> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(PackageDigestError),
        };
        if text.len() != 2 * DIGEST_BYTES {
            return Err(PackageDigestError);
        }
        let mut digest = [0; DIGEST_BYTES];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let [high, low] = pair else { return Err(PackageDigestError) };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(digest))
    }
}

/// Returns whether a text can be a version of a Debian package. It becomes a part of a file's name
/// and of a command, so it holds nothing but letters, digits and `.+~-`.
pub(crate) fn is_version(version: &str) -> bool {
    version.len() <= MAX_VERSION
        && version.starts_with(|c: char| c.is_ascii_digit())
        && version.bytes().all(|c| c.is_ascii_alphanumeric() || b".+~-".contains(&c))
}

/// Compares two versions as dpkg does (Debian Policy 5.6.12): digits by their value, letters before
/// other characters, and `~` before everything, even the end.
///
/// ```
/// use provisioning::bundle::compare_versions;
/// use std::cmp::Ordering;
///
/// assert_eq!(compare_versions("0.10.0", "0.9.1"), Ordering::Greater);
/// assert_eq!(compare_versions("1.0~rc1", "1.0"), Ordering::Less);
/// ```
#[must_use]
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    // Without a `-`, the revision counts as 0.
    let parts = |version: &str| match version.rsplit_once('-') {
        Some((upstream, revision)) => (upstream.to_owned(), revision.to_owned()),
        None => (version.to_owned(), String::new()),
    };
    let (left, right) = (parts(left), parts(right));
    compare_part(&left.0, &right.0).then_with(|| compare_part(&left.1, &right.1))
}

/// Compares two upstream versions or two revisions: by turns a part without digits and a number.
fn compare_part(mut left: &str, mut right: &str) -> Ordering {
    while !(left.is_empty() && right.is_empty()) {
        let texts =
            (take(&mut left, |c| !c.is_ascii_digit()), take(&mut right, |c| !c.is_ascii_digit()));
        let numbers =
            (take(&mut left, |c| c.is_ascii_digit()), take(&mut right, |c| c.is_ascii_digit()));
        let order = compare_texts(texts.0, texts.1).then_with(|| {
            let (left, right) =
                (numbers.0.trim_start_matches('0'), numbers.1.trim_start_matches('0'));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        });
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

/// Takes the longest start of a text whose characters are all of a kind.
fn take<'a>(text: &mut &'a str, is_one: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !is_one(c)).unwrap_or(text.len());
    let (start, rest) = text.split_at(end);
    *text = rest;
    start
}

fn compare_texts(left: &str, right: &str) -> Ordering {
    let weight = |c: u8| match c {
        b'~' => -1,
        letter if letter.is_ascii_alphabetic() => i32::from(letter),
        other => i32::from(other) + 256,
    };
    let weights = |text: &str| {
        let end = std::iter::once(0);
        text.bytes().map(weight).chain(end).collect::<Vec<_>>()
    };
    weights(left).cmp(&weights(right))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// Returns what dpkg says.
    fn dpkg(left: &str, right: &str) -> Ordering {
        let is = |relation| {
            let mut dpkg = Command::new("dpkg");
            let said = dpkg.args(["--compare-versions", left, relation, right]).status();
            said.expect("the machine of the tests has dpkg").success()
        };
        if is("lt") {
            Ordering::Less
        } else if is("eq") {
            Ordering::Equal
        } else {
            Ordering::Greater
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn versions_are_compared_as_by_dpkg(
            left in "[0-9][0-9a-c.+~]{0,6}(-[0-9a-c+~.]{1,3})?",
            right in "[0-9][0-9a-c.+~]{0,6}(-[0-9a-c+~.]{1,3})?",
        ) {
            prop_assert_eq!(compare_versions(&left, &right), dpkg(&left, &right));
        }

        #[test]
        fn a_digest_and_a_name_are_read_as_they_are_written(
            bytes in any::<[u8; 32]>(), text in "[a-z0-9_.~+-]{0,40}",
        ) {
            let digest = PackageDigest(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            if let Ok(name) = format!("edge-gateway_{text}.deb").parse::<PackageName>() {
                prop_assert_eq!(name.to_string(), format!("edge-gateway_{text}.deb"));
                prop_assert!(!name.to_string().contains('/'));
            }
        }
    }

    #[test]
    fn no_other_text_is_a_name_or_a_digest() {
        for name in [
            "edge-gateway_0.1.0.deb",
            "edge-provision_0.1.0_amd64.deb",
            "edge-gateway__.deb",
            "edge-gateway_0.1.0_amd64.deb.sig",
            "edge-gateway_0.1.0_a_b.deb",
            "edge-gateway_v1_amd64.deb",
        ] {
            assert_eq!(name.parse::<PackageName>(), Err(PackageNameError), "{name}");
        }
        for digest in ["", "0a", &"0A".repeat(32), &"g0".repeat(32), &"00".repeat(33)] {
            assert_eq!(digest.parse::<PackageDigest>(), Err(PackageDigestError), "{digest}");
        }
    }
}
