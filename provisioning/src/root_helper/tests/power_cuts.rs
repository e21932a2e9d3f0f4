//! The power fails at every step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::super::apply::{ApplyReport, Reconciler};
use super::super::box_dir::{BoxStorage, RECORD, TRUSTED};
use super::super::box_record::BoxRecord;
use super::super::gateway_state::GatewayState;
use super::super::network::{
    NetworkFiles, NetworkReloader, NetworkService, ReloadError, installed_files,
};
use super::super::sentence::{HelperError, NetworkOutcome};
use super::{BundleDraft, KEYS, key_list, record_text};
use crate::enrolment::BoxKeys;
use crate::trial::TrialSlot;

const SERVICE: NetworkService = NetworkService::NetworkManager;

/// What is on the disk of a box.
#[derive(Clone, Debug, Default)]
struct BoxContent {
    texts: BTreeMap<&'static str, String>,
    bundles: BTreeMap<u64, Vec<u8>>,
    network: BTreeMap<NetworkService, NetworkFiles>,
    before: BTreeMap<NetworkService, NetworkFiles>,
}

/// A disk whose power fails after a number of steps: before or after a write.
#[derive(Debug)]
struct CutStorage {
    content: BoxContent,
    /// Steps until the power fails; none for never.
    steps_left: Option<usize>,
    was_cut: bool,
}

