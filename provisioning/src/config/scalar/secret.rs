//! Secrets live in files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{TextScalar, ValueError};
use crate::config::Secret;

/// Where a secret lies: a path, or `cred:NAME` for a systemd credential.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct SecretFile(String);

/// Where something lies that anybody may read: a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct PublicFile(String);

/// MQTT counts the bytes of a password with 16 bits.
const MAX_SECRET_BYTES: u64 = 65_535;

const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

impl TextScalar for SecretFile {
    const KIND: &'static str = "path, or cred:NAME";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        let name = text.strip_prefix("cred:");
        if name.is_some_and(|name| name.is_empty() || name.contains('/')) {
            return Err(ValueError::new(
                format!("`{key}` does not name a credential of systemd"),
                format!("write {key} = \"cred:NAME\", with the NAME of a LoadCredential= line"),
            ));
        }
        if text.is_empty() {
            let help = format!("write {key} = \"/etc/edge-gateway/secret\", or leave it out");
            return Err(ValueError::new(format!("`{key}` is empty"), help));
        }
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

/// What lies in such a file, in words: `password`, `private key`.
type ContentNoun = &'static str;

impl SecretFile {
    /// Reads the secret; a path that does not begin at the root begins where the configuration
    /// file lies. One line break at the end is not part of the secret.
    pub(in crate::config) fn read_secret(
        &self,
        noun: ContentNoun,
        beside: &Path,
    ) -> Result<Secret, ValueError> {
        let path = self.path(beside)?;
        let shown = path.display();
        let mut text = String::new();
        open_private(noun, &path)?
            .take(MAX_SECRET_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| read_error(noun, &path, &error))?;
        let secret = text.strip_suffix('\n').unwrap_or(&text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            let help = format!("put the {noun} into it, or leave the key out");
            return Err(ValueError::new(format!("the {noun} file {shown} is empty"), help));
        }
        Ok(Secret::new(secret.to_owned()))
    }

    /// Where it lies, once it is known that it can be read, and by whom.
    pub(in crate::config) fn readable_path(
        &self,
        noun: ContentNoun,
        beside: &Path,
    ) -> Result<PathBuf, ValueError> {
        let path = self.path(beside)?;
        open_private(noun, &path)?;
        Ok(path)
    }

    fn path(&self, beside: &Path) -> Result<PathBuf, ValueError> {
        let Some(name) = self.0.strip_prefix("cred:") else {
            return Ok(relative_to_config(&self.0, beside));
        };
        let directory = std::env::var_os(CREDENTIALS_VARIABLE).ok_or_else(|| {
            ValueError::new(
                format!("there are no credentials here: {CREDENTIALS_VARIABLE} is not set"),
                format!(
                    "systemd sets it for a service with LoadCredential={name}:/path/of/the/file; \
                     elsewhere, write the path of a file"
                ),
            )
        })?;
        Ok(Path::new(&directory).join(name))
    }
}

impl TextScalar for PublicFile {
    const KIND: &'static str = "path";

    fn parse(key: &str, text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            let help = format!("write {key} = \"/etc/edge-gateway/ca.pem\", or leave it out");
            return Err(ValueError::new(format!("`{key}` is empty"), help));
        }
        Ok(Self(text.to_owned()))
    }

    fn to_text(&self) -> String {
        self.0.clone()
    }
}

impl PublicFile {
    /// Where it lies, once it is known that it can be read.
    pub(in crate::config) fn readable_path(
        &self,
        noun: ContentNoun,
        beside: &Path,
    ) -> Result<PathBuf, ValueError> {
        let path = relative_to_config(&self.0, beside);
        match File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_file() => Ok(path),
            Ok(_) => Err(ValueError::new(
                format!("{} is not a file with a {noun}", path.display()),
                "name a file in PEM form",
            )),
            Err(error) => Err(ValueError {
                help: Some(format!("put the {noun} there, readable by the user of the gateway")),
                ..read_error(noun, &path, &error)
            }),
        }
    }
}

/// A path that does not begin at the root begins where the configuration file lies.
fn relative_to_config(path: &str, beside: &Path) -> PathBuf {
    beside.parent().unwrap_or_else(|| Path::new("")).join(path)
}

fn open_private(noun: ContentNoun, path: &Path) -> Result<File, ValueError> {
    let metadata = fs::metadata(path).map_err(|error| read_error(noun, path, &error))?;
    if !metadata.is_file() || metadata.len() > MAX_SECRET_BYTES {
        return Err(ValueError::new(
            format!("{} is not a file with a {noun}", path.display()),
            format!("name a file of at most {MAX_SECRET_BYTES} bytes"),
        ));
    }
    let file = File::open(path).map_err(|error| read_error(noun, path, &error))?;
    let metadata = file.metadata().map_err(|error| read_error(noun, path, &error))?;
    check_mode(noun, path, metadata.permissions().mode())?;
    Ok(file)
}

fn read_error(noun: ContentNoun, path: &Path, error: &io::Error) -> ValueError {
    let why = if error.kind() == ErrorKind::NotFound {
        "there is no such file"
    } else if error.kind() == ErrorKind::PermissionDenied {
        "this user may not read it"
    } else if error.kind() == ErrorKind::InvalidData {
        "it does not hold text"
    } else {
        "it cannot be read"
    };
    ValueError::new(
        format!("the {noun} file {}: {why}", path.display()),
        format!("put the {noun} into that file, readable by the user of the gateway only"),
    )
}

/// Others must not read a secret, and nobody but its owner may change it.
fn check_mode(noun: ContentNoun, path: &Path, mode: u32) -> Result<(), ValueError> {
    let shown = path.display();
    let who = match mode {
        mode if mode & 0o004 != 0 => "every user of this machine can read",
        mode if mode & 0o022 != 0 => "other users can change",
        _ => return Ok(()),
    };
    Err(ValueError::new(
        format!("{who} the {noun} file {shown} (mode {:03o})", mode & 0o777),
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
            assert!(check_mode("password", path, open).is_err(), "{open:o}");
        }
        for closed in [0o600, 0o400, 0o440, 0o640] {
            assert!(check_mode("password", path, closed).is_ok(), "{closed:o}");
        }
    }
}
