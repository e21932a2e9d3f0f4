//! Producer and consumer are on one machine, and share its wall clock.

/// Wall time in microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_micros() as u64
}

/// The moment as a positive DINT, in 100 µs.
pub(crate) fn stamp(micros: u64) -> u32 {
    ((micros / 100) & 0x7fff_ffff) as u32
}
