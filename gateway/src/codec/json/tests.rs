use jiff::tz;
use proptest::prelude::*;
use provisioning::config::EnumNames;
use serde_json::json;

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// Type, ticks and JSON, for a PLC whose clock shows the time of Amsterdam.
fn moments() -> [(IecType, u64, &'static str); 8] {
    [
        (IecType::Date, 1_709_164_800, "2024-02-29"),
        (IecType::Tod, 45_296_789, "12:34:56.789"),
        (IecType::Tod, 45_296_000, "12:34:56.000"),
        (IecType::Dt, 1_709_210_096, "2024-02-29T12:34:56+01:00"),
        (IecType::Dt, u32::MAX.into(), "2106-02-07T06:28:15+01:00"),
        (IecType::Ldate, 1_709_164_800_000_000_000, "2024-02-29"),
        (IecType::Ltod, 45_296_789_000_001, "12:34:56.789000001"),
        (IecType::Ldt, 1_719_750_896_000_000_500, "2024-06-30T12:34:56.000000500+02:00"),
    ]
}

#[test]
fn dates_and_times_are_iso_8601_texts_and_parse_back() {
    for (iec, ticks, text) in moments() {
        let form = JsonFormat::for_type(iec, &zone("Europe/Amsterdam"));
        let value = Value::Uint(ticks);
        assert_eq!(
            serde_json::to_value(FormattedValue { value: &value, form: &form }).unwrap(),
            json!(text)
        );
        assert_eq!(parse(&json!(text), iec, &form), Ok(value), "{text}");
    }
}

#[test]
fn a_clock_in_utc_has_the_offset_z() {
    let form = JsonFormat::for_type(IecType::Dt, &TimeZone::UTC);
    let shown = FormattedValue { value: &Value::Uint(1_709_210_096), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-02-29T12:34:56Z"));
}

#[test]
fn a_local_time_that_occurs_twice_is_the_first() {
    let form = JsonFormat::for_type(IecType::Dt, &zone("Europe/Amsterdam"));
    // 2024-10-27 02:30 occurs twice: the clock is set back at 03:00.
    let shown = FormattedValue { value: &Value::Uint(1_729_996_200), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-10-27T02:30:00+02:00"));
    let second = parse(&json!("2024-10-27T02:30:00+01:00"), IecType::Dt, &form);
    assert_eq!(second, Ok(Value::Uint(1_729_996_200)));
}

#[test]
fn a_local_time_that_does_not_exist_is_an_hour_later() {
    let form = JsonFormat::for_type(IecType::Dt, &zone("Europe/Amsterdam"));
    // 2024-03-31 02:30 does not exist: the clock is set forward at 02:00.
    let shown = FormattedValue { value: &Value::Uint(1_711_852_200), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-03-31T03:30:00+02:00"));
}

#[test]
fn the_name_of_a_number_parses_back_and_a_number_without_a_name_stays_a_number() {
    let names = [(-1, "fault"), (1, "run")].map(|(number, name)| (number, name.to_owned()));
    let form = JsonFormat::Named(EnumNames::new(names.into()).unwrap());
    for (number, json, fitting) in [(-1, json!("fault"), true), (7, json!(7), false)] {
        let value = Value::Int(number);
        assert_eq!(
            serde_json::to_value(FormattedValue { value: &value, form: &form }).unwrap(),
            json
        );
        assert_eq!(is_representable(&form, &value), fitting);
        assert_eq!(parse(&json, IecType::Int, &form).is_ok(), fitting);
    }
    assert_eq!(parse(&json!("run"), IecType::Int, &form), Ok(Value::Int(1)));
    assert_eq!(parse(&json!("walk"), IecType::Int, &form), Err(EncodeError::OutOfRange));
    let two_alike = [(0, "a"), (1, "a")].map(|(number, name)| (number, name.to_owned()));
    assert_eq!(EnumNames::new(two_alike.into()), None);
}

#[test]
fn an_array_has_exactly_as_many_elements_as_its_type() {
    let data: DataType = "ARRAY[0..2] OF INT".parse().unwrap();
    let list = |json| parse(&json, data, &JsonFormat::Plain);
    let items = [1, 2, 3].map(|number| Some(Value::Int(number))).to_vec();
    assert_eq!(list(json!([1, 2, 3])), Ok(Value::List(Arc::new(items))));
    for json in [json!([]), json!([1, 2]), json!([1, 2, 3, 4]), json!(1), json!([1, 2, "3"])] {
        assert_eq!(list(json.clone()), Err(EncodeError::WrongKind), "{json}");
    }
}

#[test]
fn a_value_that_the_type_cannot_hold_is_refused() {
    let utc = TimeZone::UTC;
    let refused =
        |json: Json, iec| parse(&json, iec, &JsonFormat::for_type(iec, &utc)).unwrap_err();
    assert_eq!(refused(json!(5), IecType::Date), EncodeError::WrongKind);
    assert_eq!(refused(json!("yesterday"), IecType::Date), EncodeError::WrongKind);
    assert_eq!(refused(json!("1969-12-31"), IecType::Date), EncodeError::OutOfRange);
    assert_eq!(refused(json!("12:34:56.7891"), IecType::Tod), EncodeError::OutOfRange);
    assert_eq!(refused(json!("2024-02-29T12:34:56.5Z"), IecType::Dt), EncodeError::OutOfRange);
    assert_eq!(refused(json!("9000-01-01T00:00:00Z"), IecType::Ldt), EncodeError::OutOfRange);
    assert_eq!(refused(json!(1.5), IecType::Int), EncodeError::WrongKind);
    assert_eq!(refused(json!(1), IecType::Bool), EncodeError::WrongKind);
    assert_eq!(refused(json!("1.5"), IecType::Real), EncodeError::WrongKind);
    assert_eq!(refused(json!(null), IecType::Lreal), EncodeError::WrongKind);
}

proptest! {
    /// A zone of fixed offset has no gaps, so every local time parses back.
    #[test]
    fn parsing_is_the_inverse_of_formatting(
        iec in proptest::sample::select(&IecType::ALL[..]),
        bits: u64,
        hours in -12..=14_i8,
    ) {
        let zone = TimeZone::fixed(tz::offset(hours));
        let form = JsonFormat::for_type(iec, &zone);
        let small = if iec.size() == 4 { bits >> 32 } else { bits };
        let value = match iec.kind() {
            ValueKind::Date(tick) => Value::Uint(small - small % tick.per_day()),
            ValueKind::TimeOfDay(tick) => Value::Uint(small % tick.per_day()),
            ValueKind::DateAndTime(_) => Value::Uint(small),
            ValueKind::Bool => Value::Bool(bits % 2 == 1),
            ValueKind::Text => Value::Text(Arc::new(bits.to_string())),
            ValueKind::Unsigned => Value::Uint(bits),
            ValueKind::Signed => Value::Int(bits.cast_signed()),
            ValueKind::Real if iec.size() == 4 => {
                Value::Real(f32::from_bits(u32::try_from(small).unwrap()))
            }
            ValueKind::Real => Value::Lreal(f64::from_bits(bits)),
        };
        prop_assume!(!matches!(value, Value::Real(real) if !real.is_finite()));
        prop_assume!(!matches!(value, Value::Lreal(real) if !real.is_finite()));
        let json = serde_json::to_string(&FormattedValue { value: &value, form: &form }).unwrap();
        let back = parse(&serde_json::from_str(&json).unwrap(), iec, &form);
        let back = match back {
            Ok(Value::Int(number)) if number >= 0 && value != Value::Int(number) => {
                Value::Uint(number.unsigned_abs())
            }
            back => back.unwrap(),
        };
        prop_assert_eq!(back, value);
    }
}
