//! What a PLC is to us: its model, its memory map, IEC addresses and IEC types.
//!
//! One parser for all: configuration, import, commands and the simulator use these types.

mod iec;
mod location;
mod model;

pub use iec::{IecType, Order};
pub use location::{Location, LocationError, Table};
pub use model::{Model, Window};
