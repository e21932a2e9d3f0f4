//! What root takes out of a verified bundle: its secrets and its network.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::network::{NetworkFiles, NetworkService, installed_files};
use super::sentence::Refusal;
use crate::bundle::{
    Bundle, BundleError, PackageDigest, PackageName, SECRETS_DIR, SigningKeys, VerifyPolicy, verify,
};
use crate::enrolment::{BoxKeys, TUNNEL_SECRET, UnsealedFiles};
use tunnel::PrivateKey;

/// Directory of the network in a bundle.
const NETWORK_DIR: &str = "network";

/// What a bundle brings, decrypted.
#[derive(Debug)]
pub(super) struct BoxContents {
    /// `gateway.id`.
    pub(super) gateway: String,
    /// Its counter.
    pub(super) counter: u64,
    /// The keys to trust from now on.
    pub(super) keys: SigningKeys,
    /// Secrets in clear, by their names without a directory; those that the box makes too.
    pub(super) secrets: UnsealedFiles,
    /// Version that it names.
    pub(super) version: Option<String>,
    /// The packages that it names.
    pub(super) packages: BTreeMap<PackageName, PackageDigest>,
    /// Files of the network for all services, by their names without a directory.
    pub(super) network: NetworkFiles,
}

impl BoxContents {
    /// Verifies a bundle and decrypts what is encrypted to this box. `policy` names no key of the
    /// tunnel: a bundle may bring that key, which is checked after decryption.
    ///
    /// # Errors
    /// When it is not for this box, not newer, or one of its parts cannot be used.
    pub(super) fn open(
        bytes: &[u8],
        policy: &VerifyPolicy<'_>,
        box_keys: &BoxKeys,
    ) -> Result<Self, Refusal> {
        let verified = verify(bytes, policy)?;
        let bundle = &verified.bundle;
        let mut files = match bundle.sealed_secrets() {
            Some(sealed) => box_keys.unseal(sealed)?,
            None => UnsealedFiles::new(),
        };
        for (name, content) in bundle.files() {
            files.insert((*name).to_owned(), Zeroizing::new(content.to_vec()));
        }
        check_tunnel_key(bundle, &files, box_keys)?;
        if bundle.manifest().tunnel_public_key == Some(box_keys.tunnel_public_key()) {
            for (name, key) in box_keys.secrets() {
                files.entry(name).or_insert(key);
            }
        }
        let below = |dir: &str| -> UnsealedFiles {
            let name = |name: &str| Some(name.strip_prefix(dir)?.strip_prefix('/')?.to_owned());
            files
                .iter()
                .filter_map(|(path, content)| Some((name(path)?, content.clone())))
                .collect()
        };
        let network = below(NETWORK_DIR);
        for service in NetworkService::ALL {
            installed_files(service, &network).map_err(Refusal::NetworkNameTwice)?;
        }
        Ok(Self {
            gateway: bundle.manifest().gateway.clone(),
            counter: bundle.manifest().counter,
            keys: verified.keys,
            secrets: below(SECRETS_DIR),
            version: bundle.manifest().version.clone(),
            packages: bundle.manifest().packages.clone(),
            network,
        })
    }
}

/// Checks that the tunnel key that the bundle names is the one of this box, or one that it brings.
fn check_tunnel_key(
    bundle: &Bundle<'_>,
    files: &UnsealedFiles,
    box_keys: &BoxKeys,
) -> Result<(), Refusal> {
    let manifest = bundle.manifest();
    let (Some(named), own) = (manifest.tunnel_public_key, box_keys.tunnel_public_key()) else {
        return Ok(());
    };
    let tunnel_secret = files.get(TUNNEL_SECRET);
    let tunnel_secret =
        tunnel_secret.map(|text| str::from_utf8(text).ok()?.trim().parse::<PrivateKey>().ok());
    match tunnel_secret {
        Some(Some(key)) if key.public_key() == named => Ok(()),
        Some(_) => Err(Refusal::OtherTunnelKey),
        None if named == own => Ok(()),
        None => {
            let gateway = manifest.gateway.clone();
            Err(BundleError::OtherBox { gateway, bundle: named, own }.into())
        }
    }
}