impl CutStorage {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.steps_left {
            Some(0) => {
                self.was_cut = true;
                Err(io::Error::other("power cut"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write(&mut self, change: impl FnOnce(&mut BoxContent)) -> io::Result<()> {
        self.step()?;
        change(&mut self.content);
        self.step()
    }
}

impl BoxStorage for CutStorage {
    fn read(&self, name: &'static str) -> io::Result<Option<String>> {
        Ok(self.content.texts.get(name).cloned())
    }

    fn write(&mut self, name: &'static str, text: &str) -> io::Result<()> {
        self.write(|content| drop(content.texts.insert(name, text.to_owned())))
    }

    fn bundle(&self, counter: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.content.bundles.get(&counter).cloned())
    }

    fn write_bundle(&mut self, counter: u64, bundle: &[u8]) -> io::Result<()> {
        self.write(|content| drop(content.bundles.insert(counter, bundle.to_vec())))
    }

    fn keep_bundles(&mut self, counters: &[u64]) -> io::Result<()> {
        let kept = |counter: &u64| counters.contains(counter);
        let gone: Vec<_> = self.content.bundles.keys().filter(|c| !kept(c)).copied().collect();
        for counter in gone {
            self.write(|content| drop(content.bundles.remove(&counter)))?;
        }
        Ok(())
    }

    fn network(&self, service: NetworkService) -> io::Result<NetworkFiles> {
        Ok(self.content.network.get(&service).cloned().unwrap_or_default())
    }

    fn write_network(
        &mut self,
        service: NetworkService,
        name: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.write(|content| {
            let files = content.network.entry(service).or_default();
            files.insert(name.to_owned(), bytes.to_vec().into());
        })
    }

    fn remove_network(&mut self, service: NetworkService, name: &str) -> io::Result<()> {
        self.write(|content| drop(content.network.entry(service).or_default().remove(name)))
    }

    fn network_before(&self, service: NetworkService) -> io::Result<Option<NetworkFiles>> {
        Ok(self.content.before.get(&service).cloned())
    }

    fn write_network_before(
        &mut self,
        service: NetworkService,
        files: &NetworkFiles,
    ) -> io::Result<()> {
        self.write(|content| drop(content.before.insert(service, files.clone())))
    }
}

/// A gateway with a record and two slots.
struct GatewayContent {
    record: String,
    slots: [Vec<u8>; 2],
}

impl GatewayState for GatewayContent {
    fn record(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(Some(self.record.clone().into_bytes()))
    }

    fn bundle(&self, slot: TrialSlot) -> io::Result<Vec<u8>> {
        Ok(self.slots[usize::from(slot == TrialSlot::B)].clone())
    }
}

/// A service: what it has read, and how often.
#[derive(Clone, Default)]
struct LoadedNetwork {
    reloads: Rc<RefCell<Vec<Vec<String>>>>,
    answer: ServiceAnswer,
}

/// What a service says.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
enum ServiceAnswer {
    #[default]
    Loaded,
    NotStarted,
    NotLoaded,
}

impl NetworkReloader for LoadedNetwork {
    fn reload(
        &mut self,
        _: NetworkService,
        changed: &NetworkFiles,
    ) -> Result<Option<ReloadError>, ReloadError> {
        self.reloads.borrow_mut().push(changed.keys().cloned().collect());
        let failed = || ReloadError::Failed { command: "nmcli".into(), words: "no".into() };
        match self.answer {
            ServiceAnswer::Loaded => Ok(None),
            ServiceAnswer::NotStarted => Ok(Some(failed())),
            ServiceAnswer::NotLoaded => Err(failed()),
        }
    }
}

fn apply(
    storage: &mut CutStorage,
    gateway: &GatewayContent,
    keys: &BoxKeys,
    reloader: &mut LoadedNetwork,
) -> Result<ApplyReport, HelperError> {
    Reconciler { storage, reloader, keys, services: &[SERVICE] }.apply(gateway)
}

const OLD: [(&str, &str); 3] = [
    ("network/edge-both.nmconnection", "both old"),
    ("network/edge-only-old.nmconnection", "old"),
    ("network/edge-same.nmconnection", "same"),
];
const NEW: [(&str, &str); 3] = [
    ("network/edge-both.nmconnection", "both new"),
    ("network/edge-only-new.nmconnection", "new"),
    ("network/edge-same.nmconnection", "same"),
];

fn network(files: &[(&str, &str)]) -> NetworkFiles {
    let file = |(name, text): &(&str, &str)| {
        let name = name.strip_prefix("network/").unwrap().to_owned();
        (name, text.as_bytes().to_vec().into())
    };
    installed_files(SERVICE, &files.iter().map(file).collect()).unwrap()
}

fn bundle(counter: u64, keys: &BoxKeys, files: &'static [(&'static str, &'static str)]) -> Vec<u8> {
    let draft = BundleDraft::new(counter, keys);
    files.iter().fold(draft, |draft, (name, text)| draft.with(name, text)).sealed()
}

/// A box with bundle 1 confirmed, whose gateway has bundle 2 in its other slot.
struct ChangingBox {
    keys: BoxKeys,
    gateway: GatewayContent,
    content: BoxContent,
}

impl ChangingBox {
    fn new(
        old: &'static [(&'static str, &'static str)],
        new: &'static [(&'static str, &'static str)],
    ) -> Self {
        let keys = BoxKeys::generate().unwrap();
        let slots = [bundle(1, &keys, old), bundle(2, &keys, new)];
        let mut gateway = GatewayContent { record: record_text(Some(('a', 1)), None), slots };
        let trusted = key_list(1, &KEYS.first, &KEYS.first).0.to_string();
        let record = BoxRecord { gateway: Some("amsterdam-01".into()), ..BoxRecord::default() };
        let texts = BTreeMap::from([(TRUSTED, trusted), (RECORD, record.to_string())]);
        let content = BoxContent { texts, ..BoxContent::default() };
        let mut storage = CutStorage { content, steps_left: None, was_cut: false };
        let mut loaded = LoadedNetwork::default();
        apply(&mut storage, &gateway, &keys, &mut loaded).unwrap();
        gateway.record = record_text(Some(('a', 1)), Some(('b', 2)));
        Self { keys, gateway, content: storage.content }
    }

    /// Applies with a power cut after some steps; returns what is on the disk, and whether the
    /// power failed.
    fn cut(&self, content: &BoxContent, steps: usize) -> (BoxContent, bool) {
        let mut storage =
            CutStorage { content: content.clone(), steps_left: Some(steps), was_cut: false };
        let mut loaded = LoadedNetwork::default();
        let _ = apply(&mut storage, &self.gateway, &self.keys, &mut loaded);
        (storage.content, storage.was_cut)
    }

    /// Applies at boot, with a record of the gateway.
    fn boot(&self, content: BoxContent, record: String) -> (BoxContent, ApplyReport) {
        let gateway = GatewayContent { record, slots: self.gateway.slots.clone() };
        let mut storage = CutStorage { content, steps_left: None, was_cut: false };
        let mut loaded = LoadedNetwork::default();
        let applied = apply(&mut storage, &gateway, &self.keys, &mut loaded).unwrap();
        (storage.content, applied)
    }

    /// Checks what follows from what a power cut has left.
    fn check(&self, cut: &BoxContent, old: &NetworkFiles, new: &NetworkFiles, at: &str) {
        let (content, applied) = self.boot(cut.clone(), self.gateway.record.clone());
        assert!(applied.refused.is_none(), "{at}: {applied}");
        assert_eq!(applied.in_use.map(|(counter, _)| counter), Some(2), "{at}");
        assert_eq!(&content.network[&SERVICE], new, "{at}");
        let kept: Vec<_> = content.bundles.keys().copied().collect();
        assert_eq!(kept, [1, 2], "{at}");
        // A hostile user who destroys the record, and one who rolls the bundle back.
        let (content, applied) = self.boot(cut.clone(), "destroyed".to_owned());
        assert!(applied.unusable.is_some() && applied.in_use.is_none(), "{at}");
        let left = content.network.get(&SERVICE).cloned().unwrap_or_default();
        assert!(left == *old || left == *new, "{at}: {left:?}");
        let (content, applied) = self.boot(cut.clone(), record_text(Some(('a', 1)), None));
        assert_eq!(applied.in_use.map(|(counter, _)| counter), Some(1), "{at}");
        let left = content.network.get(&SERVICE).cloned().unwrap_or_default();
        assert_eq!(left, *old, "{at}");
    }
}

fn cut_at_every_step(
    old: &'static [(&'static str, &'static str)],
    new: &'static [(&'static str, &'static str)],
) -> usize {
    let changing = ChangingBox::new(old, new);
    let (old, new) = (network(old), network(new));
    for steps in 0.. {
        let (first, was_cut) = changing.cut(&changing.content, steps);
        changing.check(&first, &old, &new, &format!("cut after {steps}"));
        if !was_cut {
            return steps;
        }
    }
    unreachable!("a run has an end")
}

#[test]
fn after_a_power_cut_the_network_is_the_old_or_the_new_one_and_whole() {
    let steps = cut_at_every_step(&OLD, &NEW);
    // Copy, record, three files, record: each before and after.
    assert_eq!(steps, 12);
}

#[test]
fn the_first_and_the_last_network_of_a_box_survive_power_cuts_too() {
    cut_at_every_step(&[], &NEW);
    cut_at_every_step(&OLD, &[]);
}

#[test]
fn a_second_power_cut_while_the_first_is_repaired_changes_nothing() {
    let changing = ChangingBox::new(&OLD, &NEW);
    let (old, new) = (network(&OLD), network(&NEW));
    for first in 0..12 {
        let (cut, _) = changing.cut(&changing.content, first);
        for second in 0..12 {
            let (twice, was_cut) = changing.cut(&cut, second);
            changing.check(&twice, &old, &new, &format!("cuts after {first} and {second}"));
            if !was_cut {
                break;
            }
        }
    }
}

#[test]
fn a_service_reads_its_files_once_and_again_after_a_failure() {
    let mut changing = ChangingBox::new(&OLD, &NEW);
    let mut storage =
        CutStorage { content: changing.content.clone(), steps_left: None, was_cut: false };
    let reloads = Rc::default();
    let mut loaded = LoadedNetwork { reloads: Rc::clone(&reloads), ..LoadedNetwork::default() };
    let mut run = |changing: &ChangingBox, answer| {
        loaded.answer = answer;
        apply(&mut storage, &changing.gateway, &changing.keys, &mut loaded).unwrap()
    };
    let failed = run(&changing, ServiceAnswer::NotLoaded);
    assert!(matches!(failed.network, NetworkOutcome::NotLoaded { .. }) && failed.is_refused());
    let changed = ["edge-both.nmconnection", "edge-only-new.nmconnection"];
    assert_eq!(reloads.borrow_mut().pop().unwrap(), changed);

    for _ in 0..2 {
        assert!(!run(&changing, ServiceAnswer::Loaded).is_refused());
    }

    // It is not known what the failed one has read.
    assert_eq!(reloads.borrow_mut().pop().unwrap().len(), 3);
    assert!(reloads.borrow().is_empty(), "the second one had nothing to do");
    changing.gateway.record = record_text(Some(('a', 1)), None);
    let without_cable = run(&changing, ServiceAnswer::NotStarted);
    assert!(matches!(without_cable.network, NetworkOutcome::NotStarted { .. }));
    assert!(!without_cable.is_refused());
    let changed = ["edge-both.nmconnection", "edge-only-old.nmconnection"];
    assert_eq!(reloads.borrow_mut().pop().unwrap(), changed);
    // Starting it again would interrupt the others for nothing.
    run(&changing, ServiceAnswer::Loaded);
    assert!(reloads.borrow().is_empty());
}

#[test]
fn what_lay_there_before_the_first_network_comes_back() {
    let changing = ChangingBox::new(&[], &NEW);
    let mut content = changing.content.clone();
    let before = network(&[("network/edge-by-hand.nmconnection", "by hand")]);
    content.network.insert(SERVICE, before.clone());
    let (content, _) = changing.boot(content, changing.gateway.record.clone());
    assert_eq!(content.network[&SERVICE], network(&NEW));

    let (content, applied) = changing.boot(content, record_text(Some(('a', 1)), None));

    assert_eq!(content.network[&SERVICE], before);
    assert!(matches!(applied.network, NetworkOutcome::NoFiles(SERVICE)), "{applied}");
}

#[test]
fn a_revert_across_a_change_of_the_signing_keys_is_not_refused() {
    let mut changing = ChangingBox::new(&OLD, &NEW);
    changing.gateway.slots[1] = BundleDraft::new(2, &changing.keys).sealed_by_next();
    let (content, applied) =
        changing.boot(changing.content.clone(), changing.gateway.record.clone());
    assert!(applied.refused.is_none(), "{applied}");
    let second = key_list(2, &KEYS.next, &KEYS.first).0.to_string();
    assert_eq!(content.texts[TRUSTED], second);

    let (content, applied) = changing.boot(content, record_text(Some(('a', 1)), None));

    assert_eq!(applied.in_use.map(|(counter, _)| counter), Some(1));
    assert_eq!(content.network[&SERVICE], network(&OLD));
    // The old key signs nothing new.
    changing.gateway.slots[1] = bundle(3, &changing.keys, &NEW);
    let (_, applied) = changing.boot(content, record_text(Some(('a', 1)), Some(('b', 3))));
    let refused = applied.refused.unwrap().1.to_string();
    assert!(refused.contains("before the signing keys were replaced"), "{refused}");
}
