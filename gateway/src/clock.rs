//! The one place that reads or judges wall time.
//!
//! A box without a battery-backed clock wakes up in the past. Nothing waits for the right time:
//! values are read and sent at once. But it is told, and three things depend on it: the tunnel does
//! not shake hands with a time that would burn its key, what the clock was once known to have
//! passed (the floor) is kept on disk, and what was taken by a wrong clock is marked, and dated
//! again as soon as the clock is right.

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

/// How often a clock is looked at that is not wrong.
const ASSESS_INTERVAL: Duration = Duration::from_secs(10);
/// How often one that is, since what is taken by it is marked.
const UNSET_ASSESS_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the wall clock.
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

/// A moment of the system's clock.
#[must_use]
pub fn to_unix_time(moment: SystemTime) -> UnixTime {
    let micros = match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    UnixTime::from_micros(micros)
}

/// What a tunnel may think of the clock.
#[must_use]
pub fn tunnel_bounds(judgement: ClockAssessment) -> ClockBounds {
    let system = |time: UnixTime| {
        let micros = u64::try_from(time.as_micros()).unwrap_or_default();
        UNIX_EPOCH.checked_add(Duration::from_micros(micros))
    };
    ClockBounds { floor: system(judgement.floor), ceiling: system(judgement.ceiling) }
}

/// Judges the clock now, with the floor that `state_dir` holds.
#[must_use]
pub fn assess(state_dir: &Path) -> ClockAssessment {
    assess_now(&mut ClockTrust::new(floor::load(&floor::state_file(state_dir))))
}

fn assess_now(judge: &mut ClockTrust) -> ClockAssessment {
    judge.assess(Instant::now(), now(), kernel::is_synchronised())
}

/// Watches the clock until `stop` fires, keeps the floor in `state_dir`, and tells every change of
/// judgement to everybody who listens to `told`, and what it means to a tunnel.
pub async fn watch<T: Future<Output = ()>>(
    state_dir: &Path,
    told: watch::Sender<ClockAssessment>,
    tell: impl Fn(ClockBounds) -> T,
    stop: CancellationToken,
) {
    let mut news = told.subscribe();
    let telling = async {
        while news.changed().await.is_ok() {
            let bounds = tunnel_bounds(*news.borrow_and_update());
            tell(bounds).await;
        }
    };
    tokio::select! {
        () = assess_until_stopped(state_dir, told, stop) => {}
        () = telling => {}
    }
}

async fn assess_until_stopped(
    state_dir: &Path,
    told: watch::Sender<ClockAssessment>,
    stop: CancellationToken,
) {
    let mut file = floor::state_file(state_dir);
    let mut judge = ClockTrust::new(floor::load(&file));
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        let judgement = assess_now(&mut judge);
        if let Some(floor) = judge.take_floor_to_store() {
            file.write(floor::to_text(floor)).await;
        }
        wait = if judgement.trust == TrustLevel::Unset {
            UNSET_ASSESS_INTERVAL
        } else {
            ASSESS_INTERVAL
        };
        told.send_if_modified(|known| {
            let is_news = *known != judgement;
            *known = judgement;
            is_news
        });
    }
}
