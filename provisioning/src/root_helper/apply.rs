//! Makes secrets and network those of the bundle that the gateway uses, after verifying it here.
//!
//! The record of the box is changed before the network is: it is the intent. So after a power cut,
//! the next run ends what was begun, from the helper's own copy of the bundle. The gateway cannot
//! prevent that.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::box_contents::BoxContents;
use super::box_dir::{BoxStorage, RECORD, TRUSTED};
use super::box_record::{BoxRecord, NetworkInUse};
use super::choice::{RefusedClaim, choose};
use super::gateway_state::GatewayState;
use super::network::{
    NetworkChange, NetworkFiles, NetworkReloader, NetworkService, changes_between, choose_service,
    installed_files,
};
use super::sentence::{HelperError, NetworkOutcome, Refusal};
use crate::bundle::{BundleSource, SigningKeys, VerifyPolicy};
use crate::enrolment::{BoxKeys, UnsealedFiles};
use crate::trial::{TrialRecord, TrialRecordError, TrialSlot};

/// What the helper works with.
#[derive(Debug)]
pub(super) struct Reconciler<'a, S, R> {
    /// What it keeps.
    pub(super) storage: &'a mut S,
    /// How the network's service reads its files.
    pub(super) reloader: &'a mut R,
    /// The keys of the box.
    pub(super) keys: &'a BoxKeys,
    /// The services that run here, the preferred one first.
    pub(super) services: &'a [NetworkService],
}

/// What is in use now.
#[derive(Debug)]
pub(super) struct ApplyReport {
    /// The record of the box.
    pub(super) record: BoxRecord,
    /// The bundle in use and its secrets.
    pub(super) in_use: Option<(u64, UnsealedFiles)>,
    /// The bundle that is refused, and why.
    pub(super) refused: Option<(u64, Refusal)>,
    /// The record of the gateway cannot be used.
    pub(super) unusable: Option<UnusableRecord>,
    /// What became of the network.
    pub(super) network: NetworkOutcome,
}

/// Why the record of the gateway cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnusableRecord {
    /// It cannot be read.
    #[error("bundle/record in the directory of the gateway cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is damaged.
    #[error("bundle/record in the directory of the gateway is not one of edge-gateway: {0}")]
    Damaged(#[from] TrialRecordError),
}

impl ApplyReport {
    /// Returns whether something is not as the gateway says it should be.
    pub(super) fn is_refused(&self) -> bool {
        let has_failed = matches!(
            self.network,
            NetworkOutcome::NotInstalled(_) | NetworkOutcome::NotLoaded { .. }
        );
        self.refused.is_some() || self.unusable.is_some() || has_failed
    }
}

impl fmt::Display for ApplyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = self.record.gateway.as_deref().unwrap_or("has no name yet");
        writeln!(f, "gateway: {gateway}")?;
        match &self.in_use {
            Some((counter, _)) if self.record.confirmed == Some(*counter) => {
                writeln!(f, "bundle: {counter}, confirmed")?;
            }
            Some((counter, _)) => writeln!(f, "bundle: {counter}, on trial")?,
            None => writeln!(f, "bundle: nothing changed")?,
        }
        if let Some((counter, refusal)) = &self.refused {
            writeln!(f, "refused: bundle {counter}: {refusal}")?;
        }
        if let Some(unusable) = &self.unusable {
            writeln!(f, "refused: {unusable}")?;
        }
        writeln!(f, "network: {}", self.network)
    }
}

/// A bundle that was verified in this run.
struct VerifiedBundle {
    bytes: Vec<u8>,
    contents: BoxContents,
}

