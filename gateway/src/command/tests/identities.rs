//! Ids: a command is carried out once, and its result can be asked for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::site::{CommandSite, plc_config, reply};
use crate::command::{CommandProcessor, MAX_IDS};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn a_repeated_id_gets_the_first_result_and_writes_nothing() {
    let mut site = CommandSite::new();
    let command = r#"{"id":"a1","write":{"setpoint":21.5}}"#;
    let first = site.send(command);
    assert_eq!((&reply(&first)["state"], &reply(&first)["id"]), (&json!("done"), &json!("a1")));
    site.advance(Duration::from_secs(1));
    let second = site.send(command);
    assert_eq!(
        second,
        [json!({
            "id": "a1",
            "state": "duplicate",
            "tags": {"setpoint": {"wrote": 21.5, "read": 21.5}},
            "reason": "the command with this id is over: done",
            "at": "2026-12-01T10:00:00.000Z",
            "first": "done",
        })]
    );
    // Also with other content, which would be refused.
    let other = site.send(r#"{"id":"a1","expires":1,"write":{"setpoint":1000}}"#);
    assert_eq!(reply(&other)["state"], "duplicate");
    // The number 1 and the text "1" are two ids.
    assert_eq!(reply(&site.send(r#"{"id":"1","write":{"speed":1}}"#))["state"], "done");
    assert_eq!(reply(&site.send(r#"{"id":1,"write":{"speed":1}}"#))["state"], "done");
    assert_eq!(site.plc.writes, 3);
}

#[test]
fn an_id_is_a_duplicate_while_its_command_is_under_way() {
    let mut site = CommandSite::new();
    site.receive(r#"{"id":"a","write":{"speed":1}}"#);
    site.receive(r#"{"id":"a","write":{"speed":1}}"#);
    let replies = site.run();
    let states: Vec<_> = replies.iter().map(|reply| reply["state"].as_str().unwrap()).collect();
    assert_eq!((states, site.plc.writes), (vec!["duplicate", "done"], 1));
}

#[test]
fn the_result_is_known_after_a_restart() {
    let mut site = CommandSite::new();
    let command = r#"{"id":"a1","write":{"setpoint":21.5}}"#;
    let first = site.send(command);
    site.restart();
    assert_eq!(site.send(command), first);
    assert_eq!(site.plc.writes, 1);
}

#[test]
fn an_interrupted_command_is_unknown_and_is_read_back() {
    let mut site = CommandSite::new();
    let command = r#"{"id":"a1","by":"line 3","write":{"setpoint":21.5}}"#;
    site.receive(command);
    let batch = site.command_processor.take_batch(site.time.now).unwrap();
    site.file = batch.bytes;
    // The PLC had taken it.
    site.plc.set(21, 0x41AC);
    site.restart();
    let under_way = site.command_processor.pending();
    let replies = site.run();
    let found = reply(&replies);
    assert_eq!((&found["state"], under_way), (&json!("unknown"), 1));
    assert_eq!(found["tags"], json!({"setpoint": {"read": 21.5}}));
    // The event that said what is written may be lost with the last run.
    let event = &site.trail[0];
    assert_eq!((&event["by"], &event["write"]), (&json!("line 3"), &json!({"setpoint": 21.5})));
    assert_eq!((site.trail.len(), site.plc.writes), (1, 0));
    // The requester gets the same truth again, in this run and in the next.
    assert_eq!(reply(&site.send(command))["first"], "unknown");
    site.restart();
    assert_eq!(site.send(command), replies);
    assert_eq!(site.plc.writes, 0);
}

#[test]
fn an_interrupted_command_whose_tag_is_gone_says_what_it_wrote() {
    let mut site = CommandSite::new();
    site.receive(r#"{"by":"line 3","write":{"setpoint":21.5}}"#);
    site.file = site.command_processor.take_batch(site.time.now).unwrap().bytes;
    let mut plc = plc_config();
    Arc::make_mut(&mut plc.tags).remove(1);
    site.command_processor = CommandProcessor::new(&[plc], "other", &site.file, site.time);
    assert!(site.run().is_empty());
    let event = &site.trail[0];
    assert_eq!((&event["state"], &event["write"]), (&json!("unknown"), &json!({"setpoint": 21.5})));
}

#[test]
fn ids_are_kept_for_seven_days_of_running() {
    let mut site = CommandSite::new();
    let command = r#"{"id":"a","write":{"speed":1}}"#;
    site.send(command);
    // The wall clock may be set as it likes.
    site.time.wall = crate::model::UnixTime::from_micros(0);
    site.advance(6 * DAY);
    site.run();
    assert_eq!(reply(&site.send(command))["state"], "duplicate");
    site.restart();
    assert_eq!(reply(&site.send(command))["state"], "done");
    assert_eq!(site.plc.writes, 1);
    site.advance(DAY);
    site.run();
    assert_eq!(reply(&site.send(command))["state"], "done");
    assert_eq!(site.plc.writes, 2);
}

#[test]
fn a_full_ledger_refuses_new_ids_and_forgets_no_old_one() {
    let mut site = CommandSite::new();
    for number in 0..MAX_IDS {
        let replies = site.send(&format!(r#"{{"id":{number},"write":{{"speed":1}}}}"#));
        assert_eq!(reply(&replies)["state"], "done");
    }
    let refused = site.send(r#"{"id":"new","write":{"speed":1}}"#);
    let limits = "too many: ids are kept for 7 days, at most 10000 of a PLC and 50000 of all; ";
    assert!(reply(&refused)["reason"].as_str().unwrap().starts_with(limits), "{refused:?}");
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "done");
    for number in [0, 1, MAX_IDS - 1] {
        let again = site.send(&format!(r#"{{"id":{number},"write":{{"speed":1}}}}"#));
        assert_eq!(reply(&again)["state"], "duplicate");
    }
    assert_eq!(site.plc.writes, MAX_IDS + 1);
    // The file was rewritten on the way, and holds nothing but what is remembered.
    assert!(site.file.len() < 6 << 20, "{} bytes", site.file.len());
    site.restart();
    assert_eq!(reply(&site.send(r#"{"id":7,"write":{"speed":1}}"#))["state"], "done");
    assert_eq!(reply(&site.send(r#"{"id":"new","write":{"speed":1}}"#))["state"], "rejected");
    assert_eq!(site.plc.writes, MAX_IDS + 1);
    site.advance(8 * DAY);
    assert_eq!(reply(&site.send(r#"{"id":"new","write":{"speed":1}}"#))["state"], "done");
}

#[test]
fn a_damaged_or_torn_line_costs_only_what_it_says() {
    let mut site = CommandSite::new();
    for id in ["a", "b", "c"] {
        site.send(&format!(r#"{{"id":"{id}","write":{{"speed":1}}}}"#));
    }
    let whole = site.file.clone();
    for place in (0..whole.len()).step_by(7) {
        site.file = whole.clone();
        site.file[place] ^= 0x20;
        site.restart();
        site.run();
        site.file = whole[..place].to_vec();
        site.restart();
        site.run();
        // What follows is whole again.
        site.send(r#"{"id":"d","write":{"speed":1}}"#);
        let writes = site.plc.writes;
        site.restart();
        assert_eq!(reply(&site.send(r#"{"id":"d","write":{"speed":1}}"#))["state"], "done");
        assert_eq!(site.plc.writes, writes, "cut at {place}");
    }
}
