//! JSON objects, written member by member into one buffer.

use provisioning::config::Tag;
use serde::Serialize;

/// A JSON object under construction.
#[derive(Debug)]
pub(super) struct JsonObject<'a> {
    bytes: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> JsonObject<'a> {
    /// Writes an object with the members that `f` gives it.
    pub(super) fn write(bytes: &'a mut Vec<u8>, f: impl FnOnce(&mut Self)) {
        bytes.push(b'{');
        let mut object = Self { bytes, is_empty: true };
        f(&mut object);
        object.bytes.push(b'}');
    }

    /// Writes a member.
    pub(super) fn entry(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        self.key(key);
        write_json(self.bytes, value);
    }

    /// Writes a member that is an object.
    pub(super) fn object(&mut self, key: &str, f: impl FnOnce(&mut JsonObject<'_>)) {
        self.key(key);
        JsonObject::write(self.bytes, f);
    }

    /// Writes a member with an encoded key from [`TagKeys`]; `null` without a value.
    pub(super) fn entry_with_key(&mut self, key: &[u8], value: Option<&impl Serialize>) {
        let comma = usize::from(self.is_empty);
        self.is_empty = false;
        self.bytes.extend_from_slice(key.get(comma..).unwrap_or_default());
        match value {
            Some(value) => write_json(self.bytes, value),
            None => self.bytes.extend_from_slice(b"null"),
        }
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.bytes.push(b',');
        }
        self.is_empty = false;
        write_json(self.bytes, key);
        self.bytes.push(b':');
    }
}

/// The names of tags, encoded as keys: `,"temperature":`. Escaping a name costs more than encoding
/// a number, so it is done once.
#[derive(Clone, Debug, Default)]
pub(super) struct TagKeys {
    text: Box<[u8]>,
    /// End of each key in `text`.
    ends: Box<[u32]>,
}

impl TagKeys {
    pub(super) fn of(tags: &[Tag]) -> Self {
        let mut text = Vec::new();
        let ends = tags.iter().map(|tag| {
            text.push(b',');
            write_json(&mut text, &tag.name);
            text.push(b':');
            u32::try_from(text.len()).unwrap_or(u32::MAX)
        });
        let ends = ends.collect();
        Self { text: text.into(), ends }
    }

    pub(super) fn get(&self, index: u16) -> Option<&[u8]> {
        let index = usize::from(index);
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        let end = *self.ends.get(index)?;
        self.text.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}

/// Appends a value.
pub(super) fn write_json(bytes: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(bytes, value);
    debug_assert!(written.is_ok(), "every key is text, and a Vec takes every byte: {written:?}");
}
