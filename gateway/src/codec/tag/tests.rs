use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use provisioning::config::{EnumNames, Number, Scaling, Validity};
use provisioning::plc::{ByteOrder, CodePage, IecType, PlcModel, ValueKind};
use serde_json::json;

use super::*;
use crate::codec::json::FormattedValue;

#[test]
fn a_value_of_each_type_is_the_registers_that_the_plc_holds() {
    let cases: [(&str, Json, &[u16]); 18] = [
        ("BOOL", json!(true), &[1]),
        ("SINT", json!(-2), &[0x00FE]),
        ("BYTE", json!(17), &[0x0011]),
        ("INT", json!(-2), &[0xFFFE]),
        ("UINT", json!(0x1234), &[0x1234]),
        ("DINT", json!(305_419_896), &[0x5678, 0x1234]),
        ("DWORD", json!(0xDEAD_BEEF_u32), &[0xBEEF, 0xDEAD]),
        ("LINT", json!(0x0123_4567_89AB_CDEF_i64), &[0xCDEF, 0x89AB, 0x4567, 0x0123]),
        ("ULINT", json!(u64::MAX), &[0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF]),
        ("REAL", json!(123.456), &[0xE979, 0x42F6]),
        ("REAL", json!(1), &[0x0000, 0x3F80]),
        ("LREAL", json!(123.456), &[0xBE77, 0x1A9F, 0xDD2F, 0x405E]),
        ("TIME", json!(3_723_004), &[0xCEFC, 0x0038]),
        ("DT", json!("2024-02-29T12:34:56Z"), &[0x79F0, 0x65E0]),
        ("DATE", json!("2024-02-29"), &[0xC900, 0x65DF]),
        ("TOD", json!("12:34:56.789"), &[0x2C95, 0x02B3]),
        ("STRING(5)", json!("ABCDE"), &[0x4241, 0x4443, 0x0045]),
        ("WSTRING(3)", json!("A€B"), &[0x0041, 0x20AC, 0x0042, 0x0000]),
    ];
    for (data, json, words) in cases {
        let image = encode_tag(3, &tag("%MW10", data), &json).unwrap();
        assert_eq!(image.to_registers(), Registers::Words(words.to_vec()), "{data} {json}");
        assert_eq!((image.tag, image.first), (Some(3), 10));
    }
}

#[test]
fn what_does_not_belong_to_a_tag_is_not_in_its_mask() {
    let masks = |at: &str, data: &str, json: Json| {
        let image = encode_tag(0, &tag(at, data), &json).unwrap();
        let ImageContent::Words(words) = image.content else { panic!("not in a word") };
        words.iter().map(|word| word.mask).collect::<Vec<_>>()
    };
    assert_eq!(masks("%MW10", "INT", json!(1)), [0xFFFF]);
    assert_eq!(masks("%MX20.3", "BOOL", json!(true)), [0x0008]);
    assert_eq!(masks("%MW10.11", "BOOL", json!(false)), [0x0800]);
    assert_eq!(masks("%MB21", "SINT", json!(-1)), [0xFF00]);
    assert_eq!(masks("%MW10", "STRING(4)", json!("A")), [0xFFFF, 0xFFFF, 0x00FF]);
    assert_eq!(masks("%MW10", "STRING(5)", json!("A")), [0xFFFF; 3]);
    assert_eq!(masks("%MB21", "STRING(2)", json!("A")), [0xFF00, 0xFFFF]);
    assert_eq!(masks("%MW10", "ARRAY[1..3] OF BYTE", json!([1, 2, 3])), [0xFFFF, 0x00FF]);
    let bits = json!([true, false, true]);
    assert_eq!(masks("%MX21.6", "ARRAY[0..2] OF BOOL", bits), [0xC000, 0x0001]);
}

