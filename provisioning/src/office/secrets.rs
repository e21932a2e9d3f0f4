//! The secrets of a fleet: files below `secrets/`, which git ignores.
//!
//! | file | holds |
//! |---|---|
//! | `secrets/hubs/NAME/tunnel.key` | private key of a hub |
//! | `secrets/sites/ID/mqtt.password.1` | password of a site at the broker for its login 1 |
//! | `secrets/sites/ID/mqtt.password.2` | for login 2; the one before is valid while it is here |
//! | `secrets/sites/ID/sealed.digest` | shows that `sealed/ID.age` holds these secrets |
//! | `secrets/sites/ID/tunnel.key` | private key of a site, only if it was made here |
//! | `secrets/office/mqtt.password` | password of the user `office` at the broker |
//! | `secrets/hubs/NAME/broker.key` | private key of a broker's certificate |
//! | `secrets/signing.key` | key that signs bundles, in a file of minisign |
//! | `secrets/offline.key` | the second one: keep it elsewhere |
//! | `secrets/signing.key.2` | a new key that waits until list 2 of signing keys is written |
//! | `secrets/signing.key.old.1` | the key before it, which list 1 was the last to have |
//! | `secrets/lock` | nothing: it is locked by the command that changes the fleet |
//! | `secrets/ca.key` | private key of the authority; may be kept elsewhere |

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use thiserror::Error;
use tunnel::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::output_file::{FileAccess, FileError, create_new, remove_if_there};
use crate::regular_file;

/// Name of the directory.
pub const SECRETS_DIR: &str = "secrets";

/// Random bytes of a password: 32 characters.
const PASSWORD_BYTES: usize = 24;
/// Maximum size of a file with a key or a password.
const MAX_SECRET_BYTES: u64 = 4 << 10;

/// Name in `secrets/sites/ID/` of a private key that was made here.
pub(crate) const SITE_KEY: &str = "tunnel.key";
/// Beginning of the name of a password of a site; the number of its login follows.
const PASSWORD: &str = "mqtt.password.";

/// The secrets of one fleet.
#[derive(Clone, Debug)]
pub struct Secrets {
    dir: PathBuf,
}

/// A secret that cannot be used.
#[derive(Debug, Error)]
pub enum SecretError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not on this machine.
    #[error("{} is not here; {help}", .path.display())]
    Missing {
        /// Its file.
        path: PathBuf,
        /// How it is made.
        help: &'static str,
    },
    /// Other users of this machine may read it.
    #[error("other users may read {path}; chmod 600 {path}", path = .path.display())]
    Exposed {
        /// Its file.
        path: PathBuf,
    },
    /// It is not what its file holds.
    #[error("{} does not hold {expected}", .path.display())]
    Malformed {
        /// Its file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
    },
    /// A password is changed while the change before is not finished.
    #[error(
        "the last new password of {site} is not confirmed: when its box uses it, write \
         `edge-provision rotate {site} --confirmed`"
    )]
    Unconfirmed {
        /// The site.
        site: String,
    },
    /// The operating system gives no random numbers.
    #[error("no random numbers: the system's generator fails")]
    Random,
}

impl Secrets {
    /// Returns the secrets of the fleet in this directory, without reading them.
    #[must_use]
    pub fn of_fleet(fleet: &Path) -> Self {
        let fleet = if fleet == Path::new(".") { Path::new("") } else { fleet };
        Self { dir: fleet.join(SECRETS_DIR) }
    }

    /// Returns the path of a secret of a site.
    #[must_use]
    pub fn site_file(&self, site: &str, name: &str) -> PathBuf {
        self.dir.join("sites").join(site).join(name)
    }

    /// Makes the key of a hub unless there is one, and returns its public key.
    ///
    /// # Errors
    /// When it cannot be written, or the one that is there cannot be used.
    pub fn ensure_hub_key(&self, hub: &str) -> Result<PublicKey, SecretError> {
        ensure_key(&self.hub_key_path(hub))
    }

    /// Makes the key of a site unless there is one, and returns its public key.
    ///
    /// # Errors
    /// When it cannot be written, or the one that is there cannot be used.
    pub fn ensure_site_key(&self, site: &str) -> Result<PublicKey, SecretError> {
        ensure_key(&self.site_file(site, SITE_KEY))
    }

