//! From what a cycle read to samples worth publishing. Pure.

mod scale;
#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{PayloadShape, Plc, Tag};
use provisioning::plan::{Plan, ReadRequest, ScanClass};

use crate::codec::{self, json};
use crate::model::{
    Cycle, Quality, ReadFailure, ReadResult, Record, Registers, Sample, UnixTime, Value,
};
use scale::Scale;

/// Decides which samples of one PLC are published.
///
/// A tag is due when it has never been published, when its quality changed, when its value moved
/// beyond its deadband from the one last published, and when the last one is a heartbeat old. In
/// the shapes `flat` and `nested` one due tag takes all tags of its scan class along; in `samples`
/// only the due ones go.
#[derive(Debug)]
pub struct Sampler {
    plc: u16,
    publish: PublishScope,
    heartbeat: Duration,
    classes: Vec<SampledClass>,
}

/// What one due tag takes along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PublishScope {
    WholeClass,
    DueTags,
}

#[derive(Debug)]
struct SampledClass {
    /// A heartbeat that falls between two cycles is published with the nearer one, so that a cycle
    /// that comes a millisecond early does not skip it.
    half_period: Duration,
    /// The requests by which the tags find their reads.
    requests: Arc<[ReadRequest]>,
    /// All tags of the PLC.
    tags: Arc<Vec<Tag>>,
    /// One for each tag of the class, in the order of the file.
    tag_states: Vec<TagState>,
    /// The samples of the cycle at hand; kept for its memory where not all are published.
    samples: Vec<Sample>,
}

/// One tag, and what of it was published last.
#[derive(Debug)]
struct TagState {
    tag: u16,
    /// Which read of the cycle holds it, and where in that read it begins; absent when it is in
    /// quarantine.
    location: Option<(u16, u16)>,
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
    /// A sampler for the cycles of one PLC; `plc_index` is its place in `Config::plcs`, `plan` the
    /// plan that its task reads by.
    #[must_use]
    pub fn new(plc_index: u16, plc: &Plc, plan: &Plan) -> Self {
        let publish = match plc.publish.shape {
            PayloadShape::Flat | PayloadShape::Nested => PublishScope::WholeClass,
            PayloadShape::Samples => PublishScope::DueTags,
        };
        let classes = plan.classes.iter().map(|class| SampledClass::new(plc, class)).collect();
        Self { plc: plc_index, publish, heartbeat: plc.publish.heartbeat, classes }
    }

    /// Turns a cycle into what is to be published of it; nothing when no tag is due, when the
    /// cycle is not one of the plan, and as long as there are tags about which nothing is known.
    pub fn on_cycle(&mut self, cycle: &Cycle, now: Instant) -> Option<Record> {
        let class = self.classes.get_mut(usize::from(cycle.class))?;
        if cycle.results.len() != cycle.requests.len() {
            return None;
        }
        class.update_layout(&cycle.requests);
        let at = midpoint(&cycle.results).unwrap_or(cycle.at);
        class.decode(&cycle.results, at, cycle.is_stopped)?;
        let samples = class.take_due(self.publish, self.heartbeat, now);
        (!samples.is_empty()).then_some(Record { plc: self.plc, at, samples })
    }
}

