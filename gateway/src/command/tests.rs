//! Commands against a PLC in memory: what is written, what is refused, and what the reply says.

mod identities;
mod mutated;
mod refusals;
pub(crate) mod site;

use serde_json::json;

use self::site::{CommandSite, reply};
use super::CommandEffect;

#[test]
fn a_write_is_done_when_the_plc_has_answered_and_was_read_back() {
    let mut site = CommandSite::new();

    let replies = site.send(r#"{"setpoint":21.5}"#);

    assert_eq!(
        replies,
        [json!({
            "state": "done",
            "tags": {"setpoint": {"wrote": 21.5, "read": 21.5}},
            "at": "2026-12-01T10:00:00.000Z",
        })]
    );
    // 21.5 is 16#41AC0000.
    assert_eq!((site.plc.word(20), site.plc.word(21)), (0, 0x41AC));
}

#[test]
fn the_same_registers_hold_every_kind_of_value() {
    let mut site = CommandSite::new();

    let replies = site.send(
        r#"{"id":"a","write":{"speed":12.3,"mode":"run","recipe":"Zürich","lamp":true,"total":-7,
            "limits":[1,2,3]}}"#,
    );

    assert_eq!(reply(&replies)["state"], "done", "{replies:?}");
    assert_eq!(site.plc.word(24), 123);
    assert_eq!(site.plc.word(25), 1);
    assert_eq!(site.plc.word(30), 0xFC5A);
    // The other bits of that word are as they were.
    assert_eq!(site.plc.word(50), 0b1010_1101);
    assert_eq!([52, 53].map(|word| site.plc.word(word)), [0xFFF9, 0xFFFF]);
    assert_eq!([60, 61, 62].map(|word| site.plc.word(word)), [1, 2, 3]);
    let tags = &reply(&replies)["tags"];
    assert_eq!(tags["recipe"], json!({"wrote": "Zürich", "read": "Zürich"}));
    assert_eq!(tags["speed"]["wrote"], 12.3);
}

#[test]
fn what_the_plc_made_of_the_value_is_in_the_reply() {
    let mut site = CommandSite::new();
    site.plc.resets = true;

    let replies = site.send(r#"{"lamp":true}"#);

    let tags = &reply(&replies)["tags"]["lamp"];
    assert_eq!(
        (&reply(&replies)["state"], tags),
        (&json!("done"), &json!({"wrote": true, "read": false}))
    );
}

#[test]
fn nothing_is_written_before_its_record_is_durable() {
    let mut site = CommandSite::new();
    site.receive(r#"{"setpoint":1}"#);
    assert!(site.command_processor.poll_effect().is_none());
    let batch = site.command_processor.take_batch(site.time.now).unwrap();
    assert!(batch.has_intents && site.command_processor.poll_effect().is_none());
    // One batch at a time; what comes meanwhile is in the next.
    site.receive(r#"{"speed":2}"#);
    assert!(site.command_processor.take_batch(site.time.now).is_none());
    site.command_processor.on_batch_stored(site.time);
    let effects = site.effects();
    assert!(
        matches!(
            &effects[..],
            [
                CommandEffect::AckDelivery { requester: 0 },
                CommandEffect::Audit { body },
                CommandEffect::Order(_),
            ] if body["step"] == "intent" && body["write"] == json!({"setpoint": 1})
        ),
        "{effects:?}"
    );
    assert!(site.command_processor.take_batch(site.time.now).is_some());
}

#[test]
fn the_trail_says_who_wrote_what_and_how_it_ended() {
    let mut site = CommandSite::new();
    site.send(r#"{"id":"a1","by":"line 3","expect":{"speed":0},"write":{"setpoint":21.5}}"#);
    let trail: Vec<String> = site.trail.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(trail.join("\n"));
}

#[test]
fn an_expectation_that_does_not_hold_prevents_the_write() {
    let mut site = CommandSite::new();
    let command = r#"{"id":"a","expect":{"speed":5.5},"write":{"setpoint":3}}"#;
    let replies = site.send(command);
    assert_eq!(reply(&replies)["state"], "rejected");
    assert_eq!(reply(&replies)["tags"], json!({"speed": {"read": 0.0}}));
    assert_eq!(site.plc.writes, 0);
    site.plc.set(24, 55);
    assert_eq!(reply(&site.send(&command.replace("\"a\"", "\"b\"")))["state"], "done");
}

#[test]
fn a_refusal_by_the_plc_and_a_missing_answer_are_told_apart() {
    let mut site = CommandSite::new();
    site.plc.exception = Some(2);
    let replies = site.send(r#"{"setpoint":1}"#);
    let refused = reply(&replies);
    assert_eq!((&refused["state"], &refused["exception"]), (&json!("failed"), &json!(2)));
    site.plc.exception = None;
    site.plc.is_silent = true;
    let replies = site.send(r#"{"setpoint":2}"#);
    assert_eq!(reply(&replies)["state"], "unknown");
    assert_eq!(reply(&replies)["tags"], json!({"setpoint": {"read": 2.0}}));
}
