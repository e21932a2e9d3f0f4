//! Reads the properties of MQTT 5 packets (2.2.2). Pure.

/// Reason string.
pub(super) const REASON_STRING: u8 = 0x1F;
/// Server reference.
pub(super) const SERVER_REFERENCE: u8 = 0x1C;
/// Receive maximum.
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
/// Topic alias.
pub(super) const TOPIC_ALIAS: u8 = 0x23;
/// Maximum packet size.
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Iterates over the properties as identifier and value, and ends at the first that is malformed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Properties<'a>(&'a [u8]);

impl<'a> Properties<'a> {
    /// Takes properties without their length.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Takes properties behind their length; none where the length is missing.
    pub(super) fn after_length(bytes: &'a [u8]) -> Self {
        let properties =
            variable_integer(bytes).and_then(|(length, width)| bytes.get(width..)?.get(..length));
        Self(properties.unwrap_or_default())
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&id, rest) = self.0.split_first()?;
        let (start, length) = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => (0, 1),
            0x13 | RECEIVE_MAXIMUM | 0x22 | TOPIC_ALIAS => (0, 2),
            0x02 | 0x11 | 0x18 | MAXIMUM_PACKET_SIZE => (0, 4),
            0x0B => (0, variable_integer(rest)?.1),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | SERVER_REFERENCE | REASON_STRING => {
                (2, length_prefix(rest)?)
            }
            // A user property: name and value.
            0x26 => {
                let name = 2 + length_prefix(rest)?;
                (0, name + 2 + length_prefix(rest.get(name..)?)?)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(start + length)?;
        self.0 = rest;
        Some((id, value.get(start..)?))
    }
}

/// Returns a variable byte integer (1.5.5) and its width in bytes; `None` while it is incomplete,
/// or when it is malformed.
pub(super) fn variable_integer(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (&byte, index) in bytes.iter().zip(0_u32..4) {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, usize::try_from(index).ok()? + 1));
        }
    }
    None
}

/// Returns the length in front of a text or of binary data.
pub(super) fn length_prefix(bytes: &[u8]) -> Option<usize> {
    let prefix: [u8; 2] = bytes.get(..2)?.try_into().ok()?;
    Some(usize::from(u16::from_be_bytes(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_property_is_passed_over() {
        let bytes = [
            &[0x25, 1][..],
            &[0x13, 0, 30],
            &[0x11, 0, 0, 0, 9],
            &[0x0B, 0x80, 0x01],
            &[0x1F, 0, 2, b'h', b'i'],
            &[0x26, 0, 1, b'a', 0, 2, b'b', b'c'],
            &[0x21, 0, 20],
        ]
        .concat();
        let ids: Vec<u8> = Properties::new(&bytes).map(|(id, _)| id).collect();
        assert_eq!(ids, [0x25, 0x13, 0x11, 0x0B, 0x1F, 0x26, 0x21]);
        let text = Properties::new(&bytes).find(|(id, _)| *id == REASON_STRING);
        assert_eq!(text, Some((REASON_STRING, &b"hi"[..])));
    }

    #[test]
    fn malformed_properties_end_the_list() {
        for bytes in [&[0x1F, 0, 9, b'x'][..], &[0x7E, 1], &[0x26, 0, 1, b'a', 0], &[0x21, 0]] {
            assert_eq!(Properties::new(bytes).next(), None, "{bytes:?}");
        }
        assert_eq!(variable_integer(&[0x80, 0x80, 0x80, 0x80, 1]), None);
    }
}