#[test]
fn a_bit_of_a_bit_table_is_written_as_a_bit() {
    let coil = |data: &str, json| {
        encode_tag(0, &on(PlcModel::Generic, "coil:3", data), &json).map(|image| image.content)
    };
    assert_eq!(coil("BOOL", json!(true)), Ok(ImageContent::Bits(vec![true])));
    let pair = json!([true, false]);
    assert_eq!(coil("ARRAY[0..1] OF BOOL", pair), Ok(ImageContent::Bits(vec![true, false])));
    assert_eq!(coil("BOOL", json!(1)), Err(EncodeError::WrongKind));
    assert_eq!(coil("ARRAY[0..1] OF BOOL", json!([true])), Err(EncodeError::WrongKind));
}

#[test]
fn scale_and_offset_are_undone_to_the_raw_value_that_was_published() {
    let raw = |scale, offset, decimals, json: Json| {
        let tag = scaled("INT", scale, offset, decimals);
        encode_tag(0, &tag, &json).map(|image| {
            let Registers::Words(words) = image.to_registers() else { panic!("not in a word") };
            decode(&tag.location, IecType::Int, tag.byte_order, &words)
        })
    };
    let int = |number| Ok(Some(Value::Int(number)));
    assert_eq!(raw(0.1, 0.0, Some(1), json!(21.5)), int(215));
    assert_eq!(raw(0.1, 0.0, None, json!(0.3)), int(3), "3 * 0.1 is not 0.3 as a double");
    assert_eq!(raw(0.5, -40.0, Some(1), json!(-39.5)), int(1));
    assert_eq!(raw(-1.0, 0.0, Some(0), json!(-7)), int(7));
    assert_eq!(raw(10.0, 5.0, Some(0), json!(25)), int(2));
    assert_eq!(raw(0.003_051_850_948, 0.0, Some(1), json!(21.5)), int(7045));
    let inexact = |nearest| Err(EncodeError::Inexact { nearest });
    assert_eq!(raw(0.1, 0.0, Some(1), json!(21.55)), inexact(21.6));
    assert_eq!(raw(10.0, 5.0, Some(0), json!(29)), inexact(25.0));
    assert_eq!(raw(10.0, 5.0, Some(0), json!(30)), inexact(35.0));
    assert_eq!(raw(-10.0, 0.0, Some(0), json!(12)), inexact(10.0));
    for out in [json!(3276.8), json!(1e300), json!(-1e300)] {
        assert_eq!(raw(0.1, 0.0, Some(1), out.clone()), Err(EncodeError::OutOfRange), "{out}");
    }
    assert_eq!(raw(0.1, 0.0, Some(1), json!("21.5")), Err(EncodeError::WrongKind));
    assert_eq!(raw(0.1, 0.0, Some(1), json!(null)), Err(EncodeError::WrongKind));
}

#[test]
fn an_integer_that_is_scaled_by_whole_numbers_is_exact_beyond_2_to_the_53() {
    let tag = scaled("LINT", 10.0, 1.0, Some(0));
    let json = json!(90_071_992_547_409_931_i64);
    let image = encode_tag(0, &tag, &json).unwrap();
    assert_eq!(published(&tag, &image), json);
    assert!(matches!(
        encode_tag(0, &tag, &json!(90_071_992_547_409_930_i64)),
        Err(EncodeError::Inexact { .. })
    ));
}

#[test]
fn a_name_of_an_enumeration_is_written_as_its_number() {
    let names = BTreeMap::from([(0, "stop".to_owned()), (7, "run".to_owned())]);
    let mut tag = tag("%MW10", "UINT");
    tag.json_format = JsonFormat::Named(EnumNames::new(names).unwrap());
    let image = encode_tag(0, &tag, &json!("run")).unwrap();
    assert_eq!(image.to_registers(), Registers::Words(vec![7]));
    assert_eq!(encode_tag(0, &tag, &json!("walk")), Err(EncodeError::OutOfRange));
    assert_eq!(encode_tag(0, &tag, &json!(7)), Err(EncodeError::WrongKind));
}

