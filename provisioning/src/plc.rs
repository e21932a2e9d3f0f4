//! What a PLC is to us: its model, its memory map, IEC addresses and IEC types.
//!
//! One parser for all: configuration, import, commands and the simulator use these types.

mod address;
mod data_type;
mod iec;
mod locate;
mod location;
mod model;
mod order;
mod refusal;

pub use data_type::{Bounds, DataType};
pub use iec::{CodePage, IecType, Kind, Tick, UnknownType};
pub use location::{Location, LocationError, Table};
pub use model::{Family, Model, UnknownModel, Window};
pub use order::{Order, UnknownOrder};
