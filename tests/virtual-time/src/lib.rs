//! A simulated network between a site and its hubs, in virtual time.
//!
//! boringtun reads the system's clocks itself, so this package defines `clock_gettime` for its own
//! test binaries, and no other package may depend on it. Each thread of a test has its own time.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

pub mod clock;
pub mod hub;
pub mod memory;
pub mod network;
pub mod packet;
pub mod world;

pub use e2e::NetworkConditions;
pub use world::{HUB_TUNNEL_IP, SITE_TUNNEL_IP, World};