#[test]
fn a_number_that_stands_for_no_value_is_not_written() {
    let mut tag = tag("%MW10", "INT");
    let validity =
        Validity { invalid_values: vec![Number::Whole(-32_768)], min: Some(-40.0), max: None };
    tag.validity = Some(Arc::new(validity));
    assert_eq!(encode_tag(0, &tag, &json!(-32_768)), Err(EncodeError::Invalid));
    assert_eq!(encode_tag(0, &tag, &json!(-41)), Err(EncodeError::Invalid));
    assert!(encode_tag(0, &tag, &json!(-40)).is_ok());
}

#[test]
fn a_whole_number_may_have_a_decimal_point_and_a_fraction_is_refused() {
    let image = encode_tag(0, &tag("%MW10", "INT"), &json!(5.0)).unwrap();
    assert_eq!(image.to_registers(), Registers::Words(vec![5]));
    for (data, json) in [
        ("INT", json!(5.5)),
        ("INT", json!(1e300)),
        ("INT", json!("5")),
        ("INT", json!(true)),
        ("BOOL", json!(1)),
        ("REAL", json!("1.5")),
        ("STRING(5)", json!(5)),
        ("DT", json!(5)),
        ("INT", json!([5])),
        ("INT", json!({})),
    ] {
        let refused = encode_tag(0, &tag("%MW10", data), &json);
        assert_eq!(refused, Err(EncodeError::WrongKind), "{data} {json}");
    }
    for (data, json) in [
        ("INT", json!(32_768)),
        ("UINT", json!(-1)),
        ("REAL", json!(1e39)),
        ("STRING(5)", json!("ABCDEF")),
        ("STRING(5)", json!("€")),
        ("STRING(5)", json!("A\u{0}B")),
        ("DATE", json!("1969-12-31")),
        ("DT", json!("2106-02-07T06:28:16Z")),
        ("DT", json!("2024-02-29T12:34:56.5Z")),
    ] {
        let refused = encode_tag(0, &tag("%MW10", data), &json);
        assert_eq!(refused, Err(EncodeError::OutOfRange), "{data} {json}");
    }
}

#[test]
fn an_expectation_is_compared_as_it_is_published() {
    let mut real = tag("%MW10", "REAL");
    real.decimals = Some(1);
    let image = encode_tag(0, &real, &json!(20.1)).unwrap();
    let words = |number: f32| {
        let bits = number.to_bits().to_le_bytes();
        let [a, b, c, d] = bits;
        Registers::Words(vec![u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])])
    };
    assert!(holds_image(&real, &words(20.13), &image));
    assert!(!holds_image(&real, &words(20.2), &image));
    assert!(!holds_image(&real, &words(f32::NAN), &image));
    let text = tag("%MW10", "STRING(7)");
    let image = encode_tag(0, &text, &json!("Hi")).unwrap();
    let old_tail = Registers::Words(vec![0x6948, 0x5800, 0x5A59, 0x0000]);
    assert!(holds_image(&text, &old_tail, &image));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_was_published_can_be_written_back_and_is_published_again(
        data in data_type(),
        order in proptest::sample::select(&ByteOrder::ALL[..]),
        odd: bool,
        scaling in proptest::option::of((scale_factor(), -100..100_i32)),
        decimals in proptest::option::of(0..4_u8),
        words in proptest::collection::vec(any::<u16>(), 40),
        before in proptest::collection::vec(any::<u16>(), 40),
    ) {
        let odd = odd && data.element.alignment() == 1;
        let mut tag = tag(if odd { "%MB21" } else { "%MB20" }, &data.to_string());
        tag.data_type = data;
        tag.byte_order = order;
        let kind = data.element.kind();
        if matches!(kind, ValueKind::Unsigned | ValueKind::Signed | ValueKind::Real) {
            tag.scaling = scaling.map(|(scale, offset)| Scaling { scale, offset: offset.into() });
            tag.decimals = decimals;
        }
        let count = usize::from(tag.location.count);
        let held = Registers::Words(words[..count].to_vec());
        if let Some(value) = decode_tag(&tag, &held, 0).filter(|value| is_published(&tag, value)) {
            let json = to_json(&tag, &value);
            let written = encode_tag(0, &tag, &json);
            let image = match written {
                Ok(image) => image,
                // A number that was rounded to its decimals may have left the range of the type,
                // and a replacement character takes more bytes than the one that it replaces.
                Err(error) => {
                    let rounded = tag.decimals.is_some()
                        || tag.scaling.is_some()
                        || matches!(data.element, IecType::String(_, CodePage::Utf8Lossy));
                    prop_assert!(rounded && error == EncodeError::OutOfRange, "{} {}", json, error);
                    return Ok(());
                }
            };
            let ImageContent::Words(parts) = &image.content else { panic!("not in words") };
            let merged = parts.iter().zip(&before).map(|(part, word)| part.merged_into(*word));
            let merged: Vec<u16> = merged.collect();
            let changed = merged.iter().zip(&before).zip(parts);
            for ((after, before), part) in changed {
                prop_assert_eq!((after ^ before) & !part.mask, 0, "a foreign bit changed");
            }
            let again = decode_tag(&tag, &Registers::Words(merged), 0).unwrap();
            prop_assert_eq!(to_json(&tag, &again), json);
        }
    }

    #[test]
    fn no_json_panics_and_what_is_written_is_published(
        json in any_json(),
        data in data_type(),
        scaling in proptest::option::of((scale_factor(), any::<f64>())),
    ) {
        let mut tag = tag("%MW10", &data.to_string());
        tag.data_type = data;
        tag.scaling = scaling.map(|(scale, offset)| Scaling { scale, offset });
        if let Ok(image) = encode_tag(0, &tag, &json) {
            prop_assert_eq!(image.count(), usize::from(tag.location.count));
            prop_assert!(decode_tag(&tag, &image.to_registers(), 0).is_some());
        }
    }
}

