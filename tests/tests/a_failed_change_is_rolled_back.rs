//! Promise 9: a change of the configuration that loses the hub, the broker or the web server is
//! rolled back by itself, with its reason over the old path, and for good.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, Namespace, Office, OfficeHub, Process, RECOVERY_TIMEOUT, Subscriber,
};
use jiff::Timestamp;
use provisioning::bundle::{BundleSource, VerifyPolicy, verify};
use provisioning::enrolment::BoxKeys;
use serde_json::Value;

/// The shortest time of a trial, and the time to end it.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60 + 50);
/// Polling pauses for less than a second on an idle machine, and for several beside a compiler.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PLC: &str = "192.168.1.10";

/// A box without `edge-gateway-box`: its operator decrypts the secrets.
struct Box {
    id: &'static str,
    keys: BoxKeys,
    state: PathBuf,
    namespace: Namespace,
    gateway: Option<Process>,
    _plc: Process,
}

/// Starts a hub for these sites, each with a box that is enrolled.
fn start(sites: &[&'static str]) -> (OfficeHub, Vec<Box>) {
    let office = Office::new("192.0.2.1:51820");
    let bundle = format!("[bundle]\nurl = \"{}\"\nconfirm = \"1m\"\n", OfficeHub::BUNDLES);
    let mut boxes = Vec::new();
    for id in sites {
        office.run(&["add", id, "--location", id, "--template", "pump"]);
        office.change(&format!("sites/{id}.toml"), |text| format!("{text}\n{bundle}"));
        let state = office.path(format!("boxes/{id}"));
        let keys = BoxKeys::open_or_create(&state.join("keys")).expect("keys are made");
        let enrolment = keys.enrolment().expect("it is signed");
        let file = office.path(enrolment.file_name());
        fs::write(&file, enrolment.to_string()).expect("the directory is writable");
        office.run(&["enrol", id, &file.display().to_string()]);
        boxes.push((*id, keys, state));
    }
    office.run(&["build"]);
    let hub = OfficeHub::start(office);
    let boxes = (0..).zip(boxes).map(|(number, one)| Box::connect(&hub, number, one)).collect();
    (hub, boxes)
}

/// Changes the file of a site.
fn change(hub: &OfficeHub, id: &str, change: impl FnOnce(String) -> String) {
    hub.office.change(&format!("sites/{id}.toml"), change);
}

impl Box {
    fn connect(
        hub: &OfficeHub,
        number: usize,
        (id, keys, state): (&'static str, BoxKeys, PathBuf),
    ) -> Self {
        let namespace = Namespace::new();
        let (near, far) = (4 * number + 1, 4 * number + 2);
        let ends = (format!("192.0.2.{near}/30"), format!("192.0.2.{far}/30"));
        let device = format!("cable{number}");
        hub.namespace.connect((&device, &ends.0), &namespace, ("cable", &ends.1));
        namespace.ip(&["route", "replace", "default", "via", &format!("192.0.2.{near}")]);
        namespace.ip(&["address", "add", &format!("{PLC}/24"), "dev", "lo"]);
        let program = Gateway::program().display().to_string();
        let listen = format!("{PLC}:502");
        let arguments = ["simulate", "--model", "M241", "--listen", &listen];
        let plc = Process::start(namespace.command(&program).args(arguments));
        Self { id, keys, state, namespace, gateway: None, _plc: plc }
    }

    /// Brings a bundle to the box, with the secrets that its operator has decrypted.
    fn load(&self, bundle: &[u8]) {
        let dir = self.state.join("bundle");
        let policy = VerifyPolicy {
            keys: None,
            gateway: None,
            tunnel_public_key: Some(self.keys.tunnel_public_key()),
            last_counter: None,
            source: BundleSource::ByHand,
        };
        let verified = verify(bundle, &policy).expect("it is for this box");
        let sealed = verified.bundle.sealed_secrets().expect("it has a password");
        for (name, content) in self.keys.unseal(sealed).expect("it is for this box") {
            write_secret(&dir.join(name), &content);
        }
        let key = fs::read(self.state.join("keys/tunnel.key")).expect("it was made");
        write_secret(&dir.join("secrets/tunnel.key"), &key);
        fs::write(dir.join("inbox.tar"), bundle).expect("the directory is writable");
    }

    /// Returns the program on this box, with the variable for its `state_dir`.
    fn command(&self) -> Command {
        let program = Gateway::program().display().to_string();
        let mut command = self.namespace.command(&program);
        command.env("EDGE_GATEWAY__STATE_DIR", &self.state);
        command
    }

    /// Returns a file that does not exist: everything comes from the bundle.
    fn own_file(&self) -> PathBuf {
        self.state.join("gateway.toml")
    }

    fn start(&mut self) {
        self.gateway = Some(Process::start(self.command().arg("run").arg(self.own_file())));
    }
}

fn write_secret(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("the directory is writable");
    fs::write(path, content).expect("the directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its own file");
}

/// What is wrong with a bundle, by the site that gets it.
const FAULTS: [(&str, &str); 4] = [
    ("wrong-hub-key", "the tunnel did not come up"),
    ("wrong-broker", "the broker did not accept the connection"),
    ("no-offers", "the broker sent no offer"),
    ("dead-url", "the bundle could not be fetched again"),
];

/// Offers each site a bundle with its fault.
fn offer_faults(hub: &OfficeHub) -> Vec<u64> {
    let staged = hub.subscribe("edge/no-offers/event");
    let fleet = hub.office.read("fleet.toml");
    let rebuild = |id: &str, fault: &dyn Fn(String) -> String| {
        hub.office.change("fleet.toml", fault);
        let counter = hub.offer(id);
        fs::write(hub.office.path("fleet.toml"), &fleet).expect("the directory is writable");
        counter
    };
    let line = |key: &str| {
        let found = fleet.lines().find(|line| line.starts_with(key)).expect("it is there");
        found.to_owned()
    };
    let (key, address) = (line("public_key"), line("address"));
    let other = tunnel::PrivateKey::generate().public_key();
    let wrong_key = |text: String| text.replace(&key, &format!("public_key = \"{other}\""));
    let wrong_broker = |text: String| text.replace(&address, "address = \"10.77.0.9\"");
    change(hub, "wrong-broker", |text| text.replace("10.77.0.1/", "10.77.0.9/"));
    change(hub, "dead-url", |text| text.replace("/bundles", "/nothing"));
    // The access list of Mosquitto grants a subscription, and then sends nothing.
    let same = |text: String| text;
    let acl = "out/hubs/hub-a/etc/mosquitto/edge.acl";
    let without = hub.office.read(acl).replace("topic read edge/no-offers/offer\n", "");
    let faults: [&dyn Fn(String) -> String; 4] = [&wrong_key, &wrong_broker, &same, &same];
    hub.office.change("templates/pump.toml", |text| text.replace("\"1s\"", "\"2s\""));
    let sites = FAULTS.iter().map(|(site, _)| *site).zip(faults);
    let counters: Vec<u64> = sites.map(|(site, fault)| rebuild(site, fault)).collect();
    staged.wait_for("staged", EVENT_TIMEOUT, |message| message.json()["state"] == "staged");
    fs::write(hub.office.path(acl), without).expect("the directory is writable");
    hub.broker.signal("HUP");
    counters
}

#[test]
fn as_root_a_bundle_that_loses_the_hub_is_rolled_back_for_good() {
    let sites = FAULTS.map(|(site, _)| site);
    let (hub, mut boxes) = start(&sites);
    for one in &mut boxes {
        one.load(&hub.read_bundle(one.id));
        one.start();
    }
    let statuses = hub.subscribe("edge/+/status");
    let mut left: Vec<_> = sites.to_vec();
    while !left.is_empty() {
        let status = wait_for_status(&statuses, RECOVERY_TIMEOUT, |status| runs(status, 1));
        left.retain(|site| status["gateway"]["id"] != *site);
    }

    let counters = offer_faults(&hub);
    assert_eq!(counters, [2; 4]);
    let mut left: Vec<_> = FAULTS.to_vec();
    while !left.is_empty() {
        let status = wait_for_status(&statuses, TRIAL_TIMEOUT, |status| {
            status["gateway"]["config"]["counter"] == 1 && status["trial"]["state"] == "reverted"
        });
        assert_eq!(status["trial"]["counter"], 2);
        let sentence = status["trial"]["sentence"].as_str().expect("a sentence").to_owned();
        left.retain(|(site, reason)| {
            let is_it = status["gateway"]["id"] == *site;
            assert!(!is_it || sentence.contains(reason), "{site}: {sentence}");
            !is_it
        });
    }
    // The offer is still there, and is not taken again; the next one is.
    change(&hub, "dead-url", |text| text.replace("/nothing", "/bundles"));
    assert_eq!(hub.offer("dead-url"), 3);
    wait_for_status(&statuses, RECOVERY_TIMEOUT, |status| {
        status["gateway"]["id"] == "dead-url" && runs(status, 3)
    });
}

/// Waits for a status of a site that fits.
fn wait_for_status(statuses: &Subscriber, limit: Duration, fits: impl Fn(&Value) -> bool) -> Value {
    statuses.wait_for("the status", limit, |message| fits(&message.json())).json()
}

fn runs(status: &Value, counter: u64) -> bool {
    status["gateway"]["config"]["counter"] == counter && status["trial"].is_null()
}

/// Returns the longest time between two polls whose values have arrived.
fn longest_pause(data: &Subscriber) -> Duration {
    let messages = std::iter::from_fn(|| data.try_next(Duration::ZERO));
    let read_at = |message: &e2e::Message| -> Timestamp {
        let datetime = message.json()["datetime"].as_str().expect("a text").to_owned();
        datetime.parse().expect("RFC 3339")
    };
    let polls: Vec<Timestamp> = messages.map(|message| read_at(&message)).collect();
    let pauses = polls.windows(2).map(|pair| pair[1].duration_since(pair[0]).unsigned_abs());
    pauses.max().expect("the PLC was polled")
}

#[test]
fn as_root_a_bundle_is_loaded_fetched_and_confirmed() {
    let (hub, mut boxes) = start(&["amsterdam-01"]);
    let id = boxes[0].id;
    // Polled so often that the pause of the change is seen.
    hub.office.change("templates/pump.toml", |text| text.replace("\"1s\"", "\"50ms\""));
    hub.office.run(&["build"]);
    let statuses = hub.subscribe(&format!("edge/{id}/status"));
    boxes[0].load(&hub.read_bundle(id));
    boxes[0].start();
    let first = hub.counter(id);
    wait_for_status(&statuses, RECOVERY_TIMEOUT, |status| runs(status, first));

    // The next one is fetched, tried and confirmed, without a gap in the values.
    let events = hub.subscribe(&format!("edge/{id}/event"));
    let data = hub.subscribe(&format!("edge/{id}/data/#"));
    data.next(EVENT_TIMEOUT);
    change(&hub, id, |text| text.replace("location = \"amsterdam-01\"", "location = \"harbour\""));
    let second = hub.offer(id);
    assert_eq!(second, first + 1);
    let state = |message: &e2e::Message, state: &str| {
        let body = message.json();
        body["event"] == "bundle" && body["state"] == state && body["counter"] == second
    };
    events.wait_for("staged", EVENT_TIMEOUT, |message| state(message, "staged"));
    events.wait_for("confirmed", RECOVERY_TIMEOUT, |message| state(message, "confirmed"));
    let pause = longest_pause(&data);
    println!("pause of polling for a confirmed change: {} ms", pause.as_millis());
    assert!(pause < LONGEST_PAUSE, "{pause:?}");
    wait_for_status(&statuses, EVENT_TIMEOUT, |status| runs(status, second));
    // The box has no configuration but the bundle; its commands find what the gateway runs with.
    let status = boxes[0].command().arg("status").arg(boxes[0].own_file()).output();
    let status = status.expect("the program starts");
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.success() && shown.contains("All is well"), "{status:?}");
}
