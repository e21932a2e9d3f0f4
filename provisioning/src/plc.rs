//! What a PLC is to us: its model, its memory map, IEC addresses and IEC types.
//!
//! One parser for all: configuration, import, commands and the simulator use these types.

mod address;
mod iec;
mod locate;
mod location;
mod model;
mod refusal;

pub use iec::{IecType, Order, UnknownOrder, UnknownType};
pub use location::{Location, LocationError, Table};
pub use model::{Model, UnknownModel, Window};
