//! Arrays: their elements follow one another. An array of BOOL that begins at a bit is packed.

use std::sync::Arc;

use provisioning::plc::{ArrayBounds, ByteOrder, IecType, Location};

use super::{EncodeError, decode_scalar, encode_scalar};
use crate::model::Value;

/// Decodes an array. An element that holds no valid value of its type is absent in the list.
pub(super) fn decode(
    location: &Location,
    item: IecType,
    bounds: ArrayBounds,
    order: ByteOrder,
    words: &[u16],
) -> Option<Value> {
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return None;
    }
    let element = |index| {
        let (first, location) = element_location(location, item, order, index);
        let words = words.get(first..)?.get(..location.count.into())?;
        Some(decode_scalar(&location, item, order, words))
    };
    let elements = (0..usize::from(bounds.elements())).map(element);
    Some(Value::List(Arc::new(elements.collect::<Option<_>>()?)))
}

pub(super) fn decode_bits(bounds: ArrayBounds, bits: &[bool]) -> Option<Value> {
    let bits = bits.get(..bounds.elements().into())?;
    Some(Value::List(Arc::new(bits.iter().map(|bit| Some(Value::Bool(*bit))).collect())))
}

pub(super) fn encode(
    location: &Location,
    item: IecType,
    bounds: ArrayBounds,
    order: ByteOrder,
    value: &Value,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    let Value::List(elements) = value else { return Err(EncodeError::WrongKind) };
    if elements.len() != usize::from(bounds.elements()) {
        return Err(EncodeError::WrongKind);
    }
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return Err(EncodeError::WrongRegisters);
    }
    // Encode into a copy: an error in the middle must not leave half an array.
    let mut written = words.to_vec();
    for (index, element) in elements.iter().enumerate() {
        let element = element.as_ref().ok_or(EncodeError::WrongKind)?;
        let (first, location) = element_location(location, item, order, index);
        let words = written.get_mut(first..).and_then(|rest| rest.get_mut(..location.count.into()));
        let words = words.ok_or(EncodeError::WrongRegisters)?;
        encode_scalar(&location, item, order, element, words)?;
    }
    words.copy_from_slice(&written);
    Ok(())
}

