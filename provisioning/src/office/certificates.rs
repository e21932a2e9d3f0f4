//! The certificates of a fleet in `authority/`: of the authority, of each broker and of each
//! gateway. They are public; the keys of the authority and of the brokers are secrets.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use thiserror::Error;

use super::authority::{
    Authority, AuthorityError, is_for_hub, is_issued_by, needs_renewal, public_half, public_key,
    request_key,
};
use super::output_file::{FileAccess, FileError, create_new, replace_if_changed};
use super::secrets::{SecretError, Secrets};
use crate::regular_file::{self, MAX_CERTIFICATE_BYTES};

/// Directory with the certificates.
pub const AUTHORITY_DIR: &str = "authority";
/// Name below `secrets/` of the authority's private key.
pub const AUTHORITY_KEY: &str = "ca.key";
const AUTHORITY_CERTIFICATE: &str = "ca.pem";

/// The certificates of one fleet, and its authority if the key is at hand.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    authority: Option<Authority>,
    now: Timestamp,
}

/// Why a certificate is not there.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key of the authority cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A certificate is not issued.
    #[error("{name}: {problem}")]
    Authority {
        /// The gateway, the hub or the authority.
        name: String,
        /// Why.
        problem: AuthorityError,
    },
    /// The fleet has no authority.
    #[error("authority/ca.pem is missing: `edge-provision init` makes the authority")]
    NoAuthority,
    /// A certificate must be issued, and the key of the authority is not here.
    #[error(
        "{name} needs a certificate, and the key of the authority is not at secrets/ca.key: give \
         its place with --authority-key FILE"
    )]
    NoKey {
        /// The gateway or the hub.
        name: String,
    },
}

impl Certificates {
    /// Makes the authority of a fleet unless it has one.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn ensure(fleet: &Path, now: Timestamp) -> Result<(), CertificateError> {
        let path = fleet.join(AUTHORITY_DIR).join(AUTHORITY_CERTIFICATE);
        if path.exists() {
            return Ok(());
        }
        let made = Authority::create(now).map_err(|problem| named("authority", problem))?;
        let key = Secrets::of_fleet(fleet).file(AUTHORITY_KEY);
        // A key of an interrupted run has no certificate.
        replace_if_changed(&key, made.key.as_bytes(), FileAccess::Secret)?;
        Ok(create_new(&path, made.certificate.as_bytes(), FileAccess::Public)?)
    }

    /// Opens the certificates of a fleet, and the authority if its key is at `key`, or at
    /// `secrets/ca.key`.
    ///
    /// # Errors
    /// When a file is damaged, or the given key is missing.
    pub fn open(
        fleet: &Path,
        key: Option<&Path>,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let dir = fleet.join(AUTHORITY_DIR);
        let default = Secrets::of_fleet(fleet).file(AUTHORITY_KEY);
        let path = key.unwrap_or(&default);
        let help = "give the place of the authority's key with --authority-key FILE";
        let key = match Secrets::read(path, help) {
            Err(SecretError::Missing { .. }) if key.is_none() => None,
            read => Some(read?),
        };
        let certificate = read_optional(&dir.join(AUTHORITY_CERTIFICATE))?;
        let authority = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let opened = Authority::open(&certificate, &key);
                Some(opened.map_err(|problem| named("authority", problem))?)
            }
            _ => None,
        };
        Ok(Self { dir, authority, now })
    }

    /// Returns the certificate of the authority in PEM.
    ///
    /// # Errors
    /// When the fleet has none.
    pub fn authority(&self) -> Result<String, CertificateError> {
        let path = self.dir.join(AUTHORITY_CERTIFICATE);
        read_optional(&path)?.ok_or(CertificateError::NoAuthority)
    }

    /// Returns the certificate of a gateway in PEM, and the file that shall hold it. Issues a new
    /// one if there is none of the present authority for the key of the box, and 60 days before
    /// the end.
    ///
    /// # Errors
    /// When one must be issued and the key of the authority is not here, or the request asks for
    /// anything.
    pub fn of_gateway(
        &self,
        site: &str,
        request: &str,
    ) -> Result<(PathBuf, String), CertificateError> {
        let path = self.dir.join("sites").join(format!("{site}.pem"));
        let error = |problem| named(site, problem);
        let key = request_key(request).map_err(error)?;
        if let Some(certificate) = read_optional(&path)?
            && public_key(&certificate).is_ok_and(|own| own == key.der_bytes())
            && self.is_of_authority(&certificate)?
            && !needs_renewal(&certificate, self.now).map_err(error)?
        {
            return Ok((path, certificate));
        }
        let authority = self.issuer(site)?;
        let issued = authority.issue_gateway(site, request, self.now).map_err(error)?;
        Ok((path, issued))
    }

    /// Issues a certificate for the broker of a hub if it has none that fits its key, its name, its
    /// address and the authority, and 60 days before the end. Returns the certificate; the private
    /// key is in `secrets/hubs/NAME/broker.key`.
    ///
    /// # Errors
    /// When one must be issued and the key of the authority is not here; when a file cannot be
    /// written.
    pub fn of_hub(
        &self,
        secrets: &Secrets,
        hub: &str,
        address: IpAddr,
    ) -> Result<String, CertificateError> {
        let path = self.dir.join("hubs").join(format!("{hub}.pem"));
        let key_path = secrets.hub_file(hub, BROKER_KEY);
        let error = |problem| named(hub, problem);
        if let Some(certificate) = read_optional(&path)?
            && has_key(&certificate, &key_path)?
            && is_for_hub(&certificate, hub, address).unwrap_or(false)
            && self.is_of_authority(&certificate)?
            && !needs_renewal(&certificate, self.now).map_err(error)?
        {
            return Ok(certificate);
        }
        let made = self.issuer(hub)?.issue_hub(hub, address, self.now).map_err(error)?;
        replace_if_changed(&key_path, made.key.as_bytes(), FileAccess::Secret)?;
        replace_if_changed(&path, made.certificate.as_bytes(), FileAccess::Public)?;
        Ok(made.certificate)
    }

    /// Returns whether the present authority has issued a certificate.
    fn is_of_authority(&self, certificate: &str) -> Result<bool, CertificateError> {
        Ok(is_issued_by(certificate, &self.authority()?).unwrap_or(false))
    }

    fn issuer(&self, name: &str) -> Result<&Authority, CertificateError> {
        let missing = || CertificateError::NoKey { name: name.to_owned() };
        self.authority.as_ref().ok_or_else(missing)
    }
}

/// Name in `secrets/hubs/NAME/` of the private key of a broker's certificate.
pub(crate) const BROKER_KEY: &str = "broker.key";

/// Returns whether a file holds the private key of a certificate.
fn has_key(certificate: &str, key_path: &Path) -> Result<bool, SecretError> {
    let key = match Secrets::read(key_path, "") {
        Err(SecretError::Missing { .. }) => return Ok(false),
        key => key?,
    };
    let (own, made) = (public_key(certificate), public_half(&key));
    Ok(own.is_ok() && own == made)
}

fn named(name: &str, problem: AuthorityError) -> CertificateError {
    CertificateError::Authority { name: name.to_owned(), problem }
}

fn read_optional(path: &Path) -> Result<Option<String>, FileError> {
    match regular_file::read(path, MAX_CERTIFICATE_BYTES) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}
