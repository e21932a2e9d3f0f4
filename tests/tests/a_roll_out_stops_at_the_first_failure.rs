//! A roll-out offers bundles wave by wave, and not to one site more after the first that fails. The
//! broker is Mosquitto; the test plays the sites.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::io::Read;
use std::process::Command;

use e2e::{
    EVENT_TIMEOUT, Mosquitto, Office, Process, RECOVERY_TIMEOUT, Retain, Subscriber, temp_dir,
};
use jiff::{SignedDuration, Timestamp};
use provisioning::enrolment::BoxKeys;
use provisioning::office::build::sha256;
use serde_json::{Value, json};

/// A fleet with enrolled boxes and a broker.
struct RolloutWorld {
    office: Office,
    broker: Mosquitto,
    address: String,
}

impl RolloutWorld {
    /// Makes a fleet with built bundles for these sites.
    fn new(sites: &[&str]) -> Self {
        let office = Office::new("hub-a.example.net:51820");
        for site in sites {
            office.run(&["add", site, "--template", "pump"]);
            let dir = temp_dir();
            let keys = BoxKeys::open_or_create(&dir.path().join("keys")).expect("keys are made");
            let enrolment = keys.enrolment().expect("it is complete");
            let file = dir.write(&enrolment.file_name(), &enrolment.to_string());
            office.run(&["enrol", site, &file.display().to_string()]);
        }
        office.run(&["build"]);
        let password = office.read("secrets/office/mqtt.password");
        let broker = Mosquitto::builder().user("office", password.trim()).persistent().start();
        let address = format!("127.0.0.1:{}", broker.port());
        Self { office, broker, address }
    }

    /// Publishes the status of a gateway that runs bundle `counter`.
    fn report(&self, site: &str, counter: u64, trial: &Value) {
        let at = Timestamp::now().to_string();
        let status = json!({
            "state": "online",
            "gateway": {"id": site, "config": {"hash": "0", "counter": counter},
                        "started": at, "at": at},
            "trial": trial,
        });
        self.broker.publish(&format!("edge/{site}/status"), &status.to_string(), Retain::Yes);
    }

    fn rollout(&self, arguments: &[&str]) -> Process {
        let mut command = Command::new(Office::program());
        command.current_dir(self.office.path("")).args(["rollout", "--broker", &self.address]);
        Process::start(command.args(arguments))
    }

    /// Returns the output of `status` and its exit code.
    fn status(&self, arguments: &[&str]) -> (String, Option<i32>) {
        let output =
            self.office.output(&[&["status", "--broker", &self.address], arguments].concat());
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    }

    /// Returns the sites that have an offer now.
    fn offered(&self) -> Vec<String> {
        let subscriber = self.broker.subscribe("edge/+/offer");
        self.broker.publish("edge/end/offer", "end", Retain::No);
        let mut sites = Vec::new();
        loop {
            let message = subscriber.next(EVENT_TIMEOUT);
            let site = message.topic.split('/').nth(1).expect("it has three levels").to_owned();
            if site == "end" {
                sites.sort();
                return sites;
            }
            sites.push(site);
        }
    }
}

fn trial(state: &str, counter: u64, sentence: &str) -> Value {
    json!({"state": state, "counter": counter, "sentence": sentence})
}

/// Returns the site of the next offer and the offer; `None` for one that is removed.
fn next_offer(offers: &Subscriber) -> (String, Option<Value>) {
    let message = offers.next(RECOVERY_TIMEOUT);
    let site = message.topic.split('/').nth(1).expect("it has three levels").to_owned();
    (site, (!message.payload.is_empty()).then(|| message.json()))
}

/// Returns what a roll-out has printed, and its exit code.
fn end_of(mut rollout: Process) -> (String, Option<i32>) {
    let mut stdout = rollout.stdout();
    let mut text = String::new();
    stdout.read_to_string(&mut text).expect("it prints text");
    let status = rollout.wait(EVENT_TIMEOUT);
    (text + &rollout.log().text(), status.code())
}

