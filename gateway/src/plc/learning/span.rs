//! The tags of one request of the plan, and which of them may not be read together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use provisioning::config::Plc;
use provisioning::plan::ReadRequest;
use provisioning::plc::{Location, Table};

use super::block::Block;
use super::doubt::Doubt;
use super::{Half, Part, Split, Verdict};

/// After so many broken connections, a refused request is not taken apart any further: its tags
/// are tried one by one, with long pauses.
const BREAKS: u8 = 2;
/// Most tags in quarantine that are tried in one cycle.
const MOST_RETRIES: u8 = 4;

/// One request of the plan. Tags are named by their position in order of address; those of one
/// group share a position, so that they are read together or not at all.
#[derive(Debug)]
pub(super) struct Span {
    table: Table,
    tags: Vec<Place>,
    quarantine: BTreeMap<usize, Culprit>,
    /// Positions that are not joined with the one before.
    walls: BTreeMap<usize, Doubt>,
    /// Stretches that were refused and have to be taken apart.
    suspects: Vec<Suspect>,
}

/// Where a tag lies, or the tags of a group.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Indices in `Plc::tags`.
    pub(super) tags: Vec<usize>,
    /// First register or bit.
    pub(super) first: u16,
    /// One past the last; 65536 must fit.
    pub(super) end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Culprit {
    /// Exception code.
    code: u8,
    /// Whether connections broke over it.
    breaks: bool,
    doubt: Doubt,
}

#[derive(Clone, Debug)]
struct Suspect {
    tags: Range<usize>,
    code: u8,
    breaks: u8,
}

/// What one cycle tries again: little of each.
#[derive(Debug)]
pub(super) struct Trials {
    now: Instant,
    retries: u8,
    has_wall: bool,
    has_length: bool,
}

impl Trials {
    pub(super) const fn new(now: Instant) -> Self {
        Self { now, retries: 0, has_wall: false, has_length: false }
    }

    pub(super) const fn are_any(&self) -> bool {
        self.retries > 0 || self.has_wall || self.has_length
    }
}

impl Place {
    fn new(tag: usize, location: Location) -> Self {
        let end = u32::from(location.first) + u32::from(location.count);
        Self { tags: vec![tag], first: location.first, end }
    }

    fn take(&mut self, other: Self) {
        self.tags.extend(other.tags);
        self.first = self.first.min(other.first);
        self.end = self.end.max(other.end);
    }
}

impl Span {
    pub(super) fn new(plc: &Plc, request: &ReadRequest) -> Self {
        let mut tags = Vec::new();
        let mut groups: BTreeMap<&str, Place> = BTreeMap::new();
        for &index in &request.tags {
            let Some(tag) = plc.tags.get(index) else { continue };
            let place = Place::new(index, tag.location);
            match tag.group.as_deref() {
                None => tags.push(place),
                Some(name) => match groups.get_mut(name) {
                    Some(group) => group.take(place),
                    None => {
                        groups.insert(name, place);
                    }
                },
            }
        }
        tags.extend(groups.into_values());
        tags.sort_by_key(|place| (place.first, place.end));
        let (quarantine, walls) = (BTreeMap::new(), BTreeMap::new());
        Self { table: request.table, tags, quarantine, walls, suspects: Vec::new() }
    }

    pub(super) const fn table(&self) -> Table {
        self.table
    }

    pub(super) fn request(&self, tags: &Range<usize>) -> ReadRequest {
        super::request(self.table, self.tags.get(tags.clone()).unwrap_or_default())
    }

    pub(super) fn count(&self, tags: &Range<usize>) -> u16 {
        self.request(tags).count
    }

