//! The gateway: reads PLCs, publishes their values, and reports its own state.
//!
//! The rooms and who may use whom are drawn in ARCHITECTURE.md and held by `tests/rooms.rs`.

pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod demo;
pub mod metrics;
pub mod mock_broker;
pub mod model;
pub mod mqtt;
pub mod payload;
pub mod plc;
pub mod queue;
pub mod sampling;
pub mod schedule;
pub mod simulate;
pub mod state_file;
pub mod status;
pub mod supervise;
#[cfg(test)]
mod testing;
pub mod uplink;
pub mod web;
