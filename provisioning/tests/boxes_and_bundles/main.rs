//! A fleet from `init` to bundles that boxes load, with the program as an operator types it, and
//! what happens to those who cheat.
#![expect(
    clippy::panic,
    clippy::unwrap_in_result,
    clippy::unwrap_used,
    reason = "test code may stop on the spot"
)]

mod broker_certificates;
mod bundles;
mod interrupted;
mod office;
mod packages;
mod signing_keys;
