//! Payloads as `Serialize` views: they are written straight from the record, tag by tag.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Map;

use super::date::Date;
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

/// `{"location":..,"datetime":..,"device":..,"machine":..,"temperature":12,"gateway":{..}}`.
pub(super) struct Flat<'a>(pub(super) Parts<'a>);

/// `{"M241":{"temperature":12},"gateway":{..}}`; the time stands in the stamp.
pub(super) struct Nested<'a>(pub(super) Parts<'a>);

/// `{"location":..,"device":..,"machine":..,"samples":[{"tag":"temperature",..}],"gateway":{..}}`.
pub(super) struct Listed<'a>(pub(super) Parts<'a>);

/// The members of an event or a reply, and the stamp.
pub(super) struct Stamped<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) body: &'a Map<String, serde_json::Value>,
    pub(super) stamp: &'a Stamp<'a>,
}

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = &self.0;
        let mut map = serializer.serialize_map(None)?;
        parts.location(&mut map)?;
        map.serialize_entry("datetime", &parts.date(parts.at))?;
        parts.device(&mut map)?;
        parts.extra(&mut map)?;
        parts.values(&mut map)?;
        parts.gateway(&mut map, None)?;
        map.end()
    }
}

impl Serialize for Nested<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = &self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(&parts.encoder.device, &Inner(parts))?;
        parts.gateway(&mut map, Some(parts.date(parts.at)))?;
        map.end()
    }
}

/// What stands under the device's name in the nested form.
struct Inner<'a>(&'a Parts<'a>);

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.extra(&mut map)?;
        self.0.values(&mut map)?;
        map.end()
    }
}

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = &self.0;
        let mut map = serializer.serialize_map(None)?;
        parts.location(&mut map)?;
        parts.device(&mut map)?;
        parts.extra(&mut map)?;
        map.serialize_entry("samples", &List(parts))?;
        parts.gateway(&mut map, None)?;
        map.end()
    }
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
        map.serialize_entry("value", &self.tag.shown(value))?;
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

impl Tag {
    fn shown<'a>(&'a self, value: Option<&'a Value>) -> Option<Shown<'a>> {
        value.map(|value| Shown { value, form: &self.form })
    }
}

impl<'a> Parts<'a> {
    fn location<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self.encoder.location.as_str() {
            "" => Ok(()),
            location => map.serialize_entry("location", location),
        }
    }

    fn device<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        map.serialize_entry("device", &self.encoder.device)?;
        map.serialize_entry("machine", &self.encoder.machine)
    }

    fn extra<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.encoder.extra.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))
    }

    fn values<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        self.tagged().try_for_each(|(tag, sample)| {
            map.serialize_entry(&tag.name, &tag.shown(judged(sample).0))
        })
    }

    fn gateway<M: SerializeMap>(
        &self,
        map: &mut M,
        date: Option<Date<'_>>,
    ) -> Result<(), M::Error> {
        if !self.encoder.stamp {
            return Ok(());
        }
        let all_good = self.samples.iter().all(|sample| judged(sample).1 == Quality::Good);
        let bad = (!all_good).then_some(BadTags(self));
        let id = &self.encoder.gateway_id;
        map.serialize_entry("gateway", &GatewayMember { id, stamp: self.stamp, date, bad })
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
    let value = sample.value.as_ref().filter(|value| match value {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) => true,
        Value::Text(_) | Value::List(_) => true,
        Value::Real(value) => value.is_finite(),
        Value::Lreal(value) => value.is_finite(),
    });
    match (value, sample.quality) {
        (None, Quality::Good) => (None, Quality::Invalid),
        (value, quality) => (value, quality),
    }
}
