use super::*;
use crate::model::QuarantinedTag;

#[test]
fn a_healthy_gateway_as_json() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&healthy()).unwrap(), @r#"
    {
      "state": "online",
      "gateway": {
        "id": "amsterdam-01",
        "version": "0.1.0",
        "config": {
          "hash": "3f9a61c0d2b4"
        },
        "started": "2026-11-23T08:00:00.000Z",
        "at": "2026-11-23T11:12:02.000Z"
      },
      "broker": {
        "state": "connected",
        "sentence": "The broker answers at 10.77.0.1:1883.",
        "address": "10.77.0.1:1883",
        "since": "2026-11-23T08:00:01.000Z"
      },
      "queue": {
        "stored": 12,
        "entries": 3,
        "bytes": 4200,
        "max_bytes": 268435456,
        "dropped": 0,
        "hours": 30.2,
        "oldest": "2026-11-23T11:12:01.000Z"
      },
      "plcs": [
        {
          "name": "pump6",
          "state": "connected",
          "sentence": "The PLC answers; its program runs.",
          "since": "2026-11-23T08:00:02.000Z",
          "identity": {
            "vendor": "Schneider Electric",
            "product": "TM241CE40T_U",
            "revision": "V5.1.9.34"
          },
          "running": true,
          "cycle": {
            "seconds": 0.01234,
            "missed": 1
          }
        }
      ]
    }
    "#);
}

