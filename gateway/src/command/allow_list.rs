//! What may be written: the rule of each tag, and how often.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use provisioning::config::{Number, Tag, WritableValue, WriteRule};
use serde_json::Value;

use super::CommandReason;
use super::reason::shortened;
use crate::model::{ImageContent, TagImage};

/// Returns why a value may not be written to a tag. The bounds of an array hold for each element.
pub(super) fn refusal(tag: &Tag, rule: &WriteRule, value: &Value) -> Option<CommandReason> {
    if let Value::Array(items) = value {
        return items.iter().find_map(|item| refusal(tag, rule, item));
    }
    let name = || shortened(&tag.name);
    if !rule.values.is_empty() && !rule.values.iter().any(|allowed| is_same(allowed, value)) {
        return Some(CommandReason::NotAllowed { tag: name() });
    }
    let (Some(number), true) = (to_number(value), rule.min.is_some() || rule.max.is_some()) else {
        return None;
    };
    let is_below = rule.min.is_some_and(|min| number < min);
    let is_above = rule.max.is_some_and(|max| number > max);
    (is_below || is_above)
        .then(|| CommandReason::OutOfRange { tag: name(), bounds: bounds_text(rule) })
}

fn bounds_text(rule: &WriteRule) -> String {
    match (rule.min, rule.max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    }
}

/// Returns the number of a JSON value. `21` and `21.0` are the same number, and differ only here.
fn to_number(value: &Value) -> Option<Number> {
    let number = value.as_number()?;
    let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    whole.map(Number::Whole).or_else(|| number.as_f64().map(Number::Real))
}

fn is_same(allowed: &WritableValue, value: &Value) -> bool {
    match (allowed, value) {
        (WritableValue::Bool(allowed), Value::Bool(value)) => allowed == value,
        (WritableValue::Text(allowed), Value::String(value)) => allowed == value,
        (WritableValue::Number(allowed), value) => to_number(value)
            .is_some_and(|value| allowed.partial_cmp(&value).is_some_and(Ordering::is_eq)),
        (WritableValue::Bool(_) | WritableValue::Text(_), _) => false,
    }
}

/// When each tag with a rate was written.
#[derive(Debug, Default)]
pub(super) struct WriteHistory(BTreeMap<(u16, u16), VecDeque<Instant>>);

impl WriteHistory {
    /// Returns whether a tag, given by the indices of its PLC and its own, may be written now.
    pub(super) fn has_room(&mut self, tag: (u16, u16), rule: &WriteRule, now: Instant) -> bool {
        let Some(rate) = rule.rate else { return true };
        let Some(times) = self.0.get_mut(&tag) else { return true };
        while times.front().is_some_and(|first| now.duration_since(*first) >= rate.period) {
            times.pop_front();
        }
        times.len() < usize::from(rate.count)
    }

    /// Records a write.
    pub(super) fn add(&mut self, tag: (u16, u16), rule: &WriteRule, now: Instant) {
        if rule.rate.is_some() {
            self.0.entry(tag).or_default().push_back(now);
        }
    }
}

