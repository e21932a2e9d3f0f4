use jiff::tz;
use proptest::prelude::*;
use provisioning::config::Names;
use serde_json::json;

use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// Type, ticks, JSON, with a clock that runs in Amsterdam.
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
fn a_date_is_the_text_that_people_read_and_reads_back() {
    for (iec, ticks, text) in moments() {
        let form = Form::of(iec, &zone("Europe/Amsterdam"));
        let value = Value::Uint(ticks);
        assert_eq!(
            serde_json::to_value(Shown { value: &value, form: &form }).unwrap(),
            json!(text)
        );
        assert_eq!(read(&json!(text), iec, &form), Ok(value), "{text}");
    }
}

#[test]
fn a_clock_in_utc_prints_z() {
    let form = Form::of(IecType::Dt, &TimeZone::UTC);
    let shown = Shown { value: &Value::Uint(1_709_210_096), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-02-29T12:34:56Z"));
}

#[test]
fn where_the_clock_is_put_back_the_first_of_two_equal_times_is_meant() {
    let form = Form::of(IecType::Dt, &zone("Europe/Amsterdam"));
    // 2024-10-27 02:30, which this night has twice.
    let shown = Shown { value: &Value::Uint(1_729_996_200), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-10-27T02:30:00+02:00"));
    let second = read(&json!("2024-10-27T02:30:00+01:00"), IecType::Dt, &form);
    assert_eq!(second, Ok(Value::Uint(1_729_996_200)));
}

#[test]
fn a_time_that_was_left_out_counts_an_hour_later() {
    let form = Form::of(IecType::Dt, &zone("Europe/Amsterdam"));
    // 2024-03-31 02:30, which this night does not have.
    let shown = Shown { value: &Value::Uint(1_711_852_200), form: &form };
    assert_eq!(serde_json::to_value(shown).unwrap(), json!("2024-03-31T03:30:00+02:00"));
}

#[test]
fn the_name_of_a_number_reads_back_and_an_unknown_one_stays_a_number() {
    let names = [(-1, "fault"), (1, "run")].map(|(number, name)| (number, name.to_owned()));
    let form = Form::Named(Names::new(names.into()).unwrap());
    for (number, json, fitting) in [(-1, json!("fault"), true), (7, json!(7), false)] {
        let value = Value::Int(number);
        assert_eq!(serde_json::to_value(Shown { value: &value, form: &form }).unwrap(), json);
        assert_eq!(fits(&form, &value), fitting);
        assert_eq!(read(&json, IecType::Int, &form).is_ok(), fitting);
    }
    assert_eq!(read(&json!("run"), IecType::Int, &form), Ok(Value::Int(1)));
    assert_eq!(read(&json!("walk"), IecType::Int, &form), Err(EncodeError::OutOfRange));
    let two_alike = [(0, "a"), (1, "a")].map(|(number, name)| (number, name.to_owned()));
    assert_eq!(Names::new(two_alike.into()), None);
}

#[test]
fn what_a_type_cannot_hold_is_refused() {
    let utc = TimeZone::UTC;
    let refused = |json: Json, iec| read(&json, iec, &Form::of(iec, &utc)).unwrap_err();
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
    /// Offsets alone have no gaps, so every reading of the clock comes back.
    #[test]
    fn reading_undoes_showing(
        iec in proptest::sample::select(&IecType::ALL[..]),
        bits: u64,
        hours in -12..=14_i8,
    ) {
        let zone = TimeZone::fixed(tz::offset(hours));
        let form = Form::of(iec, &zone);
        let small = if iec.size() == 4 { bits >> 32 } else { bits };
        let value = match iec.kind() {
            Kind::Date(tick) => Value::Uint(small - small % tick.per_day()),
            Kind::TimeOfDay(tick) => Value::Uint(small % tick.per_day()),
            Kind::DateAndTime(_) => Value::Uint(small),
            Kind::Bool => Value::Bool(bits % 2 == 1),
            Kind::Text => Value::Text(Arc::new(bits.to_string())),
            Kind::Unsigned => Value::Uint(bits),
            Kind::Signed => Value::Int(bits.cast_signed()),
            Kind::Real if iec.size() == 4 => {
                Value::Real(f32::from_bits(u32::try_from(small).unwrap()))
            }
            Kind::Real => Value::Lreal(f64::from_bits(bits)),
        };
        prop_assume!(!matches!(value, Value::Real(real) if !real.is_finite()));
        prop_assume!(!matches!(value, Value::Lreal(real) if !real.is_finite()));
        let json = serde_json::to_string(&Shown { value: &value, form: &form }).unwrap();
        let back = read(&serde_json::from_str(&json).unwrap(), iec, &form);
        let back = match back {
            Ok(Value::Int(number)) if number >= 0 && value != Value::Int(number) => {
                Value::Uint(number.unsigned_abs())
            }
            back => back.unwrap(),
        };
        prop_assert_eq!(back, value);
    }
}
