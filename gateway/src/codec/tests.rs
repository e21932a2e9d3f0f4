use proptest::prelude::*;
use provisioning::plc::Table;

use super::*;

/// Value, type, and the registers from %MW10 on that a Modicon sends for it: computed by hand from
/// the memory layout and checked with pymodbus (`word_order="little"`).
const MODICON: &[(IecType, Value, &[u16])] = &[
    (IecType::Int, Value::Int(-2), &[0xFFFE]),
    (IecType::Uint, Value::Uint(0x1234), &[0x1234]),
    (IecType::Word, Value::Uint(0x1234), &[0x1234]),
    (IecType::Dint, Value::Int(305_419_896), &[0x5678, 0x1234]),
    (IecType::Dint, Value::Int(-2), &[0xFFFE, 0xFFFF]),
    (IecType::Udint, Value::Uint(0xDEAD_BEEF), &[0xBEEF, 0xDEAD]),
    (IecType::Dword, Value::Uint(0xDEAD_BEEF), &[0xBEEF, 0xDEAD]),
    (IecType::Lint, Value::Int(0x0123_4567_89AB_CDEF), &[0xCDEF, 0x89AB, 0x4567, 0x0123]),
    (IecType::Lword, Value::Uint(0x0123_4567_89AB_CDEF), &[0xCDEF, 0x89AB, 0x4567, 0x0123]),
    (IecType::Ulint, Value::Uint(u64::MAX), &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF]),
    (IecType::Real, Value::Real(1.0), &[0x0000, 0x3F80]),
    (IecType::Real, Value::Real(123.456), &[0xE979, 0x42F6]),
    (IecType::Real, Value::Real(-0.1), &[0xCCCD, 0xBDCC]),
    (IecType::Lreal, Value::Lreal(1.0), &[0x0000, 0x0000, 0x0000, 0x3FF0]),
    (IecType::Lreal, Value::Lreal(123.456), &[0xBE77, 0x1A9F, 0xDD2F, 0x405E]),
    (IecType::Time, Value::Uint(3_723_004), &[0xCEFC, 0x0038]),
    (IecType::Ltime, Value::Uint(3_723_004), &[0xCEFC, 0x0038, 0x0000, 0x0000]),
    (IecType::Dt, Value::Uint(1_709_210_096), &[0x79F0, 0x65E0]),
    (IecType::Date, Value::Uint(1_709_164_800), &[0xC900, 0x65DF]),
    (IecType::Tod, Value::Uint(45_296_789), &[0x2C95, 0x02B3]),
];

#[test]
fn modicon_registers_are_the_values_that_the_plc_holds() {
    for (iec, value, words) in MODICON {
        let (iec, words) = (*iec, *words);
        let location = whole(iec);
        assert_eq!(decode(&location, iec, ByteOrder::Cdab, words), Some(value.clone()), "{iec:?}");
        let mut written = vec![0; words.len()];
        assert_eq!(encode(&location, iec, ByteOrder::Cdab, value, &mut written), Ok(()), "{iec:?}");
        assert_eq!(written, words, "{iec:?}");
    }
}

#[test]
fn the_letters_of_a_byte_order_name_the_bytes_from_the_most_significant_on() {
    let wire = |order| {
        let mut words = [0; 2];
        encode(
            &whole(IecType::Dword),
            IecType::Dword,
            order,
            &Value::Uint(0x0A0B_0C0D),
            &mut words,
        )
        .unwrap();
        words
    };
    assert_eq!(wire(ByteOrder::Abcd), [0x0A0B, 0x0C0D]);
    assert_eq!(wire(ByteOrder::Cdab), [0x0C0D, 0x0A0B]);
    assert_eq!(wire(ByteOrder::Badc), [0x0B0A, 0x0D0C]);
    assert_eq!(wire(ByteOrder::Dcba), [0x0D0C, 0x0B0A]);
}

#[test]
fn four_registers_follow_the_same_byte_orders() {
    let wire = |order| {
        let mut words = [0; 4];
        let value = Value::Uint(0x0102_0304_0506_0708);
        encode(&whole(IecType::Lword), IecType::Lword, order, &value, &mut words).unwrap();
        words
    };
    assert_eq!(wire(ByteOrder::Abcd), [0x0102, 0x0304, 0x0506, 0x0708]);
    assert_eq!(wire(ByteOrder::Cdab), [0x0708, 0x0506, 0x0304, 0x0102]);
    assert_eq!(wire(ByteOrder::Badc), [0x0201, 0x0403, 0x0605, 0x0807]);
    assert_eq!(wire(ByteOrder::Dcba), [0x0807, 0x0605, 0x0403, 0x0201]);
}

