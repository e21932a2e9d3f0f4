//! The value of a tag, with its scale and its JSON format: from registers, and back into them.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use provisioning::config::{JsonFormat, Tag};
use provisioning::plc::DataType;
use serde_json::Value as Json;

use super::scale::Scale;
use super::{EncodeError, decode, decode_bits, encode, json, validity};
use crate::model::{ImageContent, MaskedWord, Registers, TagImage, Value};

/// Decodes the value of a tag from the registers or bits that begin at `offset` in `registers`.
/// Returns `None` when they hold no valid value of the tag. The value is scaled; an element of an
/// array that is not valid is absent in the list.
#[must_use]
pub fn decode_tag(tag: &Tag, registers: &Registers, offset: usize) -> Option<Value> {
    let raw = match registers {
        Registers::Bits(bits) => decode_bits(tag.data_type, bits.get(offset..)?)?,
        Registers::Words(words) => {
            let words = words.get(offset..offset + usize::from(tag.location.count))?;
            decode(&tag.location, tag.data_type, tag.byte_order, words)?
        }
    };
    let Some(validity) = &tag.validity else { return Scale::of(tag).apply(raw) };
    let scaled = Scale::of(tag).apply(validity::without_invalid(raw, validity)?)?;
    validity::within_range(scaled, validity)
}

/// Encodes a value of a tag, in the JSON format in which it is published, into what the PLC has to
/// hold. `index` is the tag's in `config::Plc::tags`.
///
/// The inverse of [`decode_tag`]: scale and offset are undone, and what does not belong to the tag
/// is not in the masks of the image. A REAL takes the nearest value that it can hold.
///
/// # Errors
/// When the value is of another kind than the type, out of its range, between two values that an
/// integer can hold, or one that would be read back as invalid.
pub fn encode_tag(index: u16, tag: &Tag, json: &Json) -> Result<TagImage, EncodeError> {
    let raw = parse_raw(tag, json)?;
    let content = if tag.location.table.holds_bits() {
        ImageContent::Bits(to_bits(tag, &raw)?)
    } else {
        ImageContent::Words(to_masked_words(tag, &raw)?)
    };
    let (table, first) = (tag.location.table, tag.location.first);
    let image = TagImage { tag: Some(index), table, first, content };
    match decode_tag(tag, &image.to_registers(), 0) {
        Some(value) if is_published(tag, &value) => Ok(image),
        Some(_) | None => Err(EncodeError::Invalid),
    }
}

/// Returns whether a value is published with quality good: no element of an array is absent, and
/// the JSON format has a form for each.
#[must_use]
pub fn is_published(tag: &Tag, value: &Value) -> bool {
    let is_complete = !matches!(value, Value::List(items) if items.iter().any(Option::is_none));
    is_complete && json::is_representable(&tag.json_format, value)
}

/// Returns whether the PLC holds the value of an image, by what is published: digits beyond
/// `decimals`, and what follows the end of a text, make no difference.
#[must_use]
pub fn holds_image(tag: &Tag, registers: &Registers, image: &TagImage) -> bool {
    let value = decode_tag(tag, registers, 0);
    value.is_some() && value == decode_tag(tag, &image.to_registers(), 0)
}

/// Returns the value as the PLC holds it, before scaling.
fn parse_raw(tag: &Tag, json: &Json) -> Result<Value, EncodeError> {
    let (data, scale) = (tag.data_type, Scale::of(tag));
    if tag.json_format != JsonFormat::Plain || !scale.has_scaling() {
        return json::parse(json, data, &tag.json_format);
    }
    let element = |json: &Json| scale.undo(json.as_number()?, data.element);
    if data.bounds.is_none() {
        return element(json).ok_or(EncodeError::WrongKind)?;
    }
    let items = json.as_array().filter(|items| items.len() == usize::from(data.elements()));
    let items = items.ok_or(EncodeError::WrongKind)?.iter();
    let items = items.map(|item| element(item).ok_or(EncodeError::WrongKind)?.map(Some));
    Ok(Value::List(Arc::new(items.collect::<Result<_, _>>()?)))
}

fn to_bits(tag: &Tag, raw: &Value) -> Result<Vec<bool>, EncodeError> {
    let to_bit = |value: &Value| {
        let Value::Bool(bit) = value else { return Err(EncodeError::WrongKind) };
        Ok(*bit)
    };
    let DataType { bounds, .. } = tag.data_type;
    match (bounds, raw) {
        (Some(_), Value::List(items)) => {
            items.iter().map(|item| to_bit(item.as_ref().ok_or(EncodeError::WrongKind)?)).collect()
        }
        (Some(_), _) => Err(EncodeError::WrongKind),
        (None, value) => Ok(vec![to_bit(value)?]),
    }
}

/// Encodes into zeros and into ones: what differs does not belong to the tag.
fn to_masked_words(tag: &Tag, raw: &Value) -> Result<Vec<MaskedWord>, EncodeError> {
    let encode_into = |filler: u16| {
        let mut words = vec![filler; tag.location.count.into()];
        encode(&tag.location, tag.data_type, tag.byte_order, raw, &mut words).map(|()| words)
    };
    let (zeros, ones) = (encode_into(0)?, encode_into(u16::MAX)?);
    let mask = |(low, high): (u16, u16)| MaskedWord { value: low, mask: !(low ^ high) };
    Ok(zeros.into_iter().zip(ones).map(mask).collect())
}
