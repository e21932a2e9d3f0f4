//! `keygen`: generates a private key for the tunnel.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use tunnel::PrivateKey;

use super::{EXIT_OK, print_line};

/// `keygen`.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  edge-gateway keygen /etc/edge-gateway/tunnel.key

Prints the public key: give it to the operator of the hub. The private key is written to FILE, which
only its owner can read, and is never printed. An existing file is not overwritten.")]
pub(super) struct KeygenOptions {
    /// File for the private key.
    #[arg(value_name = "FILE", default_value = "tunnel.key")]
    path: PathBuf,
}

/// Writes a new private key and prints its public key.
pub(super) fn keygen(options: &KeygenOptions) -> anyhow::Result<u8> {
    let shown = options.path.display();
    let key = PrivateKey::generate();
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&options.path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{shown} exists already; remove it first if its key is not in use")
        }
        file => file.with_context(|| format!("cannot create {shown}"))?,
    };
    let written = writeln!(file, "{}", key.expose().as_str()).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // A truncated key must not be taken for a whole one later.
        let _ = std::fs::remove_file(&options.path);
        return Err(error).with_context(|| format!("cannot write {shown}"));
    }
    print_line(key.public_key())?;
    Ok(EXIT_OK)
}
