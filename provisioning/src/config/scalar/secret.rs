//! Paths of files with secrets and certificates.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{TextScalar, ValueError};
use crate::config::Secret;
use crate::regular_file::{self, MAX_CERTIFICATE_BYTES};

/// File with a secret: a path, or `cred:NAME` for a systemd credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct SecretFile(String);

/// File without a secret: a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct PublicFile(String);

/// Maximum size of a secret: MQTT has 16 bits for the length of a password (MQTT 5.0, 1.5.6).
const MAX_SECRET_BYTES: u64 = 65_535;

const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

impl TextScalar for SecretFile {
    const KIND: &'static str = "path, or cred:NAME";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let name = text.strip_prefix("cred:");
        if name.is_some_and(|name| name.is_empty() || name.contains('/')) {
            return Err(ValueError::new(
                format!("`{key}` is not the name of a systemd credential"),
                format!("write {key} = \"cred:NAME\", with the NAME of a LoadCredential= line"),
            ));
        }
        if text.is_empty() {
            let help = format!("write {key} = \"/etc/edge-gateway/secret\", or remove the key");
            return Err(ValueError::new(format!("`{key}` is empty"), help));
        }
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// Content of a file in words: `password`, `private key`.
type ContentNoun = &'static str;

impl SecretFile {
    /// Reads the secret. A relative path starts at the directory of `config_file`. A byte order
    /// mark at the start, which Windows adds, and one line break at the end are not part of it.
    pub(in crate::config) fn read_secret(
        &self,
        noun: ContentNoun,
        config_file: &Path,
    ) -> Result<Secret, ValueError> {
        let path = self.path(config_file)?;
        let shown = path.display();
        let mut text = String::new();
        open_private(noun, &path)?
            .take(MAX_SECRET_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| read_error(noun, &path, &error))?;
        let secret = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let secret = secret.strip_suffix('\n').unwrap_or(secret);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            let help = format!("put the {noun} into it, or remove the key");
            return Err(ValueError::new(format!("the {noun} file {shown} is empty"), help));
        }
        Ok(Secret::new(secret.to_owned()))
    }

    /// Returns the path of the file, after checking that it can be read and is closed to others.
    pub(in crate::config) fn readable_path(
        &self,
        noun: ContentNoun,
        config_file: &Path,
    ) -> Result<PathBuf, ValueError> {
        let path = self.path(config_file)?;
        open_private(noun, &path)?;
        Ok(path)
    }

    /// Returns the path that a value means, whether or not the file is there.
    pub(in crate::config) fn resolve(value: &str, config_file: &Path) -> Option<PathBuf> {
        Self(value.to_owned()).path(config_file).ok()
    }

    /// Returns the name of the credential, if it is one.
    fn credential(&self) -> Option<&str> {
        self.0.strip_prefix("cred:")
    }

    /// Returns whether systemd hands the file over as a credential.
    pub(in crate::config) fn is_credential(&self) -> bool {
        self.credential().is_some()
    }

    /// Returns why the file cannot be opened from here, if it is a credential and systemd has not
    /// started this process.
    pub(in crate::config) fn only_systemd_has_it(&self) -> Option<ValueError> {
        let name = self.credential()?;
        std::env::var_os(CREDENTIALS_VARIABLE).is_none().then(|| {
            ValueError::new(
                format!(
                    "`cred:{name}` is handed over by systemd when the service starts, so it cannot \
                     be looked up from here"
                ),
                format!(
                    "the unit needs a line LoadCredential={name}:/path/of/the/file; without \
                     systemd, write the path of the file here"
                ),
            )
        })
    }

    /// Returns the path of the file. A relative path starts at the directory of `config_file`.
    pub(in crate::config) fn path(&self, config_file: &Path) -> Result<PathBuf, ValueError> {
        let Some(name) = self.credential() else {
            return Ok(relative_to_config(&self.0, config_file));
        };
        if let Some(error) = self.only_systemd_has_it() {
            return Err(error);
        }
        let directory = std::env::var_os(CREDENTIALS_VARIABLE).unwrap_or_default();
        Ok(Path::new(&directory).join(name))
    }
}