/// Makes a fleet of four sites, the last of which is offline.
fn with_one_site_away() -> RolloutWorld {
    let world = RolloutWorld::new(&["site-a", "site-b", "site-c", "site-d"]);
    for site in ["site-a", "site-b", "site-c"] {
        world.report(site, 0, &Value::Null);
    }
    world.broker.publish("edge/site-d/status", r#"{"state":"offline"}"#, Retain::Yes);
    world
}

#[test]
fn a_dry_run_shows_the_waves_and_offers_nothing() {
    let world = with_one_site_away();
    let (text, code) = world.status(&[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("site-a  behind") && text.contains("site-d  offline"), "{text}");
    let (text, code) = end_of(world.rollout(&["--canary", "1", "--wave", "2", "--dry-run"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("wave 2: site-b (1), site-c (1)\nunreachable"), "{text}");
    assert!(world.offered().is_empty());
}

#[test]
fn each_wave_waits_for_the_one_before_and_absent_sites_come_last() {
    let mut world = with_one_site_away();
    let offers = world.broker.subscribe("edge/+/offer");
    let rollout = world.rollout(&["--canary", "1", "--wave", "2"]);
    let (site, offer) = next_offer(&offers);
    let bundle = fs::read(world.office.path("out/bundles/edge-bundle-site-a.tar"));
    let bundle = bundle.expect("it was built");
    let expected = json!({"counter": 1, "size": bundle.len(), "sha256": sha256(&bundle)});
    assert_eq!((site.as_str(), offer), ("site-a", Some(expected)));
    world.report("site-a", 1, &trial("trying", 1, "on trial"));
    // The connection of the office ends in between.
    world.broker.restart();
    let offers = world.broker.subscribe("edge/+/offer");
    assert_eq!(next_offer(&offers).0, "site-a", "the broker keeps it");
    world.report("site-a", 1, &Value::Null);
    let mut second = [next_offer(&offers).0, next_offer(&offers).0];
    second.sort();
    assert_eq!(second, ["site-b", "site-c"]);
    world.report("site-b", 1, &Value::Null);
    world.report("site-c", 1, &trial("reverted", 0, "of an earlier one"));
    let (site, offer) = next_offer(&offers);
    assert!(site == "site-d" && offer.is_some(), "{site}");
    let (text, code) = end_of(rollout);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("site-d: offline, bundle 1 offered"), "{text}");
    assert!(text.contains("done: 3 of 4 sites run their bundles"), "{text}");
    assert_eq!(world.offered(), ["site-a", "site-b", "site-c", "site-d"]);

    let (text, code) = world.status(&["site-a", "site-b", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((&first["state"], &first["runs"]), (&json!("current"), &json!(1)));
}

#[test]
fn a_site_that_goes_back_ends_it_and_gets_the_same_content_under_a_new_number() {
    let world = RolloutWorld::new(&["site-a", "site-b", "site-c", "site-d", "site-e"]);
    for site in ["site-a", "site-b", "site-c", "site-d", "site-e"] {
        world.report(site, 0, &Value::Null);
    }
    let offers = world.broker.subscribe("edge/+/offer");
    let rollout = world.rollout(&["--canary", "3"]);
    for _ in 0..3 {
        next_offer(&offers);
    }
    world.report("site-a", 1, &Value::Null);
    let sentence = "the hub hub-a was silent for 10 min";
    world.report("site-b", 0, &trial("reverted", 1, sentence));
    let (text, code) = end_of(rollout);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("stopped: site-b rolled back to the previous bundle (1)"), "{text}");
    assert!(text.contains(sentence) && text.contains("site-c: offer removed"), "{text}");
    // What was taken stays; sites of later waves were never asked.
    assert_eq!(world.offered(), ["site-a"]);
    let (text, code) = world.status(&["site-b"]);
    assert!(
        code == Some(1) && text.contains("site-b  reverted") && text.contains(sentence),
        "{text}"
    );

    // Once more without a change: another site would only do the same.
    let (text, code) = end_of(world.rollout(&["--canary", "3"]));
    assert!(code == Some(1) && text.contains("rollout --again"), "{text}");
    assert!(text.contains("nothing was offered"), "{text}");
    assert_eq!(world.offered(), ["site-a"]);

    let again = world.rollout(&["--canary", "3", "--again"]);
    let offers = world.broker.subscribe("edge/+/offer");
    let counter_of_b = loop {
        let (site, offer) = next_offer(&offers);
        if site == "site-b" {
            break offer.map(|offer| offer["counter"].clone());
        }
    };
    assert_eq!(counter_of_b, Some(json!(2)));
    assert!(world.office.read("sites/site-b.toml").contains("counter = 2"));
    drop(again);
}

#[test]
fn what_was_not_confirmed_in_time_ends_it() {
    let world = RolloutWorld::new(&["site-a"]);
    world.report("site-a", 0, &Value::Null);
    let sentence = "http://10.77.0.1/bundles answers 404";
    let offers = world.broker.subscribe("edge/+/offer");
    let rollout = world.rollout(&["--canary", "1", "--timeout", "4s"]);
    assert!(next_offer(&offers).1.is_some());
    world.report("site-a", 0, &trial("fetching", 1, sentence));
    let (text, code) = end_of(rollout);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("did not confirm the bundle in time (1): behind"), "{text}");
    assert!(text.contains(sentence), "{text}");
    assert!(world.offered().is_empty());
}

#[test]
fn a_site_with_a_newer_bundle_ends_it_before_it_begins() {
    let world = RolloutWorld::new(&["site-a", "site-b"]);
    world.report("site-a", 0, &Value::Null);
    world.report("site-b", 7, &Value::Null);
    let (text, code) = end_of(world.rollout(&["--canary", "1", "--dry-run"]));
    assert!(code == Some(1) && text.contains("site-b: ahead"), "{text}");
    let (text, code) = end_of(world.rollout(&["--canary", "1"]));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("stopped: site-b runs a newer bundle than this one (1): "), "{text}");
    assert!(text.contains("update them from the repository, and build"), "{text}");
    assert!(text.contains("nothing was offered\n"), "{text}");
    assert!(world.offered().is_empty());
}

#[test]
fn secrets_in_clear_are_never_offered_and_the_connection_stays_inside() {
    let world = RolloutWorld::new(&["site-a"]);
    world.office.run(&["add", "site-k", "--template", "pump", "--with-key"]);
    world.office.run(&["build"]);
    world.report("site-a", 1, &Value::Null);
    world.report("site-k", 0, &Value::Null);
    let (text, code) = end_of(world.rollout(&["--canary", "1"]));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("site-k contains secrets in clear and is never offered"), "{text}");
    assert!(world.offered().is_empty());

    for (broker, reason) in
        [("192.0.2.7:1883", "not encrypted"), ("hub-a.example.net", "write the address of the hub")]
    {
        let output = world.office.output(&["status", "--broker", broker]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(reason), "{text}");
    }
    // A hub that still has the files of before.
    fs::write(world.office.path("secrets/office/mqtt.password"), "another\n").expect("writable");
    let output = world.office.output(&["status", "--broker", &world.address]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("rejected the login of user office"), "{text}");
}

#[test]
fn a_file_of_mosquitto_sub_is_as_good_as_a_broker() {
    let world = RolloutWorld::new(&["site-a", "site-b"]);
    world.report("site-a", 1, &Value::Null);
    let old = Timestamp::now() - SignedDuration::from_mins(20);
    let silent = json!({"state": "online",
        "gateway": {"config": {"counter": 1}, "at": old.to_string()}});
    world.broker.publish("edge/site-b/status", &silent.to_string(), Retain::Yes);
    let password = world.office.read("secrets/office/mqtt.password");
    let port = world.broker.port().to_string();
    for format in [&["-v"][..], &["-F", "%t %p"]] {
        let mut client = Command::new("mosquitto_sub");
        client.args(["-p", &port, "-u", "office", "-P", password.trim(), "-t", "edge/+/status"]);
        let captured = client.args(["-C", "2"]).args(format).output().expect("it is installed");
        fs::write(world.office.path("statuses.txt"), captured.stdout).expect("it is writable");
        let output = world.office.output(&["status", "--capture", "statuses.txt"]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            text.contains("site-a  current") && text.contains("no status for 20 min"),
            "{text}"
        );
    }
}
