//! Turns what a cycle read into the samples to publish. Pure.

#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{JsonFormat, PayloadShape, Plc, Tag};
use provisioning::plan::{Plan, ScanClass};

use crate::codec;
use crate::model::{
    BadTag, Cycle, LatestValue, Quality, ReadFailure, ReadResult, Record, Sample, TagHealth,
    TagLocation, UnixTime, Value,
};

/// Decides which samples of one PLC are published.
///
/// A tag is due when it was never published, when its quality changed, when its value differs by
/// more than its deadband from the one published last, and when that is a heartbeat old. In the
/// shapes `flat` and `nested` all tags of a scan class are published when one is due; in `samples`
/// only the due ones.
#[derive(Debug)]
pub struct Sampler {
    plc: u16,
    publish: PublishScope,
    heartbeat: Duration,
    classes: Vec<SampledClass>,
}

/// What is published when a tag is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PublishScope {
    WholeClass,
    DueTags,
    /// Nothing, unless an event occurs: `plc.publish.on`.
    UponEvent,
}

/// One scan class.
#[derive(Debug)]
struct SampledClass {
    /// A heartbeat between two cycles is published with the nearer one, so that a cycle that comes
    /// a millisecond early does not skip it.
    half_period: Duration,
    /// Time and health of the last cycle.
    last_cycle: Option<(Instant, TagHealth)>,
    /// All tags of the PLC.
    tags: Arc<Vec<Tag>>,
    /// One for each tag of the class, in the order of the configuration.
    tag_states: Vec<TagState>,
    /// The samples of the last cycle, unless they are published; kept to reuse its memory.
    samples: Vec<Sample>,
}

/// One tag, and what was published last.
#[derive(Debug)]
struct TagState {
    tag: u16,
    last_published: Option<LastPublished>,
}

#[derive(Debug)]
struct LastPublished {
    value: Option<Value>,
    quality: Quality,
    at: UnixTime,
    published_at: Instant,
}

impl Sampler {
    /// Creates the sampler of one PLC. `plc_index` is its index in `Config::plcs`, `plan` the plan
    /// of its poll task.
    #[must_use]
    pub fn new(plc_index: u16, plc: &Plc, plan: &Plan) -> Self {
        let publish = match plc.publish.shape {
            _ if plc.publish.on.is_some() => PublishScope::UponEvent,
            PayloadShape::Flat | PayloadShape::Nested => PublishScope::WholeClass,
            PayloadShape::Samples => PublishScope::DueTags,
        };
        let classes = plan.classes.iter().map(|class| SampledClass::new(plc, class)).collect();
        Self { plc: plc_index, publish, heartbeat: plc.publish.heartbeat, classes }
    }

    /// Returns the samples of a cycle to publish. Returns `None` when no tag is due, when the cycle
    /// is not one of the plan, and while nothing is known about one of its tags.
    pub fn on_cycle(&mut self, cycle: &Cycle, now: Instant) -> Option<Record> {
        let class = self.classes.get_mut(usize::from(cycle.class))?;
        if cycle.locations.len() != class.tag_states.len() {
            return None;
        }
        let at = midpoint(&cycle.results).unwrap_or(cycle.at);
        class.decode(cycle, at, now)?;
        let samples = class.take_due(self.publish, self.heartbeat, now);
        (!samples.is_empty()).then_some(Record { plc: self.plc, at, clock: None, samples })
    }

    /// Returns what was read last of each tag of a scan class, from the tag with this number in the
    /// class on; `None` after the last class. Tags that were not read yet have no value.
    pub fn latest(
        &self,
        class: usize,
        first: usize,
        now: Instant,
    ) -> Option<impl Iterator<Item = LatestValue<'_>>> {
        let class = self.classes.get(class)?;
        let is_stale = class.is_stale(self.heartbeat, now);
        let states = class.tag_states.iter().enumerate().skip(first);
        Some(states.filter_map(move |(number, state)| class.latest(number, state, is_stale)))
    }

    /// Returns the value with which a tag was published last, with its JSON format; `None` when it
    /// had no good one. `tag` is its index in `config::Plc::tags`.
    #[must_use]
    pub fn last_published(&self, tag: u16) -> Option<(&JsonFormat, &Value)> {
        let mut classes = self.classes.iter();
        let (class, state) = classes.find_map(|class| {
            let place = class.tag_states.binary_search_by_key(&tag, |state| state.tag).ok()?;
            Some((class, class.tag_states.get(place)?))
        })?;
        let published = state.last_published.as_ref()?;
        let format = &class.tags.get(usize::from(tag))?.json_format;
        let value = published.value.as_ref().filter(|_| published.quality == Quality::Good)?;
        Some((format, value))
    }

    /// Returns the good value of a tag in the last cycle that read it.
    #[must_use]
    pub fn present(&self, tag: u16) -> Option<&Value> {
        let mut samples = self.classes.iter().flat_map(|class| &class.samples);
        let sample = samples.find(|sample| sample.tag == tag)?;
        sample.value.as_ref().filter(|_| sample.quality == Quality::Good)
    }

    /// Returns the samples of the last cycle of every scan class, for one message upon an event at
    /// `at`; `None` while a class has none.
    pub fn take_all(&mut self, at: UnixTime, now: Instant) -> Option<Record> {
        if self.classes.iter().any(|class| class.samples.is_empty()) {
            return None;
        }
        let mut samples = Vec::new();
        for class in &mut self.classes {
            for (state, sample) in class.tag_states.iter_mut().zip(&class.samples) {
                state.on_published(sample, now);
            }
            samples.extend(class.samples.iter().cloned());
        }
        samples.sort_by_key(|sample| sample.tag);
        let times = || samples.iter().map(|sample| sample.at);
        let at = times().min().zip(times().max()).map_or(at, |(first, last)| first.midpoint(last));
        Some(Record { plc: self.plc, at, clock: None, samples })
    }

    /// Returns how many tags had a good value lately, in at most a scan and a heartbeat.
    #[must_use]
    pub fn health(&self, now: Instant) -> TagHealth {
        let mut all = TagHealth::default();
        for class in &self.classes {
            let configured = class.tag_states.len();
            all.configured += configured;
            let Some((_, health)) = &class.last_cycle else { continue };
            if class.is_stale(self.heartbeat, now) {
                let stale = class.tag_states.iter().take(TagHealth::MAX_NAMED);
                stale.for_each(|state| all.add_bad(BadTag::stale(state.tag)));
            } else {
                all.good += health.good;
                health.bad.iter().for_each(|bad| all.add_bad(*bad));
            }
        }
        all
    }
}

