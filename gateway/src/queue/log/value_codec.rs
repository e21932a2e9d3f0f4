//! Encodes values of tags, and decodes them. Pure.

use std::sync::Arc;

use super::bytes::{ByteReader, put_count, put_signed, put_text, put_varint};
use crate::model::{Quality, Sample, UnixTime, Value};

/// Arrays of arrays do not exist: bytes that hold one are damaged.
const MAX_LIST_DEPTH: u8 = 1;

/// Kinds of values, in the low bits of the first byte of each.
const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const UINT: u8 = 4;
const REAL: u8 = 5;
const LREAL: u8 = 6;
const TEXT: u8 = 7;
const LIST: u8 = 8;
/// The number of the quality is multiplied by this and added to the kind.
const QUALITY_FACTOR: u8 = 16;

/// Encodes samples: tag and time as the difference to those of the sample before.
pub(super) fn put_samples(out: &mut Vec<u8>, at: UnixTime, samples: &[Sample]) {
    put_count(out, samples.len());
    let (mut tag, mut time) = (-1_i64, at.as_micros());
    for sample in samples {
        put_signed(out, i64::from(sample.tag) - tag);
        out.push(sample.quality as u8 * QUALITY_FACTOR + value_kind(sample.value.as_ref()));
        put_signed(out, sample.at.as_micros().wrapping_sub(time));
        put_value(out, sample.value.as_ref());
        (tag, time) = (i64::from(sample.tag), sample.at.as_micros());
    }
}

pub(super) fn decode_samples(reader: &mut ByteReader<'_>, at: UnixTime) -> Option<Vec<Sample>> {
    let (mut tag, mut time) = (-1_i64, at.as_micros());
    reader.list(|reader| {
        tag = tag.checked_add(reader.signed()?)?;
        let head = reader.byte()?;
        let quality = *Quality::ALL.get(usize::from(head / QUALITY_FACTOR))?;
        time = time.wrapping_add(reader.signed()?);
        let value = decode_value(reader, head % QUALITY_FACTOR, 0)?;
        Some(Sample {
            tag: u16::try_from(tag).ok()?,
            value,
            quality,
            at: UnixTime::from_micros(time),
        })
    })
}

const fn value_kind(value: Option<&Value>) -> u8 {
    match value {
        None => NONE,
        Some(Value::Bool(false)) => FALSE,
        Some(Value::Bool(true)) => TRUE,
        Some(Value::Int(_)) => INT,
        Some(Value::Uint(_)) => UINT,
        Some(Value::Real(_)) => REAL,
        Some(Value::Lreal(_)) => LREAL,
        Some(Value::Text(_)) => TEXT,
        Some(Value::List(_)) => LIST,
    }
}

fn put_value(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        None | Some(Value::Bool(_)) => {}
        Some(Value::Int(value)) => put_signed(out, *value),
        Some(Value::Uint(value)) => put_varint(out, *value),
        Some(Value::Real(value)) => out.extend_from_slice(&value.to_le_bytes()),
        Some(Value::Lreal(value)) => out.extend_from_slice(&value.to_le_bytes()),
        Some(Value::Text(text)) => put_text(out, text),
        Some(Value::List(items)) => {
            put_count(out, items.len());
            for item in items.iter() {
                out.push(value_kind(item.as_ref()));
                put_value(out, item.as_ref());
            }
        }
    }
}

/// Returns `None` when the bytes hold no value of this kind, `Some(None)` for the absence of a
/// value.
#[expect(clippy::option_option, reason = "unreadable and absent are different things")]
fn decode_value(reader: &mut ByteReader<'_>, kind: u8, depth: u8) -> Option<Option<Value>> {
    Some(Some(match kind {
        NONE => return Some(None),
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        INT => Value::Int(reader.signed()?),
        UINT => Value::Uint(reader.varint()?),
        REAL => Value::Real(f32::from_le_bytes(reader.array()?)),
        LREAL => Value::Lreal(f64::from_le_bytes(reader.array()?)),
        TEXT => Value::Text(Arc::new(reader.text()?.to_owned())),
        LIST if depth < MAX_LIST_DEPTH => {
            let items = reader.list(|reader| {
                let kind = reader.byte()?;
                decode_value(reader, kind, depth + 1)
            })?;
            Value::List(Arc::new(items))
        }
        _ => return None,
    }))
}
