//! The clocks of this thread.

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::time::Duration;

/// Noon of 26 November 2026 in seconds of Unix time, when every test begins.
const START: i64 = 1_795_694_400;
const NANOSECONDS: i64 = 1_000_000_000;

const CLOCK_REALTIME: c_int = 0;
const CLOCK_MONOTONIC: c_int = 1;
const CLOCK_BOOTTIME: c_int = 7;

#[cfg(target_arch = "x86_64")]
const SYS_CLOCK_GETTIME: c_long = 228;
#[cfg(not(target_arch = "x86_64"))]
const SYS_CLOCK_GETTIME: c_long = 113;

/// All values are in nanoseconds.
#[derive(Clone, Copy)]
struct Clocks {
    monotonic: i64,
    suspended: i64,
    wall: i64,
}

thread_local! {
    static CLOCKS: Cell<Option<Clocks>> = const { Cell::new(None) };
}

/// `struct timespec` of a 64-bit Linux.
#[repr(C)]
#[derive(Debug)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Switches this thread from real to virtual time.
pub fn start() {
    let clocks = Clocks { monotonic: 1_000 * NANOSECONDS, suspended: 0, wall: START * NANOSECONDS };
    CLOCKS.set(Some(clocks));
}

/// Advances all clocks.
pub fn advance(by: Duration) {
    change(|clocks| {
        clocks.monotonic += nanoseconds(by);
        clocks.wall += nanoseconds(by);
    });
}

/// Suspends the machine: the monotonic clock stops, the others go on.
pub fn suspend(by: Duration) {
    change(|clocks| {
        clocks.suspended += nanoseconds(by);
        clocks.wall += nanoseconds(by);
    });
}

/// Sets the wall clock forward.
pub fn step_forward(by: Duration) {
    change(|clocks| clocks.wall += nanoseconds(by));
}

/// Sets the wall clock back.
pub fn step_back(by: Duration) {
    change(|clocks| clocks.wall -= nanoseconds(by));
}

/// Sets the boot-time clock back, as faulty virtual machines do.
pub fn step_boot_time_back(by: Duration) {
    change(|clocks| clocks.suspended -= nanoseconds(by));
}

fn change(by: impl FnOnce(&mut Clocks)) {
    let mut clocks = CLOCKS.get().expect("the test calls clock::start() first");
    by(&mut clocks);
    CLOCKS.set(Some(clocks));
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).expect("a test lasts less than 292 years")
}

#[expect(unsafe_code, reason = "calls the kernel for clocks that are not virtual")]
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// Replaces the function of the C library, which the standard library and boringtun call.
///
/// # Safety
///
/// `time` points to a `timespec`, as POSIX requires.
#[expect(unsafe_code, reason = "boringtun takes no time as an argument and asks the C library")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let clocks = CLOCKS.try_with(Cell::get).ok().flatten();
    let virtual_time = clocks.and_then(|clocks| match clock {
        CLOCK_REALTIME => Some(clocks.wall),
        CLOCK_MONOTONIC => Some(clocks.monotonic),
        CLOCK_BOOTTIME => Some(clocks.monotonic + clocks.suspended),
        _ => None,
    });
    match virtual_time {
        Some(virtual_time) => {
            let (seconds, nanoseconds) =
                (virtual_time.div_euclid(NANOSECONDS), virtual_time.rem_euclid(NANOSECONDS));
            // SAFETY: the caller passes a valid pointer.
            unsafe { time.write(Timespec { seconds, nanoseconds }) };
            0
        }
        // SAFETY: the kernel checks the pointer.
        None => unsafe {
            let result = syscall(SYS_CLOCK_GETTIME, c_long::from(clock), time);
            if result == 0 { 0 } else { -1 }
        },
    }
}
