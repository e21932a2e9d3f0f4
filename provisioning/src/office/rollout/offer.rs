//! Which bundle a site is offered.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use thiserror::Error;

use crate::bundle::{
    BundleError, BundleOffer, BundleSource, MAX_BUNDLE_BYTES, SigningKeys, Verified, VerifyPolicy,
    verify,
};
use crate::office::build::bundle_name;
use crate::office::fleet::Site;
use crate::office::output_file::FileError;
use crate::office::secrets::Secrets;
use crate::regular_file;

/// Why there is no offer for a site.
#[derive(Debug, Error)]
pub enum OfferError {
    /// Its access was withdrawn.
    #[error("{site} is revoked: it gets no bundle")]
    Revoked {
        /// The site.
        site: String,
    },
    /// It has no bundle.
    #[error("{site} has no bundle: {}", if *is_enrolled {
        "make it with `edge-provision build`"
    } else {
        "its box is not enrolled"
    })]
    NotBuilt {
        /// The site.
        site: String,
        /// Whether its box is known.
        is_enrolled: bool,
    },
    /// Its bundle is not here.
    #[error(
        "{} is not here: copy it from the machine that built bundle {counter}, or build again",
        .path.display()
    )]
    Missing {
        /// Its file.
        path: PathBuf,
        /// Its counter.
        counter: u64,
    },
    /// Its bundle contains secrets in clear.
    #[error(
        "the bundle of {site} contains secrets in clear and is never offered: bring it to the box \
         from {}",
        .path.display()
    )]
    ClearSecrets {
        /// The site.
        site: String,
        /// Its file.
        path: PathBuf,
    },
    /// Its bundle is another one than the files of the fleet say.
    #[error(
        "{} is bundle {found}, and sites/{site}.toml says {counter}: build again, or update the \
         files of the fleet",
        .path.display()
    )]
    OtherCounter {
        /// The site.
        site: String,
        /// Its file.
        path: PathBuf,
        /// Counter of the file.
        found: u64,
        /// Counter of the last bundle.
        counter: u64,
    },
    /// A box would refuse it.
    #[error("{}: {problem}", .path.display())]
    Refused {
        /// Its file.
        path: PathBuf,
        /// Why.
        problem: Box<BundleError>,
    },
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl OfferError {
    /// Returns whether a roll-out goes on without the site.
    #[must_use]
    pub const fn is_skipped(&self) -> bool {
        matches!(self, Self::Revoked { .. } | Self::NotBuilt { .. } | Self::ClearSecrets { .. })
    }
}

/// Returns the offer of a site's last bundle in `bundles`, after verifying it as the box will.
/// `keys` are the first signing keys of the fleet.
///
/// # Errors
/// When there is no such bundle, or the box would refuse it.
pub fn offer_of_site(
    site: &Site,
    fleet: &Path,
    bundles: &Path,
    keys: &SigningKeys,
) -> Result<BundleOffer, OfferError> {
    let name = bundle_name(&site.id);
    let (id, path) = (site.id.clone(), bundles.join(&name));
    if site.is_revoked {
        return Err(OfferError::Revoked { site: id });
    }
    if site.counter == 0 || site.public_key.is_none() {
        return Err(OfferError::NotBuilt { site: id, is_enrolled: site.public_key.is_some() });
    }
    let in_clear = Secrets::of_fleet(fleet).file("bundles").join(&name);
    if in_clear.exists() {
        return Err(OfferError::ClearSecrets { site: id, path: in_clear });
    }
    let bytes = match regular_file::read(&path, MAX_BUNDLE_BYTES as u64) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OfferError::Missing { path, counter: site.counter });
        }
        Err(error) => return Err(FileError::new("read", &path, error).into()),
    };
    let policy = VerifyPolicy {
        keys: Some(keys),
        gateway: Some(&site.id),
        tunnel_public_key: site.public_key,
        last_counter: None,
        source: BundleSource::Pulled,
    };
    let found = match verify(&bytes, &policy) {
        Ok(Verified { bundle, .. }) => bundle.manifest().counter,
        Err(problem) => return Err(OfferError::Refused { path, problem: Box::new(problem) }),
    };
    if found != site.counter {
        return Err(OfferError::OtherCounter { site: id, path, found, counter: site.counter });
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    Ok(BundleOffer { counter: found, size: bytes.len(), sha256 })
}
