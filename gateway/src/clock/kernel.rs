//! The kernel's view of its clock.

use libc::c_int;

/// What the kernel says of its clock (adjtimex(2)).
#[derive(Clone, Copy, Debug)]
pub(super) struct KernelClock {
    /// State of the clock, or -1 when the call failed.
    state: c_int,
    /// Bits `STA_*`.
    status: c_int,
}

impl KernelClock {
    #[expect(unsafe_code, reason = "the standard library has no adjtimex; it fills a local struct")]
    pub(super) fn read() -> Self {
        // SAFETY: all zeros is a valid timex, and `modes` 0 changes nothing.
        let mut timex: libc::timex = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes into this one struct, which is valid until the call returns.
        let state = unsafe { libc::adjtimex(&raw mut timex) };
        Self { state, status: timex.status }
    }

    /// Returns whether a time daemon reports to the kernel that the clock is synchronised, as
    /// systemd-timesyncd, chrony, ntpd, and ptp4l with phc2sys do.
    pub(super) const fn is_synchronised(self) -> bool {
        self.state != -1 && self.state != libc::TIME_ERROR && self.status & libc::STA_UNSYNC == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_without_error_that_a_daemon_keeps_is_synchronised() {
        // An announced leap second is no error.
        let healthy =
            [libc::TIME_OK, libc::TIME_INS, libc::TIME_DEL, libc::TIME_OOP, libc::TIME_WAIT];
        for state in healthy {
            for (status, expected) in [
                (0, true),
                (libc::STA_PLL | libc::STA_NANO, true),
                (libc::STA_UNSYNC, false),
                (libc::STA_PLL | libc::STA_UNSYNC, false),
            ] {
                assert_eq!(KernelClock { state, status }.is_synchronised(), expected);
            }
        }
        for state in [-1, libc::TIME_ERROR] {
            assert!(!KernelClock { state, status: libc::STA_PLL }.is_synchronised(), "{state}");
        }
    }
}