    /// Cuts the tags into the stretches to read: without those in quarantine and those under
    /// suspicion, apart at the walls, none longer than `block` allows; and what is due for a trial.
    pub(super) fn parts(&self, block: &Block, trials: &mut Trials) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for position in 0..self.tags.len() {
            if let Some(culprit) = self.quarantine.get(&position) {
                if culprit.doubt.is_due(trials.now) && trials.retries < MOST_RETRIES {
                    trials.retries += 1;
                    parts.push(position..position + 1);
                }
                continue;
            }
            if self.suspects.iter().any(|suspect| suspect.tags.contains(&position)) {
                continue;
            }
            match parts.last_mut() {
                Some(open) if self.may_join(open, position, block, trials) => open.end += 1,
                _ => parts.push(position..position + 1),
            }
        }
        parts
    }

    fn may_join(
        &self,
        open: &Range<usize>,
        position: usize,
        block: &Block,
        trials: &mut Trials,
    ) -> bool {
        if open.end != position || self.quarantine.contains_key(&open.start) {
            return false;
        }
        let wall = self.walls.get(&position);
        if wall.is_some_and(|wall| trials.has_wall || !wall.is_due(trials.now)) {
            return false;
        }
        let count = self.count(&(open.start..position + 1));
        if block.limit().is_some_and(|most| count > most) {
            let is_grown = block.limit().is_some_and(|most| self.count(open) > most);
            let trial = block.trial(trials.now).filter(|_| is_grown || !trials.has_length);
            if trial.is_none_or(|most| count > most) {
                return false;
            }
            trials.has_length = true;
        }
        trials.has_wall |= wall.is_some();
        true
    }

    /// These tags were answered together. Tells whether that changes the requests.
    pub(super) fn answered(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let inside = tags.start + 1..tags.end;
        let mut is_news = false;
        if inside.start < inside.end && self.walls.range(inside.clone()).next().is_some() {
            self.walls.retain(|position, _| !inside.contains(position));
            is_news = true;
        }
        if tags.len() == 1 && self.quarantine.remove(&tags.start).is_some() {
            // What brought it back may have brought back others.
            self.try_again_soon(now);
            is_news = true;
        }
        is_news
    }

    /// These tags were refused together. Tells whether that changes the requests, and what it
    /// means for the cycle.
    pub(super) fn refused(
        &mut self,
        tags: Range<usize>,
        code: u8,
        now: Instant,
    ) -> (bool, Verdict) {
        if tags.len() > 1 {
            self.suspects.push(Suspect { tags, code, breaks: 0 });
            return (true, Verdict::TakenApart);
        }
        let new = Culprit { code, breaks: false, doubt: Doubt::new(now) };
        self.quarantine
            .entry(tags.start)
            .and_modify(|culprit| {
                *culprit = Culprit { code, breaks: false, doubt: culprit.doubt };
                culprit.doubt.fail(now);
            })
            .or_insert(new);
        (true, Verdict::Final)
    }

    /// The connection broke over these tags. Tells whether that changes the requests.
    pub(super) fn broke(&mut self, tags: &Range<usize>, now: Instant) -> bool {
        let culprit = self.quarantine.get_mut(&tags.start).filter(|_| tags.len() == 1);
        let Some(culprit) = culprit else { return false };
        culprit.breaks = true;
        culprit.doubt.fail(now);
        true
    }

    pub(super) fn split(&mut self, span: usize) -> Option<Split> {
        let Suspect { tags, code, breaks } = self.suspects.pop()?;
        let walls = self.walls.range(tags.start + 1..tags.end);
        let middle = usize::midpoint(tags.start, tags.end);
        let at = walls.map(|(position, _)| *position).next().unwrap_or(middle);
        let half =
            |tags: Range<usize>| Half { request: self.request(&tags), part: Part { span, tags } };
        let halves = [half(tags.start..at), half(at..tags.end)];
        Some(Split { count: self.count(&tags), whole: Part { span, tags }, code, breaks, halves })
    }

    /// The connection broke while this was taken apart.
    pub(super) fn broke_apart(&mut self, split: Split, now: Instant) {
        let Split { whole: Part { tags, .. }, code, breaks, .. } = split;
        if breaks + 1 < BREAKS {
            self.suspects.push(Suspect { tags, code, breaks: breaks + 1 });
            return;
        }
        let culprit = Culprit { code, breaks: true, doubt: Doubt::confirmed(now) };
        self.quarantine.extend(tags.map(|position| (position, culprit)));
    }

    /// Keeps a position apart from the one before.
    pub(super) fn part_at(&mut self, position: usize, now: Instant) {
        let wall = self.walls.entry(position);
        wall.and_modify(|wall| wall.fail(now)).or_insert_with(|| Doubt::new(now));
    }

    /// Tries what is in quarantine at the next opportunity, but not what breaks connections. Tells
    /// whether there is any.
    pub(super) fn try_again_soon(&mut self, now: Instant) -> bool {
        let mut are_any = false;
        for culprit in self.quarantine.values_mut().filter(|culprit| !culprit.breaks) {
            culprit.doubt.hasten(now);
            are_any = true;
        }
        are_any
    }

    pub(super) fn is_searching(&self) -> bool {
        !self.suspects.is_empty()
    }

    pub(super) fn next_trial(&self) -> Option<Instant> {
        let culprits = self.quarantine.values().map(|culprit| culprit.doubt.due());
        culprits.chain(self.walls.values().map(Doubt::due)).min()
    }

    pub(super) fn unresolved(&self) -> impl Iterator<Item = ReadRequest> {
        self.suspects.iter().map(|suspect| self.request(&suspect.tags))
    }

    /// Indices of the tags in quarantine, without those on their first trial, and their codes.
    pub(super) fn quarantined(&self) -> impl Iterator<Item = (usize, u8)> {
        let confirmed = self.quarantine.iter().filter(|(_, culprit)| culprit.doubt.is_confirmed());
        confirmed.flat_map(|(&position, culprit)| {
            let tags = self.tags.get(position).map_or(&[][..], |place| &place.tags);
            tags.iter().map(|&tag| (tag, culprit.code))
        })
    }

    /// The widest gap that may be bridged so that no confirmed wall would be crossed.
    pub(super) fn widest_bridge(&self) -> Option<u16> {
        let confirmed = self.walls.iter().filter(|(_, wall)| wall.is_confirmed());
        let gap = |position: usize| {
            let (before, after) = (self.tags.get(..position)?, self.tags.get(position)?);
            let end = before.iter().map(|place| place.end).max()?;
            u16::try_from(u32::from(after.first).checked_sub(end)?).ok()
        };
        confirmed.filter_map(|(&position, _)| gap(position)?.checked_sub(1)).min()
    }
}
