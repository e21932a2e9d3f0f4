//! Configuration of a gateway: PLC models and addresses, `gateway.toml`, files of wg-quick, and the
//! plan of Modbus requests. Reads files, but opens no sockets. With feature `office`, the fleet too.

pub mod atomic_file;
pub mod bundle;
pub mod certificates;
#[cfg(feature = "cli-files")]
pub mod cli_files;
pub mod config;
pub mod diagnostics;
#[cfg(feature = "enrolment")]
pub mod enrolment;
#[cfg(feature = "office")]
pub mod office;
pub mod plan;
pub mod plc;
pub mod regular_file;
#[cfg(feature = "root-helper")]
pub mod root_helper;
pub mod trial;
pub mod update_notice;
pub mod wg_quick;
