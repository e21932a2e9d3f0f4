use super::*;
use crate::model::{ProgramState, QuarantinedTag, Rejection, StopCause};

#[test]
#[expect(clippy::too_many_lines, reason = "the snapshot is as long as the status")]
fn the_json_of_a_healthy_gateway() {
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
        "sentence": "Connected to the broker at 10.77.0.1:1883.",
        "sentence_detail": {
          "code": "connected",
          "arguments": {
            "address": "10.77.0.1:1883"
          }
        },
        "address": "10.77.0.1:1883",
        "version": "5",
        "since": "2026-11-23T08:00:01.000Z"
      },
      "queue": {
        "stored": 12,
        "entries": 3,
        "bytes": 4200,
        "max_bytes": 268435456,
        "dropped": 0,
        "hours": 30.2,
        "oldest": "2026-11-23T11:12:01.000Z",
        "max_wait_seconds": 61
      },
      "plcs": [
        {
          "name": "pump6",
          "state": "connected",
          "sentence": "The PLC answers; its program is running.",
          "sentence_detail": {
            "code": "running"
          },
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
          },
          "tags": {
            "configured": 3,
            "good": 3
          }
        }
      ]
    }
    "#);
}

#[test]
fn the_table_of_a_healthy_gateway() {
    insta::assert_snapshot!(healthy().to_string(), @r#"
    All is well: the PLC answers, and the broker at 10.77.0.1:1883 takes the values.

    gateway  amsterdam-01    up 3 h 12 min         Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-23T11:12:02.000Z.
    broker   10.77.0.1:1883  connected 3 h 12 min  Connected to the broker at 10.77.0.1:1883.
    queue    -               12 values wait        4.1 KiB of 256.0 MiB used, enough for 30.2 h without a broker, oldest from 2026-11-23T11:12:01.000Z, 0 dropped since the start.
    PLC      pump6           connected 3 h 12 min  The PLC answers; its program is running. Schneider Electric TM241CE40T_U, firmware V5.1.9.34. Last cycle 12.3 ms, 1 missed.
    "#);
}

#[test]
fn the_table_of_a_gateway_without_broker_and_plcs() {
    insta::assert_snapshot!(troubled().to_string(), @r#"
    No broker: 10.77.0.1:1883 refuses the connection. 4711 values are kept until then.

    gateway  amsterdam-01    up 2 d 7 h            Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-25T15:33:20.000Z.
    broker   10.77.0.1:1883  disconnected 2 d 5 h  No broker: 10.77.0.1:1883 refuses the connection.
    queue    -               4711 values wait      878.9 KiB of 1.0 MiB used, oldest from 2026-11-23T10:13:21.000Z, 30 dropped since the start.
    PLC      pump6           disconnected 2 d 7 h  Nothing answers at 192.168.1.10:502.
    PLC      pump7           disconnected 2 d 5 h  Nothing answers at 192.168.1.11:502. Retried within 8 min.
    PLC      mixer           connected 2 d 7 h     The PLC answers.
    "#);
}

#[test]
fn the_table_of_a_starting_gateway() {
    let status = Status::new("a", "0.1.0", "3f9a61c0d2b4", ["pump6"], at(0));

    insta::assert_snapshot!(status.to_string(), @r#"
    Connecting to the broker.

    gateway  a      up 0 s          Version 0.1.0, configuration 3f9a61c0d2b4, at 2026-11-23T08:00:00.000Z.
    broker   -      connecting 0 s  Connecting to the broker.
    queue    -      0 values wait   0 B of 0 B used, 0 dropped since the start.
    PLC      pump6  connecting 0 s  Connecting to the PLC.
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
fn unknown_keys_of_a_newer_gateway_are_ignored() {
    let mut json = serde_json::to_value(healthy()).unwrap();
    json["later"] = serde_json::json!({"state": "confirmed"});

    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), healthy());
}

#[test]
fn the_headline_reports_the_broker_before_the_plcs() {
    let mut status = troubled();
    assert_eq!(
        status.headline().to_string(),
        "No broker: 10.77.0.1:1883 refuses the connection. 4711 values are kept until then."
    );

    status.on_broker_connected("10.77.0.1:1883", MqttVersion::V5, at(9000));
    assert_eq!(
        status.headline().to_string(),
        "2 of 3 PLCs do not answer. pump6: Nothing answers at 192.168.1.10:502."
    );

    status.on_plc_connected(0, None, Some(true), None, at(9000));
    assert_eq!(status.headline().to_string(), "PLC pump7: Nothing answers at 192.168.1.11:502.");

    status.on_plc_connected(1, None, Some(false), None, at(9000));
    assert_eq!(
        status.headline().to_string(),
        "PLC pump7: The PLC answers, but its program was stopped; its values are frozen."
    );

    status.on_plc_connected(1, None, Some(true), None, at(9000));
    assert!(status.headline().to_string().contains("4711 values wait for it, the oldest since"));

    status.set_queue(QueueStatus::default(), None, at(9000));
    assert_eq!(
        status.headline().to_string(),
        "PLC pump6: The PLC answers; its program is running."
    );

    for plc in 0..3 {
        status.set_plc_tags(plc, (1, 1), Vec::new(), at(9000));
    }
    assert_eq!(
        status.headline().to_string(),
        "All is well: 3 PLCs answer, and the broker at 10.77.0.1:1883 takes the values."
    );
}

#[test]
fn a_faulty_tunnel_is_the_headline_although_the_broker_still_seems_connected() {
    let mut status = healthy();
    for (state, is_named) in
        [("up", false), ("mtu_too_large", true), ("looking_up", true), ("silent", true)]
    {
        let sentence = "Nothing comes back from hub-a.".to_owned();
        status.set_tunnel(TunnelStatus { sentence, ..tunnel_in(state) }, at(9000));
        let headline = status.headline().to_string();
        assert_eq!(headline.contains("Nothing comes back"), is_named, "{state}: {headline}");
    }
}

#[test]
fn refused_tags_are_named_until_the_plc_accepts_them() {
    let mut status = healthy();
    let tag = |n: u8| QuarantinedTag {
        tag: format!("t{n}"),
        at: format!("%MW{n}"),
        rejection: Rejection::Exception(2),
    };
    let learned = |tags| LearnedLimits { quarantined: tags, ..LearnedLimits::default() };
    status.on_plc_learned(0, learned(vec![tag(1)]), at(3));
    assert_eq!(
        status.headline().to_string(),
        "PLC pump6: The PLC refuses t1 (%MW1: exception 2): correct the address or remove the tag. It is retried \
         from time to time; all others are read."
    );
    status.on_plc_learned(0, learned((1..6).map(tag).collect()), at(4));
    let refusal = status.plcs[0].refusal.clone().unwrap();
    assert!(
        refusal.starts_with(
            "The PLC refuses t1 (%MW1: exception 2), t2 (%MW2: exception 2), t3 (%MW3: exception 2) and 2 more:"
        )
    );
    assert!(status.to_string().contains(&refusal));
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);

    status.on_plc_learned(0, LearnedLimits::default(), at(5));
    assert!(status.headline().to_string().starts_with("All is well"));
    assert_eq!(status.plcs[0].learned, None);
}

#[test]
fn since_changes_only_when_the_state_changes() {
    let mut status = healthy();

    status.on_broker_connected("10.77.0.2:1883", MqttVersion::V5, at(500));
    status.on_plc_connected(0, None, None, None, at(500));
    assert_eq!((status.broker.since, status.plcs[0].since), (at(1), at(2)));

    status.on_broker_disconnected(sentence("gone"), at(600));
    status.on_plc_disconnected(0, sentence("gone"), None, at(600));
    assert_eq!((status.broker.since, status.plcs[0].since), (at(600), at(600)));
}

#[test]
fn a_cause_becomes_a_sentence_with_capital_and_full_stop() {
    let mut status = healthy();

    status.on_broker_disconnected(sentence("the broker b:1883 refuses the connection"), at(600));

    assert_eq!(status.broker.sentence, "The broker b:1883 refuses the connection.");
}

#[test]
fn a_disconnected_plc_has_no_cycle() {
    let mut status = healthy();

    status.on_plc_disconnected(0, sentence("gone"), None, at(600));
    status.on_plc_cycle(0, Duration::ZERO, 1, at(601));

    assert_eq!(status.plcs[0].cycle, None);
}

#[test]
fn every_update_sets_at() {
    let mut status = healthy();

    status.on_plc_cycle(0, Duration::from_millis(3), 0, at(777));

    assert_eq!(status.gateway.at, at(777));
}

#[test]
fn control_characters_in_the_name_of_a_plc_are_escaped() {
    let mut status = healthy();
    let vendor = "\u{1b}[2Jevil".to_owned();
    let identity = PlcIdentity { vendor, product: "x".to_owned(), revision: "1".to_owned() };
    status.on_plc_connected(0, Some(identity), None, None, at(3));

    assert!(!status.to_string().contains('\u{1b}'));
}

fn healthy() -> Status {
    let mut status = Status::new("amsterdam-01", "0.1.0", "3f9a61c0d2b4", ["pump6"], at(0));
    status.on_broker_connected("10.77.0.1:1883", MqttVersion::V5, at(1));
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
        max_wait_seconds: 61,
        ..QueueStatus::default()
    };
    status.set_plc_tags(0, (3, 3), Vec::new(), at(11_522));
    status.set_queue(
        QueueStatus { oldest: Some(at(11_521)), hours: Some(30.2), ..queue },
        None,
        at(11_522),
    );
    status
}