#[test]
fn two_bytes_share_a_register_low_byte_first() {
    let words = [0x2211];
    let byte = |byte| decode(&at_byte(byte, None), IecType::Byte, ByteOrder::Cdab, &words);
    assert_eq!(byte(0), Some(Value::Uint(0x11)));
    assert_eq!(byte(1), Some(Value::Uint(0x22)));
}

#[test]
fn a_bool_at_a_byte_is_that_whole_byte() {
    let bool_at =
        |byte, word| decode(&at_byte(byte, None), IecType::Bool, ByteOrder::Cdab, &[word]).unwrap();
    assert_eq!(bool_at(1, 0x0100), Value::Bool(true));
    assert_eq!(bool_at(0, 0x0100), Value::Bool(false));
}

#[test]
fn a_bool_at_a_bit_is_only_that_bit() {
    let bool_at = |bit, word| {
        decode(&at_byte(0, Some(bit)), IecType::Bool, ByteOrder::Cdab, &[word]).unwrap()
    };
    assert_eq!(bool_at(3, 0x0008), Value::Bool(true));
    assert_eq!(bool_at(3, 0xFFF7), Value::Bool(false));
}

#[test]
fn writing_a_bit_or_a_byte_leaves_its_neighbours_alone() {
    let mut words = [0xA5A5];
    let set = |location: &Location, iec, value, words: &mut [u16]| {
        encode(location, iec, ByteOrder::Cdab, &value, words).unwrap();
    };
    set(&at_byte(1, Some(1)), IecType::Bool, Value::Bool(true), &mut words);
    assert_eq!(words, [0xA7A5]);
    set(&at_byte(0, Some(0)), IecType::Bool, Value::Bool(false), &mut words);
    assert_eq!(words, [0xA7A4]);
    set(&at_byte(1, None), IecType::Sint, Value::Int(-1), &mut words);
    assert_eq!(words, [0xFFA4]);
}

#[test]
fn a_value_that_begins_in_the_middle_of_a_register_is_read_across() {
    let location = Location { count: 3, ..at_byte(1, None) };
    let words = [0x78AA, 0x3456, 0xBB12];
    let value = decode(&location, IecType::Dword, ByteOrder::Cdab, &words);
    assert_eq!(value, Some(Value::Uint(0x1234_5678)));
}

#[test]
fn nan_and_infinity_are_invalid() {
    for high in [0x7FC0, 0x7F80, 0xFF80] {
        let real = decode(&whole(IecType::Real), IecType::Real, ByteOrder::Cdab, &[0, high]);
        assert_eq!(real, None);
    }
    for high in [0x7FF8, 0x7FF0, 0xFFF0] {
        let lreal =
            decode(&whole(IecType::Lreal), IecType::Lreal, ByteOrder::Cdab, &[0, 0, 0, high]);
        assert_eq!(lreal, None);
    }
}

#[test]
fn a_time_of_day_is_less_than_24_hours() {
    let tod = |words: &[u16]| decode(&whole(IecType::Tod), IecType::Tod, ByteOrder::Cdab, words);
    assert_eq!(tod(&[0x5BFF, 0x0526]), Some(Value::Uint(86_399_999)));
    assert_eq!(tod(&[0x5C00, 0x0526]), None);
}

#[test]
fn a_value_that_does_not_fit_the_type_is_refused_and_changes_nothing() {
    let refused = |iec, value| {
        let location = whole(iec);
        let mut words = vec![0x5A5A; location.count.into()];
        let before = words.clone();
        let error = encode(&location, iec, ByteOrder::Cdab, &value, &mut words).unwrap_err();
        assert_eq!(words, before);
        error
    };
    assert_eq!(refused(IecType::Int, Value::Int(32_768)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Int, Value::Int(-32_769)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Uint, Value::Int(-1)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Lint, Value::Uint(1 << 63)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Real, Value::Real(f32::NAN)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Lreal, Value::Lreal(f64::INFINITY)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Tod, Value::Uint(86_400_000)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Dt, Value::Uint(1 << 32)), EncodeError::OutOfRange);
    assert_eq!(refused(IecType::Int, Value::Real(1.0)), EncodeError::WrongKind);
    assert_eq!(refused(IecType::Bool, Value::Uint(1)), EncodeError::WrongKind);
    assert_eq!(refused(IecType::Real, Value::Int(1)), EncodeError::WrongKind);
}

