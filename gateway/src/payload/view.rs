//! Payloads, written straight from the record, tag by tag.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Map;

use super::date::Date;
use super::object::Object;
use super::{Encoder, Stamp, Tag};
use crate::codec::json::Shown;
use crate::model::{Quality, Sample, UnixTime, Value};

/// Everything that one message is made of. The samples are in the order of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) at: UnixTime,
    pub(super) samples: &'a [Sample],
    pub(super) stamp: &'a Stamp<'a>,
}

/// The members of an event or a reply, and the stamp.
pub(super) struct Stamped<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) body: &'a Map<String, serde_json::Value>,
    pub(super) stamp: &'a Stamp<'a>,
}

impl Parts<'_> {
    /// `{"location":..,"datetime":..,"device":..,"machine":..,"temperature":12,"gateway":{..}}`.
    pub(super) fn flat(&self, bytes: &mut Vec<u8>) {
        Object::write(bytes, |object| {
            self.location(object);
            object.entry("datetime", &self.date(self.at));
            self.device(object);
            self.extra(object);
            let values = self.values(object);
            self.gateway(object, None, values);
        });
    }

    /// `{"M241":{"temperature":12},"gateway":{..}}`; the time stands in the stamp.
    pub(super) fn nested(&self, bytes: &mut Vec<u8>) {
        Object::write(bytes, |object| {
            let mut values = Values::AllGood;
            object.object(&self.encoder.device, |inner| {
                self.extra(inner);
                values = self.values(inner);
            });
            self.gateway(object, Some(self.date(self.at)), values);
        });
    }

    /// `{"location":..,"device":..,"machine":..,"samples":[{"tag":"temperature",..}],"gateway":{..}}`.
    pub(super) fn listed(&self, bytes: &mut Vec<u8>) {
        Object::write(bytes, |object| {
            self.location(object);
            self.device(object);
            self.extra(object);
            object.entry("samples", &List(self));
            let all_good = self.samples.iter().all(|sample| judged(sample).1 == Quality::Good);
            self.gateway(object, None, if all_good { Values::AllGood } else { Values::SomeBad });
        });
    }
}

/// Whether the stamp has to name tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Values {
    AllGood,
    SomeBad,
}

struct List<'a>(&'a Parts<'a>);

impl Serialize for List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (tag, sample) in self.0.tagged() {
            list.serialize_element(&Item { tag, sample, date: self.0.date(sample.at) })?;
        }
        list.end()
    }
}

/// `{"tag":"temperature","value":21.5,"quality":"good","datetime":..,"unit":"°C"}`.
struct Item<'a> {
    tag: &'a Tag,
    sample: &'a Sample,
    date: Date<'a>,
}

impl Serialize for Item<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (value, quality) = judged(self.sample);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tag", &self.tag.name)?;
        map.serialize_entry("value", &shown(self.tag, value))?;
        map.serialize_entry("quality", &quality)?;
        map.serialize_entry("datetime", &self.date)?;
        if let Some(unit) = &self.tag.unit {
            map.serialize_entry("unit", unit)?;
        }
        map.end()
    }
}

impl Serialize for Stamped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.body.iter().filter(|(key, _)| key.as_str() != "gateway") {
            map.serialize_entry(key, value)?;
        }
        let Self { gateway_id: id, stamp, .. } = *self;
        map.serialize_entry("gateway", &GatewayMember { id, stamp, date: None, bad: None })?;
        map.end()
    }
}

/// `{"id":..,"epoch":..,"seq":..}`, and what else has to be said.
struct GatewayMember<'a> {
    id: &'a str,
    stamp: &'a Stamp<'a>,
    date: Option<Date<'a>>,
    bad: Option<BadTags<'a>>,
}

impl Serialize for GatewayMember<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("epoch", self.stamp.epoch)?;
        map.serialize_entry("seq", &self.stamp.seq)?;
        if let Some(date) = &self.date {
            map.serialize_entry("datetime", date)?;
        }
        if self.stamp.history {
            map.serialize_entry("history", &true)?;
        }
        if self.stamp.corrected {
            map.serialize_entry("corrected", &true)?;
        }
        if let Some(bad) = &self.bad {
            map.serialize_entry("quality", bad)?;
        }
        map.end()
    }
}

/// `{"pressure":"unreachable"}`: the tags whose value is not good.
struct BadTags<'a>(&'a Parts<'a>);

impl Serialize for BadTags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .tagged()
                .map(|(tag, sample)| (&tag.name, judged(sample).1))
                .filter(|(_, quality)| *quality != Quality::Good),
        )
    }
}

fn shown<'a>(tag: &'a Tag, value: Option<&'a Value>) -> Option<Shown<'a>> {
    value.map(|value| Shown { value, form: &tag.form })
}

impl<'a> Parts<'a> {
    fn location(&self, object: &mut Object<'_>) {
        match self.encoder.location.as_str() {
            "" => {}
            location => object.entry("location", location),
        }
    }

    fn device(&self, object: &mut Object<'_>) {
        object.entry("device", &self.encoder.device);
        object.entry("machine", &self.encoder.machine);
    }

    fn extra(&self, object: &mut Object<'_>) {
        self.encoder.extra.iter().for_each(|(key, value)| object.entry(key, value));
    }

    fn values(&self, object: &mut Object<'_>) -> Values {
        let mut values = Values::AllGood;
        for (tag, sample) in self.tagged() {
            let Some(key) = self.encoder.keys.get(sample.tag) else { continue };
            let (value, quality) = judged(sample);
            if quality != Quality::Good {
                values = Values::SomeBad;
            }
            object.keyed(key, shown(tag, value).as_ref());
        }
        values
    }

    fn gateway(&self, object: &mut Object<'_>, date: Option<Date<'_>>, values: Values) {
        if !self.encoder.stamp {
            return;
        }
        let bad = (values == Values::SomeBad).then_some(BadTags(self));
        let id = &self.encoder.gateway_id;
        object.entry("gateway", &GatewayMember { id, stamp: self.stamp, date, bad });
    }

    fn tagged(&self) -> impl Iterator<Item = (&'a Tag, &'a Sample)> {
        let tags = &self.encoder.tags;
        self.samples.iter().filter_map(|sample| Some((tags.get(usize::from(sample.tag))?, sample)))
    }

    fn date(&self, at: UnixTime) -> Date<'a> {
        Date { at, form: self.encoder.datetime, timezone: &self.encoder.timezone }
    }
}

/// Value and quality as they are published: JSON has no NaN and no infinity, and a good value
/// that is not there is not good.
fn judged(sample: &Sample) -> (Option<&Value>, Quality) {
    let value = match &sample.value {
        Some(Value::Real(value)) if !value.is_finite() => None,
        Some(Value::Lreal(value)) if !value.is_finite() => None,
        value => value.as_ref(),
    };
    match (value, sample.quality) {
        (None, Quality::Good) => (None, Quality::Invalid),
        (value, quality) => (value, quality),
    }
}
