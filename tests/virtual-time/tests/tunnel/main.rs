//! The tunnel recovers from every fault, tested in virtual time.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "test code may stop on the spot"
)]

mod attacks;
mod black_hole;
mod causes;
mod clocks;
mod data_use;
mod forger;
mod patience;
mod random_faults;
mod routes;
mod sessions;
mod states;
mod streams;
