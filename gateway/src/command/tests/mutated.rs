//! Payloads, and mutations of them: none panics, and none writes what is not allowed.
//!
//! The same mutations in every run. For more of them: `E2E_MUTATIONS=1000000`.

use std::time::Duration;

use provisioning::config::Plc;
use serde_json::Value;

use super::site::{CommandSite, plc_config};
use crate::codec;
use crate::command::CommandEffect;
use crate::model::{TagImage, Value as TagValue};

const MUTATIONS: u64 = 100_000;
const CORPUS: [&str; 12] = [
    r#"{"setpoint":21.5}"#,
    r#"{"setpoint":90.5,"speed":-12.3,"mode":"run"}"#,
    r#"{"id":"a1","by":"x","expires":"2036-12-01T10:00:00Z","write":{"setpoint":1}}"#,
    r#"{"id":7,"expires":1796119300000,"expect":{"speed":0},"write":{"mode":"stop"}}"#,
    r#"{"temperature":18.25,"total":-7,"gateway":{"id":"g","seq":1},"datetime":"x"}"#,
    r#"{"recipe":"Z\u00fcrich","lamp":true,"lamps":65535}"#,
    r#"{"limits":[1,2,9]}"#,
    r#"{"pulse":1e3,"limits":[0,0,0]}"#,
    r#"{"setpoint":-0.0}"#,
    r#"{"total":2147483647,"speed":3276.7}"#,
    r#"{"write":{"setpoint":9e1},"id":-1}"#,
    r#"{"write":{},"expect":{}}"#,
];
/// Texts with a meaning in a command.
const MEANINGFUL: [&str; 24] = [
    "\"write\":{",
    "\"expect\":{",
    "\"id\":",
    "\"expires\":",
    "\"setpoint\":",
    "\"speed\":",
    "null",
    "true",
    "-",
    "1e308",
    "0.1",
    "9999999999999999999999",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\u0000",
    "90.50000001",
    "\"mode\":\"fault\"",
    "\"temperature\":",
    " ",
];

#[test]
fn mutated_payloads_write_only_what_is_allowed() {
    let mutations = test_settings::MUTATIONS.number_or(MUTATIONS);
    let mut random = fastrand::Rng::with_seed(11);
    let (mut site, mut orders) = (CommandSite::new(), 0);
    let plc = plc_config();
    for number in 0..mutations {
        let mut payload = random.choice(CORPUS).unwrap().as_bytes().to_vec();
        for _ in 0..random.u8(0..4) {
            mutate(&mut payload, &mut random);
        }
        site.is_retained = number % 16 == 0;
        site.may_be_old = number % 16 == 1;
        site.receive_bytes(&payload);
        orders += judge(&mut site, &plc, &payload);
        // A new command processor now and then, since the ledger fills with ids.
        if number % 5_000 == 0 {
            site = CommandSite::new();
        }
        site.advance(Duration::from_millis(10));
    }
    assert!((mutations / 100..mutations).contains(&orders), "{orders} of {mutations} are orders");
}

/// Ends the command that was received, and checks its one reply and its order. Returns the number
/// of orders.
fn judge(site: &mut CommandSite, plc: &Plc, payload: &[u8]) -> u64 {
    let shown = String::from_utf8_lossy(payload);
    let mut effects = site.effects();
    while site.command_processor.take_batch(site.time.now).is_some() {
        site.command_processor.on_batch_stored(site.time);
        effects.extend(site.effects());
    }
    let mut orders = 0;
    for effect in effects.clone() {
        let CommandEffect::Order(order) = effect else { continue };
        orders += 1;
        assert!(!site.is_retained, "{shown}");
        assert!(!order.write.is_empty() && order.write.len() <= 64, "{shown}");
        for image in &order.write {
            assert!(is_allowed(plc, image), "{shown}: {image:?}");
        }
        let report = site.plc.execute(&order, site.time.wall);
        site.command_processor.on_report(&report, site.time);
    }
    effects.extend(site.effects());
    let reply = |effect: &CommandEffect| {
        if let CommandEffect::Reply { reply, .. } = effect { Some(reply.clone()) } else { None }
    };
    let replies: Vec<_> = effects.iter().filter_map(reply).collect();
    assert_eq!(replies.len(), 1, "{shown}");
    // A reply is bounded, for any command.
    let text = Value::Object(replies[0].body.clone()).to_string();
    assert!(text.len() < 4_000, "{shown}: {text}");
    orders
}

/// Returns whether the value of an image is one that the PLC of the site may be given.
fn is_allowed(plc: &Plc, image: &TagImage) -> bool {
    let Some(tag) = image.tag.and_then(|tag| plc.tags.get(usize::from(tag))) else { return false };
    let value = codec::decode_tag(tag, &image.to_registers(), 0);
    match (tag.name.as_str(), value) {
        ("setpoint", Some(TagValue::Real(value))) => (0.0..=90.5).contains(&value),
        ("speed", Some(TagValue::Lreal(value))) => value.abs() <= 3276.8,
        ("mode", Some(TagValue::Int(value))) => value == 0 || value == 1,
        ("limits", Some(TagValue::List(items))) => {
            items.iter().flatten().all(|item| matches!(item, TagValue::Int(0..=9)))
        }
        ("recipe" | "lamp" | "lamps" | "total" | "pulse", value) => value.is_some(),
        _ => false,
    }
}

fn mutate(payload: &mut Vec<u8>, random: &mut fastrand::Rng) {
    let at = random.usize(0..=payload.len());
    match random.u8(0..6) {
        0 => payload.truncate(at),
        1 if at < payload.len() => payload[at] ^= 1 << random.u8(0..8),
        2 if at < payload.len() => drop(payload.remove(at)),
        3 => payload.insert(at, random.u8(..)),
        4 => {
            let other = random.choice(CORPUS).unwrap().as_bytes();
            let from = random.usize(0..other.len());
            payload.truncate(at);
            payload.extend(&other[from..]);
        }
        _ => {
            let text = random.choice(MEANINGFUL).unwrap();
            payload.splice(at..at, text.bytes());
        }
    }
}
