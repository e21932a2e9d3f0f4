//! `sign` and `verify`: bundles by themselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::key_options::SigningKeyOptions;
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, print_line};
use crate::bundle::{
    Bundle, BundleSource, MAX_BUNDLE_BYTES, SigningKeys, Verified, VerifyPolicy, verify,
};
use crate::office::build::{bundle_name, sha256};
use crate::office::fleet_signing::SigningLists;
use crate::office::output_file::{FileAccess, replace_if_changed};
use crate::regular_file;

/// `sign`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision build --unsigned
  edge-provision sign out/bundles/*.bundle.tar --key /media/key/signing.key
  minisign -Sm amsterdam-01.bundle.tar -s offline.key
  edge-provision sign amsterdam-01.bundle.tar --signature amsterdam-01.bundle.tar.minisig")]
pub(super) struct SignOptions {
    /// Files that `build --unsigned` has written.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    fleet: FleetOption,
    #[command(flatten)]
    key: SigningKeyOptions,
    /// Signature that minisign has made of the one FILE.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["key", "password_file"])]
    signature: Option<PathBuf>,
    /// Directory for the bundles; that of each FILE by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// `verify`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision verify out/bundles/edge-bundle-amsterdam-01.tar
  edge-provision verify edge-bundle-amsterdam-01.tar --first

Verifies a bundle with the code that a box uses, against the first keys of the fleet, which every
box trusts or trusted. With --first, as a box that has had no bundle.

Exit code 1 if a box would refuse it.")]
pub(super) struct VerifyOptions {
    /// The bundle.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    fleet: FleetOption,
    /// As a box that trusts no keys yet: no fleet is needed.
    #[arg(long)]
    first: bool,
    /// Id of the gateway that it must be for.
    #[arg(long, value_name = "SITE", value_parser = super::label)]
    gateway: Option<String>,
    /// Counter of the last bundle that the box has.
    #[arg(long, value_name = "COUNTER")]
    after: Option<u64>,
}

pub(super) fn sign(options: &SignOptions) -> anyhow::Result<u8> {
    let fleet = &options.fleet.dir;
    if options.signature.is_some() && options.files.len() != 1 {
        bail!("--signature is that of one FILE");
    }
    let _lock = options.fleet.lock()?;
    let (lists, signer) = match options.signature {
        Some(_) => (SigningLists::load(fleet)?, None),
        None => {
            let (lists, signer) = options.key.open(fleet)?;
            (lists, Some(signer))
        }
    };
    let mut packages = BTreeSet::new();
    for path in &options.files {
        let contents = read(path)?;
        let bundle = Bundle::read(&contents).with_context(|| path.display().to_string())?;
        let bytes = match (&signer, &options.signature) {
            (Some(signer), _) => lists.seal(&contents, signer)?,
            (None, Some(signature)) => {
                let text = String::from_utf8_lossy(&read(signature)?).into_owned();
                lists.seal_signed(&contents, &text)?
            }
            (None, None) => bail!("there is neither a key nor a signature"),
        };
        let name = bundle_name(&bundle.manifest().gateway);
        let dir = options.out.as_deref().or_else(|| path.parent());
        let target = dir.unwrap_or_else(|| Path::new("")).join(name);
        let is_secret = bundle.has_clear_secrets();
        let access = if is_secret { FileAccess::Secret } else { FileAccess::Public };
        replace_if_changed(&target, &bytes, access)?;
        print_line(format_args!("{}: {}", target.display(), described(&bundle)))?;
        packages.extend(package_lines(&bundle));
    }
    // Once for all bundles: who signs decides what the boxes install.
    for line in packages {
        print_line(line)?;
    }
    Ok(EXIT_OK)
}

pub(super) fn verify_bundle(options: &VerifyOptions) -> anyhow::Result<u8> {
    let bytes = read(&options.file)?;
    let keys: Option<SigningKeys> = match options.first {
        true => None,
        false => Some(SigningLists::load(&options.fleet.dir)?.first()?.clone()),
    };
    let policy = VerifyPolicy {
        keys: keys.as_ref(),
        gateway: options.gateway.as_deref(),
        tunnel_public_key: None,
        last_counter: options.after,
        source: BundleSource::ByHand,
    };
    let shown = options.file.display();
    match verify(&bytes, &policy) {
        Ok(Verified { bundle, keys }) => {
            print_line(format_args!("{shown}: {}", described(&bundle)))?;
            let ids: Vec<_> = keys.keys().iter().map(|key| key.id().to_string()).collect();
            print_line(format_args!("signing keys {}: {}", keys.number(), ids.join(", ")))?;
            print_line(format_args!("size {}, sha256 {}", bytes.len(), sha256(&bytes)))?;
            for (name, content) in bundle.files() {
                print_line(format_args!("{:>8} {name}", content.len()))?;
            }
            for line in package_lines(&bundle) {
                print_line(line)?;
            }
            Ok(EXIT_OK)
        }
        Err(error) => {
            print_line(format_args!("{shown}: {error}"))?;
            Ok(EXIT_NEGATIVE)
        }
    }
}

fn described(bundle: &Bundle<'_>) -> String {
    let manifest = bundle.manifest();
    let secrets = match (bundle.has_clear_secrets(), bundle.sealed_secrets()) {
        (true, _) => "secrets in clear: bring it by hand, and wipe the stick",
        (false, Some(_)) => "secrets encrypted to the box",
        (false, None) => "no secrets",
    };
    let version = manifest.version.as_deref().map(|version| format!(", version {version}"));
    let min_version = manifest.min_version.as_deref();
    let min_version = min_version.map(|version| format!(", min_version {version}"));
    let (version, min_version) = (version.unwrap_or_default(), min_version.unwrap_or_default());
    format!("bundle {} of {}{version}{min_version}, {secrets}", manifest.counter, manifest.gateway)
}

/// Returns a line for each package that a bundle names.
fn package_lines(bundle: &Bundle<'_>) -> impl Iterator<Item = String> {
    let packages = bundle.manifest().packages.iter();
    packages.map(|(name, sha256)| format!("{name} sha256 {sha256}"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let read = regular_file::read(path, MAX_BUNDLE_BYTES as u64 + 1);
    read.with_context(|| format!("cannot read {}", path.display()))
}
