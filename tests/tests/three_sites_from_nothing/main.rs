//! Three sites are set up with nothing but the commands of a page of the book, typed as an operator
//! would: from `edge-provision init` to the values at the hub, through the tunnel. Then bundles with
//! faults are rolled out: every site is back by itself, says why, and stays back.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code may stop on the spot"
)]

mod faults;
mod page;
mod world;

use std::time::Instant;

use test_settings::FAULT_ROUNDS;

use faults::round;
use page::{Step, steps};
use world::{SITES, World, sites_in};

#[test]
fn as_root_a_page_leads_to_three_sites_that_no_roll_out_loses() {
    let world = World::start();
    let start = Instant::now();
    let mut typed = 0;
    let mut values = None;
    for step in steps(1..=6) {
        let printed = world.take(&step);
        typed += match &step {
            Step::Type { lines, .. } => lines.lines().filter(|line| !line.ends_with('\\')).count(),
            Step::Save { .. } => 1,
        };
        if printed.starts_with("edge/") && values.is_none() {
            values = Some((start.elapsed(), printed));
        }
    }
    let (time, values) = values.expect("the page shows values");
    println!("from init to the first values: {typed} commands, {:.1} s", time.as_secs_f64());
    assert!(values.contains("\"temperature\":") && values.contains("\"pressure\":"), "{values}");
    assert!(sites_in(&values).iter().all(|site| SITES.contains(site)), "{values}");
    let data = world.subscribe("edge/+/data/#");
    for site in SITES {
        let topic = format!("edge/{site}/data/pump");
        let from_site = |message: &e2e::Message| message.topic == topic;
        let message = data.wait_for(&topic, e2e::RECOVERY_TIMEOUT, from_site);
        assert!(message.json()["temperature"].is_number(), "{message:?}");
    }

    for step in steps(7..=7) {
        let printed = world.take(&step);
        assert!(!printed.contains("stopped"), "{printed}");
    }
    // From now on the web server serves the office's own directory, as `rollout --again` needs it.
    world.office.type_lines("mount --bind /srv/bundles out/bundles");
    for number in 0..usize::try_from(FAULT_ROUNDS.number()).expect("a small number") {
        let start = Instant::now();
        round(&world, number);
        println!("round {number}: {:.1} s", start.elapsed().as_secs_f64());
    }
}
