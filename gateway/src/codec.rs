//! Converts registers to IEC values and back, and values to JSON and back. Pure: no clock, no I/O.
//!
//! One rule serves every type: registers are bytes of the PLC's memory, and a value is a
//! little-endian number in those bytes. `byte_position` is the rule; decoding and encoding both use
//! it, so they cannot disagree.

mod array;
pub mod json;
mod scale;
mod tag;
#[cfg(test)]
mod tests;
mod text;
mod validity;

use provisioning::plc::{ByteOrder, DataType, IecType, Location, ValueKind};
use thiserror::Error;

pub use tag::{decode_tag, encode_tag, holds_image, is_published};

use crate::model::Value;

/// Why a value cannot be encoded into registers.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum EncodeError {
    /// The number of registers is not that of the location, or the location is in a bit table.
    #[error("the number of registers is not that of the location")]
    WrongRegisters,
    /// A number for a BOOL, a fraction for an INT, an array of another length.
    #[error("the value is of another kind than the type")]
    WrongKind,
    /// A number that is out of range for the type or not finite; a text that is too long, or has
    /// characters that are not in the code page.
    #[error("the value is out of range for the type")]
    OutOfRange,
    /// A number between two that the PLC can hold.
    #[error("the PLC cannot hold this value; the nearest that it can is {nearest}")]
    Inexact {
        /// The nearest number, as it would be published.
        nearest: f64,
    },
    /// A number that would be read back as no value: one of `invalid_values`, or outside `valid`.
    #[error("the value would be read back as invalid")]
    Invalid,
}

/// Decodes one value.
///
/// `words` are the `location.count` registers from `location.first` on. Returns `None` when their
/// number differs, when the location is in a bit table, and when the registers hold no valid value,
/// such as a number that is not finite.
#[must_use]
pub fn decode(
    location: &Location,
    data: impl Into<DataType>,
    order: ByteOrder,
    words: &[u16],
) -> Option<Value> {
    let data = data.into();
    match data.bounds {
        None => decode_scalar(location, data.element, order, words),
        Some(bounds) => array::decode(location, data.element, bounds, order, words),
    }
}

/// Decodes bits of a bit table, from `location.first` on.
#[must_use]
pub fn decode_bits(data: DataType, bits: &[bool]) -> Option<Value> {
    match data.bounds {
        None => bits.first().copied().map(Value::Bool),
        Some(bounds) => array::decode_bits(bounds, bits),
    }
}

fn decode_scalar(
    location: &Location,
    iec: IecType,
    order: ByteOrder,
    words: &[u16],
) -> Option<Value> {
    let kind = iec.kind();
    if matches!(kind, ValueKind::Text) {
        return text::decode(location, iec, order, words);
    }
    let raw = gather_bytes(location, iec, order, words)?;
    match kind {
        ValueKind::Bool => match location.bit {
            Some(bit) => raw.checked_shr(bit.into()).map(|bits| Value::Bool(bits & 1 == 1)),
            None => Some(Value::Bool(raw != 0)),
        },
        ValueKind::Unsigned | ValueKind::Date(_) | ValueKind::DateAndTime(_) => {
            Some(Value::Uint(raw))
        }
        ValueKind::TimeOfDay(tick) => (raw < tick.per_day()).then_some(Value::Uint(raw)),
        ValueKind::Signed => {
            let unused = u64::BITS - 8 * u32::from(iec.size());
            Some(Value::Int((raw << unused).cast_signed() >> unused))
        }
        ValueKind::Real if iec.size() == 4 => {
            let real = f32::from_bits(u32::try_from(raw).ok()?);
            real.is_finite().then_some(Value::Real(real))
        }
        ValueKind::Real => {
            let real = f64::from_bits(raw);
            real.is_finite().then_some(Value::Lreal(real))
        }
        ValueKind::Text => None,
    }
}

/// Encodes one value into its registers: the inverse of [`decode`]. Bytes and bits of the registers
/// that do not belong to the value keep their content.
///
/// # Errors
/// Fails, without a change to `words`, when the value does not fit the type, or the number of
/// registers is not that of the location.
pub fn encode(
    location: &Location,
    data: impl Into<DataType>,
    order: ByteOrder,
    value: &Value,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    let data = data.into();
    match data.bounds {
        None => encode_scalar(location, data.element, order, value, words),
        Some(bounds) => array::encode(location, data.element, bounds, order, value, words),
    }
}

fn encode_scalar(
    location: &Location,
    iec: IecType,
    order: ByteOrder,
    value: &Value,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    if let Value::Text(text) = value {
        return text::encode(location, iec, order, text, words);
    }
    let raw = to_raw_bits(iec, value)?;
    let (raw, mask) = match (iec, location.bit) {
        (IecType::Bool, Some(bit)) => {
            let place = |bits: u64| bits.checked_shl(bit.into()).ok_or(EncodeError::WrongRegisters);
            (place(raw)?, place(1)?)
        }
        _ => (raw, u64::MAX),
    };
    gather_bytes(location, iec, order, words).ok_or(EncodeError::WrongRegisters)?;
    let bytes = raw.to_le_bytes().into_iter().zip(mask.to_le_bytes());
    for (index, (byte, mask)) in bytes.take(iec.size().into()).enumerate() {
        let (word, shift) = byte_position(location, iec, order, index);
        let word = words.get_mut(word).ok_or(EncodeError::WrongRegisters)?;
        *word = *word & !(u16::from(mask) << shift) | u16::from(byte) << shift;
    }
    Ok(())
}

