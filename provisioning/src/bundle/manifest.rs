//! The manifest: which box a bundle is for, and which of its bundles it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use thiserror::Error;
use toml::{Table, Value};
use tunnel::PublicKey;

use super::package::{PackageDigest, PackageName, is_version};

/// Number of the format that this program reads and writes.
const FORMAT: i64 = 1;

/// Maximum length of a gateway's id: a label of a host name (RFC 1035, 2.3.4).
const MAX_ID: usize = 63;
/// Maximum number of packages: those of a few versions, for each architecture.
const MAX_PACKAGES: usize = 64;

/// What a bundle is and for whom.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Manifest {
    /// `gateway.id` of the box.
    pub gateway: String,
    /// Grows with every bundle of a gateway: a box takes only a larger one than its last.
    pub counter: u64,
    /// Version of edge-gateway that the box shall run; none leaves it to the box.
    pub version: Option<String>,
    /// Once this bundle is confirmed, the box installs no older version.
    pub min_version: Option<String>,
    /// Public key of the box's tunnel; none if the box has not been enrolled yet.
    pub tunnel_public_key: Option<PublicKey>,
    /// The packages that the box may install, of the version to run and of those to go back to.
    pub packages: BTreeMap<PackageName, PackageDigest>,
}

/// Why a text is not a manifest.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ManifestError {
    /// It is of a later format.
    #[error("its format is {format}, and this program knows format {FORMAT}: update edge-gateway")]
    LaterFormat {
        /// Number of its format.
        format: i64,
    },
    /// A key is missing, unknown or has a value that is not allowed.
    #[error("`{key}` in manifest.toml {problem}")]
    Key {
        /// The key.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is not the text that `edge-provision` writes for its values.
    #[error("manifest.toml is not as `edge-provision` writes it")]
    Foreign,
}

impl Manifest {
    /// Returns the text of the file.
    ///
    /// # Errors
    /// When a value is not allowed.
    pub(crate) fn render(&self) -> Result<String, ManifestError> {
        self.check()?;
        let mut text = String::new();
        let mut line = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(text, "{key} = {value}").map_err(|_| ManifestError::Foreign)
        };
        line("format", &FORMAT)?;
        line("gateway", &format_args!("{:?}", self.gateway))?;
        line("counter", &self.counter)?;
        for (key, version) in [("version", &self.version), ("min_version", &self.min_version)] {
            if let Some(version) = version {
                line(key, &format_args!("{version:?}"))?;
            }
        }
        if let Some(key) = &self.tunnel_public_key {
            line("tunnel_public_key", &format_args!("\"{key}\""))?;
        }
        if !self.packages.is_empty() {
            text.push_str("[packages]\n");
        }
        for (name, digest) in &self.packages {
            writeln!(text, "\"{name}\" = \"{digest}\"").map_err(|_| ManifestError::Foreign)?;
        }
        Ok(text)
    }

    /// Reads the text of the file, which must be exactly as [`Self::render`] writes it.
    pub(super) fn read(text: &[u8]) -> Result<Self, ManifestError> {
        let text = str::from_utf8(text).map_err(|_| ManifestError::Foreign)?;
        let mut table: Table = text.parse().map_err(|_| ManifestError::Foreign)?;
        match table.remove("format") {
            Some(Value::Integer(FORMAT)) => {}
            Some(Value::Integer(format)) if format > FORMAT => {
                return Err(ManifestError::LaterFormat { format });
            }
            _ => return Err(key_error("format", "is not a number from 1")),
        }
        let manifest = Self::from_table(table)?;
        if manifest.render()? == text { Ok(manifest) } else { Err(ManifestError::Foreign) }
    }

    fn from_table(mut table: Table) -> Result<Self, ManifestError> {
        let gateway = text(&mut table, "gateway")?;
        let counter = match table.remove("counter") {
            Some(Value::Integer(counter)) => u64::try_from(counter).ok(),
            _ => None,
        };
        let version = text(&mut table, "version")?;
        let min_version = text(&mut table, "min_version")?;
        let packages = match table.remove("packages") {
            Some(Value::Table(packages)) => packages.into_iter().map(package).collect(),
            Some(_) => Err(key_error("packages", "is not a table")),
            None => Ok(BTreeMap::new()),
        }?;
        let key = text(&mut table, "tunnel_public_key")?.map(|key| key.parse()).transpose();
        if let Some(key) = table.keys().next() {
            return Err(key_error(key, "is not a key of format 1"));
        }
        Ok(Self {
            gateway: gateway.ok_or_else(|| key_error("gateway", "is missing"))?,
            counter: counter.ok_or_else(|| key_error("counter", COUNTER))?,
            version,
            min_version,
            packages,
            tunnel_public_key: key.map_err(|_| key_error("tunnel_public_key", "is not a key"))?,
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        if !is_gateway_id(&self.gateway) {
            return Err(key_error("gateway", "is not 1 to 63 of a to z, 0 to 9 and `-`"));
        }
        if self.counter == 0 || i64::try_from(self.counter).is_err() {
            return Err(key_error("counter", COUNTER));
        }
        for (key, version) in [("version", &self.version), ("min_version", &self.min_version)] {
            if version.as_ref().is_some_and(|version| !is_version(version)) {
                return Err(key_error(key, "is not a version such as \"0.1.0\""));
            }
        }
        if self.packages.len() > MAX_PACKAGES {
            return Err(key_error("packages", "has more than 64 of them"));
        }
        Ok(())
    }
}

const COUNTER: &str = "is not a whole number from 1";

/// Returns whether a text can be the id of a gateway.
fn is_gateway_id(id: &str) -> bool {
    let is_allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(is_allowed)
}

fn key_error(key: &str, problem: &'static str) -> ManifestError {
    // A key from the file may be long, or hold what a terminal obeys.
    let key = key.chars().filter(|c| !c.is_control()).take(32).collect();
    ManifestError::Key { key, problem }
}

fn text(table: &mut Table, key: &str) -> Result<Option<String>, ManifestError> {
    match table.remove(key) {
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(key_error(key, "is not a text")),
        None => Ok(None),
    }
}

fn package((name, digest): (String, Value)) -> Result<(PackageName, PackageDigest), ManifestError> {
    let digest = digest.as_str().and_then(|digest| digest.parse().ok());
    let name = name.parse().ok();
    name.zip(digest).ok_or_else(|| key_error("packages", "has one without a name or a SHA-256"))
}
