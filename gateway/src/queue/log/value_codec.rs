//! Values of tags as bytes. Pure.

use std::sync::Arc;

use super::bytes::{ByteReader, put_count, put_signed, put_text, put_varint};
use crate::model::{Quality, Sample, UnixTime, Value};

/// Arrays of arrays do not exist; whoever wrote them did not write this format.
const MAX_LIST_DEPTH: u8 = 1;

/// Kinds of values, in the low bits of the byte in front of each.
const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const UINT: u8 = 4;
const REAL: u8 = 5;
const LREAL: u8 = 6;
const TEXT: u8 = 7;
const LIST: u8 = 8;
/// How often a quality's number fits into the rest of that byte.
const QUALITY_FACTOR: u8 = 16;

/// Samples one behind the other: tag and time as the difference to the one before.
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

pub(super) fn decode_samples(cursor: &mut ByteReader<'_>, at: UnixTime) -> Option<Vec<Sample>> {
    let (mut tag, mut time) = (-1_i64, at.as_micros());
    cursor.list(|cursor| {
        tag = tag.checked_add(cursor.signed()?)?;
        let head = cursor.byte()?;
        let quality = *Quality::ALL.get(usize::from(head / QUALITY_FACTOR))?;
        time = time.wrapping_add(cursor.signed()?);
        let value = decode_value(cursor, head % QUALITY_FACTOR, 0)?;
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

/// Nothing when there is no such value; `Some(None)` for the absence of one.
#[expect(clippy::option_option, reason = "unreadable and absent are different things")]
fn decode_value(cursor: &mut ByteReader<'_>, kind: u8, depth: u8) -> Option<Option<Value>> {
    Some(Some(match kind {
        NONE => return Some(None),
        FALSE => Value::Bool(false),
        TRUE => Value::Bool(true),
        INT => Value::Int(cursor.signed()?),
        UINT => Value::Uint(cursor.varint()?),
        REAL => Value::Real(f32::from_le_bytes(cursor.array()?)),
        LREAL => Value::Lreal(f64::from_le_bytes(cursor.array()?)),
        TEXT => Value::Text(Arc::new(cursor.text()?.to_owned())),
        LIST if depth < MAX_LIST_DEPTH => {
            let items = cursor.list(|cursor| {
                let kind = cursor.byte()?;
                decode_value(cursor, kind, depth + 1)
            })?;
            Value::List(Arc::new(items))
        }
        _ => return None,
    }))
}
