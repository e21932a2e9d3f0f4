//! Bundles of sites: what each box is told, encrypted where it is secret, counted and signed.

mod digest;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

pub use digest::sha256;
use digest::{digest_of, hex};
use thiserror::Error;
use zeroize::Zeroizing;

use super::boxes::{Boxes, BoxesError};
use super::certificates::{CertificateError, Certificates};
use super::fleet::{
    BrokerAuthentication, Fleet, RejectedFleet, SITES_DIR, Site, box_files, in_parallel,
};
use super::fleet_signing::{SigningError, SigningLists};
use super::output_batch::OutputBatch;
use super::output_file::{FileAccess, FileError, remove_if_there};
use super::packages::{NamedVersion, PublishedPackages};
use super::secrets::{SecretError, Secrets};
use super::signing::Signer;
use super::site_edit::{SiteValue, remove, set};
use crate::bundle::{
    Bundle, ContentsError, MAX_BUNDLE_BYTES, Manifest, SEALED_SECRETS, render_archive,
};
use crate::enrolment::{Enrolment, SealError, seal_secrets};
use crate::regular_file;

/// Directory with the secrets of each site, encrypted to its box.
pub const SEALED_DIR: &str = "sealed";

/// Directory with the bundles that web servers may offer, unless another one is given.
pub const BUNDLES_DIR: &str = "out/bundles";

/// Sites between two reports of progress.
const PART: usize = 512;
/// Files that wait for one flush of the file system: a flush takes as long as for a few.
const MAX_STAGED: usize = 20_000;

/// Everything that building needs beside the files of the sites.
#[derive(Debug)]
pub struct Build<'a> {
    /// Directory of the fleet.
    pub dir: &'a Path,
    /// The fleet.
    pub fleet: &'a Fleet,
    /// Certificates, with the authority if its key is at hand.
    pub certificates: &'a Certificates,
    /// Lists of signing keys, all of which every bundle shows.
    pub lists: &'a SigningLists,
    /// Key that signs the bundles; none leaves their contents for `sign`, as `ID.bundle.tar`.
    pub signer: Option<&'a Signer>,
    /// Directory for bundles that web servers may offer.
    pub out: &'a Path,
    /// Sites that get a new counter although nothing differs.
    pub again: &'a BTreeSet<String>,
}

/// What building did for a site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BuiltSite {
    /// Nothing differs from its last bundle.
    Unchanged,
    /// There is a bundle with a new counter.
    Counted(u64),
    /// There is one with secrets in clear, in `secrets/bundles`.
    ForStick(u64),
    /// It is revoked: its box gets no bundle.
    Revoked,
    /// It has no box yet.
    NotEnrolled,
}

/// Why a bundle is not built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The fleet has a problem.
    #[error(transparent)]
    Fleet(#[from] RejectedFleet),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A secret is missing or exposed.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An enrolment is damaged.
    #[error(transparent)]
    Boxes(#[from] BoxesError),
    /// A certificate is missing.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The contents cannot be signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The secrets cannot be encrypted.
    #[error("{site}: {problem}")]
    Seal {
        /// The site.
        site: String,
        /// Why.
        problem: SealError,
    },
    /// The contents cannot stand in a bundle.
    #[error("{site}: {problem}")]
    Contents {
        /// The site.
        site: String,
        /// Why.
        problem: ContentsError,
    },
    /// The bundle is too large.
    #[error(
        "the bundle of {site} has {bytes} bytes, and a box reads at most {MAX_BUNDLE_BYTES}: give \
         it fewer tags"
    )]
    TooLarge {
        /// The site.
        site: String,
        /// Its size.
        bytes: usize,
    },
    /// The secrets of a site cannot be encrypted to a box that was not enrolled.
    #[error(
        "{site} has a public_key, but enrolled/sites/{site}.txt is missing: take the file of its \
         box in with `edge-provision enrol {site} FILE`"
    )]
    NoEnrolment {
        /// The site.
        site: String,
    },
    /// A certificate needs the request of a box.
    #[error(
        "{site} has a key that was made here, and the broker asks for certificates: enrol its box \
         first, or let the broker ask for passwords"
    )]
    NoRequest {
        /// The site.
        site: String,
    },
    /// The next bundle of a site would name no packages, only because this copy of the fleet has
    /// none.
    #[error(
        "the last bundle of {site} names packages, and there is no directory packages/ here: copy \
         it here, or remove `packages` from sites/{site}.toml"
    )]
    NoPackages {
        /// The site.
        site: String,
    },
    /// The file of a site is not as it was when it was read.
    #[error("sites/{site}.toml changed while it was built: build again")]
    SiteChanged {
        /// The site.
        site: String,
    },
}

