//! The only module that reads the wall clock, and decides how far to trust it.
//!
//! A device without a battery-backed clock starts with a time in the past. Nothing waits for the
//! right time: values are read and sent at once. Three things depend on the trust in the clock: the
//! tunnel sends no handshake with a time that would block its key at the hub; the latest time that
//! the clock is known to have passed (the floor) is stored on disk; and samples taken by a wrong
//! clock are marked, and their times are corrected once the clock is right.

mod anchor;
mod floor;
mod history;
mod kernel;
mod trust;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tunnel::ClockBounds;

pub use anchor::Anchor;
pub use history::{ClockHistory, Correction};
pub use trust::{ClockAssessment, ClockTrust, TrustLevel};

use crate::model::UnixTime;

/// How often a plausible clock is assessed.
const ASSESS_INTERVAL: Duration = Duration::from_secs(10);
/// How often a wrong clock is assessed: until it is right, every sample is marked.
const UNSET_ASSESS_INTERVAL: Duration = Duration::from_secs(1);

/// Returns the time of the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> UnixTime {
    to_unix_time(SystemTime::now())
}

/// Sleeps until `deadline`; forever when there is none.
pub async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Converts a time of the system's clock.
#[must_use]
pub fn to_unix_time(moment: SystemTime) -> UnixTime {
    let micros = match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    UnixTime::from_micros(micros)
}

/// Returns the bounds within which a tunnel may trust the clock.
#[must_use]
pub fn tunnel_bounds(assessment: ClockAssessment) -> ClockBounds {
    let system = |time: UnixTime| {
        let micros = u64::try_from(time.as_micros()).unwrap_or_default();
        UNIX_EPOCH.checked_add(Duration::from_micros(micros))
    };
    ClockBounds { floor: system(assessment.floor), ceiling: system(assessment.ceiling) }
}

/// Assesses the clock now, with the floor stored in `state_dir`.
#[must_use]
pub fn assess(state_dir: &Path) -> ClockAssessment {
    assess_now(&mut ClockTrust::new(floor::load(&floor::state_file(state_dir))))
}

fn assess_now(trust: &mut ClockTrust) -> ClockAssessment {
    trust.assess(Instant::now(), now(), kernel::is_synchronised())
}

/// Watches the clock until `stop` fires: stores the floor in `state_dir`, sends each changed
/// assessment to `changes`, and its bounds to a tunnel by `send_bounds`.
pub async fn watch<T: Future<Output = ()>>(
    state_dir: &Path,
    changes: watch::Sender<ClockAssessment>,
    send_bounds: impl Fn(ClockBounds) -> T,
    stop: CancellationToken,
) {
    let mut changed = changes.subscribe();
    let sending = async {
        while changed.changed().await.is_ok() {
            let bounds = tunnel_bounds(*changed.borrow_and_update());
            send_bounds(bounds).await;
        }
    };
    tokio::select! {
        () = assess_until_stopped(state_dir, changes, stop) => {}
        () = sending => {}
    }
}

async fn assess_until_stopped(
    state_dir: &Path,
    changes: watch::Sender<ClockAssessment>,
    stop: CancellationToken,
) {
    let mut file = floor::state_file(state_dir);
    let mut trust = ClockTrust::new(floor::load(&file));
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        let assessment = assess_now(&mut trust);
        if let Some(floor) = trust.take_floor_to_store() {
            file.write(floor::to_text(floor)).await;
        }
        wait = if assessment.trust == TrustLevel::Unset {
            UNSET_ASSESS_INTERVAL
        } else {
            ASSESS_INTERVAL
        };
        changes.send_if_modified(|known| {
            let is_changed = *known != assessment;
            *known = assessment;
            is_changed
        });
    }
}
