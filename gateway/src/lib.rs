//! The gateway: reads PLCs, publishes their values, tells how it is doing.
//!
//! The rooms and who may use whom are drawn in ARCHITECTURE.md and held by `tests/rooms.rs`.

pub mod audit;
pub mod clock;
pub mod codec;
pub mod metrics;
pub mod model;
pub mod mqtt;
pub mod payload;
pub mod plc;
pub mod queue;
pub mod sampling;
pub mod schedule;
pub mod simulate;
pub mod sink;
pub mod status;
pub mod supervise;
pub mod uplink;
pub mod web;
#[cfg(test)]
mod testing;