    /// Makes the password of a site for its first login unless there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn ensure_site_password(&self, site: &str) -> Result<(), SecretError> {
        ensure_password(&self.password_path(site, 1))
    }

    /// Makes the password of the user `office` unless there is one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn ensure_office_password(&self) -> Result<(), SecretError> {
        ensure_password(&self.office_password_path())
    }

    /// Returns the private key of a hub.
    ///
    /// # Errors
    /// When it is not here, or exposed to others.
    pub fn hub_key(&self, hub: &str) -> Result<PrivateKey, SecretError> {
        read_key(&self.hub_key_path(hub))
    }

    /// Returns the private key of a site if it was made here.
    ///
    /// # Errors
    /// When it is exposed to others.
    pub fn site_key(&self, site: &str) -> Result<Option<Zeroizing<String>>, SecretError> {
        let path = self.site_file(site, SITE_KEY);
        if path.exists() { read_secret(&path, "").map(Some) } else { Ok(None) }
    }

    /// Returns the password of a site for a login.
    ///
    /// # Errors
    /// When it is not here, or exposed to others.
    pub fn site_password(&self, site: &str, login: u64) -> Result<Zeroizing<String>, SecretError> {
        let help = "`edge-provision rotate SITE --password` makes another one";
        read_password(self.password_path(site, login), help)
    }

    /// Makes the password for the login after `login` unless an interrupted command has made it.
    /// It is in use as soon as the file of the site has the new number.
    ///
    /// # Errors
    /// With [`SecretError::Unconfirmed`] when the password before that of `login` is still kept;
    /// when the file cannot be written.
    pub fn make_next_password(&self, site: &str, login: u64) -> Result<(), SecretError> {
        if login.checked_sub(1).is_some_and(|before| self.password_path(site, before).exists()) {
            return Err(SecretError::Unconfirmed { site: site.to_owned() });
        }
        ensure_password(&self.password_path(site, login.saturating_add(1)))
    }

    /// Returns the login before `login` with its password, if it is still valid.
    ///
    /// # Errors
    /// When it is exposed to others.
    pub fn previous_site_password(
        &self,
        site: &str,
        login: u64,
    ) -> Result<Option<(u64, Zeroizing<String>)>, SecretError> {
        let Some(before) = login.checked_sub(1) else { return Ok(None) };
        if !self.password_path(site, before).exists() {
            return Ok(None);
        }
        self.site_password(site, before).map(|password| Some((before, password)))
    }

    /// Ends the validity of the passwords before that of `login`. Returns whether there was one.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn forget_old_passwords(&self, site: &str, login: u64) -> Result<bool, SecretError> {
        let dir = self.site_file(site, "");
        let error = |error| FileError::new("read", &dir, error);
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(error)?,
        };
        let mut had_one = false;
        for entry in entries {
            let path = entry.map_err(error)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_prefix(PASSWORD).and_then(|number| number.parse::<u64>().ok());
            if number.is_some_and(|number| number < login) {
                had_one |= remove_if_there(&path)?;
            }
        }
        Ok(had_one)
    }

    fn password_path(&self, site: &str, login: u64) -> PathBuf {
        self.site_file(site, &format!("{PASSWORD}{login}"))
    }

    /// Removes a secret of a site. Returns whether there was one.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn remove_site_file(&self, site: &str, name: &str) -> Result<bool, SecretError> {
        Ok(remove_if_there(&self.site_file(site, name))?)
    }

    /// Returns the path of a file directly below `secrets/`.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns the path of a secret of a hub.
    #[must_use]
    pub fn hub_file(&self, hub: &str, name: &str) -> PathBuf {
        self.dir.join("hubs").join(hub).join(name)
    }

    /// Returns the text of a secret; `help` says how it is made if it is missing.
    ///
    /// # Errors
    /// When it is not here, or exposed to others.
    pub fn read(path: &Path, help: &'static str) -> Result<Zeroizing<String>, SecretError> {
        read_secret(path, help)
    }

    /// Returns the password of the user `office`.
    ///
    /// # Errors
    /// When it is not here, or exposed to others.
    pub fn office_password(&self) -> Result<Zeroizing<String>, SecretError> {
        read_password(self.office_password_path(), "`edge-provision init` makes it")
    }

    fn hub_key_path(&self, hub: &str) -> PathBuf {
        self.dir.join("hubs").join(hub).join("tunnel.key")
    }

    fn office_password_path(&self) -> PathBuf {
        self.dir.join("office/mqtt.password")
    }
}

fn ensure_key(path: &Path) -> Result<PublicKey, SecretError> {
    let key = PrivateKey::generate();
    let line = Zeroizing::new(format!("{}\n", key.expose().as_str()));
    match create_new(path, line.as_bytes(), FileAccess::Secret) {
        Ok(()) => Ok(key.public_key()),
        // A command that was interrupted, or a site that was removed and added again.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(read_key(path)?.public_key()),
        Err(error) => Err(error.into()),
    }
}