#[test]
fn a_healthy_gateway_for_people() {
    insta::assert_snapshot!(healthy().to_string(), @r#"
    All is well: the PLC answers, and the broker at 10.77.0.1:1883 takes the values.

    gateway  amsterdam-01    up 3 h 12 min         Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-23T11:12:02.000Z.
    broker   10.77.0.1:1883  connected 3 h 12 min  The broker answers at 10.77.0.1:1883.
    queue    -               12 samples wait       4.1 KiB of 256.0 MiB, enough for 30.2 h more without a broker, oldest from 2026-11-23T11:12:01.000Z, 0 dropped since the start.
    PLC      pump6           connected 3 h 12 min  The PLC answers; its program runs. Schneider Electric TM241CE40T_U, firmware V5.1.9.34. Last cycle 12.3 ms, 1 missed.
    "#);
}

#[test]
fn a_troubled_gateway_for_people() {
    insta::assert_snapshot!(troubled().to_string(), @r#"
    No broker: 10.77.0.1:1883 refuses the connection. 4711 samples wait for it.

    gateway  amsterdam-01    up 2 d 7 h            Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-25T15:33:20.000Z.
    broker   10.77.0.1:1883  disconnected 2 d 5 h  No broker: 10.77.0.1:1883 refuses the connection.
    queue    -               4711 samples wait     878.9 KiB of 1.0 MiB, oldest from 2026-11-23T10:13:21.000Z, 30 dropped since the start.
    PLC      pump6           disconnected 2 d 7 h  Nothing answers at 192.168.1.10:502.
    PLC      pump7           disconnected 2 d 5 h  Nothing answers at 192.168.1.11:502. It is tried again within 8 min.
    PLC      mixer           connected 2 d 7 h     The PLC answers.
    "#);
}

#[test]
fn a_starting_gateway_for_people() {
    let status = Status::new("a", "0.1.0", "3f9a61c0d2b4", ["pump6"], at(0));

    insta::assert_snapshot!(status.to_string(), @r#"
    The broker is being called.

    gateway  a      up 0 s          Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-23T08:00:00.000Z.
    broker   -      connecting 0 s  The broker is being called.
    queue    -      0 samples wait  0 B of 0 B, 0 dropped since the start.
    PLC      pump6  connecting 0 s  The PLC is being called.
    "#);
}

#[test]
fn a_status_reads_back_from_its_json() {
    for status in [healthy(), troubled()] {
        let json = serde_json::to_string(&status).unwrap();

        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}

#[test]
fn a_status_of_a_newer_gateway_is_still_read() {
    let mut json = serde_json::to_value(healthy()).unwrap();
    json["trial"] = serde_json::json!({"state": "confirmed"});

    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), healthy());
}

#[test]
fn the_headline_names_the_broker_before_the_plcs() {
    let mut status = troubled();
    assert_eq!(
        status.headline(),
        "No broker: 10.77.0.1:1883 refuses the connection. 4711 samples wait for it."
    );

    status.on_broker_connected("10.77.0.1:1883", at(9000));
    assert_eq!(
        status.headline(),
        "2 of 3 PLCs do not answer. pump6: Nothing answers at 192.168.1.10:502."
    );

    status.on_plc_connected(0, None, Some(true), None, at(9000));
    assert_eq!(status.headline(), "PLC pump7: Nothing answers at 192.168.1.11:502.");

    status.on_plc_connected(1, None, Some(false), None, at(9000));
    assert_eq!(
        status.headline(),
        "PLC pump7: The PLC answers, but its program is stopped: values stand still."
    );

    status.on_plc_connected(1, None, Some(true), None, at(9000));
    assert_eq!(
        status.headline(),
        "All is well: 3 PLCs answer, and the broker at 10.77.0.1:1883 takes the values."
    );
}

#[test]
fn tags_that_a_plc_refuses_are_named_until_it_takes_them() {
    let mut status = healthy();
    let tag = |n: u8| QuarantinedTag { tag: format!("t{n}"), at: format!("%MW{n}"), exception: 2 };
    let learned = |tags| LearnedLimits { quarantined: tags, ..LearnedLimits::default() };
    status.on_plc_learned(0, learned(vec![tag(1)]), at(3));
    assert_eq!(
        status.headline(),
        "PLC pump6: The PLC refuses t1 (%MW1): correct the address or remove it; it is tried again \
         now and then, and all others are read."
    );
    status.on_plc_learned(0, learned((1..6).map(tag).collect()), at(4));
    let refusal = status.plcs[0].refusal.clone().unwrap();
    assert!(refusal.starts_with("The PLC refuses t1 (%MW1), t2 (%MW2), t3 (%MW3) and 2 more:"));
    assert!(status.to_string().contains(&refusal));
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);

    status.on_plc_learned(0, LearnedLimits::default(), at(5));
    assert!(status.headline().starts_with("All is well"));
    assert_eq!(status.plcs[0].learned, None);
}

#[test]
fn a_state_that_is_told_again_keeps_its_beginning() {
    let mut status = healthy();

    status.on_broker_connected("10.77.0.2:1883", at(500));
    status.on_plc_connected(0, None, None, None, at(500));
    assert_eq!((status.broker.since, status.plcs[0].since), (at(1), at(2)));

    status.on_broker_disconnected("gone", at(600));
    status.on_plc_disconnected(0, "gone", None, at(600));
    assert_eq!((status.broker.since, status.plcs[0].since), (at(600), at(600)));
}

#[test]
fn a_reason_becomes_a_whole_sentence() {
    let mut status = healthy();

    status.on_broker_disconnected("the broker b:1883 refuses the connection", at(600));

    assert_eq!(status.broker.sentence, "The broker b:1883 refuses the connection.");
}

#[test]
fn a_plc_that_does_not_answer_has_no_cycle() {
    let mut status = healthy();

    status.on_plc_disconnected(0, "gone", None, at(600));
    status.on_plc_cycle(0, Duration::ZERO, 1, at(601));

    assert_eq!(status.plcs[0].cycle, None);
}

#[test]
fn every_update_moves_the_time_at_which_the_status_is_true() {
    let mut status = healthy();

    status.on_plc_cycle(0, Duration::from_millis(3), 0, at(777));

    assert_eq!(status.gateway.at, at(777));
}

#[test]
fn a_plc_cannot_steer_the_terminal_with_its_name() {
    let mut status = healthy();
    let vendor = "\u{1b}[2Jevil".to_owned();
    let identity = PlcIdentity { vendor, product: "x".to_owned(), revision: "1".to_owned() };
    status.on_plc_connected(0, Some(identity), None, None, at(3));

    assert!(!status.to_string().contains('\u{1b}'));
}

fn healthy() -> Status {
    let mut status = Status::new("amsterdam-01", "0.1.0", "3f9a61c0d2b4", ["pump6"], at(0));
    status.on_broker_connected("10.77.0.1:1883", at(1));
    let identity = PlcIdentity {
        vendor: "Schneider Electric".to_owned(),
        product: "TM241CE40T_U".to_owned(),
        revision: "V5.1.9.34".to_owned(),
    };
    status.on_plc_connected(0, Some(identity), Some(true), None, at(2));
    status.on_plc_cycle(0, Duration::from_micros(12_340), 1, at(11_522));
    let queue = QueueStatus {
        stored: 12,
        entries: 3,
        bytes: 4200,
        max_bytes: 256 << 20,
        ..QueueStatus::default()
    };
    status.set_queue(
        QueueStatus { oldest: Some(at(11_521)), hours: Some(30.2), ..queue },
        at(11_522),
    );
    status
}

fn troubled() -> Status {
    let plcs = ["pump6", "pump7", "mixer"];
    let mut status = Status::new("amsterdam-01", "0.1.0", "3f9a61c0d2b4", plcs, at(0));
    status.on_broker_connected("10.77.0.1:1883", at(1));
    status.on_broker_disconnected("No broker: 10.77.0.1:1883 refuses the connection.", at(8000));
    status.on_plc_disconnected(0, "Nothing answers at 192.168.1.10:502.", None, at(20));
    status.on_plc_disconnected(
        1,
        "Nothing answers at 192.168.1.11:502.",
        Some(Duration::from_secs(480)),
        at(8500),
    );
    status.on_plc_connected(2, None, None, None, at(3));
    let queue =
        QueueStatus { stored: 4711, entries: 1200, bytes: 900_000, ..QueueStatus::default() };
    let queue = QueueStatus { max_bytes: 1 << 20, dropped: 30, oldest: Some(at(8001)), ..queue };
    status.set_queue(queue, at(200_000));
    status
}

/// Seconds after 2026-11-23 08:00 UTC.
fn at(seconds: i64) -> UnixTime {
    UnixTime::from_micros((1_795_420_800 + seconds) * 1_000_000)
}

#[test]
fn a_tunnel_that_is_down_is_the_cause_and_comes_before_the_broker() {
    let mut status = healthy();
    let at = status.gateway.at;
    let tunnel = TunnelStatus {
        state: "silent".to_owned(),
        sentence: "Nothing comes back from hub-a.".to_owned(),
        hub: "hub-a".to_owned(),
        endpoint: None,
        last_handshake: None,
        since: at,
    };
    assert!(status.set_tunnel(tunnel.clone(), at));
    assert!(!status.set_tunnel(tunnel, at));
    status.on_broker_disconnected("the tunnel is not up", at);
    assert_eq!(status.headline(), "Nothing comes back from hub-a. 12 samples wait for it.");
    let shown = status.to_string();
    assert!(shown.contains("tunnel   hub-a"), "{shown}");
}