impl TextScalar for PublicFile {
    const KIND: &'static str = "path";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            let help = format!("write {key} = \"/etc/edge-gateway/ca.pem\", or remove the key");
            return Err(ValueError::new(format!("`{key}` is empty"), help));
        }
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl PublicFile {
    /// Returns the path of the file, after checking that it can be read.
    pub(in crate::config) fn readable_path(
        &self,
        noun: ContentNoun,
        config_file: &Path,
    ) -> Result<PathBuf, ValueError> {
        let path = relative_to_config(&self.0, config_file);
        match regular_file::open(&path, MAX_CERTIFICATE_BYTES) {
            Ok(_) => Ok(path),
            Err(error) if is_no_file(&error) => Err(ValueError::new(
                format!("{} is not a file with a {noun}", path.display()),
                "give the path of a PEM file",
            )),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let help =
                    format!("the service runs as edge-gateway: chmod a+r {}", path.display());
                Err(ValueError { help: Some(help), ..read_error(noun, &path, &error) })
            }
            Err(error) => Err(read_error(noun, &path, &error)),
        }
    }
}

/// Returns the path; a relative one starts at the directory of the configuration file.
fn relative_to_config(path: &str, config_file: &Path) -> PathBuf {
    config_file.parent().unwrap_or_else(|| Path::new("")).join(path)
}

fn open_private(noun: ContentNoun, path: &Path) -> Result<File, ValueError> {
    let file = regular_file::open(path, MAX_SECRET_BYTES).map_err(|error| {
        if is_no_file(&error) {
            return ValueError::new(
                format!("{} is not a file with a {noun}", path.display()),
                format!("give the path of a file of at most {MAX_SECRET_BYTES} bytes"),
            );
        }
        read_error(noun, path, &error)
    })?;
    // The mode of the open file: the path may name another file by now.
    let metadata = file.metadata().map_err(|error| read_error(noun, path, &error))?;
    check_mode(noun, path, metadata.permissions().mode())?;
    Ok(file)
}

/// Returns whether [`regular_file::open`] failed because of what lies there.
fn is_no_file(error: &io::Error) -> bool {
    let kind = error.kind();
    [ErrorKind::IsADirectory, ErrorKind::InvalidInput, ErrorKind::FileTooLarge].contains(&kind)
}

/// Returns why a secret file cannot be read, and what to do.
fn read_error(noun: ContentNoun, path: &Path, error: &io::Error) -> ValueError {
    let why = if error.kind() == ErrorKind::NotFound {
        "there is no such file"
    } else if error.kind() == ErrorKind::PermissionDenied {
        "this user may not read it"
    } else if error.kind() == ErrorKind::InvalidData {
        "it is not a text file"
    } else {
        "it cannot be read"
    };
    // The installer usually creates the file as root, while the service runs as its own user.
    let help = if error.kind() == ErrorKind::PermissionDenied {
        format!("the service runs as edge-gateway: chown edge-gateway {}", path.display())
    } else {
        format!("put the {noun} into that file; the service must be able to read it")
    };
    ValueError::new(format!("the {noun} file {}: {why}", path.display()), help)
}

/// Checks that other users cannot read the file, and that only its owner can change it.
fn check_mode(noun: ContentNoun, path: &Path, mode: u32) -> Result<(), ValueError> {
    let shown = path.display();
    let access = match mode {
        mode if mode & 0o004 != 0 => "every user of this machine can read",
        mode if mode & 0o022 != 0 => "other users can change",
        _ => return Ok(()),
    };
    Err(ValueError::new(
        format!("{access} the {noun} file {shown} (mode {:03o})", mode & 0o777),
        format!("remove their access: chmod 600 {shown}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_or_change_is_rejected() {
        let path = Path::new("password");
        for open in [0o644, 0o604, 0o620, 0o660, 0o602, 0o666, 0o777] {
            assert!(check_mode("password", path, open).is_err(), "{open:o}");
        }
        for closed in [0o600, 0o400, 0o440, 0o640] {
            assert!(check_mode("password", path, closed).is_ok(), "{closed:o}");
        }
    }

    #[test]
    fn a_file_of_another_user_names_the_command_that_gives_it_to_the_service() {
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        let error = read_error("key", Path::new("/etc/edge-gateway/tunnel.key"), &denied);
        assert_eq!(
            error.message,
            "the key file /etc/edge-gateway/tunnel.key: this user may not read it"
        );
        let help =
            "the service runs as edge-gateway: chown edge-gateway /etc/edge-gateway/tunnel.key";
        assert_eq!(error.help.as_deref(), Some(help));
    }
}