impl SampledClass {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let indices = class.requests.iter().flat_map(|request| &request.tags);
        let tags = indices.filter_map(|&index| u16::try_from(index).ok());
        let probe = |tag| TagState { tag, location: None, last_published: None };
        let mut probes: Vec<TagState> = tags.map(probe).collect();
        probes.sort_by_key(|probe| probe.tag);
        probes.shrink_to_fit();
        Self {
            half_period: class.period / 2,
            requests: Arc::new([]),
            tags: Arc::clone(&plc.tags),
            tag_states: probes,
            samples: Vec::new(),
        }
    }

    /// Finds out where each tag is read, when that is not as in the last cycle.
    fn update_layout(&mut self, requests: &Arc<[ReadRequest]>) {
        if Arc::ptr_eq(&self.requests, requests) {
            return;
        }
        self.requests = Arc::clone(requests);
        for probe in &mut self.tag_states {
            probe.location = None;
        }
        for (read, request) in (0..).zip(requests.iter()) {
            for &tag in &request.tags {
                let Ok(tag) = u16::try_from(tag) else { continue };
                let Ok(index) = self.tag_states.binary_search_by_key(&tag, |probe| probe.tag)
                else {
                    continue;
                };
                let Some(probe) = self.tag_states.get_mut(index) else { continue };
                let Some(config) = self.tags.get(usize::from(tag)) else { continue };
                let offset = config.location.first.checked_sub(request.first);
                probe.location = offset.map(|offset| (read, offset));
            }
        }
    }

    /// Decodes every tag of the class; gives nothing when nothing is known about one of them.
    fn decode(&mut self, reads: &[ReadResult], at: UnixTime, is_stopped: bool) -> Option<()> {
        self.samples.clear();
        self.samples.reserve_exact(self.tag_states.len());
        for probe in &self.tag_states {
            let tag = self.tags.get(usize::from(probe.tag))?;
            let mut sample = probe.sample(tag, reads, at)?;
            if is_stopped && sample.quality == Quality::Good {
                sample.quality = Quality::Stopped;
            }
            self.samples.push(sample);
        }
        Some(())
    }

    /// Takes out what is to be published, and remembers that it was.
    fn take_due(
        &mut self,
        publish: PublishScope,
        heartbeat: Duration,
        now: Instant,
    ) -> Vec<Sample> {
        let repeat_at = |published: &LastPublished| published.published_at + heartbeat;
        let soon = now + self.half_period;
        let is_due = |(probe, sample): (&TagState, &Sample)| {
            probe.last_published.as_ref().is_none_or(|published| {
                let deadband = self.tags.get(usize::from(probe.tag)).and_then(|tag| tag.deadband);
                soon >= repeat_at(published)
                    || published.differs_from(sample, deadband.unwrap_or_default())
            })
        };
        let mut pairs = self.tag_states.iter().zip(&self.samples);
        match publish {
            PublishScope::WholeClass if pairs.any(is_due) => {
                let samples = mem::take(&mut self.samples);
                for (probe, sample) in self.tag_states.iter_mut().zip(&samples) {
                    probe.on_published(sample, now);
                }
                samples
            }
            PublishScope::WholeClass => Vec::new(),
            PublishScope::DueTags => {
                let due: Vec<_> = pairs.map(is_due).collect();
                let pairs = self.tag_states.iter_mut().zip(self.samples.drain(..)).zip(due);
                let publish = |((probe, sample), is_due): ((&mut TagState, Sample), bool)| {
                    is_due.then(|| {
                        probe.on_published(&sample, now);
                        sample
                    })
                };
                pairs.filter_map(publish).collect()
            }
        }
    }
}

impl TagState {
    /// The sample of a cycle. A tag that says nothing in this one stays what was published last;
    /// `at` is the time of the cycle.
    fn sample(&self, tag: &Tag, reads: &[ReadResult], at: UnixTime) -> Option<Sample> {
        let index = self.tag;
        let read =
            self.location.and_then(|(read, offset)| Some((reads.get(usize::from(read))?, offset)));
        let Some((read, offset)) = read else {
            return Some(Sample { tag: index, value: None, quality: Quality::Refused, at });
        };
        let (value, quality) = match &read.outcome {
            Err(ReadFailure::Pending) => {
                let LastPublished { value, quality, at, .. } = self.last_published.as_ref()?;
                let (value, quality, at) = (value.clone(), *quality, *at);
                return Some(Sample { tag: index, value, quality, at });
            }
            Err(ReadFailure::Unreachable) => (None, Quality::Unreachable),
            Err(ReadFailure::Refused(_)) => (None, Quality::Refused),
            Ok(registers) => match decode_value(tag, registers, offset.into()) {
                Some(value)
                    if is_complete(&value) && json::is_representable(&tag.json_format, &value) =>
                {
                    (Some(value), Quality::Good)
                }
                value => (value, Quality::Invalid),
            },
        };
        Some(Sample { tag: index, value, quality, at: read.at })
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

fn decode_value(tag: &Tag, registers: &Registers, offset: usize) -> Option<Value> {
    let raw = match registers {
        Registers::Bits(bits) => codec::decode_bits(tag.data_type, bits.get(offset..)?)?,
        Registers::Words(words) => {
            let words = words.get(offset..offset + usize::from(tag.location.count))?;
            codec::decode(&tag.location, tag.data_type, tag.byte_order, words)?
        }
    };
    Scale::of(tag).apply(raw)
}

/// Whether every element is there.
fn is_complete(value: &Value) -> bool {
    !matches!(value, Value::List(items) if items.iter().any(Option::is_none))
}

/// Whether two values are further apart than the deadband; of an array, any two elements.
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

#[expect(clippy::cast_precision_loss, reason = "a deadband that large is no more exact itself")]
const fn to_f64(distance: u64) -> f64 {
    distance as f64
}

/// The middle between the first and the last read of a cycle.
fn midpoint(reads: &[ReadResult]) -> Option<UnixTime> {
    let times = || reads.iter().map(|read| read.at);
    Some(times().min()?.midpoint(times().max()?))
}