/// Returns two tags, by their places in `images`, that have a bit in common.
pub(super) fn overlap(images: &[TagImage]) -> Option<(usize, usize)> {
    let mut taken: BTreeMap<_, (u16, usize)> = BTreeMap::new();
    for (index, image) in images.iter().enumerate() {
        let masks: Vec<u16> = match &image.content {
            ImageContent::Words(words) => words.iter().map(|word| word.mask).collect(),
            ImageContent::Bits(bits) => vec![u16::MAX; bits.len()],
        };
        for (address, mask) in (u32::from(image.first)..).zip(masks) {
            let held = taken.entry((image.table, address)).or_insert((0, index));
            if held.0 & mask != 0 {
                return Some((held.1, index));
            }
            *held = (held.0 | mask, index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use provisioning::config::WriteRate;
    use provisioning::plc::Table;
    use serde_json::json;

    use super::*;
    use crate::model::MaskedWord;

    fn is_allowed(rule: &WriteRule, value: &Value) -> bool {
        let tags = crate::testing::plc("pump6", &["setpoint"]).tags;
        refusal(&tags[0], rule, value).is_none()
    }

    #[test]
    fn a_number_outside_of_the_bounds_is_refused_exactly() {
        let bounds =
            |min, max| WriteRule { min: Some(min), max: Some(max), ..WriteRule::default() };
        let rule = bounds(Number::Real(0.1), Number::Whole(90));
        for (value, expected) in [
            (json!(0.1), true),
            (json!(0.099_999_999_999_999_99), false),
            (json!(90), true),
            (json!(90.0), true),
            (json!(90.000_000_000_000_01), false),
            (json!(-1), false),
            (json!([1, 2, 90]), true),
            (json!([1, 2, 91]), false),
        ] {
            assert_eq!(is_allowed(&rule, &value), expected, "{value}");
        }
        // The nearest doubles of these are equal.
        let exact = 9_007_199_254_740_993_i64;
        let rule = bounds(Number::Whole(0), Number::Whole(exact.into()));
        assert!(is_allowed(&rule, &json!(exact)) && !is_allowed(&rule, &json!(exact + 1)));
    }

    #[test]
    fn one_bound_is_enough() {
        let at_least = WriteRule { min: Some(Number::Whole(5)), ..WriteRule::default() };
        let at_most = WriteRule { max: Some(Number::Whole(5)), ..WriteRule::default() };
        for (value, is_least, is_most) in [(4, false, true), (5, true, true), (6, true, false)] {
            assert_eq!(is_allowed(&at_least, &json!(value)), is_least, "{value}");
            assert_eq!(is_allowed(&at_most, &json!(value)), is_most, "{value}");
        }
    }

    #[test]
    fn only_listed_values_are_allowed() {
        let text = |text: &str| WritableValue::Text(text.to_owned());
        let numbers = [Number::Whole(1), Number::Real(2.5)].map(WritableValue::Number);
        let values = [vec![text("run"), WritableValue::Bool(true)], numbers.to_vec()].concat();
        let rule = WriteRule { values, ..WriteRule::default() };
        for value in [json!("run"), json!(true), json!(1), json!(1.0), json!(2.5)] {
            assert!(is_allowed(&rule, &value), "{value}");
        }
        for value in [json!("Run"), json!(false), json!(2), json!("1"), json!(null), json!({})] {
            assert!(!is_allowed(&rule, &value), "{value}");
        }
    }

    #[test]
    fn a_rate_holds_in_every_period() {
        let period = Duration::from_secs(60);
        let rule = WriteRule { rate: Some(WriteRate { count: 6, period }), ..WriteRule::default() };
        let (mut history, start) = (WriteHistory::default(), Instant::now());
        let mut written = Vec::new();
        for tick in 0..1_000_u32 {
            let now = start + Duration::from_millis(330) * tick;
            if history.has_room((0, 0), &rule, now) {
                history.add((0, 0), &rule, now);
                written.push(now);
            }
            assert!(history.has_room((0, 1), &rule, now));
        }
        assert!(written.windows(7).all(|seven| seven[6] - seven[0] >= period));
        assert_eq!(written.len(), 36);
    }

    #[test]
    fn two_tags_in_the_same_bits_are_found() {
        let image = |first, masks: &[u16]| TagImage {
            tag: Some(0),
            table: Table::HoldingRegister,
            first,
            content: ImageContent::Words(
                masks.iter().map(|&mask| MaskedWord { value: 0, mask }).collect(),
            ),
        };
        assert_eq!(overlap(&[image(10, &[1]), image(10, &[2]), image(11, &[u16::MAX])]), None);
        let wide = image(9, &[u16::MAX, u16::MAX]);
        assert_eq!(overlap(&[image(12, &[1]), image(10, &[1]), wide]), Some((1, 2)));
    }
}
