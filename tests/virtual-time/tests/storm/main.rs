//! The hub of a whole fleet dies and returns. No site waits for long, and no second in which many
//! sites call at once is followed by another.
//!
//! The sites are cores of the tunnel with all their cryptography. An hour of the schedule alone is
//! tested in `tunnel/src/core/handshake.rs`; `cargo xtask long` runs 20,000 cores for an hour here.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code may stop on the spot"
)]

mod fleet;
mod loaded_hub;

use std::time::Duration;

use fleet::{Fleet, ReturnTimes};

/// Time until the last site is back.
const RETURN_LIMIT: Duration = Duration::from_secs(60);
/// Time after which a fleet that lost its hub within a second is out of step.
const MIXED_AFTER: usize = 300;
/// Seconds that are enough to tell a correlation of 0.1 from chance.
const MEASURABLE: usize = 3000;

fn sites() -> usize {
    usize::try_from(test_settings::FLEET_SITES.number()).expect("a number of sites")
}

/// Returns the correlation of these counts with themselves `lag` seconds later.
fn autocorrelation(counts: &[u32], lag: usize) -> f64 {
    let counts: Vec<_> = counts.iter().map(|count| f64::from(*count)).collect();
    let seconds = f64::from(u32::try_from(counts.len()).expect("seconds of a test"));
    let mean = counts.iter().sum::<f64>() / seconds;
    let covariance = |lag: usize| -> f64 {
        counts.iter().zip(&counts[lag..]).map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    covariance(lag) / covariance(0)
}

/// Returns a summary of a return in time.
fn assert_all_back(fleet: &Fleet, times: &ReturnTimes) -> String {
    let mut summary = format!("{:?}", fleet.hub.counters);
    for (sites, times) in
        [("own addresses", &times.own_address), ("shared addresses", &times.shared_address)]
    {
        let [half, most, last] = [50, 99, 100].map(|part| times[(times.len() - 1) * part / 100]);
        summary +=
            &format!("\n{sites}: half after {half:?}, 99 % after {most:?}, all after {last:?}");
        assert!(last <= RETURN_LIMIT, "{summary}");
    }
    summary
}

#[test]
fn a_fleet_returns_to_a_hub_that_was_away_within_a_minute_and_out_of_step() {
    let outage = test_settings::FLEET_OUTAGE.number();
    let mut fleet = Fleet::connected(1, sites());
    fleet.stop_hub();
    fleet.run_for(Duration::from_secs(outage));
    let counts = fleet.initiations_of_last(outage);
    println!("{} initiations during the outage", counts.iter().sum::<u32>());
    if let Some(later) = counts.get(MIXED_AFTER..).filter(|later| later.len() >= MEASURABLE) {
        let found = (1..=60).map(|lag| (autocorrelation(later, lag), lag));
        let (found, lag) = found.max_by(|a, b| a.0.total_cmp(&b.0)).expect("60 lags");
        println!("largest autocorrelation: {found:.3}, at a lag of {lag} s");
        assert!(found < 0.1, "autocorrelation of {found:.3} at a lag of {lag} s");
    }
    let times = fleet.start_hub(10 * RETURN_LIMIT);
    println!("{}", assert_all_back(&fleet, &times));
}

/// Here all sites call in the same second, in which the hub is up already.
#[test]
fn a_fleet_returns_within_a_minute_to_a_hub_that_restarts_at_once() {
    let mut fleet = Fleet::connected(2, sites());
    fleet.stop_hub();
    fleet.run_for(Duration::from_secs(1));
    let times = fleet.start_hub(10 * RETURN_LIMIT);
    println!("{}", assert_all_back(&fleet, &times));
}