fn troubled() -> Status {
    let plcs = ["pump6", "pump7", "mixer"];
    let mut status = Status::new("amsterdam-01", "0.1.0", "3f9a61c0d2b4", plcs, at(0));
    status.on_broker_connected("10.77.0.1:1883", MqttVersion::V5, at(1));
    status.on_broker_disconnected(
        sentence("No broker: 10.77.0.1:1883 refuses the connection."),
        at(8000),
    );
    status.on_plc_disconnected(0, sentence("Nothing answers at 192.168.1.10:502."), None, at(20));
    status.on_plc_disconnected(
        1,
        sentence("Nothing answers at 192.168.1.11:502."),
        Some(Duration::from_secs(480)),
        at(8500),
    );
    status.on_plc_connected(2, None, None, None, at(3));
    let queue =
        QueueStatus { stored: 4711, entries: 1200, bytes: 900_000, ..QueueStatus::default() };
    let queue = QueueStatus { max_bytes: 1 << 20, dropped: 30, oldest: Some(at(8001)), ..queue };
    status.set_queue(queue, None, at(200_000));
    status
}

/// Returns a sentence that another module made.
fn sentence(text: &str) -> Sentence {
    let detail = Detail { code: "other".to_owned(), arguments: serde_json::Map::new() };
    Sentence { text: text.to_owned(), detail }
}