/// The contents of one bundle.
struct SiteContents {
    files: BTreeMap<String, Zeroizing<Vec<u8>>>,
    has_clear_secrets: bool,
}

impl Build<'_> {
    /// Builds the bundles of sites and puts them into their places, with the packages that bundles
    /// name. `on_part` gets the results of some hundred sites at a time, in the order of `sites`.
    ///
    /// # Errors
    /// With the problem of the first site that has one. Thousands of sites before it may be in their
    /// places then.
    pub fn run<E: From<BuildError>>(
        &self,
        sites: &[&Site],
        mut on_part: impl FnMut(&[&Site], &[BuiltSite]) -> Result<(), E>,
    ) -> Result<PublishedPackages, E> {
        let versions = self.published_versions(sites);
        // Before the bundles: a web server may offer this directory.
        let list = self.fleet.packages();
        let published = list.map(|list| list.publish(&versions, self.out)).transpose();
        let mut packages = published.map_err(BuildError::from)?.unwrap_or_default();
        let mut batch = OutputBatch::default();
        for part in sites.chunks(PART) {
            let build = |_: usize, sites: &[&Site]| {
                let one = |site: &&Site| {
                    let mut batch = OutputBatch::default();
                    self.site(site, &packages, &mut batch).map(|built| (built, batch))
                };
                sites.iter().map(one).collect()
            };
            let mut built = Vec::new();
            for result in in_parallel(part, build) {
                let (site, files) = result?;
                batch.append(files);
                built.push(site);
            }
            if batch.len() > MAX_STAGED {
                std::mem::take(&mut batch).commit().map_err(BuildError::from)?;
            }
            on_part(part, &built)?;
        }
        batch.commit().map_err(BuildError::from)?;
        if list.is_some() {
            packages.remove_others(&versions, self.out).map_err(BuildError::from)?;
        }
        Ok(packages)
    }

    /// Returns the versions whose packages the bundles of all sites name after building these.
    fn published_versions(&self, sites: &[&Site]) -> BTreeSet<String> {
        let built: BTreeSet<&str> = sites.iter().map(|site| site.id.as_str()).collect();
        let with_bundle = |site: &&Site| !site.is_revoked && site.public_key.is_some();
        let versions = self.fleet.sites().iter().filter(with_bundle).flat_map(|site| {
            let is_built = built.contains(site.id.as_str());
            if is_built { self.named_versions(site) } else { site.packages.clone() }
        });
        versions.collect()
    }

    /// Returns the versions whose packages the next bundle of a site names.
    fn named_versions(&self, site: &Site) -> Vec<String> {
        let Some(list) = self.fleet.packages() else { return Vec::new() };
        let versions = self.chosen_versions(site).into_iter();
        versions.filter(|version| list.has_version(version)).collect()
    }

    /// Returns the versions that the file of a site keeps, also if their packages are not there.
    fn chosen_versions(&self, site: &Site) -> Vec<String> {
        let is_again = self.again.contains(&site.id);
        let choice = if is_again { NamedVersion::Renew } else { NamedVersion::IfChanged };
        match (self.fleet.version_of(site), self.fleet.packages()) {
            (Some(version), Some(list)) => list.choose(version, &site.packages, choice),
            _ => Vec::new(),
        }
    }

    fn site(
        &self,
        site: &Site,
        packages: &PublishedPackages,
        batch: &mut OutputBatch,
    ) -> Result<BuiltSite, BuildError> {
        if site.is_revoked {
            return Ok(BuiltSite::Revoked);
        }
        let Some(tunnel_public_key) = site.public_key else { return Ok(BuiltSite::NotEnrolled) };
        let version = self.fleet.version_of(site);
        if version.is_some() && self.fleet.packages().is_none() && !site.packages.is_empty() {
            return Err(BuildError::NoPackages { site: site.id.clone() });
        }
        let contents = self.contents(site, batch)?;
        let mut manifest = Manifest {
            gateway: site.id.clone(),
            counter: site.counter,
            version: version.map(str::to_owned),
            min_version: self.fleet.settings().min_version.clone(),
            packages: packages.of_versions(&self.named_versions(site)),
            // The key that was made here is not that of the box, which may have made its own.
            tunnel_public_key: (!contents.has_clear_secrets).then_some(tunnel_public_key),
        };
        let digest = digest_of(&manifest, &contents.files, self.lists.last()?);
        let is_new = site.digest.as_ref() != Some(&digest)
            || site.counter == 0
            || self.again.contains(&site.id);
        if is_new {
            manifest.counter += 1;
            self.count(site, manifest.counter, &digest, batch)?;
        }
        let counter = manifest.counter;
        self.write(site, manifest, &contents, batch)?;
        Ok(match (is_new, contents.has_clear_secrets) {
            (false, _) => BuiltSite::Unchanged,
            (true, false) => BuiltSite::Counted(counter),
            (true, true) => BuiltSite::ForStick(counter),
        })
    }

    /// Writes the bundle of a site.
    fn write(
        &self,
        site: &Site,
        manifest: Manifest,
        contents: &SiteContents,
        batch: &mut OutputBatch,
    ) -> Result<(), BuildError> {
        let error = |problem| BuildError::Contents { site: site.id.clone(), problem };
        let files = contents.files.iter();
        let files = files.map(|(name, content)| (name.as_str(), content.as_slice())).collect();
        let rendered = Bundle::new(manifest, files).and_then(|bundle| bundle.render());
        let rendered = Zeroizing::new(rendered.map_err(error)?);
        let bytes = match self.signer {
            Some(signer) => Zeroizing::new(self.lists.seal(&rendered, signer)?),
            None => rendered,
        };
        if bytes.len() > MAX_BUNDLE_BYTES {
            return Err(BuildError::TooLarge { site: site.id.clone(), bytes: bytes.len() });
        }
        // A bundle with secrets in clear is for a stick: it must not lie where a server offers it.
        let access =
            if contents.has_clear_secrets { FileAccess::Secret } else { FileAccess::Public };
        let other =
            if contents.has_clear_secrets { FileAccess::Public } else { FileAccess::Secret };
        remove_from(&self.bundle_dir(other), &site.id)?;
        batch.stage(&self.bundle_path(site, access), &bytes, access)?;
        Ok(())
    }

    /// Returns the directory of bundles. `Secret` is that of bundles with secrets in clear.
    fn bundle_dir(&self, access: FileAccess) -> PathBuf {
        match access {
            FileAccess::Public => self.out.to_owned(),
            FileAccess::Secret => secret_bundles(self.dir),
        }
    }

    /// Returns the place of a site's bundle.
    fn bundle_path(&self, site: &Site, access: FileAccess) -> PathBuf {
        let name = match self.signer {
            Some(_) => bundle_name(&site.id),
            None => contents_name(&site.id),
        };
        self.bundle_dir(access).join(name)
    }

    /// Writes counter, digest and versions into the file of a site.
    fn count(
        &self,
        site: &Site,
        counter: u64,
        digest: &str,
        batch: &mut OutputBatch,
    ) -> Result<(), BuildError> {
        let path = self.dir.join(SITES_DIR).join(format!("{}.toml", site.id));
        let text =
            fs::read_to_string(&path).map_err(|error| FileError::new("read", &path, error))?;
        let digest = SiteValue::Text(digest.to_owned());
        let versions = self.chosen_versions(site);
        let with_versions = |text: String| match versions.is_empty() {
            true => remove(&text, "packages"),
            false => set(&text, "packages", &SiteValue::Texts(versions)),
        };
        let edited = set(&text, "digest", &digest)
            .and_then(|text| set(&text, "counter", &SiteValue::Number(counter)))
            .and_then(with_versions)
            .ok_or_else(|| BuildError::SiteChanged { site: site.id.clone() })?;
        batch.stage(&path, edited.as_bytes(), FileAccess::Public)?;
        Ok(())
    }

    fn contents(&self, site: &Site, batch: &mut OutputBatch) -> Result<SiteContents, BuildError> {
        let files = self.fleet.site_files(site)?.into_iter();
        let mut files: BTreeMap<_, _> =
            files.map(|file| (file.name, Zeroizing::new(file.content))).collect();
        let secrets = Secrets::of_fleet(self.dir);
        let enrolment = Boxes::of_fleet(self.dir).get(&site.id)?;
        let mut hidden = BTreeMap::new();
        match self.fleet.settings().broker.authentication {
            BrokerAuthentication::Password => {
                let password = secrets.site_password(&site.id, site.login)?;
                hidden.insert(box_files::PASSWORD, password);
            }
            BrokerAuthentication::Certificate => {
                let no_request = || BuildError::NoRequest { site: site.id.clone() };
                let enrolment = enrolment.as_ref().ok_or_else(no_request)?;
                self.add_certificates(site, enrolment, &mut files, batch)?;
            }
        }
        let has_clear_secrets = match &enrolment {
            Some(_) if hidden.is_empty() => false,
            Some(enrolment) => {
                let sealed = self.sealed(site, enrolment, &hidden, batch)?;
                files.insert(SEALED_SECRETS.to_owned(), Zeroizing::new(sealed));
                false
            }
            None => {
                let no_enrolment = || BuildError::NoEnrolment { site: site.id.clone() };
                let key = secrets.site_key(&site.id)?.ok_or_else(no_enrolment)?;
                hidden.insert(box_files::TUNNEL_KEY, key);
                let clear = hidden.into_iter();
                files.extend(clear.map(|(name, secret)| (name.to_owned(), line(&secret))));
                true
            }
        };
        Ok(SiteContents { files, has_clear_secrets })
    }

    fn add_certificates(
        &self,
        site: &Site,
        enrolment: &Enrolment,
        files: &mut BTreeMap<String, Zeroizing<Vec<u8>>>,
        batch: &mut OutputBatch,
    ) -> Result<(), BuildError> {
        let request = &enrolment.certificate_request;
        let (path, certificate) = self.certificates.of_gateway(&site.id, request)?;
        batch.stage(&path, certificate.as_bytes(), FileAccess::Public)?;
        let authority = self.certificates.authority()?;
        for (name, pem) in
            [(box_files::CERTIFICATE, certificate), (box_files::AUTHORITY, authority)]
        {
            files.insert(name.to_owned(), Zeroizing::new(pem.into_bytes()));
        }
        Ok(())
    }

    /// Returns the secrets of a site, encrypted to its box. age gives other bytes each time, so that
    /// what was encrypted before is kept as long as secrets and box are the same.
    fn sealed(
        &self,
        site: &Site,
        enrolment: &Enrolment,
        hidden: &BTreeMap<&str, Zeroizing<String>>,
        batch: &mut OutputBatch,
    ) -> Result<Vec<u8>, BuildError> {
        let error = |problem| BuildError::Seal { site: site.id.clone(), problem };
        let lines: BTreeMap<_, _> =
            hidden.iter().map(|(name, secret)| (*name, line(secret))).collect();
        let files: BTreeMap<_, _> =
            lines.iter().map(|(name, line)| (*name, line.as_slice())).collect();
        let members: Vec<_> = files.iter().map(|(name, line)| (*name, *line)).collect();
        let archive = render_archive(&members).map_err(SealError::from).map_err(error)?;
        let archive = Zeroizing::new(archive);
        let recipient = &enrolment.age_recipient;
        let path = self.dir.join(SEALED_DIR).join(format!("{}.age", site.id));
        let secrets = Secrets::of_fleet(self.dir);
        let digest_path = secrets.site_file(&site.id, SEALED_DIGEST);
        let digest = |sealed: &[u8]| hex(&[recipient.as_bytes(), &archive, sealed]);
        if let Some(sealed) = read_optional(&path)?
            && read_optional(&digest_path)?.is_some_and(|known| known == digest(&sealed).as_bytes())
        {
            return Ok(sealed);
        }
        let sealed = seal_secrets(recipient, &files).map_err(error)?;
        batch.stage(&path, &sealed, FileAccess::Public)?;
        batch.stage(&digest_path, digest(&sealed).as_bytes(), FileAccess::Secret)?;
        Ok(sealed)
    }
}

