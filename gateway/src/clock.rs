//! The only module that reads the wall clock, and decides how far to trust it.
//!
//! A device without a battery-backed clock starts with a time in the past. Nothing waits for the
//! right time: values are read and sent at once. Three things depend on the trust in the clock: the
//! tunnel sends no handshake with a time that would block its key at the hub; the latest time that
//! the clock is known to have passed (the floor) is stored on disk; and samples taken by a wrong
//! clock are marked, and their times are corrected once the clock is right.

mod anchor;
mod history;
mod kernel;
mod known_times;
#[cfg(test)]
mod tests;
mod trust;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tunnel::ClockBounds;

pub use anchor::Anchor;
pub use history::{ClockHistory, Correction};
use kernel::KernelClock;
pub use known_times::KnownTimes;
pub use trust::{ClockAssessment, ClockTrust};

use crate::model::UnixTime;

/// How often the clock is assessed: until it is right, every sample is marked.
const ASSESS_INTERVAL: Duration = Duration::from_secs(1);

/// The wall clock, and when it says that the machine booted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClockReading {
    /// The time of the wall clock.
    pub wall: UnixTime,
    /// The same, less the time since the boot. It changes only when the clock is set.
    pub booted_at: UnixTime,
}

impl ClockReading {
    /// Reads the wall clock and the time since the boot, which counts suspended time
    /// (`CLOCK_BOOTTIME`, clock_gettime(2)).
    #[must_use]
    pub fn now() -> Self {
        let since_boot = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
        let wall = now();
        let since_boot = i64::try_from(since_boot.as_micros()).unwrap_or(i64::MAX);
        Self { wall, booted_at: UnixTime::from_micros(wall.as_micros().saturating_sub(since_boot)) }
    }
}

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

/// Assesses the clock now, with the times stored in `state_dir`.
#[must_use]
pub fn assess(state_dir: &Path) -> ClockAssessment {
    assess_now(&mut ClockTrust::new(known_times::load(&known_times::state_file(state_dir))))
}

fn assess_now(trust: &mut ClockTrust) -> ClockAssessment {
    trust.assess(Instant::now(), ClockReading::now(), KernelClock::read().is_synchronised())
}

/// Watches the clock until `stop` fires: stores the known times in `state_dir`, sends each changed
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
    let mut file = known_times::state_file(state_dir);
    let mut trust = ClockTrust::new(known_times::load(&file));
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        let assessment = assess_now(&mut trust);
        if let Some(times) = trust.take_times_to_store() {
            file.write(times.to_text()).await;
        }
        wait = ASSESS_INTERVAL;
        changes.send_if_modified(|known| {
            let is_changed = *known != assessment;
            *known = assessment;
            is_changed
        });
    }
}
