//! The file with the password for the broker.

use std::path::{Path, PathBuf};

use super::scalar::{SecretFile, TextScalar};
use super::{ArgumentError, Secret};

/// The file with the password for the broker, to be read for each connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PasswordFile {
    named: SecretFile,
    /// A relative path starts at the directory of this file.
    config_file: PathBuf,
}

impl PasswordFile {
    pub(super) fn new(named: SecretFile, config_file: &Path) -> Self {
        Self { named, config_file: config_file.to_owned() }
    }

    /// Returns the file at a path that a command line names, under the rules of
    /// `mqtt.password_file`.
    ///
    /// # Errors
    /// When the path is empty.
    pub fn from_argument(path: &Path) -> Result<Self, ArgumentError> {
        let named = SecretFile::parse("password_file", &path.to_string_lossy())?;
        Ok(Self { named, config_file: PathBuf::new() })
    }

    /// Reads the password.
    ///
    /// # Errors
    /// When the file cannot be read, or other users can read or change it.
    pub fn read(&self) -> Result<Secret, ArgumentError> {
        Ok(self.named.read_secret("password", &self.config_file)?)
    }

    /// Returns whether systemd made the file when it started the service: it changes only with a
    /// restart.
    #[must_use]
    pub fn is_credential(&self) -> bool {
        self.named.is_credential()
    }
}
