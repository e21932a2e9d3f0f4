//! Options for keys: where their files are, and how they are opened.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use zeroize::Zeroizing;

use crate::office::fleet_signing::{SIGNING_KEY, SigningLists, read_key_file};
use crate::office::secrets::Secrets;
use crate::office::signing::{KeyFile, Signer};

/// The key that signs.
#[derive(Args, Debug)]
pub(super) struct SigningKeyOptions {
    /// Secret key of minisign that signs; secrets/signing.key of the fleet by default.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the password of the key; otherwise it is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// The key of the authority.
#[derive(Args, Debug)]
pub(super) struct AuthorityKeyOption {
    /// Private key of the authority; secrets/ca.key of the fleet by default.
    #[arg(long, value_name = "FILE")]
    pub(super) authority_key: Option<PathBuf>,
}

impl SigningKeyOptions {
    /// Returns the lists of a fleet and the key, which is opened once.
    pub(super) fn open(&self, fleet: &Path) -> anyhow::Result<(SigningLists, Signer)> {
        let lists = SigningLists::load(fleet)?;
        lists.finish_rotation(fleet)?;
        let signer = self.signer(fleet)?;
        let signer = lists.accept(signer)?;
        Ok((lists, signer))
    }

    /// Returns the key alone.
    pub(super) fn signer(&self, fleet: &Path) -> anyhow::Result<Signer> {
        let default = Secrets::of_fleet(fleet).file(SIGNING_KEY);
        let path = self.key.as_deref().unwrap_or(&default);
        let file = read_key_file(path).with_context(|| path.display().to_string())?;
        if let Some(warning) = file.memory_warning() {
            // The work goes on without it.
            let _ = writeln!(io::stderr(), "{}: {warning}", path.display());
        }
        let password = self.password(path, &file)?;
        let opened = file.open(password.as_ref().map(|password| password.as_str()));
        opened.with_context(|| path.display().to_string())
    }

    /// Returns the password for a new key: that of the key that signs, if it is in a file.
    pub(super) fn new_password(&self) -> anyhow::Result<Option<Zeroizing<String>>> {
        self.password_file.as_deref().map(read_password).transpose()
    }

    fn password(&self, path: &Path, file: &KeyFile) -> anyhow::Result<Option<Zeroizing<String>>> {
        if !file.has_password() {
            return Ok(None);
        }
        if let Some(path) = &self.password_file {
            return read_password(path).map(Some);
        }
        if !io::stdin().is_terminal() {
            bail!("{} has a password: give it with --password-file FILE", path.display());
        }
        let asked = rpassword::prompt_password(format!("Password of {}: ", path.display()));
        Ok(Some(Zeroizing::new(asked?)))
    }
}

/// Returns the password in a file that only its owner may read.
pub(super) fn read_password(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    Ok(Secrets::read(path, "it holds the password of a key")?)
}