impl<S: BoxStorage, R: NetworkReloader> Reconciler<'_, S, R> {
    /// Does what follows from the gateway's record. Everything of the gateway is read once, and
    /// every bundle that was not accepted before is verified.
    ///
    /// # Errors
    /// When the helper's own files cannot be read or written; the next run goes on then.
    pub(super) fn apply(
        &mut self,
        gateway: &impl GatewayState,
    ) -> Result<ApplyReport, HelperError> {
        let own = self.record()?;
        let (claim, unusable) = match claim_of(gateway) {
            Ok(claim) => (claim, None),
            Err(unusable) => (None, Some(unusable)),
        };
        let trusted = self.trusted()?;
        let mut accepted = BTreeMap::new();
        let chosen = choose(&own, &claim.unwrap_or_default(), |slot, counter| {
            let found = self.examine(gateway, &own, trusted.as_ref(), slot, counter)?;
            accepted.insert(counter, found);
            Ok(())
        });
        let refused = chosen.refused.map(|(counter, refused)| match refused {
            RefusedClaim::Older { last } => (counter, Refusal::Older { counter, last }),
            RefusedClaim::NotAccepted(refusal) => (counter, refusal),
        });
        self.keep_copies(trusted.as_ref(), &accepted)?;
        let (contents, refused) = match chosen.in_use {
            None => (None, refused),
            Some(counter) => match self.contents(counter, accepted.remove(&counter))? {
                Ok(contents) => (Some(contents), None),
                Err(refusal) => (None, Some((counter, refusal))),
            },
        };
        let mut record = chosen.record;
        let network = match self.switch_network(&own, &mut record, contents.as_ref()) {
            // The gateway gets its secrets all the same; whether it reaches the hub, it sees.
            Err(error @ HelperError::Network { .. }) => {
                self.write_record(&own, &record)?;
                NetworkOutcome::NotInstalled(Box::new(error))
            }
            switched => switched?,
        };
        self.storage
            .keep_bundles(&record.needed_bundles())
            .map_err(HelperError::io("remove", "old copies of bundles"))?;
        let in_use = contents.map(|contents| (contents.counter, contents.secrets));
        Ok(ApplyReport { record, in_use, refused, unusable, network })
    }

    fn record(&self) -> Result<BoxRecord, HelperError> {
        let text = self.storage.read(RECORD).map_err(HelperError::io("read", RECORD))?;
        Ok(text.as_deref().map(str::parse).transpose()?.unwrap_or_default())
    }

    fn trusted(&self) -> Result<Option<SigningKeys>, HelperError> {
        let text = self.storage.read(TRUSTED).map_err(HelperError::io("read", TRUSTED))?;
        Ok(text.as_deref().map(str::parse).transpose()?)
    }

    /// Verifies a bundle of the gateway that was not accepted before.
    fn examine(
        &self,
        gateway: &impl GatewayState,
        own: &BoxRecord,
        trusted: Option<&SigningKeys>,
        slot: TrialSlot,
        claimed: u64,
    ) -> Result<VerifiedBundle, Refusal> {
        let (Some(keys), Some(id)) = (trusted, own.gateway.as_deref()) else {
            return Err(Refusal::NoTrust);
        };
        let unreadable = |source| Refusal::Unreadable { name: format!("{slot}.tar"), source };
        let bytes = gateway.bundle(slot).map_err(unreadable)?;
        let source = match own.loaded_by_hand {
            Some(loaded_by_hand) if loaded_by_hand == claimed => BundleSource::ByHand,
            _ => BundleSource::Pulled,
        };
        let policy = VerifyPolicy {
            keys: Some(keys),
            gateway: Some(id),
            tunnel_public_key: None,
            last_counter: Some(own.last),
            source,
        };
        let contents = BoxContents::open(&bytes, &policy, self.keys)?;
        match contents.counter {
            actual if actual == claimed => Ok(VerifiedBundle { bytes, contents }),
            actual => Err(Refusal::OtherCounter { claimed, actual }),
        }
    }

    /// Keeps what was accepted, before the record names it.
    fn keep_copies(
        &mut self,
        trusted: Option<&SigningKeys>,
        accepted: &BTreeMap<u64, VerifiedBundle>,
    ) -> Result<(), HelperError> {
        let lists = accepted.values().map(|accepted| &accepted.contents.keys);
        if let Some(newest) = lists.max_by_key(|keys| keys.number())
            && trusted.is_none_or(|trusted| trusted.number() < newest.number())
        {
            let write = self.storage.write(TRUSTED, &newest.to_string());
            write.map_err(HelperError::io("write", TRUSTED))?;
        }
        for (counter, VerifiedBundle { bytes, .. }) in accepted {
            let write = self.storage.write_bundle(*counter, bytes);
            write.map_err(HelperError::io("write", format_args!("bundles/{counter}.tar")))?;
        }
        Ok(())
    }

    /// Returns the contents of a bundle in use: of this run, or of the helper's own copy. That one
    /// is root's, and its signature was verified with the keys of its time.
    fn contents(
        &self,
        counter: u64,
        accepted: Option<VerifiedBundle>,
    ) -> Result<Result<BoxContents, Refusal>, HelperError> {
        if let Some(accepted) = accepted {
            return Ok(Ok(accepted.contents));
        }
        let read = self.storage.bundle(counter);
        let copy = read.map_err(HelperError::io("read", format_args!("bundles/{counter}.tar")))?;
        let Some(copy) = copy else { return Ok(Err(Refusal::NoCopy(counter))) };
        let policy = VerifyPolicy {
            keys: None,
            gateway: None,
            tunnel_public_key: None,
            last_counter: None,
            source: BundleSource::ByHand,
        };
        Ok(BoxContents::open(&copy, &policy, self.keys).and_then(|contents| {
            match contents.counter {
                actual if actual == counter => Ok(contents),
                _ => Err(Refusal::NoCopy(counter)),
            }
        }))
    }

    /// Records which network is to be in use, makes it so, and lets the service read it.
    fn switch_network(
        &mut self,
        own: &BoxRecord,
        record: &mut BoxRecord,
        contents: Option<&BoxContents>,
    ) -> Result<NetworkOutcome, HelperError> {
        let (network, outcome) = self.network_of(own, contents)?;
        let Some(network) = network else {
            return self.write_record(own, record).map(|()| outcome);
        };
        let files = match contents {
            Some(contents) if contents.counter == network.bundle => contents.network.clone(),
            _ => match self.contents(network.bundle, None)? {
                Ok(contents) => contents.network,
                // Nothing is taken away because a copy is damaged.
                Err(_) => return self.write_record(own, record).map(|()| outcome),
            },
        };
        let plans = self.plans(network.service, &files)?;
        let is_same = plans.iter().all(|plan| plan.changes.is_empty());
        let was_loaded =
            own.network.is_some_and(|own| own.is_loaded && own.service == network.service);
        record.network = Some(NetworkInUse { is_loaded: is_same && was_loaded, ..network });
        self.write_record(own, record)?;
        for plan in &plans {
            self.carry_out(plan)?;
        }
        Ok(self.load(record, &plans, was_loaded)?.unwrap_or(outcome))
    }

    /// Returns whose network is to be in use, and what to say about it. Keeps what is installed
    /// before the first change.
    fn network_of(
        &mut self,
        own: &BoxRecord,
        contents: Option<&BoxContents>,
    ) -> Result<(Option<NetworkInUse>, NetworkOutcome), HelperError> {
        let Some(contents) = contents else {
            let outcome = own.network.map_or(NetworkOutcome::NotManaged, NetworkOutcome::of);
            return Ok((own.network, outcome));
        };
        let before = own.network.map(|network| network.service);
        let Some(service) = choose_service(self.services, before, &contents.network) else {
            let has_files = !contents.network.is_empty();
            let outcome =
                if has_files { NetworkOutcome::NoService } else { NetworkOutcome::NotManaged };
            return Ok((own.network, outcome));
        };
        let extension = service.extension();
        let has_files = contents.network.keys().any(|name| name.ends_with(extension));
        if !has_files && own.network.is_none() {
            let is_empty = contents.network.is_empty();
            let outcome = if is_empty {
                NetworkOutcome::NotManaged
            } else {
                NetworkOutcome::NoFiles(service)
            };
            return Ok((None, outcome));
        }
        let known = self.storage.network_before(service).map_err(network_error("read", service))?;
        if known.is_none() {
            let installed =
                self.storage.network(service).map_err(network_error("read", service))?;
            let write = self.storage.write_network_before(service, &installed);
            write.map_err(network_error("keep", service))?;
        }
        let network = NetworkInUse { bundle: contents.counter, service, is_loaded: false };
        let outcome = NetworkOutcome::of(network);
        let outcome = if has_files { outcome } else { NetworkOutcome::NoFiles(service) };
        Ok((Some(network), outcome))
    }

    /// Returns what is to be done for each service that was ever changed.
    fn plans(
        &self,
        in_use: NetworkService,
        files: &NetworkFiles,
    ) -> Result<Vec<NetworkPlan>, HelperError> {
        let mut plans = Vec::new();
        for service in NetworkService::ALL {
            let read = self.storage.network_before(service);
            let Some(before) = read.map_err(network_error("read", service))? else { continue };
            // Two files of one name were refused with the bundle.
            let own = installed_files(service, files).unwrap_or_default();
            let desired = if service == in_use && !own.is_empty() { own } else { before };
            let installed =
                self.storage.network(service).map_err(network_error("read", service))?;
            let changes = changes_between(&installed, &desired);
            plans.push(NetworkPlan { service, desired, changes });
        }
        Ok(plans)
    }

    fn carry_out(&mut self, plan: &NetworkPlan) -> Result<(), HelperError> {
        for change in &plan.changes {
            match change {
                NetworkChange::Write(name) => {
                    let content = plan.desired.get(name).map(|content| content.as_slice());
                    let content = content.unwrap_or_default();
                    self.storage
                        .write_network(plan.service, name, content)
                        .map_err(network_error("write", plan.service))?;
                }
                NetworkChange::Remove(name) => {
                    self.storage
                        .remove_network(plan.service, name)
                        .map_err(network_error("write", plan.service))?;
                }
            }
        }
        Ok(())
    }

    /// Lets the services read their files, and records that they did. Returns what to say if one
    /// did not, or has not started a connection.
    fn load(
        &mut self,
        record: &mut BoxRecord,
        plans: &[NetworkPlan],
        was_loaded: bool,
    ) -> Result<Option<NetworkOutcome>, HelperError> {
        let Some(network) = record.network else { return Ok(None) };
        let mut not_started = None;
        for plan in plans {
            let is_due = plan.service == network.service && !network.is_loaded;
            if plan.changes.is_empty() && !is_due {
                continue;
            }
            // After a run that was cut, it is not known which files the service has read.
            let is_changed = |name: &String| {
                !was_loaded || plan.changes.contains(&NetworkChange::Write(name.clone()))
            };
            let desired = plan.desired.iter().filter(|(name, _)| is_changed(name));
            let changed = desired.map(|(name, content)| (name.clone(), content.clone())).collect();
            let service = plan.service;
            match self.reloader.reload(service, &changed) {
                Ok(None) => {}
                Ok(Some(error)) => {
                    not_started = Some(NetworkOutcome::NotStarted { service, error });
                }
                Err(error) => return Ok(Some(NetworkOutcome::NotLoaded { service, error })),
            }
        }
        if !network.is_loaded {
            let before = record.clone();
            record.network = Some(NetworkInUse { is_loaded: true, ..network });
            self.write_record(&before, record)?;
        }
        Ok(not_started)
    }

    fn write_record(&mut self, old: &BoxRecord, record: &BoxRecord) -> Result<(), HelperError> {
        if old == record {
            return Ok(());
        }
        let write = self.storage.write(RECORD, &record.to_string());
        write.map_err(HelperError::io("write", RECORD))
    }
}

/// What is to be done for one service.
#[derive(Debug)]
struct NetworkPlan {
    service: NetworkService,
    desired: NetworkFiles,
    changes: Vec<NetworkChange>,
}

fn network_error(
    action: &'static str,
    service: NetworkService,
) -> impl Fn(io::Error) -> HelperError {
    move |source| HelperError::Network { action, service, source }
}

/// Returns the gateway's record; none if it has none.
fn claim_of(gateway: &impl GatewayState) -> Result<Option<TrialRecord>, UnusableRecord> {
    let Some(bytes) = gateway.record()? else { return Ok(None) };
    let text = str::from_utf8(&bytes).map_err(|_| TrialRecordError)?;
    Ok(Some(text.parse()?))
}
