//! The promise that a tunnel comes back by itself after anything, in time that only tests move.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code may stop on the spot"
)]

mod clocks;
mod forger;
mod hostile;
mod life;
mod long;
mod sessions;
mod states;
mod streams;
mod thrift;
mod ways;
