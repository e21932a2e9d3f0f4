use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;
use crate::model::{Quality, UnixTime, Value as TagValue};
use crate::testing;

/// 2020-06-24 10:01:44.250 UTC.
const AT: UnixTime = UnixTime::from_micros(1_592_992_904_250_000);
const STAMP: MessageStamp<'_> =
    MessageStamp { epoch: "k3f9", seq: 4711, history: false, corrected: false };

#[test]
fn flat_without_stamp_is_the_message_of_the_documentation() {
    let plc = plc(&["temperature", "pressure"], |publish| {
        publish.stamp = false;
        publish.datetime = DatetimeFormat::Plain;
    });
    let record = record([good(0, TagValue::Int(12)), good(1, TagValue::Int(6))]);

    insta::assert_snapshot!(
        encode(&plc, &record),
        @r#"{"location":"amsterdam","datetime":"2020-06-24 12:01:44","device":"M241","machine":"pump6","temperature":12,"pressure":6}"#
    );
}

#[test]
fn nested_without_stamp_is_the_example_of_the_m262() {
    let plc = plc(&["temp"], |publish| {
        publish.shape = PayloadShape::Nested;
        publish.stamp = false;
        publish.extra = members(&json!({"id": 0}));
    });

    insta::assert_snapshot!(
        encode(&plc, &record([good(0, TagValue::Uint(220))])),
        @r#"{"M241":{"id":0,"temp":220}}"#
    );
}

#[test]
fn flat_has_the_stamp_after_the_tags() {
    let plc = plc(&["temperature", "running"], |_| {});
    let record = record([good(0, TagValue::Real(0.1)), good(1, TagValue::Bool(true))]);

    insta::assert_snapshot!(
        encode(&plc, &record),
        @r#"{"location":"amsterdam","datetime":"2020-06-24T10:01:44.250Z","device":"M241","machine":"pump6","temperature":0.1,"running":true,"gateway":{"id":"amsterdam-01","epoch":"k3f9","seq":4711}}"#
    );
}

#[test]
fn nested_has_its_time_in_the_stamp() {
    let plc = plc(&["temp"], |publish| publish.shape = PayloadShape::Nested);

    insta::assert_snapshot!(
        encode(&plc, &record([good(0, TagValue::Int(220))])),
        @r#"{"M241":{"temp":220},"gateway":{"id":"amsterdam-01","epoch":"k3f9","seq":4711,"datetime":"2020-06-24T10:01:44.250Z"}}"#
    );
}

#[test]
fn samples_lists_every_tag_with_its_own_time_and_unit() {
    let mut plc = plc(&["temperature", "pressure"], |publish| {
        publish.shape = PayloadShape::Samples;
        publish.datetime = DatetimeFormat::UnixMs;
    });
    Arc::make_mut(&mut plc.tags)[0].unit = Some("°C".into());
    let later = Sample { at: UnixTime::from_micros(AT.as_micros() + 40_000), ..refused(1) };
    let record = record([good(0, TagValue::Real(21.5)), later]);

    insta::assert_snapshot!(
        encode(&plc, &record),
        @r#"{"location":"amsterdam","device":"M241","machine":"pump6","samples":[{"tag":"temperature","value":21.5,"quality":"good","datetime":1592992904250,"unit":"°C"},{"tag":"pressure","value":null,"quality":"refused","datetime":1592992904290}],"gateway":{"id":"amsterdam-01","epoch":"k3f9","seq":4711,"quality":{"pressure":"refused"}}}"#
    );
}

#[test]
fn a_tag_without_a_good_value_is_null_and_named() {
    let plc = plc(&["a", "b", "c", "d", "e"], |_| {});
    let unsynced = Sample { quality: Quality::Unsynced, ..good(4, TagValue::Lreal(1.5)) };
    let record = record([
        good(0, TagValue::Int(1)),
        refused(1),
        good(2, TagValue::Real(f32::NAN)),
        Sample { value: None, ..good(3, TagValue::Int(1)) },
        unsynced,
    ]);

    let message = parse(&encode(&plc, &record));

    assert_eq!(
        message["gateway"]["quality"],
        json!({"b": "refused", "c": "invalid", "d": "invalid", "e": "unsynced"})
    );
    assert_eq!(
        (&message["a"], &message["b"], &message["c"]),
        (&json!(1), &json!(null), &json!(null))
    );
    assert_eq!((&message["d"], &message["e"]), (&json!(null), &json!(1.5)));
}

#[test]
fn values_that_are_not_finite_are_null_and_invalid_in_every_shape() {
    let not_finite = [
        TagValue::Real(f32::NAN),
        TagValue::Real(f32::NEG_INFINITY),
        TagValue::Lreal(f64::NAN),
        TagValue::Lreal(f64::INFINITY),
    ];
    for shape in [PayloadShape::Flat, PayloadShape::Nested, PayloadShape::Samples] {
        for value in not_finite.clone() {
            let plc = plc(&["a", "b", "c"], |publish| publish.shape = shape);
            let unsynced = Sample { quality: Quality::Unsynced, ..good(1, value.clone()) };
            let record = record([good(0, value.clone()), unsynced, good(2, TagValue::Lreal(0.5))]);

            let message = parse(&encode(&plc, &record));

            let quality = &message["gateway"]["quality"];
            assert_eq!(*quality, json!({"a": "invalid", "b": "unsynced"}), "{shape:?} {value:?}");
            let values = values(&message, shape);
            let found = ["a", "b", "c"].map(|name| &values[name]);
            assert_eq!(found, [&json!(null), &json!(null), &json!(0.5)], "{shape:?} {value:?}");
        }
    }
}

