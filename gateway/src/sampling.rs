//! From what a cycle read to samples worth publishing. Pure.

mod scale;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use provisioning::config::{Form, Plc, Shape, Tag};
use provisioning::plan::{Plan, ReadRequest, ScanClass};
use provisioning::plc::{DataType, Location, Order};

use crate::codec::{self, json};
use crate::model::{Cycle, Failure, Quality, Read, Record, Registers, Sample, UnixTime, Value};
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
    publish: Publish,
    heartbeat: Duration,
    classes: Vec<Class>,
}

/// What one due tag takes along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Publish {
    WholeClass,
    DueTags,
}

#[derive(Debug)]
struct Class {
    /// A heartbeat that falls between two cycles is published with the nearer one, so that a cycle
    /// that comes a millisecond early does not skip it.
    half_period: Duration,
    /// The requests by which the tags find their reads.
    requests: Arc<[ReadRequest]>,
    tags: Vec<Probe>,
    /// The samples of the cycle at hand; kept for its memory.
    current: Vec<Sample>,
}

/// One tag, and what of it was published last.
#[derive(Debug)]
struct Probe {
    tag: u16,
    /// Which read of the cycle holds it, and where in that read it begins; absent when it is in
    /// quarantine.
    place: Option<(usize, usize)>,
    location: Location,
    data: DataType,
    order: Order,
    scale: Scale,
    form: Form,
    deadband: f64,
    published: Option<Published>,
}

#[derive(Debug)]
struct Published {
    value: Option<Value>,
    quality: Quality,
    at: UnixTime,
    when: Instant,
}

impl Sampler {
    /// A sampler for the cycles of one PLC; `plc_index` is its place in `Config::plcs`, `plan` the
    /// plan that its task reads by.
    #[must_use]
    pub fn new(plc_index: u16, plc: &Plc, plan: &Plan) -> Self {
        let publish = match plc.publish.shape {
            Shape::Flat | Shape::Nested => Publish::WholeClass,
            Shape::Samples => Publish::DueTags,
        };
        let classes = plan.classes.iter().map(|class| Class::new(plc, class)).collect();
        Self { plc: plc_index, publish, heartbeat: plc.publish.heartbeat, classes }
    }

    /// Turns a cycle into what is to be published of it; nothing when no tag is due, when the
    /// cycle is not one of the plan, and as long as there are tags about which nothing is known.
    pub fn cycle(&mut self, cycle: &Cycle, now: Instant) -> Option<Record> {
        let class = self.classes.get_mut(usize::from(cycle.class))?;
        if cycle.reads.len() != cycle.requests.len() {
            return None;
        }
        class.follow(&cycle.requests);
        let at = middle(&cycle.reads).unwrap_or(cycle.at);
        class.read(&cycle.reads, at)?;
        let samples = class.due(self.publish, self.heartbeat, now);
        (!samples.is_empty()).then_some(Record { plc: self.plc, at, samples })
    }
}

impl Class {
    fn new(plc: &Plc, class: &ScanClass) -> Self {
        let indices = class.requests.iter().flat_map(|request| &request.tags);
        let probe = |&index: &usize| Probe::new(index, plc.tags.get(index)?);
        let mut tags: Vec<Probe> = indices.filter_map(probe).collect();
        tags.sort_by_key(|probe| probe.tag);
        Self {
            half_period: class.period / 2,
            requests: Arc::new([]),
            current: Vec::with_capacity(tags.len()),
            tags,
        }
    }

    /// Finds out where each tag is read, when that is not as in the last cycle.
    fn follow(&mut self, requests: &Arc<[ReadRequest]>) {
        if Arc::ptr_eq(&self.requests, requests) {
            return;
        }
        self.requests = Arc::clone(requests);
        for probe in &mut self.tags {
            probe.place = None;
        }
        for (read, request) in requests.iter().enumerate() {
            for &tag in &request.tags {
                let Ok(tag) = u16::try_from(tag) else { continue };
                let Ok(index) = self.tags.binary_search_by_key(&tag, |probe| probe.tag) else {
                    continue;
                };
                let Some(probe) = self.tags.get_mut(index) else { continue };
                let offset = probe.location.first.checked_sub(request.first);
                probe.place = offset.map(|offset| (read, offset.into()));
            }
        }
    }

    /// Decodes every tag of the class; gives nothing when nothing is known about one of them.
    fn read(&mut self, reads: &[Read], at: UnixTime) -> Option<()> {
        self.current.clear();
        for probe in &self.tags {
            let read = probe.place.and_then(|(read, offset)| Some((reads.get(read)?, offset)));
            self.current.push(probe.sample(read, at)?);
        }
        Some(())
    }