/// Seconds after 2026-11-23 08:00 UTC.
fn at(seconds: i64) -> UnixTime {
    UnixTime::from_micros((1_795_420_800 + seconds) * 1_000_000)
}

#[test]
fn a_broken_tunnel_is_reported_before_the_broker() {
    let mut status = healthy();
    let at = status.gateway.at;
    let tunnel = TunnelStatus {
        state: "silent".to_owned(),
        sentence: "Nothing comes back from hub-a.".to_owned(),
        sentence_detail: None,
        hub: "hub-a".to_owned(),
        endpoint: None,
        last_handshake: None,
        since: at,
    };
    assert!(status.set_tunnel(tunnel.clone(), at));
    assert!(!status.set_tunnel(tunnel, at));
    status.on_broker_disconnected(sentence("the tunnel is not up"), at);
    assert_eq!(
        status.headline().to_string(),
        "Nothing comes back from hub-a. 12 values are kept until then."
    );
    let shown = status.to_string();
    assert!(shown.contains("tunnel   hub-a"), "{shown}");
}

#[test]
fn refused_tags_are_arguments_of_the_sentence() {
    let mut status = healthy();
    let tag = |n: u8| QuarantinedTag {
        tag: format!("t{n}"),
        at: format!("%MW{n}"),
        rejection: Rejection::Exception(2),
    };
    let quarantined = (1..6).map(tag).collect();
    status.on_plc_learned(0, LearnedLimits { quarantined, ..LearnedLimits::default() }, at(3));

    let detail = serde_json::to_value(status.plcs[0].refusal_detail.as_ref().unwrap()).unwrap();

    assert_eq!(detail["code"], "tags_refused");
    assert_eq!(
        detail["arguments"]["tags"][2],
        serde_json::json!({"tag": "t3", "at": "%MW3", "cause": "exception 2"})
    );
    assert_eq!(detail["arguments"]["more"], 2);
}