#[test]
fn a_name_and_a_text_are_escaped_once() {
    let plc = plc(&["a\"b", "c\\d"], |publish| publish.stamp = false);
    let text = TagValue::Text(Arc::new("\"\n".to_owned()));

    let message = encode(&plc, &record([good(0, text), good(1, TagValue::Int(2))]));

    assert!(message.ends_with(r#","a\"b":"\"\n","c\\d":2}"#), "{message}");
}

#[test]
fn only_messages_from_the_backlog_are_marked_as_history() {
    let plc = plc(&["a"], |_| {});
    let encoder = Encoder::new(&testing::gateway(), &plc);
    let record = record([good(0, TagValue::Int(1))]);

    let late = encoder.encode(&record, &MessageStamp { history: true, ..STAMP });

    assert_eq!(parse(&String::from_utf8(late).unwrap())["gateway"]["history"], json!(true));
    assert_eq!(parse(&encode(&plc, &record))["gateway"].get("history"), None);
}

#[test]
fn tags_are_in_the_order_of_the_configuration_for_any_order_of_reading() {
    let plc = plc(&["z", "y", "x"], |_| {});
    let record = record([2, 0, 1].map(|tag| good(tag, TagValue::Int(i64::from(tag)))));

    let message = parse(&encode(&plc, &record));

    let keys: Vec<&str> = message.keys().map(String::as_str).skip(4).collect();
    assert_eq!(keys, ["z", "y", "x", "gateway"]);
}

#[test]
fn an_extra_member_never_replaces_a_tag_or_a_member_of_the_gateway() {
    let extra = json!({"temperature": 0, "gateway": 0, "line": 3});
    let plc = plc(&["temperature"], |publish| publish.extra = members(&extra));

    let text = encode(&plc, &record([good(0, TagValue::Int(12))]));

    assert_eq!(text.matches("\"temperature\"").count(), 1);
    assert_eq!(text.matches("\"gateway\"").count(), 1);
    assert_eq!(parse(&text)["line"], json!(3));
}

#[test]
fn an_empty_location_is_left_out() {
    let gateway = config::Gateway { location: String::new(), ..testing::gateway() };
    let encoder = Encoder::new(&gateway, &plc(&["a"], |_| {}));

    let bytes = encoder.encode(&record([good(0, TagValue::Int(1))]), &STAMP);

    assert_eq!(parse(&String::from_utf8(bytes).unwrap()).get("location"), None);
}

#[test]
fn numbers_have_the_shortest_text_that_reads_back_exactly() {
    let plc = plc(&["a", "b", "c", "d", "e"], |publish| publish.stamp = false);
    let record = record([
        good(0, TagValue::Real(21.6)),
        good(1, TagValue::Lreal(21.6)),
        good(2, TagValue::Int(i64::MIN)),
        good(3, TagValue::Uint(u64::MAX)),
        good(4, TagValue::Real(3.0)),
    ]);

    let text = encode(&plc, &record);

    assert!(
        text.ends_with(
            r#""a":21.6,"b":21.6,"c":-9223372036854775808,"d":18446744073709551615,"e":3.0}"#
        ),
        "{text}"
    );
}

#[test]
fn plain_dates_follow_the_daylight_saving_time_of_the_zone() {
    let timezone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let text = |micros| {
        let date = shapes::FormattedTime {
            at: UnixTime::from_micros(micros),
            form: DatetimeFormat::Plain,
            timezone: &timezone,
        };
        serde_json::to_value(date).unwrap()
    };

    assert_eq!(text(AT.as_micros()), json!("2020-06-24 12:01:44"));
    assert_eq!(text(1_577_836_800_000_000), json!("2020-01-01 01:00:00"));
}

#[test]
fn an_event_has_its_stamp_after_its_own_members() {
    let body = members(&json!({"event": "gap", "gateway": "not ours"}));
    let message = Message { topic: Arc::from("edge/amsterdam-01/event"), body };

    insta::assert_snapshot!(
        String::from_utf8(encode_message("amsterdam-01", &message, &STAMP)).unwrap(),
        @r#"{"event":"gap","gateway":{"id":"amsterdam-01","epoch":"k3f9","seq":4711}}"#
    );
}

proptest! {
    #[test]
    fn every_message_parses_and_holds_every_value(
        tags in prop::collection::btree_map(name(), (value(), quality()), 1..20),
        shape in prop::sample::select(&[PayloadShape::Flat, PayloadShape::Nested, PayloadShape::Samples][..]),
        unit: Option<Box<str>>,
        epoch: String,
        seq: u64,
        location: String,
        micros: i64,
    ) {
        let names: Vec<&str> = tags.keys().map(String::as_str).collect();
        let mut plc = plc(&names, |publish| publish.shape = shape);
        Arc::make_mut(&mut plc.tags).iter_mut().for_each(|tag| tag.unit.clone_from(&unit));
        let gateway = config::Gateway { location, ..testing::gateway() };
        let samples = tags.values().zip(0..).map(|((value, quality), tag)| {
            Sample { tag, value: Some(value.clone()), quality: *quality, at: UnixTime::from_micros(micros) }
        });
        let at = UnixTime::from_micros(micros);
        let record = Record { plc: 0, at, clock: None, samples: samples.collect() };
        let stamp = MessageStamp { epoch: &epoch, seq, history: false, corrected: false };

        let bytes = Encoder::new(&gateway, &plc).encode(&record, &stamp);

        let message = parse(std::str::from_utf8(&bytes).unwrap());
        let values = values(&message, shape);
        for (name, (value, quality)) in &tags {
            let found = values.get(name).unwrap_or_else(|| panic!("{name:?} in {message:?}"));
            prop_assert!(is(found, value), "{found} is not {value:?}");
            let named = message["gateway"].get("quality").and_then(|quality| quality.get(name));
            let bad = (*quality != Quality::Good).then(|| json!(quality.as_str()));
            prop_assert_eq!(named, bad.as_ref());
        }
        prop_assert_eq!(&message["gateway"]["epoch"], &json!(epoch));
        prop_assert_eq!(&message["gateway"]["seq"], &json!(seq));
    }
}

fn values(message: &Map<String, Value>, shape: PayloadShape) -> BTreeMap<String, Value> {
    let pairs = |object: &Map<String, Value>| object.clone().into_iter().collect();
    match shape {
        PayloadShape::Flat => pairs(message),
        PayloadShape::Nested => pairs(message["M241"].as_object().unwrap()),
        PayloadShape::Samples => {
            let samples = message["samples"].as_array().unwrap().iter();
            samples
                .map(|one| (one["tag"].as_str().unwrap().to_owned(), one["value"].clone()))
                .collect()
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the text of an f32 reads back as that f32")]
fn is(found: &Value, value: &TagValue) -> bool {
    match value {
        TagValue::Bool(value) => found.as_bool() == Some(*value),
        TagValue::Int(value) => found.as_i64() == Some(*value),
        TagValue::Uint(value) => found.as_u64() == Some(*value),
        TagValue::Real(value) => {
            found.as_f64().is_some_and(|found| (found as f32).to_bits() == value.to_bits())
        }
        TagValue::Text(text) => found.as_str() == Some(text),
        TagValue::List(items) => found.as_array().is_some_and(|found| {
            let same = |(found, item): (&Value, &Option<TagValue>)| match item {
                Some(item) => is(found, item),
                None => found.is_null(),
            };
            found.len() == items.len() && found.iter().zip(items.iter()).all(same)
        }),
        TagValue::Lreal(value) => {
            found.as_f64().is_some_and(|found| found.to_bits() == value.to_bits())
        }
    }
}

/// Any text except for the keys that the configuration rejects as names of tags.
fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("reserved", |name| !Encoder::RESERVED_KEYS.contains(&name.as_str()))
}

fn value() -> impl Strategy<Value = TagValue> {
    use prop::num::{f32, f64};
    prop_oneof![
        any::<bool>().prop_map(TagValue::Bool),
        any::<String>().prop_map(|text| TagValue::Text(Arc::new(text))),
        prop::collection::vec(prop::option::of(any::<i64>().prop_map(TagValue::Int)), 0..9)
            .prop_map(|items| TagValue::List(Arc::new(items))),
        any::<i64>().prop_map(TagValue::Int),
        any::<u64>().prop_map(TagValue::Uint),
        (f32::NORMAL | f32::SUBNORMAL | f32::ZERO).prop_map(TagValue::Real),
        (f64::NORMAL | f64::SUBNORMAL | f64::ZERO).prop_map(TagValue::Lreal),
    ]
}

fn quality() -> impl Strategy<Value = Quality> {
    prop::sample::select(&Quality::ALL[..])
}

fn plc(tags: &[&str], change: impl FnOnce(&mut config::Publish)) -> config::Plc {
    let mut plc = testing::plc("pump6", tags);
    change(&mut plc.publish);
    plc
}

fn record(samples: impl IntoIterator<Item = Sample>) -> Record {
    Record { plc: 0, at: AT, clock: None, samples: samples.into_iter().collect() }
}

fn good(tag: u16, value: TagValue) -> Sample {
    Sample { tag, value: Some(value), quality: Quality::Good, at: AT }
}

fn refused(tag: u16) -> Sample {
    Sample { tag, value: None, quality: Quality::Refused, at: AT }
}

fn encode(plc: &config::Plc, record: &Record) -> String {
    let encoder = Encoder::new(&testing::gateway(), plc);
    String::from_utf8(encoder.encode(record, &STAMP)).unwrap()
}

fn parse(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

fn members(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}
