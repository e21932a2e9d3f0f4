//! From raw value to engineering value.

use std::sync::Arc;

use provisioning::config::{Scaling, Tag};

use crate::model::Value;

/// `raw * scale + offset`, then rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    scaling: Option<Scaling>,
    decimals: Option<u8>,
}

/// Beyond this a double has no digits after the point.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

impl Scale {
    pub(super) const fn of(tag: &Tag) -> Self {
        Self { scaling: tag.scaling, decimals: tag.decimals }
    }

    /// Gives nothing when the result is no finite number.
    ///
    /// Of an array, each element is scaled. A BOOL or a text passes as it is, and so does an integer that is not scaled. A REAL stays a REAL, so
    /// that it prints as short as it is exact, unless `decimals` say how it is to print; with 0
    /// decimals a number becomes an integer.
    pub(super) fn apply(self, raw: Value) -> Option<Value> {
        let number = match &raw {
            Value::Bool(_) | Value::Text(_) => return Some(raw),
            Value::List(_) if self.scaling.is_none() && self.decimals.is_none() => {
                return Some(raw);
            }
            Value::List(items) => {
                let scale = |item: &Option<Value>| item.clone().and_then(|item| self.apply(item));
                return Some(Value::List(Arc::new(items.iter().map(scale).collect())));
            }
            Value::Int(_) | Value::Uint(_) if self.scaling.is_none() => return Some(raw),
            Value::Real(_) | Value::Lreal(_)
                if self.scaling.is_none() && self.decimals.is_none() =>
            {
                return Some(raw);
            }
            Value::Int(number) => from_int(*number),
            Value::Uint(number) => from_uint(*number),
            Value::Real(number) => (*number).into(),
            Value::Lreal(number) => *number,
        };
        let scaled = match self.scaling {
            Some(Scaling { scale, offset }) => number * scale + offset,
            None => number,
        };
        match self.decimals {
            None if matches!(raw, Value::Real(_)) => finite_real(scaled),
            None => finite_lreal(scaled),
            Some(decimals) => round_to_decimals(scaled, decimals),
        }
    }
}

fn round_to_decimals(number: f64, decimals: u8) -> Option<Value> {
    let shift = 10_f64.powi(decimals.into());
    let shifted = number * shift;
    let is_whole = shifted.abs() >= MAX_EXACT_INTEGER || shifted.is_nan();
    // Adding 0.0 turns -0.0 into 0.0, which no reader expects a minus on.
    let number = if is_whole { number } else { shifted.round() / shift + 0.0 };
    if decimals == 0 && number.abs() < MAX_EXACT_INTEGER {
        return Some(Value::Int(to_int(number)));
    }
    finite_lreal(number)
}

fn finite_lreal(number: f64) -> Option<Value> {
    number.is_finite().then_some(Value::Lreal(number))
}

#[expect(clippy::cast_possible_truncation, reason = "rounding to the REAL it came from is meant")]
fn finite_real(number: f64) -> Option<Value> {
    let number = number as f32;
    number.is_finite().then_some(Value::Real(number))
}

#[expect(clippy::cast_precision_loss, reason = "scaling is done in f64")]
const fn from_int(number: i64) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "scaling is done in f64")]
const fn from_uint(number: u64) -> f64 {
    number as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the caller has rounded it, below 2^53")]
const fn to_int(number: f64) -> i64 {
    number as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_scaled_passes_as_it_is() {
        for raw in [Value::Bool(true), Value::Int(-7), Value::Uint(u64::MAX), Value::Real(0.1)] {
            assert_eq!(scale(None, None).apply(raw.clone()), Some(raw));
        }
        assert_eq!(scale(None, Some(2)).apply(Value::Int(-7)), Some(Value::Int(-7)));
        assert_eq!(
            scale(Some((2.0, 1.0)), Some(2)).apply(Value::Bool(true)),
            Some(Value::Bool(true))
        );
    }

    #[test]
    fn an_integer_is_scaled_to_a_double() {
        let tenths = scale(Some((0.5, -40.0)), None);
        assert_eq!(tenths.apply(Value::Int(215)), Some(Value::Lreal(67.5)));
        assert_eq!(tenths.apply(Value::Uint(0)), Some(Value::Lreal(-40.0)));
    }

    #[test]
    fn a_tenth_prints_as_a_tenth_when_decimals_say_so() {
        let raw = Value::Int(3);
        assert_eq!(printed(scale(Some((0.1, 0.0)), None), raw.clone()), "0.30000000000000004");
        assert_eq!(printed(scale(Some((0.1, 0.0)), Some(1)), raw), "0.3");
    }

    #[test]
    fn a_scaled_real_stays_as_short_as_a_real() {
        assert_eq!(printed(scale(Some((1.0, 0.0)), None), Value::Real(123.456)), "123.456");
        assert_eq!(printed(scale(None, Some(1)), Value::Real(123.456)), "123.5");
        assert_eq!(printed(scale(None, Some(0)), Value::Real(123.456)), "123");
        assert_eq!(printed(scale(None, Some(1)), Value::Real(-0.01)), "0.0");
        assert_eq!(printed(scale(None, Some(255)), Value::Real(0.25)), "0.25");
        assert_eq!(printed(scale(None, Some(2)), Value::Lreal(1e300)), "1e+300");
    }

    #[test]
    fn what_grows_beyond_every_number_is_no_value() {
        let huge = scale(Some((1e30, 0.0)), None);
        assert_eq!(huge.apply(Value::Real(f32::MAX)), None);
        assert_eq!(scale(Some((1e300, 0.0)), None).apply(Value::Lreal(1e300)), None);
        assert_eq!(scale(Some((1e300, 0.0)), Some(0)).apply(Value::Lreal(1e300)), None);
        assert_eq!(scale(Some((1e300, 0.0)), Some(3)).apply(Value::Lreal(-1e300)), None);
    }

    fn scale(scaling: Option<(f64, f64)>, decimals: Option<u8>) -> Scale {
        let scaling = scaling.map(|(scale, offset)| Scaling { scale, offset });
        Scale { scaling, decimals }
    }

    fn printed(scale: Scale, raw: Value) -> String {
        serde_json::to_string(&scale.apply(raw).unwrap()).unwrap()
    }
}
