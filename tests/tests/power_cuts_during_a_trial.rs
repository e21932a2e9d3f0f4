//! The power is cut at any moment between the arrival of a bundle and the end of its trial. The
//! gateway starts every time with the bundle of before or the new one, and no other.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use e2e::{
    Barriers, FilesystemState, Gateway, GatewayConfig, Guest, Mosquitto, PowerCut, Simulator,
    Subscriber,
};
use provisioning::bundle::{Bundle, Manifest, SigningKeys, seal};
use provisioning::office::signing::{KeyFile, NewKey, Signer};
use serde_json::Value;

/// For a boot and a start on a processor that is emulated.
const SLOW_TIMEOUT: Duration = Duration::from_secs(100);
/// Within this, a bundle that came is staged, the gateway starts again, and the bundle is confirmed.
const LONGEST_LIFE: Duration = Duration::from_secs(12);
const SITE: &str = "boxed";

/// What a box knows of the time when it starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Clock {
    Set,
    /// It has no battery, and begins in 1970.
    Unset,
}

/// A box in a guest; broker and PLC are outside.
struct World {
    power: PowerCut,
    broker: Mosquitto,
    _plc: Simulator,
}

impl World {
    /// Makes a box on which these many bundles can be loaded.
    fn new(bundles: u64) -> Self {
        let (plc, broker) = (Simulator::start(), Mosquitto::builder().persistent().start());
        let toml = GatewayConfig::with_broker(SITE, broker.url())
            .set("gateway.state_dir", "/data")
            .set("queue.max_size", "16MiB")
            .set("queue.min_free", "1MiB")
            .plcs(plc.plc_sections(1, Duration::from_secs(1)))
            .for_guest();
        let signer = signer();
        let mut machine = Guest::builder().network().program(Gateway::program());
        machine = machine.file("/gateway.toml", toml.clone());
        for counter in 1..=bundles {
            let bundle = bundle(&signer, counter, toml.as_bytes());
            machine = machine.file(&format!("/bundles/{counter}.tar"), bundle);
        }
        Self { power: PowerCut::new(machine, Barriers::Kept, 1), broker, _plc: plc }
    }

    fn start(&mut self, clock: Clock) -> &Guest {
        let guest = self.power.power_on();
        if clock == Clock::Unset {
            // February: e2fsck takes a time of deletion below the number of inodes for damage.
            guest.run("date -s @3000000");
        }
        guest.send("edge-gateway run /gateway.toml &");
        guest
    }

    /// Puts a bundle where a person puts it, as a container's operator does.
    fn load(&self, counter: u64) {
        let line = format!(
            "mkdir -p /data/bundle; cp /bundles/{counter}.tar /data/bundle/new && sync && \
             mv /data/bundle/new /data/bundle/inbox.tar"
        );
        self.power.guest().run(&line);
    }

    fn cut(&mut self) {
        let outcome = self.power.cut();
        assert_eq!(outcome.filesystem, FilesystemState::Sound);
    }
}

fn signer() -> Signer {
    let key = NewKey::generate(None, "test").expect("a key is made");
    KeyFile::parse(key.secret).expect("it is one").open(None).expect("it has no password")
}

fn bundle(signer: &Signer, counter: u64, toml: &[u8]) -> Vec<u8> {
    let manifest = Manifest { gateway: SITE.to_owned(), counter, ..Manifest::default() };
    let files = BTreeMap::from([("gateway.toml", toml)]);
    let contents = Bundle::new(manifest, files).and_then(|bundle| bundle.render());
    let contents = contents.expect("it is a bundle");
    let list = SigningKeys::new(1, vec![signer.key().clone()]).expect("it is a list");
    let by_own_key = signer.sign(list.to_string().as_bytes()).expect("it is signed");
    let by_key = signer.sign(&contents).expect("it is signed");
    seal(&[(list, by_own_key)], &contents, &by_key).expect("it is a bundle")
}

/// Returns the next status of a gateway that runs.
fn status(statuses: &Subscriber) -> Value {
    let is_online = |message: &e2e::Message| message.json()["state"] == "online";
    statuses.wait_for("a status", SLOW_TIMEOUT, is_online).json()
}

#[test]
fn in_a_guest_power_cuts_during_a_trial_leave_the_old_bundle_or_the_new_one() {
    let cuts = test_settings::CUTS.number_or(2);
    let mut world = World::new(cuts + 1);
    let mut random = fastrand::Rng::with_seed(cuts);
    world.start(Clock::Set);
    world.load(1);
    let topic = format!("edge/{SITE}/status");
    let statuses = world.broker.subscribe(&topic);
    let in_use = |status: &Value| status["gateway"]["config"]["counter"].as_u64();
    let is_confirmed = |status: &Value, counter| {
        in_use(status) == Some(counter) && status["trial"]["state"] != "trying"
    };
    statuses.wait_for("the first bundle", SLOW_TIMEOUT, |m| is_confirmed(&m.json(), 1));
    drop(statuses);
    let mut confirmed = 1;
    let mut found_new = 0;
    for cut in 1..=cuts {
        let loaded = cut + 1;
        // Without a broker, the cut comes while the bundle is on trial.
        let is_outage = random.bool();
        if is_outage {
            world.broker.stop();
        }
        world.load(loaded);
        thread::sleep(Duration::from_millis(random.u64(..to_millis(LONGEST_LIFE))));
        world.cut();
        if is_outage {
            world.broker.start_again();
        }
        // Nothing of before the cut is taken for what comes after it.
        let statuses = world.broker.subscribe(&topic);
        while statuses.try_next(Duration::from_secs(1)).is_some() {}
        let clock = if random.bool() { Clock::Set } else { Clock::Unset };
        world.start(clock);
        let counter = in_use(&status(&statuses)).expect("a bundle is in use");
        println!(
            "cut {cut}, clock {clock:?}, outage {is_outage}: {confirmed} was in use, now {counter}"
        );
        assert!([confirmed, loaded].contains(&counter), "neither {confirmed} nor {loaded}");
        found_new += u64::from(counter == loaded);
        // What was loaded before the cut is on the disk: it is taken, and it is good.
        let settled = statuses.wait_for("the end of the trial", SLOW_TIMEOUT, |message| {
            is_confirmed(&message.json(), loaded)
        });
        confirmed = in_use(&settled.json()).expect("a bundle is in use");
    }
    println!("{found_new} of {cuts} times the new bundle was in use at once");
    assert_eq!(confirmed, cuts + 1);
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
