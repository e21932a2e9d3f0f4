//! The office: one fleet in files under git → everything that each box and the hubs need.
//!
//! Only `edge-provision` contains this module (feature `office`); the gateway does not.

pub mod cli;
pub mod import;
pub mod output_file;
