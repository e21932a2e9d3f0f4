//! Encodes numbers and texts: small numbers take few bytes. Pure.

/// Decodes from the front. Every method returns `None` when the bytes do not hold what it reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteReader<'a>(pub(super) &'a [u8]);

impl<'a> ByteReader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Reads an LEB128 number of at most 10 bytes.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Reads a signed number in zigzag form: -1 is 1, 1 is 2.
    pub(super) fn signed(&mut self) -> Option<i64> {
        let raw = self.varint()?;
        Some((raw >> 1).cast_signed() ^ -(raw & 1).cast_signed())
    }

    pub(super) fn small(&mut self) -> Option<u16> {
        u16::try_from(self.varint()?).ok()
    }

    /// Reads a count of items that take at least one byte each. A damaged count cannot cause a
    /// larger allocation than the bytes that follow.
    pub(super) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.varint()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let len = self.count()?;
        std::str::from_utf8(self.take(len)?).ok()
    }

    /// Reads a count and that many items.
    pub(super) fn list<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = self.count()?;
        (0..count).map(|_| one(self)).collect()
    }
}

/// Appends a number in LEB128: seven bits a byte, the lowest first.
#[expect(clippy::cast_possible_truncation, reason = "the low seven bits are meant")]
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, crate::queue::to_u64(count));
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_number_reads_back(number: u64, signed: i64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            put_signed(&mut bytes, signed);
            put_text(&mut bytes, "é");

            let mut reader = ByteReader(&bytes);

            prop_assert_eq!(reader.varint(), Some(number));
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert_eq!(reader.text(), Some("é"));
            prop_assert_eq!(reader.byte(), None);
        }
    }

    #[test]
    fn a_number_that_is_too_long_and_a_count_that_is_too_large_are_refused() {
        assert_eq!(ByteReader(&[0xFF; 11]).varint(), None);
        assert_eq!(
            ByteReader(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2]).varint(),
            None
        );
        assert_eq!(ByteReader(&[5, 1, 1]).list(ByteReader::byte), None);
        assert_eq!(ByteReader(&[2, 0xC3, 0x28]).text(), None);
    }
}