    /// Takes out what is to be published, and remembers that it was.
    fn due(&mut self, publish: Publish, heartbeat: Duration, now: Instant) -> Vec<Sample> {
        let repeat_at = |published: &Published| published.when + heartbeat;
        let soon = now + self.half_period;
        let is_due = |(probe, sample): (&Probe, &Sample)| {
            probe.published.as_ref().is_none_or(|published| {
                soon >= repeat_at(published) || probe.has_changed(published, sample)
            })
        };
        let mut pairs = self.tags.iter().zip(&self.current);
        match publish {
            Publish::WholeClass if pairs.any(is_due) => {}
            Publish::WholeClass => return Vec::new(),
            Publish::DueTags => {
                let mut due = pairs.map(is_due).collect::<Vec<_>>().into_iter();
                self.current.retain(|_| due.next().unwrap_or_default());
            }
        }
        let mut published = self.current.iter().peekable();
        for probe in &mut self.tags {
            if let Some(sample) = published.next_if(|sample| sample.tag == probe.tag) {
                let Sample { value, quality, at, .. } = sample;
                let (value, quality, at) = (value.clone(), *quality, *at);
                probe.published = Some(Published { value, quality, at, when: now });
            }
        }
        self.current.drain(..).collect()
    }
}

impl Probe {
    fn new(index: usize, tag: &Tag) -> Option<Self> {
        Some(Self {
            tag: u16::try_from(index).ok()?,
            place: None,
            location: tag.location,
            data: tag.iec,
            order: tag.order,
            scale: Scale::of(tag),
            form: tag.form.clone(),
            deadband: tag.deadband.unwrap_or_default(),
            published: None,
        })
    }

    /// The sample of a cycle. A tag that says nothing in this one stays what was published last;
    /// `at` is the time of the cycle.
    fn sample(&self, read: Option<(&Read, usize)>, at: UnixTime) -> Option<Sample> {
        let tag = self.tag;
        let Some((read, offset)) = read else {
            return Some(Sample { tag, value: None, quality: Quality::Refused, at });
        };
        let (value, quality) = match &read.outcome {
            Err(Failure::Pending) => {
                let Published { value, quality, at, .. } = self.published.as_ref()?;
                return Some(Sample { tag, value: value.clone(), quality: *quality, at: *at });
            }
            Err(Failure::Unreachable) => (None, Quality::Unreachable),
            Err(Failure::Refused(_)) => (None, Quality::Refused),
            Ok(registers) => match self.value(registers, offset) {
                Some(value) if is_whole(&value) && json::fits(&self.form, &value) => {
                    (Some(value), Quality::Good)
                }
                value => (value, Quality::Invalid),
            },
        };
        Some(Sample { tag, value, quality, at: read.at })
    }

    fn value(&self, registers: &Registers, offset: usize) -> Option<Value> {
        let raw = match registers {
            Registers::Bits(bits) => codec::decode_bits(self.data, bits.get(offset..)?)?,
            Registers::Words(words) => {
                let words = words.get(offset..)?.get(..self.location.count.into())?;
                codec::decode(&self.location, self.data, self.order, words)?
            }
        };
        self.scale.apply(raw)
    }

    fn has_changed(&self, published: &Published, sample: &Sample) -> bool {
        if sample.quality != published.quality {
            return true;
        }
        match (&published.value, &sample.value) {
            (Some(old), Some(new)) => is_beyond(self.deadband, old, new),
            (old, new) => old != new,
        }
    }
}

/// Whether every element is there.
fn is_whole(value: &Value) -> bool {
    !matches!(value, Value::List(items) if items.iter().any(Option::is_none))
}

/// Whether two values are further apart than the deadband; of an array, any two elements.
fn is_beyond(deadband: f64, old: &Value, new: &Value) -> bool {
    let distance = match (old, new) {
        (Value::Int(old), Value::Int(new)) => wide(old.abs_diff(*new)),
        (Value::Uint(old), Value::Uint(new)) => wide(old.abs_diff(*new)),
        (Value::Real(old), Value::Real(new)) => (f64::from(*new) - f64::from(*old)).abs(),
        (Value::Lreal(old), Value::Lreal(new)) => (new - old).abs(),
        (Value::List(old), Value::List(new)) => {
            let is_far = |pair: (&Option<Value>, &Option<Value>)| match pair {
                (Some(old), Some(new)) => is_beyond(deadband, old, new),
                (old, new) => old != new,
            };
            return old.len() != new.len() || old.iter().zip(new.iter()).any(is_far);
        }
        (old, new) => return old != new,
    };
    distance > deadband
}

#[expect(clippy::cast_precision_loss, reason = "a deadband that large is no more exact itself")]
const fn wide(distance: u64) -> f64 {
    distance as f64
}

/// The middle between the first and the last read of a cycle.
fn middle(reads: &[Read]) -> Option<UnixTime> {
    let times = || reads.iter().map(|read| read.at);
    Some(times().min()?.midpoint(times().max()?))
}
