//! STRING and WSTRING: text up to the first NUL.

use std::iter;
use std::sync::Arc;

use provisioning::plc::{ByteOrder, CodePage, IecType, Location};

use super::{EncodeError, stream_byte_position};
use crate::model::Value;

/// Decodes a text. Returns `None` when the bytes before the NUL are invalid in the code page.
pub(super) fn decode(
    location: &Location,
    iec: IecType,
    order: ByteOrder,
    words: &[u16],
) -> Option<Value> {
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return None;
    }
    let text = if let IecType::String(letters, code_page) = iec {
        let byte = |index| {
            let (word, shift) = stream_byte_position(location, order, index);
            words.get(word).map(|word| (word >> shift).to_le_bytes()[0])
        };
        let bytes = (0..usize::from(letters)).map_while(byte).take_while(|byte| *byte != 0);
        match code_page {
            CodePage::Latin1 => bytes.map(char::from).collect(),
            CodePage::Utf8 => String::from_utf8(bytes.collect()).ok()?,
            CodePage::Utf8Lossy => String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned(),
        }
    } else if let IecType::Wstring(letters) = iec {
        let units = words.iter().map(|word| code_unit(*word, order));
        let units = units.take(letters.into()).take_while(|unit| *unit != 0);
        char::decode_utf16(units).collect::<Result<_, _>>().ok()?
    } else {
        return None;
    };
    Some(Value::Text(Arc::new(text)))
}

/// Encodes a text, and fills the rest with NULs.
pub(super) fn encode(
    location: &Location,
    iec: IecType,
    order: ByteOrder,
    text: &str,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    if location.table.holds_bits() || words.len() != usize::from(location.count) {
        return Err(EncodeError::WrongRegisters);
    }
    if text.contains('\0') {
        return Err(EncodeError::OutOfRange);
    }
    if let IecType::String(letters, code_page) = iec {
        let bytes = encode_code_page(text, code_page).ok_or(EncodeError::OutOfRange)?;
        encode_bytes(location, usize::from(letters), order, &bytes, words)
    } else if let IecType::Wstring(letters) = iec {
        encode_units(usize::from(letters), order, text, words)
    } else {
        Err(EncodeError::WrongKind)
    }
}

fn encode_bytes(
    location: &Location,
    letters: usize,
    order: ByteOrder,
    bytes: &[u8],
    words: &mut [u16],
) -> Result<(), EncodeError> {
    if bytes.len() > letters {
        return Err(EncodeError::OutOfRange);
    }
    if stream_byte_position(location, order, letters).0 >= words.len() {
        return Err(EncodeError::WrongRegisters);
    }
    let padded = bytes.iter().copied().chain(iter::repeat(0));
    for (index, byte) in padded.take(letters + 1).enumerate() {
        let (word, shift) = stream_byte_position(location, order, index);
        let word = words.get_mut(word).ok_or(EncodeError::WrongRegisters)?;
        *word = *word & !(0xFF << shift) | u16::from(byte) << shift;
    }
    Ok(())
}

fn encode_units(
    letters: usize,
    order: ByteOrder,
    text: &str,
    words: &mut [u16],
) -> Result<(), EncodeError> {
    if text.encode_utf16().count() > letters {
        return Err(EncodeError::OutOfRange);
    }
    if words.len() != letters + 1 {
        return Err(EncodeError::WrongRegisters);
    }
    for (word, letter) in words.iter_mut().zip(text.encode_utf16().chain(iter::repeat(0))) {
        *word = code_unit(letter, order);
    }
    Ok(())
}

fn encode_code_page(text: &str, code_page: CodePage) -> Option<Vec<u8>> {
    match code_page {
        CodePage::Latin1 => text.chars().map(|letter| u8::try_from(letter).ok()).collect(),
        CodePage::Utf8 | CodePage::Utf8Lossy => Some(text.as_bytes().to_vec()),
    }
}

