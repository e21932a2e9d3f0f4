//! The keys that a box makes, in files of its own that never leave it.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SigningKey as _};
use thiserror::Error;
use tunnel::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::Enrolment;
use super::sealed::{SealError, UnsealedFiles, unseal_secrets};
use crate::atomic_file::create_new;
use crate::regular_file;

/// Name of the file with the private key of the tunnel.
const TUNNEL: &str = "tunnel.key";
/// Name of the file with the identity of age.
const AGE: &str = "age.key";
/// Name of the file with the private key of the certificate.
const CERTIFICATE: &str = "certificate.key";

/// Name in a bundle of the private key of the tunnel.
pub const TUNNEL_SECRET: &str = "secrets/tunnel.key";
/// Name in a bundle of the private key of the certificate.
pub const CERTIFICATE_SECRET: &str = "secrets/mqtt.key";

/// Maximum size of a file with a key.
const MAX_KEY_BYTES: u64 = 4096;

/// The private keys of a box. `Debug` shows the public ones only.
pub struct BoxKeys {
    tunnel: PrivateKey,
    age: age::x25519::Identity,
    certificate: KeyPair,
}

/// Why the keys of a box cannot be used.
#[derive(Debug, Error)]
pub enum BoxKeysError {
    /// A file or the directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// Others can read or change a file.
    #[error("{} can be read or changed by others: chmod 600 {}", .0.display(), .0.display())]
    Open(PathBuf),
    /// A file holds no key.
    #[error("{} holds no key: remove it to make a new one, and enrol this box again", .0.display())]
    Malformed(PathBuf),
    /// The operating system gave no random numbers.
    #[error("no key could be made")]
    NotGenerated,
}

impl BoxKeys {
    /// Makes keys that are in no file.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Self, BoxKeysError> {
        Ok(Self {
            tunnel: PrivateKey::generate(),
            age: age::x25519::Identity::generate(),
            certificate: KeyPair::generate().map_err(|_| BoxKeysError::NotGenerated)?,
        })
    }

    /// Reads the keys in a directory, and makes those that are missing. The directory is made with
    /// mode 0700, and each file with mode 0600; after a power cut each is whole or missing.
    ///
    /// # Errors
    /// When the directory or a file cannot be used.
    pub fn open_or_create(dir: &Path) -> Result<Self, BoxKeysError> {
        let io = |source| BoxKeysError::Io { path: dir.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io)?;
        let tunnel = file(&dir.join(TUNNEL), || Some(PrivateKey::generate().expose()))?;
        let age = file(&dir.join(AGE), || {
            let identity = age::x25519::Identity::generate();
            Some(Zeroizing::new(identity.to_string().expose_secret().to_owned()))
        })?;
        let certificate = file(&dir.join(CERTIFICATE), || {
            KeyPair::generate().ok().map(|key| Zeroizing::new(key.serialize_pem()))
        })?;
        let malformed = |name: &str| BoxKeysError::Malformed(dir.join(name));
        Ok(Self {
            tunnel: tunnel.trim().parse().map_err(|_| malformed(TUNNEL))?,
            age: age.trim().parse().map_err(|_| malformed(AGE))?,
            certificate: KeyPair::from_pem(&certificate).map_err(|_| malformed(CERTIFICATE))?,
        })
    }

    /// Returns the public key of the tunnel.
    #[must_use]
    pub fn tunnel_public_key(&self) -> PublicKey {
        self.tunnel.public_key()
    }

    /// Returns what the office needs to know: the public keys, and a request for a certificate.
    ///
    /// # Errors
    /// When the operating system gives no random numbers for the signatures.
    pub fn enrolment(&self) -> Result<Enrolment, BoxKeysError> {
        let mut parameters = CertificateParams::default();
        // The default names an authority; this request names no subject at all.
        parameters.distinguished_name = DistinguishedName::new();
        let request = parameters.serialize_request(&self.certificate);
        let pem = request.and_then(|request| request.pem());
        let mut enrolment = Enrolment {
            tunnel_public_key: self.tunnel_public_key(),
            age_recipient: self.age.to_public().to_string(),
            certificate_request: pem.map_err(|_| BoxKeysError::NotGenerated)?.replace("\r\n", "\n"),
            proof: String::new(),
        };
        let proof = self.certificate.sign(enrolment.proven_text().as_bytes());
        enrolment.proof = STANDARD.encode(proof.map_err(|_| BoxKeysError::NotGenerated)?);
        Ok(enrolment)
    }

    /// Returns the private keys that the gateway needs, by the names under which the configuration
    /// of a bundle names them: that of the tunnel, and that of the certificate.
    #[must_use]
    pub fn secrets(&self) -> UnsealedFiles {
        let tunnel = [self.tunnel.expose().as_bytes(), b"\n"].concat();
        let certificate = Zeroizing::new(self.certificate.serialize_pem());
        [(TUNNEL_SECRET, tunnel), (CERTIFICATE_SECRET, certificate.as_bytes().to_vec())]
            .map(|(name, content)| (name.to_owned(), Zeroizing::new(content)))
            .into()
    }

    /// Returns the secrets of a bundle, by their names, after decrypting them.
    ///
    /// # Errors
    /// When they are encrypted to another box, damaged, or have names that no bundle may contain.
    pub fn unseal(&self, sealed: &[u8]) -> Result<UnsealedFiles, SealError> {
        unseal_secrets(&self.age, sealed)
    }
}

impl std::fmt::Debug for BoxKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoxKeys({})", self.tunnel_public_key())
    }
}

/// Returns the content of a file with a key, which is made if it is missing.
fn file(
    path: &Path,
    make: impl FnOnce() -> Option<Zeroizing<String>>,
) -> Result<Zeroizing<String>, BoxKeysError> {
    let io = |source| BoxKeysError::Io { path: path.to_owned(), source };
    let opened = match regular_file::open(path, MAX_KEY_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let key = make().ok_or(BoxKeysError::NotGenerated)?;
            create_new(path, key.as_bytes(), 0o600).map_err(io)?;
            return Ok(key);
        }
        opened => opened.map_err(io)?,
    };
    // The mode of the open file: the path may name another file by now.
    if opened.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(BoxKeysError::Open(path.to_owned()));
    }
    io::read_to_string(opened).map(Zeroizing::new).map_err(io)
}
