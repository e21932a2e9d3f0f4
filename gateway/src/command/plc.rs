//! One PLC that may be written to: its tags by name, and what must hold before a write.

use std::sync::Arc;

use provisioning::config::{PayloadShape, Plc, ProgramId, Tag};
use serde_json::{Map, Value};

use super::allow_list::{self, WriteHistory};
use super::message::DatagramForm;
use super::reason::shortened;
use super::{CommandReason, MAX_WAITING, MessageFault};
use crate::codec;
use crate::model::{ProgramSignature, TagImage};

/// A PLC as far as commands concern it.
#[derive(Debug)]
pub(super) struct CommandPlc {
    pub(super) name: String,
    pub(super) tags: Arc<Vec<Tag>>,
    /// Indices into `tags`, in the order of the names; empty if no tag is writable.
    by_name: Vec<u16>,
    pub(super) form: DatagramForm,
    /// Whether anything is written to it, and be it only the acknowledgement of an event.
    pub(super) has_writes: bool,
    /// The only program with which the PLC is written to; absent while any is.
    pub(super) required_program: Option<ProgramSignature>,
    /// The program that it has, as far as that is known.
    pub(super) program: Option<ProgramSignature>,
    /// Number of commands that are not over.
    pub(super) waiting: usize,
}

/// A command whose tags and values are allowed.
#[derive(Debug, Default)]
pub(super) struct CheckedTags {
    pub(super) expect: Vec<TagImage>,
    pub(super) write: Vec<TagImage>,
}

/// Returns the JSON value that a tag has now, by its index; `None` for no good value.
pub(super) type PresentValue<'a> = &'a dyn Fn(u16) -> Option<Value>;

impl CommandPlc {
    pub(super) fn new(plc: &Plc) -> Self {
        let name = |index: &u16| plc.tags.get(usize::from(*index)).map(|tag| tag.name.as_str());
        // A PLC that is only read needs no names.
        let tags = if plc.is_writable() { &plc.tags[..] } else { &[] };
        let mut by_name: Vec<u16> = (0..).zip(tags).map(|(index, _)| index).collect();
        by_name.sort_unstable_by(|one, other| name(one).cmp(&name(other)));
        let is_nested = plc.publish.shape == PayloadShape::Nested;
        Self {
            name: plc.name.clone(),
            tags: Arc::clone(&plc.tags),
            by_name,
            form: DatagramForm {
                device: is_nested.then(|| plc.device.clone()),
                extra: plc.publish.extra.keys().cloned().collect(),
            },
            has_writes: plc.has_writes(),
            required_program: plc.accept_program.map(|ProgramId(parts)| ProgramSignature(parts)),
            program: None,
            waiting: 0,
        }
    }

    pub(super) const fn is_writable(&self) -> bool {
        !self.by_name.is_empty()
    }

    pub(super) fn tag(&self, index: u16) -> Option<&Tag> {
        self.tags.get(usize::from(index))
    }

    fn find(&self, name: &str) -> Option<(u16, &Tag)> {
        let tag_name = |index: &u16| self.tag(*index).map(|tag| tag.name.as_str());
        if !self.is_writable() {
            return (0..).zip(self.tags.iter()).find(|(_, tag)| tag.name == name);
        }
        let place = self.by_name.binary_search_by(|index| tag_name(index).cmp(&Some(name))).ok()?;
        let index = *self.by_name.get(place)?;
        Some((index, self.tag(index)?))
    }

    /// Returns the images of what a command expects and writes, or why it is refused.
    pub(super) fn check(
        &self,
        (expect, write): (&Map<String, Value>, &Map<String, Value>),
        present: PresentValue<'_>,
    ) -> Result<CheckedTags, CommandReason> {
        let mut checked = CheckedTags::default();
        for (name, value) in write {
            if let Some(image) = self.check_write(name, value, present)? {
                checked.write.push(image);
            }
        }
        for (name, value) in expect {
            let (index, tag) = self.find_or_refuse(name)?;
            checked.expect.push(encode(index, tag, value)?);
        }
        if checked.write.is_empty() {
            return Err(MessageFault::Empty.into());
        }
        if let Some((one, other)) = allow_list::overlap(&checked.write) {
            let name = |place: usize| self.image_name(checked.write.get(place));
            return Err(CommandReason::Overlap(name(one), name(other)));
        }
        Ok(checked)
    }