#[test]
fn state_and_last_stop_of_a_program_are_told_in_one_sentence() {
    let sentence = |state, cause| {
        PlcSentence::NotRunning { state: Some(state), cause: Some(cause) }.to_string()
    };
    assert_eq!(
        sentence(ProgramState::Stopped, StopCause::User),
        "The PLC answers, but its program was stopped by a user; its values are frozen."
    );
    assert_eq!(
        sentence(ProgramState::Halted, StopCause::Watchdog),
        "The PLC answers, but an error halted its program (last stop: by the hardware watchdog); \
         its values are frozen."
    );
}

#[test]
fn more_than_two_days_of_free_space_are_told_in_days() {
    let mut status = healthy();
    let queue = status.queue.clone();
    status.set_queue(QueueStatus { hours: Some(1442.4), ..queue }, None, at(11_523));

    assert!(status.to_string().contains("enough for 60 days without a broker"), "{status}");
}

/// "All is well" is said of nothing else: every state of each part, with every state of the others.
#[test]
fn all_is_well_only_when_every_part_is_up_and_every_tag_is_good() {
    let sentence = || Some("Something is wrong.".to_owned());
    let states =
        [ConnectionState::Connecting, ConnectionState::Connected, ConnectionState::Disconnected];
    let (base, mut well) = (healthy(), 0);
    let gateways: Vec<_> = [None, Some("unset"), Some("floor"), Some("synchronised")]
        .into_iter()
        .flat_map(|clock| [None, Some("up"), Some("silent")].map(|tunnel| (clock, tunnel)))
        .collect();
    let brokers: Vec<_> =
        states.into_iter().flat_map(|state| [None, sentence()].map(|no| (state, no))).collect();
    let queues: Vec<_> = [None, sentence()]
        .into_iter()
        .flat_map(|storage| [None, Some(0), Some(61), Some(62)].map(|age| (storage.clone(), age)))
        .flat_map(|queue| [None, Some(14), Some(13)].map(|days| (queue.clone(), days)))
        .collect();
    for plcs in
        plc_states().iter().flat_map(|plc| [vec![plc.clone()], vec![well_plc(), plc.clone()]])
    {
        for (clock, tunnel) in &gateways {
            for (broker, refusal) in &brokers {
                for ((storage, age), days) in &queues {
                    let mut status = base.clone();
                    status.plcs.clone_from(&plcs);
                    status.gateway.clock = clock.map(|state| ClockStatus {
                        state: state.to_owned(),
                        sentence: String::new(),
                        sentence_detail: None,
                    });
                    status.tunnel = tunnel.map(tunnel_in);
                    (status.broker.state, status.broker.refusal) = (*broker, refusal.clone());
                    status.queue.storage.clone_from(storage);
                    status.certificates.extend(days.map(certificate_of));
                    let now = status.gateway.at.as_micros();
                    status.queue.oldest =
                        age.map(|age| UnixTime::from_micros(now - age * 1_000_000));
                    let said = matches!(status.headline(), Headline::AllWell { .. });
                    assert_eq!(said, is_well(&status), "{status:?}");
                    well += u32::from(said);
                }
            }
        }
    }
    assert!(well > 0, "it is said at all");
}

/// Returns whether a gateway is well, from every field of its status: a new field does not compile
/// before it is judged here.
fn is_well(status: &Status) -> bool {
    // Whether a PLC can be written to says nothing about values.
    let Status { state, gateway, tunnel, broker, certificates, queue, plcs, writes: _, trial } =
        status;
    let GatewayStatus { id: _, version: _, config: _, clock, started: _, at } = gateway;
    let BrokerStatus {
        state: broker_state,
        version: _,
        sentence: _,
        sentence_detail: _,
        address: _,
        refusal,
        refusal_detail: _,
        since: _,
    } = broker;
    let QueueStatus {
        stored: _,
        entries: _,
        bytes: _,
        max_bytes: _,
        dropped: _,
        hours: _,
        oldest,
        max_wait_seconds,
        storage,
        storage_detail: _,
    } = queue;
    let waits = |oldest: &UnixTime| (at.as_millis() - oldest.as_millis()) / 1000;
    *state == Presence::Online
        && clock.as_ref().is_none_or(|clock| clock.state != "unset")
        && tunnel.as_ref().is_none_or(|tunnel| tunnel.state == "up")
        && *broker_state == ConnectionState::Connected
        && refusal.is_none()
        && certificates.iter().all(|certificate| !certificate.urgent)
        && storage.is_none()
        && trial.is_none()
        && oldest
            .as_ref()
            .is_none_or(|oldest| waits(oldest) <= i64::try_from(*max_wait_seconds).unwrap())
        && plcs.iter().all(is_plc_well)
}