/// Name of the file that shows which secrets `sealed/ID.age` holds.
const SEALED_DIGEST: &str = "sealed.digest";

/// Returns the name of a site's bundle.
#[must_use]
pub fn bundle_name(site: &str) -> String {
    format!("edge-bundle-{site}.tar")
}

/// Returns the name of the contents of a site's bundle, which `sign` turns into the bundle.
fn contents_name(site: &str) -> String {
    format!("{site}.bundle.tar")
}

/// Removes the bundles of a site and their unsigned contents, those with secrets in clear too.
///
/// # Errors
/// When one of them cannot be removed.
pub fn remove_bundles(fleet: &Path, site: &str) -> Result<(), FileError> {
    remove_from(&secret_bundles(fleet), site)?;
    remove_from(&fleet.join(BUNDLES_DIR), site)
}

fn remove_from(dir: &Path, site: &str) -> Result<(), FileError> {
    remove_if_there(&dir.join(contents_name(site)))?;
    remove_if_there(&dir.join(bundle_name(site)))?;
    Ok(())
}

/// Returns the directory of bundles with secrets in clear.
fn secret_bundles(fleet: &Path) -> PathBuf {
    Secrets::of_fleet(fleet).file("bundles")
}

/// Returns a secret as a line of its file.
fn line(secret: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([secret.as_bytes(), b"\n"].concat())
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match regular_file::read(path, MAX_BUNDLE_BYTES as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path, error)),
    }
}