    /// Returns the image of one value; `None` for a read-only tag that has this value already.
    fn check_write(
        &self,
        name: &str,
        value: &Value,
        present: PresentValue<'_>,
    ) -> Result<Option<TagImage>, CommandReason> {
        let (index, tag) = self.find_or_refuse(name)?;
        let Some(rule) = &tag.write else {
            let is_same = is_equal(&present(index).unwrap_or_default(), value);
            return if is_same { Ok(None) } else { Err(CommandReason::ReadOnly(shortened(name))) };
        };
        if let Some(reason) = allow_list::refusal(tag, rule, value) {
            return Err(reason);
        }
        encode(index, tag, value).map(Some)
    }

    fn find_or_refuse(&self, name: &str) -> Result<(u16, &Tag), CommandReason> {
        self.find(name).ok_or_else(|| CommandReason::UnknownTag(shortened(name)))
    }

    pub(super) fn image_name(&self, image: Option<&TagImage>) -> String {
        let tag = image.and_then(|image| self.tag(image.tag?));
        tag.map(|tag| tag.name.clone()).unwrap_or_default()
    }

    /// Returns why the PLC cannot take a command now.
    pub(super) fn refusal(&self) -> Option<CommandReason> {
        if self.waiting >= MAX_WAITING {
            return Some(CommandReason::TooManyWaiting);
        }
        let is_other = |wanted| self.program.is_some_and(|program| program != wanted);
        self.required_program.is_some_and(is_other).then_some(CommandReason::ProgramChanged)
    }

    /// Records the writes of a command, or returns the first tag that was written too often.
    pub(super) fn take_rates(
        &self,
        plc: u16,
        images: &[TagImage],
        history: &mut WriteHistory,
        now: std::time::Instant,
    ) -> Result<(), CommandReason> {
        let rules = images.iter().filter_map(|image| {
            let index = image.tag?;
            let tag = self.tag(index)?;
            Some((index, tag, tag.write.as_ref()?))
        });
        for (index, tag, rule) in rules.clone() {
            if let Some(rate) = rule.rate
                && !history.has_room((plc, index), rule, now)
            {
                return Err(CommandReason::TooOften { tag: shortened(&tag.name), rate });
            }
        }
        rules.for_each(|(index, _, rule)| history.add((plc, index), rule, now));
        Ok(())
    }
}

/// Returns whether two JSON values are equal, where 20 and 20.0 are the same number.
fn is_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let is_same_text = one == other;
            let is_fraction = |number: &serde_json::Number| number.is_f64();
            let has_fraction = is_fraction(one) || is_fraction(other);
            is_same_text || has_fraction && one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_equal(one, other))
        }
        (one, other) => one == other,
    }
}

fn encode(index: u16, tag: &Tag, value: &Value) -> Result<TagImage, CommandReason> {
    codec::encode_tag(index, tag, value)
        .map_err(|error| CommandReason::WrongValue { tag: shortened(&tag.name), error })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_equal_to_the_same_number_with_a_fraction_of_zero() {
        let equal = [
            (json!(20), json!(20.0)),
            (json!(20.5), json!(20.5)),
            (json!([1, 2.0]), json!([1.0, 2])),
            (json!([]), json!([])),
            (json!("a"), json!("a")),
            (json!(null), json!(null)),
        ];
        for (one, other) in &equal {
            assert!(is_equal(one, other) && is_equal(other, one), "{one} {other}");
        }
        let different = [
            (json!(20), json!(21)),
            (json!(20), json!(20.5)),
            // The nearest doubles of these are equal.
            (json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_993_i64)),
            (json!([1, 2]), json!([1])),
            (json!([1, 2]), json!([1, 3])),
            (json!("1"), json!(1)),
            (json!("a"), json!("b")),
            (json!(null), json!(false)),
        ];
        for (one, other) in &different {
            assert!(!is_equal(one, other) && !is_equal(other, one), "{one} {other}");
        }
    }
}