impl SampledClass {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let tags = class.requests.iter().flat_map(|request| &request.tags);
        let state = |&tag| TagState { tag, last_published: None };
        let mut states: Vec<TagState> = tags.map(state).collect();
        states.sort_by_key(|state| state.tag);
        // It lives as long as the process, once for each tag.
        states.shrink_to_fit();
        Self {
            half_period: class.period / 2,
            last_cycle: None,
            tags: Arc::clone(&plc.tags),
            tag_states: states,
            samples: Vec::new(),
        }
    }

    /// Returns whether the last cycle is too long ago.
    fn is_stale(&self, heartbeat: Duration, now: Instant) -> bool {
        let last = self.last_cycle.as_ref();
        last.is_some_and(|(at, _)| *at + self.half_period * 2 + heartbeat < now)
    }

    /// Returns what was read last of one tag: in the last cycle, unless its samples have been
    /// published, and are the ones published last.
    fn latest<'a>(
        &'a self,
        number: usize,
        state: &'a TagState,
        is_stale: bool,
    ) -> Option<LatestValue<'a>> {
        let tag = self.tags.get(usize::from(state.tag))?;
        let (value, quality, at) = match (self.samples.get(number), &state.last_published) {
            (Some(sample), _) => (sample.value.as_ref(), sample.quality, Some(sample.at)),
            (None, Some(last)) => (last.value.as_ref(), last.quality, Some(last.at)),
            (None, None) => (None, Quality::Unreachable, None),
        };
        let quality = if is_stale { Quality::Stale } else { quality };
        Some(LatestValue { tag, value, quality, at })
    }

    /// Decodes every tag of the class. Returns `None` as long as nothing is known about one of
    /// them.
    fn decode(&mut self, cycle: &Cycle, at: UnixTime, now: Instant) -> Option<()> {
        self.samples.clear();
        self.samples.reserve_exact(self.tag_states.len());
        let (_, health) = self.last_cycle.insert((now, TagHealth::default()));
        for (state, location) in self.tag_states.iter().zip(&*cycle.locations) {
            let tag = self.tags.get(usize::from(state.tag))?;
            let mut sample = state.sample(tag, *location, &cycle.results, at)?;
            // Any other quality says more: there is no value, or none of the tag's type.
            if cycle.is_stopped && sample.quality == Quality::Good {
                sample.quality = Quality::Stopped;
            }
            if sample.quality == Quality::Good {
                health.good += 1;
            } else {
                let exception = exception(*location, &cycle.results);
                health.add_bad(BadTag { tag: state.tag, quality: sample.quality, exception });
            }
            self.samples.push(sample);
        }
        Some(())
    }

    /// Takes the samples to publish, and records them as published.
    fn take_due(
        &mut self,
        publish: PublishScope,
        heartbeat: Duration,
        now: Instant,
    ) -> Vec<Sample> {
        let repeat_at = |published: &LastPublished| published.published_at + heartbeat;
        // A heartbeat that is due before the middle of the next period is nearer to this cycle.
        let soon = now + self.half_period;
        let is_due = |(state, sample): (&TagState, &Sample)| {
            state.last_published.as_ref().is_none_or(|published| {
                let deadband = self.tags.get(usize::from(state.tag)).and_then(|tag| tag.deadband);
                soon >= repeat_at(published)
                    || published.differs_from(sample, deadband.unwrap_or_default())
            })
        };
        let mut pairs = self.tag_states.iter().zip(&self.samples);
        match publish {
            // A message is complete (docs/decisions/0001-whole-datagrams.md).
            PublishScope::WholeClass if pairs.any(is_due) => {
                let samples = mem::take(&mut self.samples);
                for (state, sample) in self.tag_states.iter_mut().zip(&samples) {
                    state.on_published(sample, now);
                }
                samples
            }
            PublishScope::WholeClass | PublishScope::UponEvent => Vec::new(),
            PublishScope::DueTags => {
                let due: Vec<_> = pairs.map(is_due).collect();
                let pairs = self.tag_states.iter_mut().zip(&self.samples).zip(due);
                let publish = |((state, sample), is_due): ((&mut TagState, &Sample), bool)| {
                    is_due.then(|| {
                        state.on_published(sample, now);
                        sample.clone()
                    })
                };
                pairs.filter_map(publish).collect()
            }
        }
    }
}

