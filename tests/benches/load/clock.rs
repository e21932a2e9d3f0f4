//! The wall clock, which producer and consumer share on one machine.

/// Returns the wall time in microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_micros() as u64
}

/// Returns a time as a positive DINT, in units of 100 µs.
pub(crate) fn stamp(micros: u64) -> u32 {
    ((micros / 100) & 0x7fff_ffff) as u32
}
