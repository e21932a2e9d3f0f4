//! What is refused, and with which reason.

use std::time::Duration;

use provisioning::config::EventTrigger;
use provisioning::plc::{Location, Table};
use serde_json::json;

use super::site::{CommandSite, reply};
use crate::command::{CommandEffect, CommandProcessor, CommandReason};
use crate::model::ProgramSignature;

#[test]
fn what_the_allow_list_does_not_allow_is_refused_with_its_reason() {
    let mut site = CommandSite::new();
    let mut shown = Vec::new();
    for payload in [
        r#"{"temperature":5}"#,
        r#"{"nothing":5}"#,
        r#"{"setpoint":90.6}"#,
        r#"{"setpoint":-0.001}"#,
        r#"{"setpoint":"21.5"}"#,
        r#"{"setpoint":true}"#,
        r#"{"setpoint":null}"#,
        r#"{"setpoint":[1]}"#,
        r#"{"setpoint":{"value":1}}"#,
        r#"{"speed":5000}"#,
        r#"{"speed":1.25}"#,
        r#"{"mode":"fault"}"#,
        r#"{"mode":1}"#,
        r#"{"recipe":"0123456789012345678901"}"#,
        r#"{"recipe":"日本"}"#,
        r#"{"lamp":1}"#,
        r#"{"limits":[1,2]}"#,
        r#"{"limits":[1,2,10]}"#,
        r#"{"total":2147483648}"#,
        r#"{"total":1e300}"#,
        r#"{"lamp":true,"lamps":3}"#,
        r#"{"write":{"speed":1},"expect":{"speed":"x"}}"#,
        r#"{"setpoint":5,"temperature":5}"#,
        r#"{"id":"x","write":{"nothing":1}}"#,
    ] {
        let replies = site.send(payload);
        let reply = reply(&replies);
        assert_eq!(reply["state"], "rejected", "{payload}");
        shown.push(format!("{payload}\n    {}", reply["reason"].as_str().unwrap()));
    }
    insta::assert_snapshot!(shown.join("\n"));
    assert_eq!((site.plc.writes, site.trail.len(), site.file.len()), (0, 0, 0));
}

#[test]
fn a_datagram_may_be_sent_back_with_its_read_only_values() {
    let mut site = CommandSite::new();
    let datagram = r#"{"location":"amsterdam","datetime":"2026-12-01T10:00:00Z","device":"M241",
        "machine":"pump6","temperature":18.25,"setpoint":30,"gateway":{"id":"x","seq":1}}"#;
    let replies = site.send(datagram);
    assert_eq!(reply(&replies)["tags"], json!({"setpoint": {"wrote": 30.0, "read": 30.0}}));
    assert_eq!(site.trail[0]["write"], json!({"setpoint": 30}));
    let only_read = site.send(r#"{"temperature":18.25}"#);
    assert_eq!(reply(&only_read)["reason"], "the command names no tag to write");
}