/// Returns the index of an element's first register in the array, and the location of the element.
fn element_location(
    array: &Location,
    item: IecType,
    order: ByteOrder,
    index: usize,
) -> (usize, Location) {
    let (byte, bit) = match array.bit {
        Some(bit) => {
            let bit = usize::from(bit) + index;
            (usize::from(array.byte) + bit / 8, u8::try_from(bit % 8).ok())
        }
        None => (usize::from(array.byte) + usize::from(item.size()) * index, None),
    };
    let odd = u8::from(byte % 2 == 1);
    let count = (u16::from(odd) + item.size()).div_ceil(2);
    // Bytes follow the memory: see `stream_byte_position`.
    let bytes =
        bit.is_none() && item.size() == 1 && matches!(order, ByteOrder::Abcd | ByteOrder::Badc);
    let in_register = if bytes { 1 - odd } else { odd };
    (byte / 2, Location { count, byte: in_register, bit, ..*array })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use provisioning::plc::{DataType, PlcModel, Table};

    use super::super::{decode, encode};
    use super::*;

    fn data(text: &str) -> DataType {
        text.parse().unwrap()
    }

    fn read(at: &str, text: &str, words: &[u16]) -> Option<Value> {
        let location = PlcModel::M241.locate(at, data(text)).unwrap();
        decode(&location, data(text), ByteOrder::Cdab, words)
    }

    fn list<const N: usize>(items: [Option<Value>; N]) -> Option<Value> {
        Some(Value::List(Arc::new(items.into_iter().collect())))
    }

    #[test]
    fn elements_follow_one_another_and_an_invalid_one_is_absent() {
        let words = [0x0000, 0x3F80, 0x0000, 0x7FC0];
        let reals = list([Some(Value::Real(1.0)), None]);
        assert_eq!(read("%MW10", "ARRAY[1..2] OF REAL", &words), reals);
        let bytes = list([0x22, 0x33, 0x44].map(|byte| Some(Value::Uint(byte))));
        assert_eq!(read("%MB21", "ARRAY[0..2] OF BYTE", &[0x2211, 0x4433]), bytes);
        let text = |text: &str| Some(Value::Text(Arc::new(text.to_owned())));
        let texts = list([text("A"), text("BC")]);
        assert_eq!(read("%MW10", "ARRAY[0..1] OF STRING(2)", &[0x0041, 0x4200, 0x0043]), texts);
    }

    #[test]
    fn bools_take_a_byte_each_unless_they_begin_at_a_bit() {
        let bools = |bits: [bool; 3]| list(bits.map(|bit| Some(Value::Bool(bit))));
        let whole = read("%MB20", "ARRAY[0..2] OF BOOL", &[0x0100, 0x0001]);
        assert_eq!(whole, bools([false, true, true]));
        let packed = read("%MX21.6", "ARRAY[0..2] OF BOOL", &[0x4000, 0x0001]);
        assert_eq!(packed, bools([true, false, true]));
        let from_a_table = decode_bits(data("ARRAY[0..2] OF BOOL").bounds.unwrap(), &[true; 4]);
        assert_eq!(from_a_table, bools([true; 3]));
    }

    #[test]
    fn an_array_of_another_length_or_with_an_absent_element_is_refused_and_changes_nothing() {
        let data = data("ARRAY[0..1] OF INT");
        let location = PlcModel::M241.locate("%MW10", data).unwrap();
        for items in [vec![Some(Value::Int(1))], vec![Some(Value::Int(1)), None]] {
            let mut words = [7, 8];
            let value = Value::List(Arc::new(items));
            let error = encode(&location, data, ByteOrder::Cdab, &value, &mut words);
            assert_eq!((error, words), (Err(EncodeError::WrongKind), [7, 8]));
        }
    }

    #[test]
    fn registers_of_another_count_or_of_a_bit_table_are_refused() {
        let data = data("ARRAY[0..1] OF INT");
        let holding = PlcModel::M241.locate("%MW10", data).unwrap();
        let coils = Location { table: Table::Coil, ..holding };
        let value = list([1, 2].map(|item| Some(Value::Int(item)))).unwrap();
        for (location, count) in [(holding, 1), (holding, 3), (coils, 2)] {
            let mut words = vec![7; count];
            assert_eq!(decode(&location, data, ByteOrder::Cdab, &words), None);
            let error = encode(&location, data, ByteOrder::Cdab, &value, &mut words);
            assert_eq!((error, words), (Err(EncodeError::WrongRegisters), vec![7; count]));
        }
    }

    proptest! {
        #[test]
        fn encoding_what_was_decoded_changes_no_register(
            at in proptest::sample::select(vec!["%MW10", "%MX20.5", "%MX21.7", "%MB21"]),
            item in proptest::sample::select(vec!["BYTE", "BOOL", "INT", "DINT", "LWORD", "SINT"]),
            elements in 1..20,
            order in proptest::sample::select(&ByteOrder::ALL[..]),
            words: [u16; 100],
        ) {
            let data = data(&format!("ARRAY[1..{elements}] OF {item}"));
            let Ok(location) = PlcModel::M241.locate(at, data) else { return Ok(()) };
            // A BOOL that is a whole byte holds 0 or 1.
            let is_byte_bool = item == "BOOL" && location.bit.is_none();
            let mask = if is_byte_bool { 0x0101 } else { 0xFFFF };
            let mut words: Vec<_> = words.iter().map(|word| word & mask).collect();
            words.truncate(location.count.into());
            let before = words.clone();
            let value = decode(&location, data, order, &words).unwrap();
            prop_assert_eq!(encode(&location, data, order, &value, &mut words), Ok(()));
            prop_assert_eq!(words, before);
        }
    }
}
