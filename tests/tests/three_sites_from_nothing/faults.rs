//! Roll-outs of bundles that lose the hub, a fault for each site.

use std::time::Duration;

use e2e::EVENT_TIMEOUT;
use serde_json::Value;

use crate::world::{SITES, World, text};

/// The shortest time of a trial, and the time to end it.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(60 + 60);
const BROKER: &str = "--broker 127.0.0.1:1883";
const ROLL_OUT: &str = "edge-provision rollout --canary 3 --broker 127.0.0.1:1883";

/// What is wrong with a bundle.
struct Fault {
    /// Changes `fleet.toml` or the file of the site, as a shell does.
    change: &'static str,
    /// Part of the reason that the site gives.
    reason: &'static str,
}

/// The access list of the hub loses `offer` after the offer was taken; the bundle is right.
const NO_OFFERS: Fault = Fault {
    change: "sed -i 's/\"Amsterdam\"\\|\"Rotterdam\"\\|\"Utrecht\"/\"elsewhere\"/' sites/SITE.toml",
    reason: "the broker sent no offer",
};
const FAULTS: [Fault; 5] = [
    Fault {
        change: "sed -i 's|^method = \"dhcp\".*|method = \"static\"\\naddress = \
                 \"198.51.100.7/24\"\\ngateway = \"198.51.100.1\"\\ndns = [\"198.51.100.1\"]|' sites/SITE.toml",
        reason: "the tunnel did not come up",
    },
    NO_OFFERS,
    Fault {
        change: "sed -i 's|^confirm = .*|&\\nurl = \"http://10.77.0.1/nothing\"|' fleet.toml",
        reason: "the bundle could not be fetched again",
    },
    Fault {
        change: "sed -i \"s|^public_key = .*|public_key = \\\"$(wg genkey | wg pubkey)\\\"|\" \
                 fleet.toml",
        reason: "the tunnel did not come up",
    },
    Fault {
        change: "sed -i 's|^address = \"10.77.0.1\"|address = \"10.77.0.9\"|' fleet.toml",
        reason: "the broker did not accept the connection",
    },
];

/// Rolls out a bundle with a fault to each site; another one for each site in each round. In the
/// end all sites run right bundles again.
pub(crate) fn round(world: &World, number: usize) {
    let faults = |site: usize| FAULTS.get((site + number) % FAULTS.len()).expect("in range");
    let before = counters(world);
    // The shortest trial.
    let confirm = "grep -q ^confirm fleet.toml || \
                   printf '\\n[defaults.bundle]\\nconfirm = \"1m\"\\n' >>fleet.toml";
    world.office.type_lines(confirm);
    for (index, site) in SITES.into_iter().enumerate() {
        build_with(world, site, faults(index));
    }
    let events = world.subscribe("edge/+/event");
    let no_offers = (0..SITES.len()).find(|site| faults(*site).reason == NO_OFFERS.reason);
    let rolled_out = std::thread::scope(|scope| {
        let rolling = scope.spawn(|| world.office.try_type(ROLL_OUT));
        if let Some(site) = no_offers.and_then(|site| SITES.get(site)) {
            let topic = format!("edge/{site}/event");
            events.wait_for("staged", EVENT_TIMEOUT, |message| {
                message.topic == topic && message.json()["state"] == "staged"
            });
            let line = format!("sed -i '/^topic read edge.{site}.offer/d' /etc/mosquitto/edge.acl");
            world.hub.type_lines(&format!("{line}\nsystemctl reload mosquitto"));
        }
        rolling.join().expect("the command ends")
    });
    let printed = text(&rolled_out);
    assert_eq!(rolled_out.status.code(), Some(1), "{printed}\n{}", world.logs());
    assert!(printed.contains("stopped: "), "{printed}");

    for (index, site) in SITES.into_iter().enumerate() {
        let status = when_back(world, site, *before.get(index).expect("one for each site"));
        let sentence = status["trial"]["sentence"].as_str().unwrap_or_default();
        assert!(sentence.contains(faults(index).reason), "{site}: {sentence}");
    }
    assert_eq!(counters(world), before, "the bundles of before are in use");
    let shown = text(&world.office.try_type(&format!("edge-provision status {BROKER}")));
    assert_eq!(shown.matches("  reverted ").count(), SITES.len(), "{shown}");
    // They stay back, and are not asked again for the same.
    let again = world.office.try_type(ROLL_OUT);
    assert!(!again.status.success() && text(&again).contains("nothing was offered"), "{again:?}");
    assert_eq!(counters(world), before, "{}", world.logs());
    let is_changed = |index: &usize| faults(*index).reason != NO_OFFERS.reason;
    let changed = (0..SITES.len()).filter(is_changed).filter_map(|index| SITES.get(index).copied());
    mend(world, &changed.collect::<Vec<_>>());
}

/// Builds a bundle with a fault, which is taken out of the files again. Without offers nothing is
/// wrong with the bundle: `rollout --again` offers its content once more.
fn build_with(world: &World, site: &str, fault: &Fault) {
    let file = format!("sites/{site}.toml");
    let change = fault.change.replace("SITE", site);
    world.office.type_lines(&format!(
        "cp fleet.toml {file} /tmp/\n{change}\nedge-provision build {site}\ncp /tmp/fleet.toml ."
    ));
    if fault.reason != NO_OFFERS.reason {
        world.office.type_lines(&format!(
            "sed -i -e \"s|^counter.*|$(grep ^counter {file})|\" \
             -e \"s|^digest.*|$(grep ^digest {file})|\" /tmp/{site}.toml\n\
             cp /tmp/{site}.toml sites/"
        ));
    }
}

/// Gives each site a right bundle: those that are named one of new content, the others the same
/// content under a new counter.
fn mend(world: &World, changed: &[&str]) {
    world.office.type_lines(
        "tar -C out/hubs/hub-a/etc -c mosquitto/edge.acl | ssh root@192.0.2.1 tar -C /etc -x",
    );
    world.hub.type_lines("chown mosquitto: /etc/mosquitto/edge.acl\nsystemctl reload mosquitto");
    world.office.type_lines(&format!("edge-provision build {}", changed.join(" ")));
    let lines = format!("{ROLL_OUT} --again");
    let output = world.office.try_type(&lines);
    world.text_of(&lines, &output);
    let status = format!("edge-provision status {BROKER}");
    world.status_when(|output| output.status.success(), &status);
}

/// Waits until a site has taken a bundle back and runs the one of before.
fn when_back(world: &World, site: &str, before: u64) -> Value {
    let statuses = world.subscribe(&format!("edge/{site}/status"));
    let is_back = |message: &e2e::Message| {
        let status = message.json();
        status["gateway"]["config"]["counter"] == before
            && status["trial"]["state"] == "reverted"
            && status["trial"]["counter"].as_u64() > Some(before)
    };
    statuses.wait_for(site, TRIAL_TIMEOUT, is_back).json()
}

/// Returns the counter of the bundle that each site runs.
fn counters(world: &World) -> Vec<u64> {
    let lines = format!("edge-provision status {BROKER} --json || true");
    let shown = world.office.type_lines(&lines);
    let of_line = |line: &str| serde_json::from_str::<Value>(line).ok()?["runs"].as_u64();
    let counters: Vec<u64> = shown.lines().filter_map(of_line).collect();
    assert_eq!(counters.len(), SITES.len(), "{shown}");
    counters
}
