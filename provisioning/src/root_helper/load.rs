//! A person brings a bundle: it is verified, and put where the gateway takes it.

use super::box_contents::BoxContents;
use super::box_dir::{BoxFiles, BoxStorage as _, RECORD, TRUSTED};
use super::box_record::BoxRecord;
use super::gateway_state::StateFiles;
use super::sentence::{HelperError, Refusal};
use crate::bundle::{BundleSource, PackageDigest, PackageName, SigningKeys, VerifyPolicy};
use crate::enrolment::BoxKeys;

/// What a box knows when a person brings bundles.
#[derive(Debug)]
pub(super) struct Loader<'a> {
    files: &'a mut BoxFiles,
    keys: &'a BoxKeys,
    record: BoxRecord,
    trusted: Option<SigningKeys>,
}

impl<'a> Loader<'a> {
    /// Reads what the box knows.
    pub(super) fn new(files: &'a mut BoxFiles, keys: &'a BoxKeys) -> Result<Self, HelperError> {
        let record = files.read(RECORD).map_err(HelperError::io("read", RECORD))?;
        let trusted = files.read(TRUSTED).map_err(HelperError::io("read", TRUSTED))?;
        Ok(Self {
            files,
            keys,
            record: record.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            trusted: trusted.as_deref().map(str::parse).transpose()?,
        })
    }

    /// Verifies a bundle, as one that a person brings. A box that has had none trusts the keys of
    /// this one.
    pub(super) fn verify(&self, bytes: &[u8]) -> Result<BoxContents, Refusal> {
        let policy = VerifyPolicy {
            keys: self.trusted.as_ref(),
            gateway: self.record.gateway.as_deref(),
            tunnel_public_key: None,
            last_counter: Some(self.record.last),
            source: BundleSource::ByHand,
        };
        BoxContents::open(bytes, &policy, self.keys)
    }

    /// Keeps a package of a verified bundle for the update that it asks for. Returns whether it is
    /// the one that the bundle names.
    pub(super) fn keep_package(
        &mut self,
        name: &PackageName,
        bytes: &[u8],
        contents: &BoxContents,
    ) -> Result<bool, HelperError> {
        let is_listed = contents.packages.get(name) == Some(&PackageDigest::of(bytes));
        if is_listed {
            let write = self.files.write_package(name, bytes);
            write.map_err(HelperError::io("write", name))?;
        }
        Ok(is_listed)
    }

    /// Puts a verified bundle where the gateway takes it. The first one gives the box its name and
    /// the keys that it trusts.
    pub(super) fn put(
        self,
        bytes: &[u8],
        contents: &BoxContents,
        state: &StateFiles,
    ) -> Result<(), HelperError> {
        let keys = &contents.keys;
        if self.trusted.is_none_or(|trusted| trusted.number() < keys.number()) {
            let write = self.files.write(TRUSTED, &keys.to_string());
            write.map_err(HelperError::io("write", TRUSTED))?;
        }
        let record = BoxRecord {
            gateway: Some(contents.gateway.clone()),
            loaded_by_hand: Some(contents.counter),
            ..self.record
        };
        let write = self.files.write(RECORD, &record.to_string());
        write.map_err(HelperError::io("write", RECORD))?;
        state.put_inbox(bytes).map_err(HelperError::io("write", "the bundle for the gateway"))
    }
}
