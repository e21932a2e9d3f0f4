//! The clock of the machine that runs the tests, and the task that watches it.

use std::cell::RefCell;
use std::path::PathBuf;

use proptest::prelude::*;
use tokio::time::{Instant as TokioInstant, timeout};

use super::*;
use crate::model::{ClockPeriod, TrustLevel};

const SECOND: Duration = Duration::from_secs(1);
const SECOND_MICROS: u64 = 1_000_000;

fn test_dir() -> PathBuf {
    let name = format!("edge-gateway-now-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    directory
}

#[test]
fn the_time_is_that_which_the_kernel_gives_to_a_file_written_now() {
    let directory = test_dir();
    let file = directory.join("file");
    std::fs::write(&file, "").unwrap();
    let written = to_unix_time(std::fs::metadata(&file).unwrap().modified().unwrap());
    std::fs::remove_dir_all(&directory).unwrap();

    assert!(now().as_micros().abs_diff(written.as_micros()) < 10 * SECOND_MICROS);
    let [one, other] = [ClockReading::now(), ClockReading::now()];
    assert!(one.wall >= written);
    // The machine booted before the file was written, and readings agree on when.
    assert!(one.booted_at < written);
    assert!(one.booted_at.as_micros().abs_diff(other.booted_at.as_micros()) < 10 * SECOND_MICROS);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_ends_at_its_deadline_and_without_one_never() {
    let start = TokioInstant::now();
    sleep_until(Some((start + 3 * SECOND).into())).await;
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert!(timeout(3600 * SECOND, sleep_until(None)).await.is_err());
}

#[test]
fn a_time_that_no_number_of_microseconds_can_hold_is_the_nearest_one() {
    let centuries = Duration::from_micros(u64::MAX);
    let [before, after] = [UNIX_EPOCH.checked_sub(centuries), UNIX_EPOCH.checked_add(centuries)];
    assert_eq!(to_unix_time(after.unwrap()).as_micros(), i64::MAX);
    assert_eq!(to_unix_time(before.unwrap()).as_micros(), -i64::MAX);
}

proptest! {
    /// A tunnel calculates with the same bounds; it knows no time before 1970.
    #[test]
    fn a_tunnel_gets_the_bounds_of_the_assessment(floor in any::<i64>(), ceiling in any::<i64>()) {
        let period = ClockPeriod { booted_at: UnixTime::default(), trust: TrustLevel::Unset };
        let [floor, ceiling] = [floor, ceiling].map(UnixTime::from_micros);
        let ClockBounds { floor: lower, ceiling: upper } =
            tunnel_bounds(ClockAssessment { period, floor, ceiling });
        for (bound, time) in [(lower, floor), (upper, ceiling)] {
            prop_assert_eq!(to_unix_time(bound.unwrap()), time.max(UnixTime::default()));
        }
    }

    #[test]
    fn a_time_before_1970_is_as_far_from_it_as_one_after_it(micros in 0..i64::MAX) {
        let span = Duration::from_micros(micros.unsigned_abs());
        prop_assert_eq!(to_unix_time(UNIX_EPOCH + span).as_micros(), micros);
        prop_assert_eq!(to_unix_time(UNIX_EPOCH - span).as_micros(), -micros);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_hears_of_an_assessment_once_while_nothing_changes() {
    let directory = test_dir();
    let period = ClockPeriod { booted_at: UnixTime::default(), trust: TrustLevel::Unset };
    let nothing = UnixTime::default();
    let (changes, known) =
        watch::channel(ClockAssessment { period, floor: nothing, ceiling: nothing });
    let sent = RefCell::new(Vec::new());
    let send_bounds = |bounds| {
        sent.borrow_mut().push(bounds);
        std::future::ready(())
    };
    let stop = CancellationToken::new();
    let watching = watch(&directory, changes, send_bounds, stop.clone());
    let stopping = async {
        sleep(60 * SECOND).await;
        stop.cancel();
    };

    let ended = timeout(61 * SECOND, async { tokio::join!(watching, stopping) }).await;

    assert!(ended.is_ok(), "it ends when it is to stop");
    let assessment = *known.borrow();
    assert_ne!(assessment.floor, nothing);
    assert_eq!(sent.into_inner(), [tunnel_bounds(assessment)]);
    // A command that asks once finds the same bounds, with what was stored meanwhile.
    assert_eq!(assess(&directory).floor, assessment.floor);
    std::fs::remove_dir_all(&directory).unwrap();
}
