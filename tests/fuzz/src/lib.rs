//! Everything that reads what others wrote: each a function of bytes that may do anything but panic,
//! and holds what its reader promises. libFuzzer looks for new bytes, a test replays the known ones.
#![expect(clippy::expect_used, clippy::panic, reason = "a broken promise stops on the spot")]

mod bundle;
mod codec;
mod command;
mod config;
mod fleet;
mod import;
mod queue;
mod site_status;
mod tunnel;
mod wg_quick;

pub use bundle::bundle;
pub use codec::codec;
pub use command::command;
pub use config::config;
pub use fleet::fleet;
pub use import::{import_csv, import_plcopen, import_smbp, import_st, import_symbols};
pub use queue::queue;
pub use site_status::site_status;
pub use tunnel::{datagrams, packets};
pub use wg_quick::wg_quick;
