//! The three payload formats, written from the record tag by tag.

use std::fmt;

use jiff::tz::TimeZone;
use provisioning::config::DatetimeFormat;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Map;

use super::object::JsonObject;
use super::{Encoder, MessageStamp, Tag};
use crate::codec::json::FormattedValue;
use crate::model::{Quality, Sample, UnixTime, Value};

/// Everything that one message contains. The samples are in the order of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageParts<'a> {
    pub(super) encoder: &'a Encoder,
    pub(super) at: UnixTime,
    pub(super) samples: &'a [Sample],
    pub(super) stamp: &'a MessageStamp<'a>,
}

/// The members of an event or a reply, followed by the stamp.
pub(super) struct StampedBody<'a> {
    pub(super) gateway_id: &'a str,
    pub(super) body: &'a Map<String, serde_json::Value>,
    pub(super) stamp: &'a MessageStamp<'a>,
}

impl MessageParts<'_> {
    /// Writes an object like
    /// `{"location":..,"datetime":..,"device":..,"machine":..,"temperature":12,"gateway":{..}}`.
    pub(super) fn write_flat(&self, bytes: &mut Vec<u8>) {
        JsonObject::write(bytes, |object| {
            self.write_location(object);
            object.entry("datetime", &self.date(self.at));
            self.write_device(object);
            self.write_extra(object);
            let values = self.write_values(object);
            self.write_gateway(object, None, values);
        });
    }

    /// Writes `{"M241":{"temperature":12},"gateway":{..}}`; the time is in the stamp.
    pub(super) fn write_nested(&self, bytes: &mut Vec<u8>) {
        JsonObject::write(bytes, |object| {
            let mut values = ValueQuality::AllGood;
            object.object(&self.encoder.device, |inner| {
                self.write_extra(inner);
                values = self.write_values(inner);
            });
            self.write_gateway(object, Some(self.date(self.at)), values);
        });
    }

    /// Writes an object like
    /// `{"location":..,"device":..,"machine":..,"samples":[{"tag":"level",..}],"gateway":{..}}`.
    pub(super) fn write_samples(&self, bytes: &mut Vec<u8>) {
        JsonObject::write(bytes, |object| {
            self.write_location(object);
            self.write_device(object);
            self.write_extra(object);
            object.entry("samples", &SampleList(self));
            let all_good =
                self.samples.iter().all(|sample| published_value(sample).1 == Quality::Good);
            self.write_gateway(
                object,
                None,
                if all_good { ValueQuality::AllGood } else { ValueQuality::SomeBad },
            );
        });
    }
}

/// Whether the stamp has to name tags.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ValueQuality {
    AllGood,
    SomeBad,
}

struct SampleList<'a>(&'a MessageParts<'a>);

impl Serialize for SampleList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (tag, sample) in self.0.tagged_samples() {
            list.serialize_element(&SampleItem { tag, sample, date: self.0.date(sample.at) })?;
        }
        list.end()
    }
}

/// `{"tag":"temperature","value":21.5,"quality":"good","datetime":..,"unit":"°C"}`.
struct SampleItem<'a> {
    tag: &'a Tag,
    sample: &'a Sample,
    date: FormattedTime<'a>,
}

impl Serialize for SampleItem<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (value, quality) = published_value(self.sample);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("tag", &self.tag.name)?;
        map.serialize_entry("value", &with_format(self.tag, value))?;
        map.serialize_entry("quality", &quality)?;
        map.serialize_entry("datetime", &self.date)?;
        if let Some(unit) = &self.tag.unit {
            map.serialize_entry("unit", unit)?;
        }
        map.end()
    }
}

impl Serialize for StampedBody<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // A key that occurs twice is read differently by different receivers (RFC 8259, 4).
        for (key, value) in self.body.iter().filter(|(key, _)| key.as_str() != "gateway") {
            map.serialize_entry(key, value)?;
        }
        let Self { gateway_id: id, stamp, .. } = *self;
        map.serialize_entry("gateway", &GatewayMember { id, stamp, date: None, bad: None })?;
        map.end()
    }
}

