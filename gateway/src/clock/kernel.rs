//! The kernel's view of its clock.

/// Returns whether a time daemon reports to the kernel that the clock is synchronised
/// (adjtimex(2)), as systemd-timesyncd, chrony, ntpd, and ptp4l with phc2sys do.
#[expect(unsafe_code, reason = "the standard library has no adjtimex; it fills one local struct")]
pub(super) fn is_synchronised() -> bool {
    // SAFETY: all zeros is a valid timex, and `modes` 0 changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into this one struct, which is valid until the call returns.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state != -1 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}