/// Converts a UTF-16 code unit to or from its register, in which it is stored like an INT.
const fn code_unit(word: u16, order: ByteOrder) -> u16 {
    match order {
        ByteOrder::Abcd | ByteOrder::Cdab => word,
        ByteOrder::Badc | ByteOrder::Dcba => word.swap_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use provisioning::plc::PlcModel;

    use super::*;

    const ASCII: CodePage = CodePage::Latin1;

    fn at(at: &str, iec: IecType) -> Location {
        PlcModel::M241.locate(at, iec).unwrap()
    }

    fn text(text: &str) -> Option<Value> {
        Some(Value::Text(Arc::new(text.to_owned())))
    }

    fn read(iec: IecType, words: &[u16]) -> Option<Value> {
        decode(&at("%MW10", iec), iec, ByteOrder::Cdab, words)
    }

    #[test]
    fn a_string_ends_at_its_nul_or_its_length() {
        assert_eq!(read(IecType::String(5, ASCII), &[0x4241, 0x4443, 0x0045]), text("ABCDE"));
        let old_tail = [0x6948, 0x5800, 0x5A59, 0x0000];
        assert_eq!(read(IecType::String(7, ASCII), &old_tail), text("Hi"));
        assert_eq!(read(IecType::String(3, ASCII), &[0x4241, 0x4443]), text("ABC"));
        assert_eq!(read(IecType::Wstring(3), &[0x0041, 0x20AC, 0x0042, 0x0000]), text("A€B"));
    }

    #[test]
    fn a_string_is_latin_1_unless_it_is_utf_8() {
        let latin = [0xFC5A, 0x6972, 0x6863, 0x0000];
        assert_eq!(read(IecType::String(6, ASCII), &latin), text("Zürich"));
        assert_eq!(read(IecType::String(6, CodePage::Utf8), &latin), None);
        let utf8 = [0xC35A, 0x72BC, 0x0000];
        assert_eq!(read(IecType::String(5, CodePage::Utf8), &utf8), text("Zür"));
        let lossy = |letters| IecType::String(letters, CodePage::Utf8Lossy);
        assert_eq!(read(lossy(5), &utf8), text("Zür"));
        assert_eq!(read(lossy(6), &latin), text("Z\u{FFFD}rich"), "one bad byte costs one letter");
    }

    #[test]
    fn half_a_surrogate_pair_is_invalid() {
        assert_eq!(read(IecType::Wstring(2), &[0xD83D, 0x0000, 0x0000]), None);
        assert_eq!(read(IecType::Wstring(2), &[0xD83D, 0xDE00, 0x0000]), text("😀"));
    }

    #[test]
    fn a_string_may_begin_in_the_middle_of_a_register() {
        let iec = IecType::String(2, ASCII);
        let read = decode(&at("%MB21", iec), iec, ByteOrder::Cdab, &[0x41AA, 0x0042]);
        assert_eq!(read, text("AB"));
    }

    #[test]
    fn the_byte_order_of_a_string_is_that_of_the_memory() {
        let iec = IecType::String(3, ASCII);
        for order in [ByteOrder::Abcd, ByteOrder::Dcba] {
            assert_eq!(decode(&at("%MW10", iec), iec, order, &[0x4142, 0x4300]), text("ABC"));
        }
        for order in [ByteOrder::Cdab, ByteOrder::Badc] {
            assert_eq!(decode(&at("%MW10", iec), iec, order, &[0x4241, 0x0043]), text("ABC"));
        }
    }

    #[test]
    fn a_text_that_does_not_fit_is_refused_and_changes_nothing() {
        let refused = |iec, text: &str| {
            let location = at("%MW10", iec);
            let mut words = vec![0x5A5A; location.count.into()];
            let error = encode(&location, iec, ByteOrder::Cdab, text, &mut words);
            assert!(words.iter().all(|word| *word == 0x5A5A));
            error
        };
        let out = Err(EncodeError::OutOfRange);
        assert_eq!(refused(IecType::String(3, ASCII), "ABCD"), out);
        assert_eq!(refused(IecType::String(3, ASCII), "€"), out);
        assert_eq!(refused(IecType::String(3, CodePage::Utf8), "€€"), out);
        assert_eq!(refused(IecType::Wstring(1), "😀"), out);
        assert_eq!(refused(IecType::String(3, ASCII), "A\0B"), out);
        assert_eq!(refused(IecType::Int, "A"), Err(EncodeError::WrongKind));
    }

    #[test]
    fn a_text_that_fills_its_registers_ends_with_a_nul() {
        let written = |iec, text: &str| {
            let location = at("%MW10", iec);
            let mut words = vec![0x5A5A; location.count.into()];
            encode(&location, iec, ByteOrder::Cdab, text, &mut words).map(|()| words)
        };
        let of_bytes = written(IecType::String(4, ASCII), "ABCD");
        assert_eq!(of_bytes, Ok(vec![0x4241, 0x4443, 0x5A00]));
        assert_eq!(written(IecType::Wstring(2), "AB"), Ok(vec![0x41, 0x42, 0]));
    }

    #[test]
    fn another_number_of_registers_holds_no_text() {
        for iec in [IecType::String(3, ASCII), IecType::Wstring(3)] {
            let location = at("%MW10", iec);
            let count = usize::from(location.count);
            for other in [count - 1, count + 1] {
                let mut words = vec![0x4141; other];
                assert_eq!(decode(&location, iec, ByteOrder::Cdab, &words), None);
                let error = encode(&location, iec, ByteOrder::Cdab, "A", &mut words);
                assert_eq!(error, Err(EncodeError::WrongRegisters));
            }
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding_and_leaves_the_neighbours_alone(
            latin in "[\u{1}-\u{ff}]{0,12}",
            any in "[^\u{0}]{0,12}",
            odd: bool,
            order in proptest::sample::select(&ByteOrder::ALL[..]),
        ) {
            let types = [
                (IecType::String(12, ASCII), latin),
                (IecType::String(48, CodePage::Utf8), any.clone()),
                (IecType::Wstring(24), any),
            ];
            for (iec, text) in types {
                let odd = odd && iec.alignment() == 1;
                let location = at(if odd { "%MB21" } else { "%MB20" }, iec);
                let mut words = vec![0xA5A5; location.count.into()];
                prop_assert_eq!(encode(&location, iec, order, &text, &mut words), Ok(()));
                if odd {
                    let low_first = matches!(order, ByteOrder::Cdab | ByteOrder::Badc);
                    let neighbour = if low_first { words[0] & 0xFF } else { words[0] >> 8 };
                    prop_assert_eq!(neighbour, 0xA5);
                }
                let read = decode(&location, iec, order, &words);
                prop_assert_eq!(read, Some(Value::Text(Arc::new(text))));
            }
        }
    }
}