fn read_key(path: &Path) -> Result<PrivateKey, SecretError> {
    let text = read_secret(path, "`edge-provision add --hub` makes the key of a new hub")?;
    let expected = "a private key";
    text.parse().map_err(|_| SecretError::Malformed { path: path.to_owned(), expected })
}

fn ensure_password(path: &Path) -> Result<(), SecretError> {
    let mut bytes = Zeroizing::new([0; PASSWORD_BYTES]);
    SystemRandom::new().fill(bytes.as_mut()).map_err(|_| SecretError::Random)?;
    let line = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(*bytes)));
    match create_new(path, line.as_bytes(), FileAccess::Secret) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => Ok(created?),
    }
}

/// Returns a password; one that would break the line of a password file is rejected.
fn read_password(path: PathBuf, help: &'static str) -> Result<Zeroizing<String>, SecretError> {
    let password = read_secret(&path, help)?;
    let is_password = !password.is_empty() && !password.chars().any(char::is_control);
    let expected = "one line with a password";
    if is_password { Ok(password) } else { Err(SecretError::Malformed { path, expected }) }
}

/// Returns the text of a secret without the end of its line.
fn read_secret(path: &Path, help: &'static str) -> Result<Zeroizing<String>, SecretError> {
    let error = |error: io::Error| {
        if error.kind() == ErrorKind::NotFound {
            return SecretError::Missing { path: path.to_owned(), help };
        }
        FileError::new("read", path, error).into()
    };
    let file = regular_file::open(path, MAX_SECRET_BYTES).map_err(error)?;
    // Of the file that is open: the path may name another one by now.
    if file.metadata().map_err(error)?.permissions().mode() & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned() });
    }
    let bytes = Zeroizing::new(regular_file::read_opened(file, MAX_SECRET_BYTES).map_err(error)?);
    let expected = "text";
    let text = str::from_utf8(&bytes)
        .map_err(|_| SecretError::Malformed { path: path.to_owned(), expected })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that was killed is typed again.
    #[test]
    fn a_new_password_is_made_once_and_the_old_one_stays_under_its_own_login() {
        let dir = std::env::temp_dir().join(format!("edge-secrets-{:016x}", fastrand::u64(..)));
        let secrets = Secrets::of_fleet(&dir);
        let read = |login| secrets.site_password("plant-7", login).unwrap();
        secrets.ensure_site_password("plant-7").unwrap();
        let first = read(1);

        // Killed before the file of the site has the new number: nothing has changed for the box.
        secrets.make_next_password("plant-7", 1).unwrap();
        assert_eq!(read(1), first);
        assert_eq!(secrets.previous_site_password("plant-7", 1).unwrap(), None);
        let second = read(2);
        secrets.make_next_password("plant-7", 1).unwrap();
        assert_eq!(read(2), second);

        assert_eq!(secrets.previous_site_password("plant-7", 2).unwrap(), Some((1, first)));
        let again = secrets.make_next_password("plant-7", 2).unwrap_err();
        assert!(matches!(again, SecretError::Unconfirmed { .. }), "{again}");
        assert!(secrets.forget_old_passwords("plant-7", 2).unwrap());
        assert!(!secrets.forget_old_passwords("plant-7", 2).unwrap());
        assert_eq!(secrets.previous_site_password("plant-7", 2).unwrap(), None);
        assert_eq!(read(2), second);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_secret_is_made_once_and_refused_when_others_may_read_it() {
        let dir = std::env::temp_dir().join(format!("edge-secrets-{:016x}", fastrand::u64(..)));
        let secrets = Secrets::of_fleet(&dir);

        let missing = secrets.site_password("plant-7", 1).unwrap_err().to_string();
        assert!(missing.contains("mqtt.password.1 is not here"), "{missing}");
        secrets.ensure_site_password("plant-7").unwrap();
        let password = secrets.site_password("plant-7", 1).unwrap();
        assert_eq!(password.len(), 32);
        secrets.ensure_site_password("plant-7").unwrap();
        assert_eq!(secrets.site_password("plant-7", 1).unwrap(), password);
        let key = secrets.ensure_hub_key("hub-a").unwrap();
        assert_eq!(secrets.hub_key("hub-a").unwrap().public_key(), key);
        assert_eq!(secrets.ensure_hub_key("hub-a").unwrap(), key);

        let path = secrets.site_file("plant-7", "mqtt.password.1");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let exposed = secrets.site_password("plant-7", 1).unwrap_err().to_string();
        assert!(exposed.contains("chmod 600") && !exposed.contains(&*password), "{exposed}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
