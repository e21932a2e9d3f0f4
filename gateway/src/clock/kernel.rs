//! What the kernel knows of its own clock.

/// Whether a time daemon has told the kernel that its clock follows a time server (adjtimex(2)).
/// systemd-timesyncd, chrony, ntpd and ptp4l with phc2sys all do.
#[expect(unsafe_code, reason = "the standard library has no adjtimex; it fills a struct of ours")]
pub(super) fn is_synchronised() -> bool {
    // SAFETY: all zeros is a valid timex: it asks for nothing to be changed.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes into this one struct, which lives until the call returns.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    state != -1 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
}