#[test]
fn signed_and_unsigned_values_are_accepted_for_either_kind_of_type() {
    let mut words = [0];
    let int = whole(IecType::Int);
    assert_eq!(encode(&int, IecType::Int, ByteOrder::Cdab, &Value::Uint(7), &mut words), Ok(()));
    assert_eq!(words, [7]);
    assert_eq!(encode(&int, IecType::Word, ByteOrder::Cdab, &Value::Int(9), &mut words), Ok(()));
    assert_eq!(words, [9]);
}

#[test]
fn the_first_bit_of_a_bit_table_is_a_bool() {
    let bool_of = |bits: &[bool]| decode_bits(IecType::Bool.into(), bits);
    assert_eq!(bool_of(&[true]), Some(Value::Bool(true)));
    assert_eq!(bool_of(&[false, true]), Some(Value::Bool(false)));
    assert_eq!(bool_of(&[]), None);
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(
        (iec, value) in typed_value(),
        order in order(),
        byte in 0_u8..2,
        bit in proptest::option::of(0_u8..8),
        before: [u16; 5],
    ) {
        let bit = bit.filter(|_| iec == IecType::Bool);
        let count = (u16::from(byte) + iec.size()).div_ceil(2);
        let location = Location { count, ..at_byte(byte, bit) };
        let mut words = before[..count.into()].to_vec();
        prop_assert_eq!(encode(&location, iec, order, &value, &mut words), Ok(()));
        prop_assert_eq!(decode(&location, iec, order, &words), Some(value));
    }

    #[test]
    fn encoding_what_was_decoded_changes_no_register(
        iec in proptest::sample::select(&IecType::ALL[1..]),
        order in order(),
        before: [u16; 4],
    ) {
        let location = whole(iec);
        let mut words = before[..location.count.into()].to_vec();
        if let Some(value) = decode(&location, iec, order, &words) {
            prop_assert_eq!(encode(&location, iec, order, &value, &mut words), Ok(()));
            prop_assert_eq!(&words[..], &before[..location.count.into()]);
        }
    }

    #[test]
    fn no_combination_of_registers_and_location_panics(
        iec in proptest::sample::select(&IecType::ALL[..]),
        order in order(),
        table in proptest::sample::select(vec![Table::Coil, Table::HoldingRegister]),
        (count, byte, bit) in (0..8_u16, 0..4_u8, proptest::option::of(0..10_u8)),
        value in typed_value(),
        mut words in proptest::collection::vec(any::<u16>(), 0..6),
        fits: bool,
    ) {
        let count = if fits { u16::try_from(words.len()).unwrap() } else { count };
        let location = Location { table, first: 0, count, byte, bit };
        let decoded = decode(&location, iec, order, &words);
        let encoded = encode(&location, iec, order, &value.1, &mut words);
        if table == Table::Coil || words.len() != usize::from(count) {
            prop_assert_eq!(decoded, None);
            prop_assert!(encoded.is_err());
        }
    }
}

fn whole(iec: IecType) -> Location {
    Location { count: iec.size().div_ceil(2), ..at_byte(0, None) }
}

fn at_byte(byte: u8, bit: Option<u8>) -> Location {
    Location { table: Table::HoldingRegister, first: 10, count: 1, byte, bit }
}

fn order() -> impl Strategy<Value = ByteOrder> {
    proptest::sample::select(vec![
        ByteOrder::Abcd,
        ByteOrder::Cdab,
        ByteOrder::Badc,
        ByteOrder::Dcba,
    ])
}

fn typed_value() -> impl Strategy<Value = (IecType, Value)> {
    let values = (any::<u64>(), any::<bool>(), real(), lreal());
    (proptest::sample::select(&IecType::ALL[..]), values).prop_map(
        |(iec, (bits, bit, real, lreal))| {
            let unused = 64 - 8 * u32::from(iec.size());
            let value = match iec.keyword() {
                "BOOL" => Value::Bool(bit),
                "REAL" => Value::Real(real),
                "LREAL" => Value::Lreal(lreal),
                "SINT" | "INT" | "DINT" | "LINT" => Value::Int(bits.cast_signed() >> unused),
                "TOD" => Value::Uint(bits % 86_400_000),
                "LTOD" => Value::Uint(bits % 86_400_000_000_000),
                _ => Value::Uint(bits >> unused),
            };
            (iec, value)
        },
    )
}

fn real() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("finite", |real| real.is_finite())
}

fn lreal() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |real| real.is_finite())
}