fn is_plc_well(plc: &PlcStatus) -> bool {
    let PlcStatus {
        name: _,
        state,
        sentence: _,
        sentence_detail: _,
        since: _,
        identity: _,
        running,
        program: _,
        tried_within_seconds: _,
        cycle: _,
        tags: TagsStatus { configured, good, sentence: _, sentence_detail: _ },
        limit,
        limit_detail: _,
        refusal,
        refusal_detail: _,
        learned: _,
    } = plc;
    *state == ConnectionState::Connected
        && *running != Some(false)
        && limit.is_none()
        && refusal.is_none()
        && *configured > 0
        && good == configured
}

fn well_plc() -> PlcStatus {
    healthy().plcs.remove(0)
}

/// Returns a PLC in every state.
fn plc_states() -> Vec<PlcStatus> {
    let sentence = || Some("Something is wrong.".to_owned());
    let mut all = Vec::new();
    for state in
        [ConnectionState::Connecting, ConnectionState::Connected, ConnectionState::Disconnected]
    {
        for running in [None, Some(true), Some(false)] {
            for (limit, refusal) in
                [(None, None), (sentence(), None), (None, sentence()), (sentence(), sentence())]
            {
                for (configured, good, why) in
                    [(0, 0, None), (3, 3, None), (3, 2, sentence()), (3, 0, None)]
                {
                    let tags =
                        TagsStatus { configured, good, sentence: why, sentence_detail: None };
                    let (limit, refusal) = (limit.clone(), refusal.clone());
                    all.push(PlcStatus { state, running, limit, refusal, tags, ..well_plc() });
                }
            }
        }
    }
    all
}

fn certificate_of(days: i64) -> CertificateStatus {
    let end = CertificateSentence::of_end("ca.pem".to_owned(), at(0), Some(days));
    let (file, urgent) = ("ca.pem".to_owned(), end.is_urgent());
    CertificateStatus {
        file,
        not_after: None,
        urgent,
        sentence: end.to_string(),
        sentence_detail: None,
    }
}

fn tunnel_in(state: &str) -> TunnelStatus {
    TunnelStatus {
        state: state.to_owned(),
        sentence: "The tunnel is in this state.".to_owned(),
        sentence_detail: None,
        hub: "hub-a".to_owned(),
        endpoint: None,
        last_handshake: None,
        since: UnixTime::from_micros(0),
    }
}

#[test]
fn tags_without_a_good_value_are_in_the_headline_with_what_is_wrong() {
    let mut status = healthy();
    let bad = |tag: &str, cause: &str| NamedTag {
        tag: tag.to_owned(),
        at: format!("holding:{tag}"),
        cause: cause.to_owned(),
    };
    assert!(status.set_plc_tags(0, (6, 5), vec![bad("1", "refused, exception 4")], at(3)));
    assert_eq!(
        status.headline().to_string(),
        "PLC pump6: 1 (holding:1: refused, exception 4) has no good value: check address and type \
         of the tag."
    );
    let three = vec![bad("1", "invalid"), bad("2", "unreachable"), bad("3", "stale")];
    status.set_plc_tags(0, (6, 1), three, at(3));
    assert_eq!(
        status.headline().to_string(),
        "PLC pump6: 1 (holding:1: invalid), 2 (holding:2: unreachable), 3 (holding:3: stale) and 2 \
         more have no good value: check address and type of the tags."
    );
    status.set_plc_tags(0, (6, 0), Vec::new(), at(3));
    let headline = status.headline().to_string();
    assert_eq!(headline, "PLC pump6: 6 tags have not been read yet.");
    status.set_plc_tags(0, (6, 6), Vec::new(), at(3));
    assert!(matches!(status.headline(), Headline::AllWell { .. }));
}
