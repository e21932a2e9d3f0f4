//! The gateway: reads PLCs, publishes their values, and reports its own state.
//!
//! ARCHITECTURE.md lists the modules and which may use which; `tests/tests/architecture.rs` checks
//! it.

pub mod app;
pub mod apply;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod command;
pub mod demo;
mod logging;
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
