//! What a PLC is to us: its model, its memory map, IEC addresses and IEC types.
//!
//! One parser for all: configuration, import, commands and the simulator use these types.

mod address;
mod address_error;
mod byte_order;
mod data_type;
mod iec;
mod locate;
mod location;
mod model;

pub use byte_order::{ByteOrder, UnknownByteOrder};
pub use data_type::{ArrayBounds, DataType};
pub use iec::{CodePage, IecType, TimeUnit, UnknownType, ValueKind};
pub use location::{Location, LocationError, Table};
pub use model::{MemoryArea, PlcFamily, PlcModel, UnknownModel};
