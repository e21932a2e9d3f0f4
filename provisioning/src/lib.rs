//! Everything a gateway can be told: the vocabulary of PLCs, `gateway.toml`, and the plan of
//! requests that follows from it. Pure but for reading files; knows nothing of sockets.

pub mod config;
pub mod plan;
pub mod plc;