#[test]
fn what_may_be_old_is_refused() {
    let mut site = CommandSite::new();
    let state = |site: &mut CommandSite, payload: &str| {
        let replies = site.send(payload);
        reply(&replies)["state"].as_str().unwrap().to_owned()
    };
    site.is_retained = true;
    assert_eq!(state(&mut site, r#"{"setpoint":1}"#), "rejected");
    site.is_retained = false;
    site.may_be_old = true;
    assert_eq!(state(&mut site, r#"{"setpoint":1}"#), "rejected");
    assert_eq!(state(&mut site, r#"{"id":"a","write":{"setpoint":1}}"#), "rejected");
    assert_eq!(site.plc.writes, 0);
    // A date says until when a command is valid, and so does the broker's own expiry.
    let dated = r#"{"expires":"2026-12-01T10:00:01Z","write":{"setpoint":1}}"#;
    assert_eq!(state(&mut site, dated), "done");
    site.expires_in = Some(Duration::from_secs(1));
    assert_eq!(state(&mut site, r#"{"setpoint":1}"#), "done");
    site.advance(Duration::from_secs(1));
    assert_eq!(state(&mut site, dated), "expired");
    assert_eq!(state(&mut site, &dated.replace("2026", "1926")), "expired");
    assert_eq!(state(&mut site, &dated.replace("2026", "9926")), "done");
    site.time.is_clock_set = false;
    assert_eq!(state(&mut site, &dated.replace("2026", "2036")), "rejected");
    assert_eq!(site.plc.writes, 3);
}

#[test]
fn an_order_carries_the_time_until_which_it_may_be_sent() {
    let mut site = CommandSite::new();
    site.expires_in = Some(Duration::from_secs(5));
    site.receive(r#"{"expires":"2026-12-01T10:00:02.500Z","write":{"setpoint":1}}"#);
    site.command_processor.take_batch(site.time.now).unwrap();
    site.command_processor.on_batch_stored(site.time);
    let to_order = |effect| {
        if let CommandEffect::Order(order) = effect { Some(order) } else { None }
    };
    let order = site.effects().into_iter().find_map(to_order);
    let limit = order.unwrap().not_after.unwrap();
    assert_eq!(limit - site.time.now, Duration::from_millis(2_500));
}

#[test]
fn a_tag_is_not_written_more_often_than_its_rate() {
    let mut site = CommandSite::new();
    let mut done = 0;
    for number in 0..1_000 {
        let replies = site.send(&format!(r#"{{"pulse":{number}}}"#));
        match reply(&replies)["state"].as_str() {
            Some("done") => done += 1,
            Some("rejected") => {
                assert!(reply(&replies)["reason"].as_str().unwrap().contains("3/min"));
            }
            other => panic!("{other:?}"),
        }
        site.advance(Duration::from_millis(100));
    }
    // 100 seconds.
    assert_eq!((done, site.plc.writes), (6, 6));
}

#[test]
fn sixteen_commands_wait_and_no_more() {
    let mut site = CommandSite::new();
    (0..20).for_each(|_| site.receive(r#"{"speed":1}"#));
    let replies = site.run();
    let count = |state: &str| replies.iter().filter(|reply| reply["state"] == *state).count();
    assert_eq!((count("done"), count("rejected")), (16, 4));
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "done");
}

#[test]
fn another_program_in_the_plc_prevents_writes_until_it_is_accepted() {
    let mut site = CommandSite::new();
    let (first, second) = (ProgramSignature([1, 2, 3, 4]), ProgramSignature([5, 6, 7, 8]));
    site.command_processor.on_program(0, first);
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "done");
    site.command_processor.on_program(0, second);
    assert_eq!(site.command_processor.other_program(0), Some(second));
    let replies = site.send(r#"{"speed":1}"#);
    assert!(reply(&replies)["reason"].as_str().unwrap().contains("accept_program"), "{replies:?}");
    // Also after a restart with the same configuration.
    site.restart();
    site.command_processor.on_program(0, second);
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "rejected");
    site.command_processor.on_program(0, first);
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "done");
}

#[test]
fn a_plc_that_only_gets_acknowledgements_of_events_has_one_program_too() {
    let mut config = crate::testing::config(2);
    let place = Location { table: Table::HoldingRegister, first: 90, count: 1, byte: 0, bit: None };
    config.plcs[0].publish.on = Some(EventTrigger { tag: 0, acknowledge: Some(place) });
    let time = CommandSite::new().time;
    let command_processor =
        |ledger: &[u8]| CommandProcessor::new(&config.plcs, "hash", ledger, time);
    let (first, second) = (ProgramSignature([1, 2, 3, 4]), ProgramSignature([5, 6, 7, 8]));
    let mut before = command_processor(b"");
    (0..2).for_each(|plc| before.on_program(plc, first));
    assert_eq!([0, 1].map(|plc| before.required_program(plc)), [Some(first), None]);
    let ledger = before.take_batch(time.now).unwrap().bytes;
    let mut after = command_processor(&ledger);
    (0..2).for_each(|plc| after.on_program(plc, second));
    assert_eq!(after.required_program(0), Some(first));
    assert_eq!([0, 1].map(|plc| after.other_program(plc)), [Some(second), None]);
}

#[test]
fn a_command_that_cannot_be_recorded_is_not_carried_out() {
    let mut site = CommandSite::new();
    site.receive(r#"{"id":"a","write":{"speed":1}}"#);
    site.command_processor.take_batch(site.time.now).unwrap();
    site.command_processor.on_batch_failed(site.time);
    let replies = site.run();
    assert_eq!((&reply(&replies)["state"], site.plc.writes), (&json!("failed"), 0));
    // The id was not used.
    assert_eq!(reply(&site.send(r#"{"id":"a","write":{"speed":1}}"#))["state"], "done");
    site.restart();
    assert_eq!(reply(&site.send(r#"{"id":"a","write":{"speed":1}}"#))["state"], "done");
    assert_eq!(site.plc.writes, 1);
}

#[test]
fn an_order_that_the_plc_task_does_not_take_ends_with_its_reason() {
    let mut site = CommandSite::new();
    assert_eq!(site.command_processor.pending(), 0);
    (0..16).for_each(|_| site.receive(r#"{"speed":1}"#));
    assert_eq!(site.command_processor.pending(), 16);
    site.command_processor.take_batch(site.time.now).unwrap();
    site.command_processor.on_batch_stored(site.time);
    for effect in site.effects() {
        let CommandEffect::Order(order) = effect else { continue };
        site.command_processor.on_order_refused(order.number, CommandReason::Stopping, site.time);
    }
    let replies = site.run();
    assert_eq!((replies.len(), site.command_processor.pending(), site.plc.writes), (16, 0, 0));
    for reply in &replies {
        assert_eq!(
            (&reply["state"], &reply["reason"]),
            (&json!("failed"), &json!("the gateway is stopping"))
        );
    }
    assert_eq!(reply(&site.send(r#"{"speed":1}"#))["state"], "done", "none waits any more");
}

#[test]
fn a_plc_that_is_only_read_refuses_its_tags_as_read_only() {
    let mut site = CommandSite::new();
    assert!(site.command_processor.is_writable());
    let plc = crate::testing::plc("pump6", &["temperature", "speed"]);
    site.command_processor = CommandProcessor::new(&[plc], "hash", &[], site.time);
    assert!(!site.command_processor.is_writable());
    for (payload, expected) in
        [(r#"{"speed":1}"#, "\"speed\" is read-only"), (r#"{"none":1}"#, "this PLC has no tag")]
    {
        let replies = site.send(payload);
        assert!(reply(&replies)["reason"].as_str().unwrap().starts_with(expected), "{replies:?}");
    }
}

#[test]
fn a_processor_that_replaces_another_knows_the_programs_of_the_plcs() {
    let (first, second) = (ProgramSignature([1, 2, 3, 4]), ProgramSignature([5, 6, 7, 8]));
    let mut old = CommandSite::new();
    old.command_processor.on_program(0, first);
    old.command_processor.on_program(0, second);
    let mut new = CommandSite::new();
    new.command_processor.take_over_programs(&old.command_processor);
    assert_eq!(new.command_processor.required_program(0), Some(first));
    assert_eq!(new.command_processor.other_program(0), Some(second));
}
