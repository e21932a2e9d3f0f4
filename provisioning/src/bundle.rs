//! Bundles: everything that the office tells one box, in one signed file.
//!
//! A bundle is an archive in the ustar format. It contains the lists of signing keys
//! (`keys-1.txt` with `keys-1.txt.minisig`, and so on), `bundle.tar` and `bundle.tar.minisig`. The
//! archive `bundle.tar` holds the manifest, `gateway.toml` and the files that go with it. The tools
//! `tar` and `minisign` open and verify both.
//!
//! [`verify`] checks the signature before it reads what is signed, and it reads every byte in one
//! form only. So a bundle that is accepted is, byte by byte, the one that the office made.

mod archive;
mod contents;
mod envelope;
mod manifest;
mod member_name;
mod offer;
mod package;
mod signature;
mod signing_keys;
#[cfg(test)]
#[cfg(feature = "office")]
mod tests;

pub use archive::ArchiveError;
#[cfg(feature = "enrolment")]
pub(crate) use archive::{read as read_archive, render as render_archive};
pub use contents::{Bundle, ContentsError};
pub use envelope::{BundleError, BundleSource, Verified, VerifyPolicy, seal, verify};
pub use manifest::{Manifest, ManifestError};
#[cfg(feature = "enrolment")]
pub(crate) use member_name::is_sealed_name;
pub use member_name::{GATEWAY_TOML, MANIFEST, SEALED_SECRETS, SECRETS_DIR, is_member_name};
pub use offer::BundleOffer;
#[cfg(feature = "office")]
pub(crate) use package::is_version;
pub use package::{
    MAX_PACKAGE_BYTES, PackageDigest, PackageDigestError, PackageName, PackageNameError,
    compare_versions,
};
pub use signature::{KeyId, Signature, SigningKey, SigningKeyError};
pub use signing_keys::{SigningKeys, SigningKeysError};

/// Maximum size of a bundle: 1 MiB, which holds a configuration of 10,000 tags.
pub const MAX_BUNDLE_BYTES: usize = 1 << 20;