impl TagState {
    /// Returns the sample of a cycle that was read at `at`. A tag whose request is still being
    /// split keeps what was published last.
    fn sample(
        &self,
        tag: &Tag,
        location: Result<TagLocation, ReadFailure>,
        results: &[ReadResult],
        at: UnixTime,
    ) -> Option<Sample> {
        let index = self.tag;
        let (outcome, read_at, offset) = match location {
            Ok(TagLocation { result, offset }) => {
                let read = results.get(usize::from(result))?;
                (read.outcome.as_ref().map_err(|failure| *failure), read.at, offset)
            }
            Err(failure) => (Err(failure), at, 0),
        };
        let (value, quality) = match outcome {
            Err(ReadFailure::Pending) => {
                let LastPublished { value, quality, at, .. } = self.last_published.as_ref()?;
                let (value, quality, at) = (value.clone(), *quality, *at);
                return Some(Sample { tag: index, value, quality, at });
            }
            Err(ReadFailure::Unreachable | ReadFailure::Busy) => (None, Quality::Unreachable),
            Err(ReadFailure::Refused(_)) => (None, Quality::Refused),
            Ok(registers) => match codec::decode_tag(tag, registers, offset.into()) {
                Some(value) if codec::is_published(tag, &value) => (Some(value), Quality::Good),
                value => (value, Quality::Invalid),
            },
        };
        Some(Sample { tag: index, value, quality, at: read_at })
    }

    fn on_published(&mut self, sample: &Sample, now: Instant) {
        let Sample { value, quality, at, .. } = sample;
        let (value, quality, at) = (value.clone(), *quality, *at);
        self.last_published = Some(LastPublished { value, quality, at, published_at: now });
    }
}

impl LastPublished {
    fn differs_from(&self, sample: &Sample, deadband: f64) -> bool {
        if sample.quality != self.quality {
            return true;
        }
        match (&self.value, &sample.value) {
            (Some(old), Some(new)) => exceeds_deadband(deadband, old, new),
            (old, new) => old != new,
        }
    }
}

impl BadTag {
    const fn stale(tag: u16) -> Self {
        Self { tag, quality: Quality::Stale, exception: None }
    }
}

/// Returns the exception with which the PLC refused a tag.
fn exception(location: Result<TagLocation, ReadFailure>, results: &[ReadResult]) -> Option<u8> {
    let failure = match location {
        Ok(TagLocation { result, .. }) => {
            results.get(usize::from(result))?.outcome.as_ref().err().copied()
        }
        Err(failure) => Some(failure),
    };
    match failure? {
        ReadFailure::Refused(code) => Some(code),
        ReadFailure::Unreachable | ReadFailure::Busy | ReadFailure::Pending => None,
    }
}

/// Returns whether two values differ by more than the deadband; for an array, any two elements.
fn exceeds_deadband(deadband: f64, old: &Value, new: &Value) -> bool {
    let distance = match (old, new) {
        (Value::Int(old), Value::Int(new)) => to_f64(old.abs_diff(*new)),
        (Value::Uint(old), Value::Uint(new)) => to_f64(old.abs_diff(*new)),
        (Value::Real(old), Value::Real(new)) => (f64::from(*new) - f64::from(*old)).abs(),
        (Value::Lreal(old), Value::Lreal(new)) => (new - old).abs(),
        (Value::List(old), Value::List(new)) => {
            let is_far = |pair: (&Option<Value>, &Option<Value>)| match pair {
                (Some(old), Some(new)) => exceeds_deadband(deadband, old, new),
                (old, new) => old != new,
            };
            return old.len() != new.len() || old.iter().zip(new.iter()).any(is_far);
        }
        (old, new) => return old != new,
    };
    distance > deadband
}

#[expect(clippy::cast_precision_loss, reason = "a deadband of that size is not more exact itself")]
const fn to_f64(distance: u64) -> f64 {
    distance as f64
}

/// Returns the middle between the first and the last result of a cycle.
fn midpoint(reads: &[ReadResult]) -> Option<UnixTime> {
    let times = || reads.iter().map(|read| read.at);
    Some(times().min()?.midpoint(times().max()?))
}
