//! Registers to IEC values and back. Pure: no clock, no I/O, no allocation.
//!
//! One rule serves every type: registers are bytes of the PLC's memory, a value is a little-endian
//! number in those bytes. `byte_place` holds the rule; reading gathers by it, writing scatters by
//! it, so the two cannot disagree.

#[cfg(test)]
mod tests;

use provisioning::plc::{IecType, Location, Order};
use thiserror::Error;

use crate::model::Value;

/// Why a value cannot be laid into registers.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum EncodeError {
    /// The registers are not those of the location, or the location is one of a bit table.
    #[error("the registers are not those of the location")]
    WrongRegisters,
    /// A number for a BOOL, a fraction for an INT.
    #[error("the value is of another kind than the type")]
    WrongKind,
    /// The number is too large or too small for the type, or is not a finite number.
    #[error("the value lies outside the range of the type")]
    OutOfRange,
}

/// Decodes one value.
///
/// `words` are the `location.count` registers from `location.first` on. Gives nothing when they are
/// not that many, when the location is in a bit table, and when the registers hold no finite number.
#[must_use]
pub fn decode(location: &Location, iec: IecType, order: Order, words: &[u16]) -> Option<Value> {
    let raw = gather(location, iec, order, words)?;
    let size = u32::from(iec.size());
    let signed = || {
        let unused = u64::BITS - 8 * size;
        Value::Int((raw << unused).cast_signed() >> unused)
    };
    match iec {
        IecType::Bool => match location.bit {
            Some(bit) => raw.checked_shr(bit.into()).map(|bits| Value::Bool(bits & 1 == 1)),
            None => Some(Value::Bool(raw != 0)),
        },
        IecType::Byte | IecType::Word | IecType::Dword | IecType::Lword => Some(Value::Uint(raw)),
        IecType::Usint | IecType::Uint | IecType::Udint | IecType::Ulint | IecType::Time => {
            Some(Value::Uint(raw))
        }
        IecType::Sint | IecType::Int | IecType::Dint | IecType::Lint => Some(signed()),
        IecType::Real => {
            let real = f32::from_bits(u32::try_from(raw).ok()?);
            real.is_finite().then_some(Value::Real(real))
        }
        IecType::Lreal => {
            let real = f64::from_bits(raw);
            real.is_finite().then_some(Value::Lreal(real))
        }
    }
}

/// Encodes one value into its registers: the inverse of [`decode`]. Bytes and bits of the registers
/// that are not the value's stay as they are.
///
/// # Errors
/// Fails without a change to `words` when the value does not fit the type or the registers are not
/// those of the location.
pub fn encode(
    location: &Location,
    iec: IecType,
    order: Order,
    value: Value,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    let raw = raw(iec, value)?;
    let (raw, mask) = match (iec, location.bit) {
        (IecType::Bool, Some(bit)) => {
            let place = |bits: u64| bits.checked_shl(bit.into()).ok_or(EncodeError::WrongRegisters);
            (place(raw)?, place(1)?)
        }
        _ => (raw, u64::MAX),
    };
    gather(location, iec, order, words).ok_or(EncodeError::WrongRegisters)?;
    let bytes = raw.to_le_bytes().into_iter().zip(mask.to_le_bytes());
    for (index, (byte, mask)) in bytes.take(iec.size().into()).enumerate() {
        let (word, shift) = byte_place(location, iec, order, index);
        let word = words.get_mut(word).ok_or(EncodeError::WrongRegisters)?;
        *word = *word & !(u16::from(mask) << shift) | u16::from(byte) << shift;
    }
    Ok(())
}

/// Tells where byte `index` of a value (0 is the least significant) lies: which of its registers,
/// and how far left in it.
fn byte_place(location: &Location, iec: IecType, order: Order, index: usize) -> (usize, u32) {
    let in_value = match order {
        Order::Cdab | Order::Dcba => index,
        // High word first: the words of the value in reverse, the bytes in each word as they were.
        Order::Abcd | Order::Badc => {
            let last_word = usize::from(iec.size()).div_ceil(2) - 1;
            2 * (last_word - index / 2) + index % 2
        }
    };
    let in_memory = usize::from(location.byte) + in_value;
    let in_high_half = match order {
        Order::Cdab | Order::Abcd => in_memory % 2 == 1,
        Order::Dcba | Order::Badc => in_memory % 2 == 0,
    };
    (in_memory / 2, if in_high_half { 8 } else { 0 })
}

fn gather(location: &Location, iec: IecType, order: Order, words: &[u16]) -> Option<u64> {
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return None;
    }
    let mut bytes = [0; 8];
    for (index, byte) in bytes.iter_mut().take(iec.size().into()).enumerate() {
        let (word, shift) = byte_place(location, iec, order, index);
        [*byte, _] = (words.get(word)? >> shift).to_le_bytes();
    }
    Some(u64::from_le_bytes(bytes))
}

/// The bits of a value as its type stores them, in the low end.
fn raw(iec: IecType, value: Value) -> Result<u64, EncodeError> {
    match (iec, value) {
        (IecType::Bool, Value::Bool(bit)) => Ok(bit.into()),
        (IecType::Real, Value::Real(real)) if real.is_finite() => Ok(real.to_bits().into()),
        (IecType::Lreal, Value::Lreal(real)) if real.is_finite() => Ok(real.to_bits()),
        (IecType::Real, Value::Real(_)) | (IecType::Lreal, Value::Lreal(_)) => {
            Err(EncodeError::OutOfRange)
        }
        (IecType::Bool | IecType::Real | IecType::Lreal, _) => Err(EncodeError::WrongKind),
        (_, Value::Int(number)) => integer(iec, number.into()),
        (_, Value::Uint(number)) => integer(iec, number.into()),
        (_, Value::Bool(_) | Value::Real(_) | Value::Lreal(_)) => Err(EncodeError::WrongKind),
    }
}

fn integer(iec: IecType, number: i128) -> Result<u64, EncodeError> {
    let bits = 8 * u32::from(iec.size());
    let signed = matches!(iec, IecType::Sint | IecType::Int | IecType::Dint | IecType::Lint);
    let range = if signed { -(1 << (bits - 1))..1 << (bits - 1) } else { 0..1_i128 << bits };
    if !range.contains(&number) {
        return Err(EncodeError::OutOfRange);
    }
    let [low @ .., _, _, _, _, _, _, _, _] = number.to_le_bytes();
    Ok(u64::from_le_bytes(low))
}
