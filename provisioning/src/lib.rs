//! Configuration of a gateway: PLC models and addresses, `gateway.toml`, files of wg-quick, and the
//! plan of Modbus requests. Reads files, but opens no sockets.

pub mod config;
pub mod diagnostics;
pub mod plan;
pub mod plc;
pub mod regular_file;
pub mod wg_quick;
