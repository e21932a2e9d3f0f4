//! Numbers by which a device says that it has no value.

use std::sync::Arc;

use provisioning::config::{Number, Validity};

use crate::model::Value;

/// Returns a raw value, or `None` when it is one of the numbers that stand for no value. An element
/// of an array becomes absent.
pub(super) fn without_invalid(value: Value, validity: &Validity) -> Option<Value> {
    let is_valid =
        |value: &Value| !validity.invalid_values.iter().any(|number| is_equal(value, *number));
    retain(value, &is_valid)
}

/// Returns a scaled value, or `None` when it is outside the range. An element of an array becomes
/// absent.
pub(super) fn within_range(value: Value, validity: &Validity) -> Option<Value> {
    let Validity { min, max, .. } = *validity;
    let is_valid = |value: &Value| {
        let Some(number) = to_f64(value) else { return true };
        min.is_none_or(|min| min <= number) && max.is_none_or(|max| number <= max)
    };
    retain(value, &is_valid)
}

fn retain(value: Value, is_valid: &impl Fn(&Value) -> bool) -> Option<Value> {
    let Value::List(items) = value else { return Some(value).filter(is_valid) };
    let items = items.iter().map(|item| item.clone().and_then(|item| retain(item, is_valid)));
    Some(Value::List(Arc::new(items.collect())))
}

#[expect(clippy::float_cmp, reason = "a device sends exactly this number")]
fn is_equal(value: &Value, number: Number) -> bool {
    match (value, number) {
        (Value::Int(value), Number::Whole(number)) => i128::from(*value) == number,
        (Value::Uint(value), Number::Whole(number)) => i128::from(*value) == number,
        (Value::Real(value), number) => *value == to_real(number.to_f64()),
        (Value::Lreal(value), number) => *value == number.to_f64(),
        _ => false,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the REAL nearest to what is written is meant")]
const fn to_real(number: f64) -> f32 {
    number as f32
}

#[expect(clippy::cast_precision_loss, reason = "a range needs no more digits than a double has")]
fn to_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        Value::Real(number) => Some((*number).into()),
        Value::Lreal(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(numbers: &[Number]) -> Validity {
        Validity { invalid_values: numbers.to_vec(), min: None, max: None }
    }

    #[test]
    fn a_listed_number_of_any_type_is_no_value() {
        let whole = Number::Whole;
        for (raw, number) in [
            (Value::Int(-32_768), whole(-32_768)),
            (Value::Uint(0xFFFF), whole(65_535)),
            (Value::Uint(u64::MAX), whole(u64::MAX.into())),
            (Value::Real(-9999.9), Number::Real(-9999.9)),
            (Value::Real(1e9), whole(1_000_000_000)),
            (Value::Lreal(0.1), Number::Real(0.1)),
        ] {
            assert_eq!(without_invalid(raw.clone(), &listed(&[number])), None, "{raw:?}");
            assert_eq!(without_invalid(raw.clone(), &listed(&[whole(7)])), Some(raw));
        }
        let huge = Value::Uint(u64::MAX - 1);
        assert_eq!(without_invalid(huge.clone(), &listed(&[whole(u64::MAX.into())])), Some(huge));
    }

    #[test]
    fn a_value_outside_the_range_is_none_and_its_bounds_are_values() {
        let range = Validity { invalid_values: Vec::new(), min: Some(-40.0), max: Some(150.0) };
        for (value, is_valid) in [(-40.0, true), (150.0, true), (-40.1, false), (1e9, false)] {
            assert_eq!(within_range(Value::Lreal(value), &range).is_some(), is_valid, "{value}");
        }
        let only_max = Validity { min: None, ..range };
        assert!(within_range(Value::Int(-1000), &only_max).is_some());
        assert!(within_range(Value::Uint(151), &only_max).is_none());
        assert!(within_range(Value::Bool(true), &only_max).is_some());
    }

    #[test]
    fn an_element_of_an_array_is_judged_alone() {
        let list = |items: [Option<i64>; 3]| {
            Value::List(Arc::new(items.map(|item| item.map(Value::Int)).to_vec()))
        };
        let raw = list([Some(1), Some(-32_768), None]);
        let judged = without_invalid(raw, &listed(&[Number::Whole(-32_768)]));
        assert_eq!(judged, Some(list([Some(1), None, None])));
    }
}
