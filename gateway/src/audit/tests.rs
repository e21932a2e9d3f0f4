use proptest::prelude::*;

use super::*;

const DATA: &str = "edge/a/data/p";
const EVENTS: &str = "edge/a/event";

#[test]
fn a_complete_stream_is_accounted_for() {
    let auditor = audit((0..5).map(|seq| (DATA, data("e1", seq))));

    assert_eq!(auditor.unaccounted(), 0);
    insta::assert_snapshot!(auditor.report(), @r#"
    gateway  epoch  topic          numbers  received  twice  late  announced  window  missing
    a        e1     edge/a/data/p  0-4      5         0      0     0          0       0

    numbers    the numbers checked: from the first that must arrive to the last known
    received   messages that arrived, also those with a number below the first checked
    twice      copies of messages that had arrived before
    late       messages that arrived after one with a higher number
    announced  messages that the gateway announced as lost
    window     messages that may be lost because the gateway ended without a shutdown
    missing    messages that are lost and were not announced

    Every message arrived or was announced as lost.
    "#);
}

#[test]
fn a_lost_message_is_found() {
    let auditor = audit([0, 1, 4, 5, 7].map(|seq| (DATA, data("e1", seq))));

    assert_eq!(auditor.unaccounted(), 3);
    insta::assert_snapshot!(auditor.report(), @r#"
    gateway  epoch  topic          numbers  received  twice  late  announced  window  missing
    a        e1     edge/a/data/p  0-7      5         0      0     0          0       3

    numbers    the numbers checked: from the first that must arrive to the last known
    received   messages that arrived, also those with a number below the first checked
    twice      copies of messages that had arrived before
    late       messages that arrived after one with a higher number
    announced  messages that the gateway announced as lost
    window     messages that may be lost because the gateway ended without a shutdown
    missing    messages that are lost and were not announced

    Missing on edge/a/data/p, epoch e1: 2-3, 6.
    3 messages are missing and were not announced.
    "#);
}

#[test]
fn an_announced_loss_is_accounted_for_before_and_after_the_gap_appears() {
    let event = (EVENTS, gap("e1", 0, DATA, 1, 3));
    let before = [(DATA, data("e1", 0)), event.clone(), (DATA, data("e1", 4))];
    let after = [(DATA, data("e1", 0)), (DATA, data("e1", 4)), event];

    for messages in [before, after] {
        let auditor = audit(messages);

        assert_eq!(auditor.unaccounted(), 0);
        let report = auditor.report();
        assert_eq!((report.streams[0].announced, report.streams[0].announced_samples), (3, 30));
    }
}

#[test]
fn a_loss_below_an_announced_one_is_found() {
    let auditor = audit([(DATA, data("e1", 0)), (EVENTS, gap("e1", 0, DATA, 3, 5))]);

    assert_eq!(auditor.unaccounted(), 2);
}

#[test]
fn an_announcement_of_another_epoch_does_not_count() {
    let auditor =
        audit([(DATA, data("e1", 0)), (DATA, data("e1", 2)), (EVENTS, gap("e2", 0, DATA, 1, 1))]);

    assert_eq!(auditor.report().streams[0].missing, 1);
}

#[test]
fn only_the_gateway_itself_can_announce_its_losses() {
    let auditor = audit([
        (DATA, data("e1", 0)),
        (DATA, data("e1", 2)),
        ("edge/b/event", gap("e1", 0, DATA, 1, 1)),
        ("edge/a/data/event", gap("e1", 0, DATA, 1, 1)),
    ]);

    assert_eq!(auditor.unaccounted(), 1);
}

#[test]
fn duplicates_and_late_messages_are_counted_and_accounted_for() {
    let auditor = audit([0, 1, 1, 3, 2, 3].map(|seq| (DATA, data("e1", seq))));

    let report = auditor.report();
    let stream = &report.streams[0];
    assert_eq!((stream.received, stream.duplicates, stream.reordered), (4, 2, 1));
    assert_eq!(report.unaccounted, 0);
}

#[test]
fn a_repeated_announcement_counts_its_samples_once() {
    let event = (EVENTS, gap("e1", 0, DATA, 1, 3));
    let auditor = audit([(DATA, data("e1", 0)), event.clone(), event]);

    assert_eq!(auditor.report().streams[0].announced_samples, 30);
}

#[test]
fn an_audit_may_begin_in_the_middle_of_an_epoch() {
    let auditor = audit([4711, 4712].map(|seq| (DATA, data("e1", seq))));

    assert_eq!(auditor.unaccounted(), 0);
    assert_eq!(auditor.report().streams[0].joined_at, Some(4711));
    let from_the_first = audit([0, 1].map(|seq| (DATA, data("e1", seq))));
    assert_eq!(from_the_first.report().streams[0].joined_at, None);
}

#[test]
fn what_was_announced_before_the_time_asked_for_accounts_for_what_is_missing_in_it() {
    let before = [(DATA, data("e1", 0)), (EVENTS, gap("e1", 0, DATA, 2, 3))];
    let quiet = gap("e1", 1, "edge/a/data/quiet", 0, 5);
    let asked_for = [1, 4].map(|seq| (DATA, data("e1", seq)));
    let mut since_start = audit(before.clone().into_iter().chain(asked_for.clone()));
    since_start.on_message(EVENTS, quiet.as_bytes());
    let mut from_then_on = Auditor::default();
    for (topic, payload) in before.into_iter().chain([(EVENTS, quiet)]) {
        from_then_on.on_earlier_message(topic, payload.as_bytes());
    }
    for (topic, payload) in asked_for {
        from_then_on.on_message(topic, payload.as_bytes());
    }

    let topics = |auditor: &Auditor| -> Vec<String> {
        auditor.report().streams.into_iter().map(|stream| stream.topic).collect()
    };
    assert_eq!((since_start.unaccounted(), from_then_on.unaccounted()), (0, 0));
    assert_eq!(topics(&since_start), [DATA, "edge/a/data/quiet", EVENTS]);
    assert_eq!(topics(&from_then_on), [DATA], "of the others no message is asked for");
    assert_eq!(from_then_on.report().streams[0].received, 2);
}

#[test]
fn lines_that_are_no_messages_are_counted_and_the_first_is_named() {
    let mut auditor = audit([(DATA, data("e1", 0))]);
    let sentence = |auditor: &Auditor| sentences(auditor).lines().next().unwrap().to_owned();
    auditor.on_unread_line(7);
    assert_eq!(
        sentence(&auditor),
        "Not read: 1 line, the first is line 7: no message of a gateway."
    );
    [9, 12].into_iter().for_each(|number| auditor.on_unread_line(number));
    assert_eq!(
        sentence(&auditor),
        "Not read: 3 lines, the first is line 7: no message of a gateway."
    );
    assert_eq!(auditor.unaccounted(), 0);
}

#[test]
fn an_epoch_that_follows_another_one_must_be_complete_from_zero() {
    let auditor = audit([(DATA, data("e1", 7)), (DATA, data("e2", 2))]);

    assert_eq!(auditor.unaccounted(), 2);
}

#[test]
fn an_old_epoch_that_is_sent_late_may_begin_in_the_middle() {
    let late = r#"{"gateway":{"id":"a","epoch":"e0","seq":90,"history":true}}"#.to_owned();
    let auditor = audit([(DATA, data("e1", 7)), (DATA, late)]);

    assert_eq!(auditor.unaccounted(), 0);
}

#[test]
fn a_missing_number_is_found_below_the_window_of_an_unclean_shutdown_only() {
    const UNNAMED: &str = "edge/a/data/q";
    let numbers = |topic, epoch, seqs: [u64; 4]| seqs.map(|seq| (topic, data(epoch, seq)));
    let other = [0, 2].map(|seq| {
        let stamp = format!(r#"{{"gateway":{{"id":"b","epoch":"e1","seq":{seq}}}}}"#);
        ("edge/b/data/p", stamp)
    });
    let start = (EVENTS, unclean("e2", 0, "e1", Some(1), &[(DATA, 5)]));
    let auditor = audit(
        numbers(DATA, "e1", [0, 1, 4, 8])
            .into_iter()
            .chain(numbers(UNNAMED, "e1", [0, 1, 2, 9]))
            .chain([start])
            .chain(numbers(DATA, "e2", [0, 1, 2, 4]))
            .chain(other),
    );

    insta::assert_snapshot!(auditor.report(), @r"
    gateway  epoch  topic          numbers  received  twice  late  announced  window  missing
    a        e1     edge/a/data/p  0-8      4         0      0     0          3       2
    a        e1     edge/a/data/q  0-9      4         0      0     0          6       0
    a        e2     edge/a/data/p  0-4      4         0      0     0          0       1
    a        e2     edge/a/event   0-0      1         0      0     0          0       0
    b        e1     edge/b/data/p  0-2      2         0      0     0          0       1

    numbers    the numbers checked: from the first that must arrive to the last known
    received   messages that arrived, also those with a number below the first checked
    twice      copies of messages that had arrived before
    late       messages that arrived after one with a higher number
    announced  messages that the gateway announced as lost
    window     messages that may be lost because the gateway ended without a shutdown
    missing    messages that are lost and were not announced

    Missing on edge/a/data/p, epoch e1: 2-3.
    Missing on edge/a/data/p, epoch e2: 3.
    Missing on edge/b/data/p, epoch e1: 1.
    On edge/a/data/p, epoch e1, 3 are missing from number 5 on: the gateway ended without a shutdown, and up to 1 s of data may be lost.
    On edge/a/data/q, epoch e1, 6 are missing from number 0 on: the gateway ended without a shutdown, and up to 1 s of data may be lost.
    4 messages are missing and were not announced.
    ");
}

#[test]
fn a_window_without_seconds_says_that_the_storage_had_failed() {
    let start = (EVENTS, unclean("e2", 0, "e1", None, &[(DATA, 1)]));
    let auditor = audit([(DATA, data("e1", 0)), (DATA, data("e1", 2)), start]);

    let report = auditor.report();
    let window = UncleanWindow { from: 1, absent: 1, seconds: None };
    assert_eq!((report.streams[0].window, report.unaccounted), (Some(window), 0));
    assert!(report.to_string().contains("its storage had failed."), "{report}");
}

#[test]
fn messages_without_a_stamp_are_counted_apart() {
    let payloads = ["offline", "{}", r#"{"gateway":{"id":"a"}}"#, r#"{"gateway":7}"#, "\u{0}"];
    let auditor = audit(payloads.map(|payload| (DATA, payload.to_owned())));

    assert_eq!(auditor.unaccounted(), 0);
    insta::assert_snapshot!(auditor.report(), @r#"
    5 messages without a number (status, or stamp = false) were not counted.
    Nothing to check: no message with a number arrived.
    "#);
}

/// Returns the sentences of the report, without its table and legend.
fn sentences(auditor: &Auditor) -> String {
    let report = auditor.report().to_string();
    report.rsplit("\n\n").next().unwrap().to_owned()
}

#[test]
fn one_message_is_reported_in_the_singular() {
    let missing = audit([0, 2].map(|seq| (DATA, data("e1", seq))));
    let unstamped = audit([(DATA, data("e1", 0)), (DATA, "offline".to_owned())]);

    assert_eq!(
        sentences(&missing),
        "Missing on edge/a/data/p, epoch e1: 1.\n1 message is missing and was not announced.\n"
    );
    assert_eq!(
        sentences(&unstamped),
        "1 message without a number (status, or stamp = false) was not counted.\n\
         Every message arrived or was announced as lost.\n"
    );
}

#[test]
fn only_messages_outside_of_windows_are_reported_to_be_complete() {
    let start = (EVENTS, unclean("e2", 0, "e1", Some(5), &[(DATA, 1)]));
    let absent = audit([(DATA, data("e1", 0)), (DATA, data("e1", 2)), start.clone()]);
    let complete = audit([(DATA, data("e1", 0)), (DATA, data("e1", 1)), start]);

    assert_eq!(
        sentences(&absent),
        "On edge/a/data/p, epoch e1, 1 is missing from number 1 on: the gateway ended without a \
         shutdown, and up to 5 s of data may be lost.\n\
         Every other message arrived or was announced as lost.\n"
    );
    assert_eq!(sentences(&complete), "Every message arrived or was announced as lost.\n");
}

#[test]
fn the_time_in_which_a_plc_was_away_is_reported_and_nothing_is_missing() {
    let message = |seq: u64, second: u64, quality: &str| {
        let stamp = format!(r#"{{"id":"a","epoch":"e1","seq":{seq}{quality}}}"#);
        (DATA, format!(r#"{{"datetime":{second}000,"t":1,"gateway":{stamp}}}"#))
    };
    const AWAY: &str = r#","quality":{"t":"unreachable"}"#;
    let auditor = audit([message(0, 1, ""), message(1, 2, AWAY), message(2, 8, "")]);

    assert_eq!(
        sentences(&auditor),
        "On edge/a/data/p, epoch e1, values were unreachable once, for 6 s in all: the PLC gave \
         no usable answer, so these values do not exist.\n\
         Every message arrived or was announced as lost.\n"
    );
    // The message that says so arrives late, and again.
    let late = [(0, 1, ""), (2, 3, ""), (1, 2, AWAY), (3, 8, ""), (1, 2, AWAY), (4, 9, "")];
    let late = audit(late.map(|(seq, second, quality)| message(seq, second, quality)));
    let away = UnreachablePeriods { periods: 1, seconds: 6 };
    assert_eq!(late.report().streams[0].unreachable, Some(away));
}

#[test]
fn a_long_list_of_missing_numbers_is_cut_off() {
    let cut = audit((0..=42).step_by(2).map(|seq| (DATA, data("e1", seq))));
    let whole = audit((0..=40).step_by(2).map(|seq| (DATA, data("e1", seq))));

    assert!(cut.report().to_string().contains("37, 39 and more.\n"), "{}", cut.report());
    assert!(whole.report().to_string().contains("37, 39.\n"), "{}", whole.report());
    assert_eq!((cut.unaccounted(), whole.unaccounted()), (21, 20));
}

#[test]
fn the_report_for_programs_names_the_missing_numbers() {
    let auditor = audit([3, 5, 9].map(|seq| (DATA, data("e1", seq))));

    insta::assert_snapshot!(serde_json::to_string_pretty(&auditor.report()).unwrap(), @r#"
    {
      "streams": [
        {
          "gateway": "a",
          "epoch": "e1",
          "topic": "edge/a/data/p",
          "joined_at": 3,
          "last_seq": 9,
          "received": 3,
          "duplicates": 0,
          "reordered": 0,
          "announced": 0,
          "announced_samples": 0,
          "missing": 4,
          "first_missing": [
            [
              4,
              4
            ],
            [
              6,
              8
            ]
          ]
        }
      ],
      "unstamped": 0,
      "unaccounted": 4
    }
    "#);
}

#[test]
fn the_highest_numbers_do_not_overflow() {
    let auditor = audit([
        (DATA, data("e1", 0)),
        (DATA, data("e1", u64::MAX)),
        (EVENTS, gap("e1", 0, DATA, 0, u64::MAX)),
        (EVENTS, gap("e1", u64::MAX, DATA, 9, 3)),
    ]);

    assert_eq!(auditor.report().streams[0].missing, 0);
    assert_eq!(auditor.report().streams[0].announced, u64::MAX - 1);
}

proptest! {
    #[test]
    fn every_announced_loss_is_accounted_for_and_every_other_is_found(
        (fates, order) in fates().prop_flat_map(|fates| {
            let arrivals = arrivals(&fates);
            (Just(fates), Just(arrivals).prop_shuffle())
        }),
    ) {
        let first = (DATA, data("e1", 0));
        let last = (DATA, data("e1", fates.len() as u64 + 1));

        let auditor = audit(std::iter::once(first).chain(order).chain([last]));

        let lost = fates.iter().filter(|fate| **fate == MessageFate::LostSilently).count();
        prop_assert_eq!(auditor.unaccounted(), lost as u64);
        let report = auditor.report();
        let data = &report.streams[0];
        let count = |fate| fates.iter().filter(|one| **one == fate).count() as u64;
        prop_assert_eq!(data.announced, count(MessageFate::LostAndAnnounced));
        prop_assert_eq!(data.duplicates, count(MessageFate::ArrivesTwice));
    }
}

/// What happens to the messages 1, 2, 3, ...
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MessageFate {
    Arrives,
    ArrivesTwice,
    LostAndAnnounced,
    LostSilently,
}

fn fates() -> impl Strategy<Value = Vec<MessageFate>> {
    let fate = prop_oneof![
        4 => Just(MessageFate::Arrives),
        1 => Just(MessageFate::ArrivesTwice),
        2 => Just(MessageFate::LostAndAnnounced),
        1 => Just(MessageFate::LostSilently),
    ];
    prop::collection::vec(fate, 0..60)
}

fn arrivals(fates: &[MessageFate]) -> Vec<(&'static str, String)> {
    let mut messages = Vec::new();
    let mut events = 0;
    for (fate, seq) in fates.iter().zip(1..) {
        match fate {
            MessageFate::Arrives => messages.push((DATA, data("e1", seq))),
            MessageFate::ArrivesTwice => {
                messages.extend([(DATA, data("e1", seq)), (DATA, data("e1", seq))]);
            }
            MessageFate::LostAndAnnounced => {
                messages.push((EVENTS, gap("e1", events, DATA, seq, seq)));
                events += 1;
            }
            MessageFate::LostSilently => {}
        }
    }
    messages
}

fn audit(messages: impl IntoIterator<Item = (&'static str, String)>) -> Auditor {
    let mut auditor = Auditor::default();
    for (topic, payload) in messages {
        auditor.on_message(topic, payload.as_bytes());
    }
    auditor
}

fn data(epoch: &str, seq: u64) -> String {
    format!(r#"{{"temperature":1,"gateway":{{"id":"a","epoch":"{epoch}","seq":{seq}}}}}"#)
}

fn unclean(
    epoch: &str,
    seq: u64,
    ended: &str,
    seconds: Option<u64>,
    next_seq: &[(&str, u64)],
) -> String {
    let next_seq: BTreeMap<_, _> = next_seq.iter().copied().collect();
    serde_json::json!({
        "event": "unclean_start", "epoch": ended, "seconds": seconds, "next_seq": next_seq,
        "gateway": { "id": "a", "epoch": epoch, "seq": seq },
    })
    .to_string()
}

fn gap(epoch: &str, seq: u64, topic: &str, first: u64, last: u64) -> String {
    format!(
        r#"{{"event":"gap","topic":"{topic}","first_seq":{first},"last_seq":{last},"samples":30,"reason":"full","gateway":{{"id":"a","epoch":"{epoch}","seq":{seq}}}}}"#
    )
}

#[test]
fn gateways_with_mqtt_3_1_1_are_named() {
    let status = |id: &str, version: &str| {
        format!(
            r#"{{"state":"online","gateway":{{"id":"{id}"}},"broker":{{"version":"{version}"}}}}"#
        )
    };
    let mut auditor = Auditor::default();
    auditor.on_status("edge/a/status", status("a", "3.1.1").as_bytes());
    auditor.on_message("edge/b/status", status("b", "5").as_bytes());
    auditor.on_message("edge/c/status", status("other", "3.1.1").as_bytes());

    let report = auditor.report();

    assert_eq!(report.v3_gateways, ["a"]);
    assert!(report.to_string().contains("With MQTT 3.1.1: a."), "{report}");
    auditor.on_status("edge/a/status", status("a", "5").as_bytes());
    assert!(auditor.report().v3_gateways.is_empty());
    // Any client can send a status of any gateway.
    for number in 0..=MAX_V3_GATEWAYS {
        let id = number.to_string();
        auditor.on_status(&format!("edge/{id}/status"), status(&id, "3.1.1").as_bytes());
    }
    assert_eq!(auditor.report().v3_gateways.len(), MAX_V3_GATEWAYS);
}