/// `{"id":..,"epoch":..,"seq":..}` with its optional members.
struct GatewayMember<'a> {
    id: &'a str,
    stamp: &'a MessageStamp<'a>,
    date: Option<FormattedTime<'a>>,
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

/// `{"pressure":"unreachable"}`: the tags without a good value.
struct BadTags<'a>(&'a MessageParts<'a>);

impl Serialize for BadTags<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.0
                .tagged_samples()
                .map(|(tag, sample)| (&tag.name, published_value(sample).1))
                .filter(|(_, quality)| *quality != Quality::Good),
        )
    }
}

fn with_format<'a>(tag: &'a Tag, value: Option<&'a Value>) -> Option<FormattedValue<'a>> {
    value.map(|value| FormattedValue { value, form: &tag.json_format })
}

impl<'a> MessageParts<'a> {
    fn write_location(&self, object: &mut JsonObject<'_>) {
        match self.encoder.location.as_str() {
            "" => {}
            location => object.entry("location", location),
        }
    }

    fn write_device(&self, object: &mut JsonObject<'_>) {
        object.entry("device", &self.encoder.device);
        object.entry("machine", &self.encoder.machine);
    }

    fn write_extra(&self, object: &mut JsonObject<'_>) {
        self.encoder.extra.iter().for_each(|(key, value)| object.entry(key, value));
    }

    fn write_values(&self, object: &mut JsonObject<'_>) -> ValueQuality {
        let mut values = ValueQuality::AllGood;
        for (tag, sample) in self.tagged_samples() {
            let Some(key) = self.encoder.keys.get(sample.tag) else { continue };
            let (value, quality) = published_value(sample);
            if quality != Quality::Good {
                values = ValueQuality::SomeBad;
            }
            object.entry_with_key(key, with_format(tag, value).as_ref());
        }
        values
    }

    fn write_gateway(
        &self,
        object: &mut JsonObject<'_>,
        date: Option<FormattedTime<'_>>,
        values: ValueQuality,
    ) {
        if !self.encoder.stamp {
            return;
        }
        let bad = (values == ValueQuality::SomeBad).then_some(BadTags(self));
        let id = &self.encoder.gateway_id;
        object.entry("gateway", &GatewayMember { id, stamp: self.stamp, date, bad });
    }

    fn tagged_samples(&self) -> impl Iterator<Item = (&'a Tag, &'a Sample)> {
        let tags = &self.encoder.tags;
        self.samples.iter().filter_map(|sample| Some((tags.get(usize::from(sample.tag))?, sample)))
    }

    fn date(&self, at: UnixTime) -> FormattedTime<'a> {
        FormattedTime { at, form: self.encoder.datetime, timezone: &self.encoder.timezone }
    }
}

/// Returns value and quality as they are published. JSON has no NaN and no infinity; a good sample
/// without a value becomes `invalid`.
fn published_value(sample: &Sample) -> (Option<&Value>, Quality) {
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

/// A time in the configured format.
#[derive(Clone, Copy, Debug)]
pub(super) struct FormattedTime<'a> {
    pub(super) at: UnixTime,
    pub(super) form: DatetimeFormat,
    pub(super) timezone: &'a TimeZone,
}

impl Serialize for FormattedTime<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form {
            DatetimeFormat::Rfc3339 => self.at.serialize(serializer),
            DatetimeFormat::Plain => serializer.collect_str(&PlainTime(self)),
            DatetimeFormat::UnixMs => serializer.serialize_i64(self.at.as_millis()),
        }
    }
}

/// `2020-06-24 12:01:44`.
struct PlainTime<'a>(&'a FormattedTime<'a>);

impl fmt::Display for PlainTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.0.timezone.to_datetime(self.0.at.timestamp());
        let (date, time) = (local.date(), local.time());
        write!(f, "{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    }
}