/// Returns the register of byte `index` of a text or an array of bytes, and its shift in it. These
/// follow the memory: where the high byte comes first (`ABCD`), the first byte is in the high half.
fn stream_byte_position(location: &Location, order: ByteOrder, index: usize) -> (usize, u32) {
    let in_memory = usize::from(location.byte) + index;
    let low_first = matches!(order, ByteOrder::Cdab | ByteOrder::Badc);
    (in_memory / 2, if in_memory.is_multiple_of(2) == low_first { 0 } else { 8 })
}

/// Returns the register of byte `index` of a value (0 is the least significant), and its shift in
/// it.
fn byte_position(
    location: &Location,
    iec: IecType,
    order: ByteOrder,
    index: usize,
) -> (usize, u32) {
    let in_value = match order {
        ByteOrder::Cdab | ByteOrder::Dcba => index,
        // High word first: the words of the value in reverse, the bytes in each word as they were.
        ByteOrder::Abcd | ByteOrder::Badc => {
            let last_word = usize::from(iec.size()).div_ceil(2) - 1;
            2 * (last_word - index / 2) + index % 2
        }
    };
    let in_memory = usize::from(location.byte) + in_value;
    let in_high_half = match order {
        ByteOrder::Cdab | ByteOrder::Abcd => in_memory % 2 == 1,
        ByteOrder::Dcba | ByteOrder::Badc => in_memory % 2 == 0,
    };
    (in_memory / 2, if in_high_half { 8 } else { 0 })
}

fn gather_bytes(location: &Location, iec: IecType, order: ByteOrder, words: &[u16]) -> Option<u64> {
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return None;
    }
    // Fast path for one or two whole registers, as nearly all values have.
    if location.byte == 0 && words.len() * 2 == usize::from(iec.size()) {
        let swaps = matches!(order, ByteOrder::Dcba | ByteOrder::Badc);
        let number = |word: u16| u64::from(if swaps { word.swap_bytes() } else { word });
        match (words, order) {
            (&[word], _) => return Some(number(word)),
            (&[low, high], ByteOrder::Cdab | ByteOrder::Dcba)
            | (&[high, low], ByteOrder::Abcd | ByteOrder::Badc) => {
                return Some(number(high) << 16 | number(low));
            }
            _ => {}
        }
    }
    let mut bytes = [0; 8];
    for (index, byte) in bytes.iter_mut().take(iec.size().into()).enumerate() {
        let (word, shift) = byte_position(location, iec, order, index);
        [*byte, _] = (words.get(word)? >> shift).to_le_bytes();
    }
    Some(u64::from_le_bytes(bytes))
}

/// Returns the bits of a value as its type stores them, in the low end.
fn to_raw_bits(iec: IecType, value: &Value) -> Result<u64, EncodeError> {
    match (iec, value) {
        (IecType::Bool, &Value::Bool(bit)) => Ok(bit.into()),
        (IecType::String(..) | IecType::Wstring(_), _) => Err(EncodeError::WrongKind),
        (IecType::Real, Value::Real(real)) if real.is_finite() => Ok(real.to_bits().into()),
        (IecType::Lreal, Value::Lreal(real)) if real.is_finite() => Ok(real.to_bits()),
        (IecType::Real, Value::Real(_)) | (IecType::Lreal, Value::Lreal(_)) => {
            Err(EncodeError::OutOfRange)
        }
        (IecType::Bool | IecType::Real | IecType::Lreal, _) => Err(EncodeError::WrongKind),
        (_, &Value::Int(number)) => integer_to_raw(iec, number.into()),
        (_, &Value::Uint(number)) => integer_to_raw(iec, number.into()),
        (_, Value::Bool(_) | Value::Real(_) | Value::Lreal(_)) => Err(EncodeError::WrongKind),
        (_, Value::Text(_) | Value::List(_)) => Err(EncodeError::WrongKind),
    }
}

fn integer_to_raw(iec: IecType, number: i128) -> Result<u64, EncodeError> {
    let bits = 8 * u32::from(iec.size());
    let range = match iec.kind() {
        ValueKind::Signed => -(1 << (bits - 1))..1 << (bits - 1),
        ValueKind::TimeOfDay(tick) => 0..tick.per_day().into(),
        ValueKind::Bool | ValueKind::Unsigned | ValueKind::Real | ValueKind::Text => {
            0..1_i128 << bits
        }
        ValueKind::Date(_) | ValueKind::DateAndTime(_) => 0..1_i128 << bits,
    };
    if !range.contains(&number) {
        return Err(EncodeError::OutOfRange);
    }
    let [low @ .., _, _, _, _, _, _, _, _] = number.to_le_bytes();
    Ok(u64::from_le_bytes(low))
}
