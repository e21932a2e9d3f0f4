//! Scales raw values to engineering values, and back.

use std::sync::Arc;

use provisioning::config::{Scaling, Tag};
use provisioning::plc::{IecType, ValueKind};
use serde_json::Number as JsonNumber;

use super::EncodeError;
use crate::model::Value;

/// Computes `raw * scale + offset`, then rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    scaling: Option<Scaling>,
    decimals: Option<u8>,
}

/// From 2^53 on a double has no digits after the decimal point.
pub(super) const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

impl Scale {
    pub(super) const fn of(tag: &Tag) -> Self {
        Self { scaling: tag.scaling, decimals: tag.decimals }
    }

    /// Returns the scaled value, or `None` when it is not finite.
    ///
    /// Each element of an array is scaled. A BOOL or a text is unchanged, and so is an integer
    /// without scaling. A REAL stays a REAL, so that it prints as short as it is exact, unless
    /// `decimals` is set; with 0 decimals a number becomes an integer. An integer that is scaled by
    /// whole numbers is exact, also beyond 2^53.
    pub(super) fn apply(self, raw: Value) -> Option<Value> {
        if let Some(exact) = self.apply_exactly(&raw) {
            return Some(exact);
        }
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

impl Scale {
    /// Returns an integer that is scaled by whole numbers; `None` for any other value, where the
    /// result does not fit into 64 bits, and where it is short and has decimals.
    fn apply_exactly(self, raw: &Value) -> Option<Value> {
        let Scaling { scale, offset } = self.scaling?;
        let raw = match raw {
            Value::Int(number) => i128::from(*number),
            Value::Uint(number) => i128::from(*number),
            Value::Bool(_) | Value::Real(_) | Value::Lreal(_) | Value::Text(_) | Value::List(_) => {
                return None;
            }
        };
        let scaled = raw.checked_mul(to_whole(scale)?)?.checked_add(to_whole(offset)?)?;
        if self.decimals.is_some_and(|decimals| decimals > 0) && scaled.abs() < 1 << 53 {
            return None;
        }
        let signed = i64::try_from(scaled).map(Value::Int);
        signed.or_else(|_| u64::try_from(scaled).map(Value::Uint)).ok()
    }
}

impl Scale {
    /// Returns whether raw and engineering value differ.
    pub(super) const fn has_scaling(self) -> bool {
        self.scaling.is_some()
    }

    /// Returns the raw value of a type that [`Scale::apply`] scales to this number; `None` for a
    /// type that has no scale.
    ///
    /// # Errors
    /// When an integer would have to be rounded to another published value, or is out of range.
    pub(super) fn undo(
        self,
        number: &JsonNumber,
        iec: IecType,
    ) -> Option<Result<Value, EncodeError>> {
        match iec.kind() {
            ValueKind::Unsigned | ValueKind::Signed => Some(self.undo_integer(number)),
            ValueKind::Real => Some(self.undo_real(number, iec)),
            ValueKind::Bool | ValueKind::Text => None,
            ValueKind::Date(_) | ValueKind::TimeOfDay(_) | ValueKind::DateAndTime(_) => None,
        }
    }

    fn undo_integer(self, number: &JsonNumber) -> Result<Value, EncodeError> {
        if let Some(exact) = self.undo_exactly(number) {
            return exact;
        }
        let wanted = number.as_f64().ok_or(EncodeError::OutOfRange)?;
        let quotient = self.unscaled(wanted);
        let raw = quotient.round();
        let nearest = self.scaled_integer(raw).ok_or(EncodeError::OutOfRange)?;
        // Beyond 2^53 the division may miss the number by the last digit of a double.
        let candidates = [raw, raw.next_down().round(), raw.next_up().round()];
        let mut candidates = candidates.into_iter().filter_map(|raw| self.scaled_integer(raw));
        if let Some((raw, _)) = candidates.find(|(_, scaled)| is_same(*scaled, wanted)) {
            return Ok(raw);
        }
        let (raw_value, nearest) = nearest;
        // The quotient of two decimal fractions is a whole number only up to rounding.
        if (quotient - raw).abs() <= MAX_RELATIVE_ERROR * raw.abs().max(1.0) {
            Ok(raw_value)
        } else {
            Err(EncodeError::Inexact { nearest })
        }
    }

    /// Returns a whole number that fits into 64 bits as a raw value, and what it is scaled.
    fn scaled_integer(self, raw: f64) -> Option<(Value, f64)> {
        let fits = (-I64_LIMIT..2.0 * I64_LIMIT).contains(&raw);
        let raw = to_integer_value(to_wide(raw)).filter(|_| fits)?;
        let scaled = self.apply(raw.clone()).and_then(|value| to_double(&value))?;
        Some((raw, scaled))
    }

    /// Returns the raw integer where scale, offset and number are whole; `None` where one is not.
    fn undo_exactly(self, number: &JsonNumber) -> Option<Result<Value, EncodeError>> {
        let Scaling { scale, offset } = self.scaling?;
        let (scale, offset) = (to_whole(scale)?, to_whole(offset)?);
        let signed = number.as_i64().map(i128::from);
        let wanted = signed.or_else(|| number.as_u64().map(i128::from))?;
        let raw = (wanted - offset).div_euclid(scale);
        if raw * scale + offset == wanted {
            return Some(to_integer_value(raw).ok_or(EncodeError::OutOfRange));
        }
        let above = (wanted - offset).rem_euclid(scale) * 2 >= scale.abs();
        let nearest = raw + if above { scale.signum() } else { 0 };
        let nearest = to_integer_value(nearest * scale + offset);
        let nearest = nearest.as_ref().and_then(to_double);
        Some(Err(match nearest {
            Some(nearest) => EncodeError::Inexact { nearest },
            None => EncodeError::OutOfRange,
        }))
    }

    /// Returns the REAL or LREAL whose scaled value is nearest. Of its neighbours, one may be
    /// published as exactly the number.
    fn undo_real(self, number: &JsonNumber, iec: IecType) -> Result<Value, EncodeError> {
        let wanted = number.as_f64().ok_or(EncodeError::OutOfRange)?;
        let raw = self.unscaled(wanted);
        let candidates = if iec.size() == 4 {
            let real = finite_real(raw);
            let Some(Value::Real(real)) = real else { return Err(EncodeError::OutOfRange) };
            [real, real.next_down(), real.next_up()].map(Value::Real)
        } else {
            [raw, raw.next_down(), raw.next_up()].map(Value::Lreal)
        };
        let is_exact = |raw: &&Value| {
            let scaled = self.apply((*raw).clone());
            scaled.is_some_and(|scaled| is_published_as(&scaled, wanted))
        };
        let exact = candidates.iter().find(is_exact);
        let [first, ..] = &candidates;
        Ok(exact.unwrap_or(first).clone())
    }

    fn unscaled(self, number: f64) -> f64 {
        self.scaling.map_or(number, |Scaling { scale, offset }| (number - offset) / scale)
    }
}

/// 2^63: one above the largest LINT.
const I64_LIMIT: f64 = 9_223_372_036_854_775_808.0;
/// Rounding errors of a subtraction and a division of doubles are far below this; the digits of a
/// published value are above it.
const MAX_RELATIVE_ERROR: f64 = 1e-14;

fn to_integer_value(number: i128) -> Option<Value> {
    let signed = i64::try_from(number).map(Value::Int);
    signed.or_else(|_| u64::try_from(number).map(Value::Uint)).ok()
}

fn to_double(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(from_int(*number)),
        Value::Uint(number) => Some(from_uint(*number)),
        Value::Real(number) => Some((*number).into()),
        Value::Lreal(number) => Some(*number),
        Value::Bool(_) | Value::Text(_) | Value::List(_) => None,
    }
}

/// Returns whether a scaled value is the number, as far as its type can hold it.
fn is_published_as(value: &Value, number: f64) -> bool {
    if let Value::Real(real) = value {
        return finite_real(number) == Some(Value::Real(*real));
    }
    to_double(value).is_some_and(|value| is_same(value, number))
}

#[expect(clippy::float_cmp, reason = "the digits that were published are sent back")]
fn is_same(one: f64, other: f64) -> bool {
    one == other
}

#[expect(clippy::cast_possible_truncation, reason = "the caller has rounded it and limited it")]
const fn to_wide(number: f64) -> i128 {
    number as i128
}

/// Returns a number without digits after the decimal point, below 2^53, as an integer.
fn to_whole(number: f64) -> Option<i128> {
    let is_whole = number.fract() == 0.0 && number.abs() < MAX_EXACT_INTEGER;
    is_whole.then(|| to_int(number).into())
}

/// Rounds half away from zero; returns an integer for 0 decimals. A number that is too large to
/// have decimals stays as it is; `None` for one that is not finite.
fn round_to_decimals(number: f64, decimals: u8) -> Option<Value> {
    let shift = 10_f64.powi(decimals.into());
    let shifted = number * shift;
    let is_whole = shifted.abs() >= MAX_EXACT_INTEGER || shifted.is_nan();
    // Adding 0.0 turns -0.0 into 0.0, which would be printed with a minus.
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
    fn a_value_without_scaling_is_unchanged() {
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
    fn a_scaled_integer_is_a_double() {
        let tenths = scale(Some((0.5, -40.0)), None);
        assert_eq!(tenths.apply(Value::Int(215)), Some(Value::Lreal(67.5)));
        assert_eq!(tenths.apply(Value::Uint(0)), Some(Value::Lreal(-40.0)));
    }

    #[test]
    fn an_unsigned_integer_is_scaled_like_a_signed_one() {
        let half = scale(Some((0.5, 1.0)), None);
        assert_eq!(printed(half, Value::Uint(3)), printed(half, Value::Int(3)));
        assert_eq!(printed(half, Value::Uint(3)), "2.5");
    }

    #[test]
    fn an_integer_scaled_by_whole_numbers_is_exact() {
        let large = 9_007_199_254_740_993;
        let scaled = |scaling, decimals, raw: u64| {
            scale(Some(scaling), decimals).apply(Value::Uint(raw)).unwrap()
        };
        assert_eq!(scaled((1.0, 1.0), Some(0), large), Value::Int(9_007_199_254_740_994));
        assert_eq!(scaled((1.0, 2.0), Some(0), large), Value::Int(9_007_199_254_740_995));
        assert_eq!(scaled((10.0, 0.0), Some(0), large), Value::Int(90_071_992_547_409_930));
        assert_eq!(scaled((10.0, 0.0), Some(2), large), Value::Int(90_071_992_547_409_930));
        assert_eq!(scaled((1.0, -1.0), Some(0), u64::MAX), Value::Uint(u64::MAX - 1));
        assert_eq!(scaled((-1.0, 0.0), None, 5), Value::Int(-5));
        assert_eq!(scaled((10.0, 0.0), Some(2), 5), Value::Lreal(50.0), "its decimals are told");
        assert_eq!(scaled((10.0, 0.0), None, u64::MAX), Value::Lreal(1.844_674_407_370_955e20));
        let lowest = scale(Some((1.0, 1.0)), None).apply(Value::Int(i64::MIN));
        assert_eq!(lowest, Some(Value::Int(i64::MIN + 1)));
    }

    #[test]
    fn decimals_round_a_scaled_value() {
        let raw = Value::Int(3);
        assert_eq!(printed(scale(Some((0.1, 0.0)), None), raw.clone()), "0.30000000000000004");
        assert_eq!(printed(scale(Some((0.1, 0.0)), Some(1)), raw), "0.3");
    }

    #[test]
    fn a_scaled_real_prints_as_short_as_a_real() {
        assert_eq!(printed(scale(Some((1.0, 0.0)), None), Value::Real(123.456)), "123.456");
        assert_eq!(printed(scale(None, Some(1)), Value::Real(123.456)), "123.5");
        assert_eq!(printed(scale(None, Some(0)), Value::Real(123.456)), "123");
        assert_eq!(printed(scale(None, Some(1)), Value::Real(-0.01)), "0.0");
        assert_eq!(printed(scale(None, Some(255)), Value::Real(0.25)), "0.25");
        assert_eq!(printed(scale(None, Some(2)), Value::Lreal(1e300)), "1e+300");
    }

    #[test]
    fn a_result_that_is_not_finite_is_no_value() {
        let huge = scale(Some((1e30, 0.0)), None);
        assert_eq!(huge.apply(Value::Real(f32::MAX)), None);
        assert_eq!(scale(Some((1e300, 0.0)), None).apply(Value::Lreal(1e300)), None);
        assert_eq!(scale(Some((1e300, 0.0)), Some(0)).apply(Value::Lreal(1e300)), None);
        assert_eq!(scale(Some((1e300, 0.0)), Some(3)).apply(Value::Lreal(-1e300)), None);
    }

    #[test]
    fn zero_decimals_give_an_integer_below_2_to_the_53() {
        let whole = |number| scale(None, Some(0)).apply(Value::Lreal(number));
        let limit = MAX_EXACT_INTEGER;
        assert_eq!(whole(limit - 1.0), Some(Value::Int(9_007_199_254_740_991)));
        assert_eq!(whole(1.0 - limit), Some(Value::Int(-9_007_199_254_740_991)));
        assert_eq!(whole(limit), Some(Value::Lreal(limit)));
        assert_eq!(whole(-limit), Some(Value::Lreal(-limit)));
        assert_eq!(whole(2.5), Some(Value::Int(3)));
    }

    #[test]
    fn a_number_without_digits_to_round_is_unchanged() {
        let rounded = |number, decimals| scale(None, Some(decimals)).apply(Value::Lreal(number));
        // The shifted number is infinite, which must not make the result infinite.
        assert_eq!(rounded(1e300, 20), Some(Value::Lreal(1e300)));
        assert_eq!(rounded(-1e300, 20), Some(Value::Lreal(-1e300)));
        let exact = 0.123_456_789_012_345_68;
        assert_eq!(rounded(exact, 30), Some(Value::Lreal(exact)));
    }

    #[test]
    fn each_element_of_an_array_is_scaled_or_rounded() {
        let list = |items: &[Option<Value>]| Value::List(Arc::new(items.to_vec()));
        let raw = list(&[Some(Value::Int(3)), None, Some(Value::Int(-4))]);
        assert_eq!(scale(None, None).apply(raw.clone()), Some(raw.clone()));
        let halved = list(&[Some(Value::Lreal(2.5)), None, Some(Value::Lreal(-1.0))]);
        assert_eq!(scale(Some((0.5, 1.0)), None).apply(raw), Some(halved));
        let reals = list(&[Some(Value::Lreal(1.26)), Some(Value::Lreal(1e300))]);
        let rounded = list(&[Some(Value::Lreal(1.3)), Some(Value::Lreal(1e300))]);
        assert_eq!(scale(None, Some(1)).apply(reals), Some(rounded));
        let huge = list(&[Some(Value::Lreal(1e300))]);
        assert_eq!(scale(Some((1e300, 0.0)), None).apply(huge), Some(list(&[None])));
    }

    #[test]
    fn a_scaled_double_keeps_its_digits() {
        let third = Value::Lreal(1.0 / 3.0);
        assert_eq!(scale(Some((1.0, 0.0)), None).apply(third.clone()), Some(third));
    }

    fn scale(scaling: Option<(f64, f64)>, decimals: Option<u8>) -> Scale {
        let scaling = scaling.map(|(scale, offset)| Scaling { scale, offset });
        Scale { scaling, decimals }
    }

    fn printed(scale: Scale, raw: Value) -> String {
        serde_json::to_string(&scale.apply(raw).unwrap()).unwrap()
    }
}
