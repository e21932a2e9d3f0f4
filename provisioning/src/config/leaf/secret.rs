//! Secrets live in files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{TextLeaf, Wrong};
use crate::config::Secret;

/// Where a secret lies: a path, or `cred:NAME` for a systemd credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct SecretFile(String);

/// MQTT counts the bytes of a password with 16 bits.
const MOST_BYTES: u64 = 65_535;

const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

impl TextLeaf for SecretFile {
    const KIND: &'static str = "path, or cred:NAME";

    fn parse(key: &str, text: &str) -> Result<Self, Wrong> {
        let name = text.strip_prefix("cred:");
        if name.is_some_and(|name| name.is_empty() || name.contains('/')) {
            return Err(Wrong::new(
                format!("`{key}` does not name a credential of systemd"),
                format!("write {key} = \"cred:NAME\", with the NAME of a LoadCredential= line"),
            ));
        }
        if text.is_empty() {
            let help = format!("write {key} = \"/etc/edge-gateway/password\", or leave it out");
            return Err(Wrong::new(format!("`{key}` is empty"), help));
        }
        Ok(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl SecretFile {
    /// Reads the secret; a path that does not begin at the root begins where the configuration
    /// file lies. One line break at the end is not part of the secret.
    pub(in crate::config) fn load(&self, beside: &Path) -> Result<Secret, Wrong> {
        let path = self.path(beside)?;
        let shown = path.display();
        let unreadable = |error: &io::Error| {
            let why = if error.kind() == ErrorKind::NotFound {
                "there is no such file"
            } else if error.kind() == ErrorKind::PermissionDenied {
                "this user may not read it"
            } else {
                "it cannot be read"
            };
            Wrong::new(
                format!("the password file {shown}: {why}"),
                "put the password into that file, readable by the user of the gateway only",
            )
        };
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&error))?;
        if !metadata.is_file() || metadata.len() > MOST_BYTES {
            return Err(Wrong::new(
                format!("{shown} is not a file with a password"),
                format!("name a file of at most {MOST_BYTES} bytes"),
            ));
        }
        let file = File::open(&path).map_err(|error| unreadable(&error))?;
        let mode = file.metadata().map_err(|error| unreadable(&error))?.permissions().mode();
        check_mode(&path, mode)?;
        let mut text = String::new();
        file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            let help = "put the password into it, or leave password_file out";
            return Err(Wrong::new(format!("the password file {shown} is empty"), help));
        }
        Ok(Secret::new(secret.to_owned()))
    }

    fn path(&self, beside: &Path) -> Result<PathBuf, Wrong> {
        let Some(name) = self.0.strip_prefix("cred:") else {
            return Ok(beside.parent().unwrap_or_else(|| Path::new("")).join(&self.0));
        };
        let directory = std::env::var_os(CREDENTIALS).ok_or_else(|| {
            Wrong::new(
                format!("there are no credentials here: {CREDENTIALS} is not set"),
                format!(
                    "systemd sets it for a service with LoadCredential={name}:/path/of/the/file; \
                     elsewhere, write the path of a file"
                ),
            )
        })?;
        Ok(Path::new(&directory).join(name))
    }
}

/// Others must not read a secret, and nobody but its owner may change it.
fn check_mode(path: &Path, mode: u32) -> Result<(), Wrong> {
    let shown = path.display();
    let who = match mode {
        mode if mode & 0o004 != 0 => "every user of this machine can read",
        mode if mode & 0o022 != 0 => "other users can change",
        _ => return Ok(()),
    };
    Err(Wrong::new(
        format!("{who} the password file {shown} (mode {:03o})", mode & 0o777),
        format!("close it: chmod 600 {shown}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_that_is_closed_to_others_holds_a_secret() {
        let path = Path::new("password");
        for open in [0o644, 0o604, 0o620, 0o660, 0o602, 0o666, 0o777] {
            assert!(check_mode(path, open).is_err(), "{open:o}");
        }
        for closed in [0o600, 0o400, 0o440, 0o640] {
            assert!(check_mode(path, closed).is_ok(), "{closed:o}");
        }
    }
}
