use proptest::prelude::*;
use serde_json::json;

use super::*;

const BUILT: u64 = 18;

fn now() -> Timestamp {
    "2026-12-02T10:00:00Z".parse().unwrap()
}

fn status(counter: Option<u64>, age_seconds: i64, trial: &serde_json::Value) -> Vec<u8> {
    let at = now() - SignedDuration::from_secs(age_seconds);
    let mut config = json!({"hash": "0123456789ab"});
    if let Some(counter) = counter {
        config["counter"] = counter.into();
    }
    let mut message = json!({
        "state": "online",
        "gateway": {
            "id": "plant-7", "version": "0.1.0", "config": config,
            "started": "2026-12-01T08:00:00Z", "at": at.to_string(),
        },
        "plcs": [{"name": "pump6", "state": "connected"}],
    });
    if !trial.is_null() {
        message["trial"] = trial.clone();
    }
    message.to_string().into_bytes()
}

fn trial(state: &str, counter: u64) -> serde_json::Value {
    json!({"state": state, "counter": counter, "sentence": "the hub is silent",
           "sentence_detail": {"code": "silent"}})
}

fn state_of(payload: &[u8]) -> SiteState {
    let mut reports = SiteReports::default();
    reports.on_message(0, "plant-7", payload, None);
    reports.verdict("plant-7", BUILT, now()).state
}

#[test]
fn every_status_has_its_state() {
    let none = serde_json::Value::Null;
    for (payload, state) in [
        (status(Some(18), 30, &none), SiteState::Current),
        (status(Some(17), 30, &none), SiteState::Behind),
        (status(None, 30, &none), SiteState::Behind),
        (status(Some(19), 30, &none), SiteState::Ahead),
        (status(Some(18), 180, &none), SiteState::Current),
        (status(Some(18), 181, &none), SiteState::Silent),
        (status(Some(18), -181, &none), SiteState::Silent),
        (status(Some(18), 30, &trial("trying", 18)), SiteState::Trying),
        (status(Some(17), 30, &trial("fetching", 18)), SiteState::Behind),
        (status(Some(17), 30, &trial("reverted", 18)), SiteState::Reverted),
        (status(Some(17), 30, &trial("refused", 18)), SiteState::Refused),
        // About an older bundle: that is over.
        (status(Some(18), 30, &trial("reverted", 17)), SiteState::Current),
        (status(Some(17), 30, &trial("reverted", 16)), SiteState::Behind),
        (status(Some(18), 30, &trial("trying", 19)), SiteState::Trying),
        (status(Some(18), 30, &trial("of a later version", 18)), SiteState::Current),
        (br#"{"state":"offline"}"#.to_vec(), SiteState::Offline),
        (b"Disconnected".to_vec(), SiteState::Silent),
        (br#"{"state":"online"}"#.to_vec(), SiteState::Silent),
        (Vec::new(), SiteState::NeverSeen),
    ] {
        assert_eq!(state_of(&payload), state, "{}", String::from_utf8_lossy(&payload));
    }
}

#[test]
fn a_status_that_came_live_is_fresh_although_the_clock_of_the_gateway_is_wrong() {
    let old = status(Some(18), 40 * 365 * 86_400, &serde_json::Value::Null);
    let mut reports = SiteReports::default();
    reports.on_message(0, "plant-7", &old, Some(now()));
    assert_eq!(reports.verdict("plant-7", BUILT, now()).state, SiteState::Current);
    let later = now() + SignedDuration::from_mins(4);
    assert_eq!(reports.verdict("plant-7", BUILT, later).state, SiteState::Silent);
}

#[test]
fn a_site_that_moved_to_another_broker_is_judged_by_its_newest_status() {
    let none = serde_json::Value::Null;
    let mut reports = SiteReports::default();
    reports.on_message(0, "plant-7", &status(Some(17), 7200, &none), None);
    reports.on_message(1, "plant-7", &status(Some(18), 10, &none), None);
    assert_eq!(reports.verdict("plant-7", BUILT, now()).state, SiteState::Current);
    reports.on_message(0, "plant-7", br#"{"state":"offline"}"#, None);
    assert_eq!(reports.verdict("plant-7", BUILT, now()).state, SiteState::Current);
    reports.on_message(1, "plant-7", br#"{"state":"offline"}"#, None);
    assert_eq!(reports.verdict("plant-7", BUILT, now()).state, SiteState::Offline);
}

#[test]
fn the_reason_is_the_sentence_of_the_gateway_without_control_characters() {
    let mut reverted = trial("reverted", 18);
    reverted["sentence"] = "the hub\u{1b}[2J is silent\n".into();
    let report = SiteReport::read(&status(Some(17), 5, &reverted));
    let verdict = site_verdict(Some(&report), BUILT, now());
    assert_eq!(verdict.reason.unwrap().to_string(), "the hub[2J is silent");
    assert_eq!(verdict.runs, Some(17));
    assert_eq!(verdict.since, Some("2026-12-01T08:00:00Z".parse().unwrap()));
}

#[test]
fn an_age_is_shown_in_its_largest_unit() {
    for (seconds, text) in [(59, "59 s"), (200, "3 min"), (7300, "2 hours"), (5 * 86_400, "5 days")]
    {
        assert_eq!(format_age(SignedDuration::from_secs(seconds)), text);
    }
}

proptest! {
    #[test]
    fn any_payload_has_a_verdict(payload in any::<Vec<u8>>(), built in 0_u64..5) {
        let verdict = site_verdict(Some(&SiteReport::read(&payload)), built, now());
        prop_assert!(!verdict.state.as_str().is_empty());
    }

    #[test]
    fn a_site_is_current_only_if_it_runs_the_built_bundle_and_none_is_on_trial(
        runs in prop::option::of(0_u64..4),
        built in 0_u64..4,
        on_trial in prop::option::of((0_usize..4, 0_u64..4)),
        age in -400_i64..400,
    ) {
        let names = ["fetching", "trying", "reverted", "refused"];
        let trial_member = on_trial.map_or(serde_json::Value::Null, |(name, counter)| {
            trial(names[name], counter)
        });
        let report = SiteReport::read(&status(runs, age, &trial_member));
        let is_current = site_verdict(Some(&report), built, now()).state == SiteState::Current;
        let bad = on_trial.is_some_and(|(name, counter)| {
            name == 1 || counter == built && name > 1
        });
        let expected = runs == Some(built) && built > 0 && !bad && age.abs() <= 180;
        prop_assert_eq!(is_current, expected);
    }
}
