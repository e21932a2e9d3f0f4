//! The office: one fleet in files under git → everything that each box and the hubs need.
//!
//! Only `edge-provision` contains this module (feature `office`); the gateway does not.

pub mod address_plan;
pub mod authority;
pub mod boxes;
pub mod broker;
pub mod build;
pub mod certificates;
pub mod cli;
pub mod enrol;
pub mod fleet;
pub mod fleet_lock;
pub mod fleet_signing;
pub mod hub;
mod hub_choice;
pub mod import;
pub mod output_batch;
pub mod output_file;
pub mod packages;
pub mod rollout;
pub mod secrets;
pub mod signing;
pub mod site_edit;
pub mod site_report;
