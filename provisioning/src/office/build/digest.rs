//! SHA-256 of what a bundle holds.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256, digest};
use zeroize::Zeroizing;

use crate::bundle::{MANIFEST, Manifest, SigningKeys};

/// Returns the digest of everything in a bundle but its counter. The last list of signing keys is a
/// part of it: a box learns it from a bundle with a new counter only.
///
/// Versions and packages come last, and only if there are some: no file of a bundle is called as the
/// manifest, and the digests of bundles without them are those of earlier versions of this program.
pub(super) fn digest_of(
    manifest: &Manifest,
    files: &BTreeMap<String, Zeroizing<Vec<u8>>>,
    keys: &SigningKeys,
) -> String {
    let key = manifest.tunnel_public_key.map(|key| key.to_string()).unwrap_or_default();
    let version = manifest.version.clone().unwrap_or_default();
    let keys = keys.to_string();
    let mut updates = String::new();
    if let Some(version) = &manifest.min_version {
        updates.push_str(&format!("min_version {version}\n"));
    }
    for (name, sha256) in &manifest.packages {
        updates.push_str(&format!("{name} {sha256}\n"));
    }
    let mut parts =
        vec![manifest.gateway.as_bytes(), version.as_bytes(), key.as_bytes(), keys.as_bytes()];
    for (name, content) in files {
        parts.extend([name.as_bytes(), content.as_slice()]);
    }
    if !updates.is_empty() {
        parts.extend([MANIFEST.as_bytes(), updates.as_bytes()]);
    }
    hex(&parts)
}

/// Returns the SHA-256 of parts, each with its length before it, in hexadecimal.
pub(super) fn hex(parts: &[&[u8]]) -> String {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    hex_of(context.finish().as_ref())
}

/// Returns the SHA-256 of a file in hexadecimal, as sha256sum(1) prints it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex_of(digest(&SHA256, bytes).as_ref())
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
