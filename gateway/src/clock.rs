//! The one place that reads or judges wall time.
//!
//! A box without a battery-backed clock wakes up in the past. Nothing waits for the right time:
//! values are read and sent at once. But it is told, and three things depend on it: the tunnel does
//! not shake hands with a time that would burn its key, what the clock was once known to have
//! passed (the floor) is kept on disk, and what was taken by a wrong clock is marked, and dated
//! again as soon as the clock is right.

mod eras;
mod floor;
mod judge;
mod kernel;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use eras::{Dating, Eras};
pub use judge::{Judgement, State};

use crate::model::UnixTime;
use judge::Judge;

/// How often a clock is looked at that is not wrong.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often one that is, since what is taken by it is marked.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Reads the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> UnixTime {
    unix(SystemTime::now())
}

/// A moment of the system's clock.
#[must_use]
pub fn unix(moment: SystemTime) -> UnixTime {
    let micros = match moment.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    UnixTime::from_micros(micros)
}

/// What a tunnel may think of the clock.
#[must_use]
pub fn bounds(judgement: Judgement) -> tunnel::ClockBounds {
    let system = |time: UnixTime| {
        let micros = u64::try_from(time.as_micros()).unwrap_or_default();
        UNIX_EPOCH.checked_add(Duration::from_micros(micros))
    };
    tunnel::ClockBounds { floor: system(judgement.floor), ceiling: system(judgement.ceiling) }
}

/// Judges the clock now, with the floor that `state_dir` holds.
#[must_use]
pub fn judge(state_dir: &Path) -> Judgement {
    Judge::new(floor::load(state_dir)).look(now(), kernel::is_synchronised())
}

/// Watches the clock until `stop` fires: tells every change of judgement, and keeps the floor in
/// `state_dir`.
pub async fn keep(state_dir: &Path, told: watch::Sender<Judgement>, stop: CancellationToken) {
    let mut judge = Judge::new(floor::load(state_dir));
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(wait) => {}
        }
        let judgement = judge.look(now(), kernel::is_synchronised());
        if let Some(floor) = judge.take_floor_to_keep() {
            let state_dir = state_dir.to_owned();
            // A card may take seconds, and everything else shares this thread.
            let stored = spawn_blocking(move || floor::store(&state_dir, floor)).await;
            debug_assert!(stored.is_ok(), "it does not panic");
        }
        wait = if judgement.state == State::Unset { WATCH_EVERY } else { LOOK_EVERY };
        told.send_if_modified(|known| {
            let is_news = *known != judgement;
            *known = judgement;
            is_news
        });
    }
}
