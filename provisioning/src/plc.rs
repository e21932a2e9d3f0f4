//! PLC models with their memory maps, IEC addresses and IEC types.
//!
//! Configuration, gateway and simulator use the same parsers.

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