fn tag(at: &str, data: &str) -> Tag {
    on(PlcModel::M241, at, data)
}

fn on(model: PlcModel, at: &str, data: &str) -> Tag {
    let plc = crate::testing::plc("pump6", &["setpoint"]);
    let mut tag = plc.tags[0].clone();
    tag.data_type = data.parse().unwrap();
    tag.location = model.locate(at, tag.data_type).unwrap();
    tag.json_format = JsonFormat::for_type(tag.data_type.element, &TimeZone::UTC);
    tag
}

fn scaled(data: &str, scale: f64, offset: f64, decimals: Option<u8>) -> Tag {
    let mut tag = tag("%MW10", data);
    (tag.scaling, tag.decimals) = (Some(Scaling { scale, offset }), decimals);
    tag
}

fn to_json(tag: &Tag, value: &Value) -> Json {
    serde_json::to_value(FormattedValue { value, form: &tag.json_format }).unwrap()
}

fn published(tag: &Tag, image: &TagImage) -> Json {
    to_json(tag, &decode_tag(tag, &image.to_registers(), 0).unwrap())
}

fn data_type() -> impl Strategy<Value = DataType> {
    let texts = [
        IecType::String(4, CodePage::Latin1),
        IecType::String(7, CodePage::Utf8),
        IecType::String(5, CodePage::Utf8Lossy),
        IecType::Wstring(4),
    ];
    let types: Vec<_> = IecType::ALL.into_iter().chain(texts).collect();
    let bounds = proptest::option::of((0..3_i32).prop_map(|last| (0, last)));
    (proptest::sample::select(types), bounds).prop_map(|(element, bounds)| DataType {
        element,
        bounds: bounds.and_then(|(first, last)| provisioning::plc::ArrayBounds::new(first, last)),
    })
}

fn scale_factor() -> impl Strategy<Value = f64> {
    proptest::sample::select(vec![0.1, 0.01, 0.5, 2.0, 10.0, -1.0, -0.1, 0.25, 1000.0, 1.0 / 3.0])
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        (-300..300_i32).prop_map(|number| Json::from(f64::from(number) / 10.0)),
        ".{0,8}".prop_map(Json::from),
        "20[0-9]{2}-0[1-9]-1[0-9](T12:34:56Z)?".prop_map(Json::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        proptest::collection::vec(inner, 0..4).prop_map(Json::from)
    })
}
