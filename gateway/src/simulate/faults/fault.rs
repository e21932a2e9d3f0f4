//! The faults of an answer, and the bytes of a corrupted one.

use super::frame;

/// The exception codes of Modbus Application Protocol V1.1b3, 7.
const EXCEPTION_CODES: [u8; 9] = [1, 2, 3, 4, 5, 6, 8, 10, 11];
/// Largest valid value of the length field.
const MAX_LENGTH_FIELD: u16 = 254;
/// XOR with this turns unit 255 into unit 1 and vice versa.
const UNIT_SWAP_MASK: u8 = 254;

/// A fault of one answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Sent up to three seconds late.
    Late,
    /// Sent in three pieces.
    Split,
    /// Sent byte by byte.
    SlowDrip,
    /// Sent in one segment with an unsolicited answer.
    Merged,
    /// Sent twice.
    Duplicated,
    /// Sent before or after an unsolicited answer.
    Unsolicited,
    /// Held back and sent before the answer to the next request, on any connection.
    Crossed,
    /// Has another transaction id.
    WrongId,
    /// Has a protocol id other than that of Modbus.
    WrongProtocol,
    /// Has another unit id.
    WrongUnit,
    /// Has another function code.
    WrongFunction,
    /// Has less data than requested, with a right or wrong byte count.
    TooShort,
    /// Has more data than requested, with a right or wrong byte count.
    TooLong,
    /// Has a length field of 255 to 65,535, with or without that many bytes.
    Oversize,
    /// Only its beginning is sent, and nothing on this connection after it.
    Truncated,
    /// Not sent.
    Silent,
    /// The connection is reset, before the answer or within it.
    Reset,
    /// Replaced by an exception with any code of the standard.
    Exception,
    /// Replaced by a malformed exception.
    MalformedException,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 19] = [
        Self::Late,
        Self::Split,
        Self::SlowDrip,
        Self::Merged,
        Self::Duplicated,
        Self::Unsolicited,
        Self::Crossed,
        Self::WrongId,
        Self::WrongProtocol,
        Self::WrongUnit,
        Self::WrongFunction,
        Self::TooShort,
        Self::TooLong,
        Self::Oversize,
        Self::Truncated,
        Self::Silent,
        Self::Reset,
        Self::Exception,
        Self::MalformedException,
    ];

    /// Returns the name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.texts().0
    }

    /// Returns what happens to the answer, for the help text.
    #[must_use]
    pub const fn help(self) -> &'static str {
        self.texts().1
    }

    const fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Late => ("late", "the answer is sent up to three seconds late"),
            Self::Split => ("split", "the answer is sent in three pieces"),
            Self::SlowDrip => ("slow-drip", "the answer is sent byte by byte"),
            Self::Merged => {
                ("merged", "the answer is sent in one segment with an unsolicited answer")
            }
            Self::Duplicated => ("duplicated", "the answer is sent twice"),
            Self::Unsolicited => {
                ("unsolicited", "an unsolicited answer is sent before or after the answer")
            }
            Self::Crossed => ("crossed", "the answer is held back until the next request"),
            Self::WrongId => ("wrong-id", "the answer has another transaction id"),
            Self::WrongProtocol => ("wrong-protocol", "the answer has another protocol id"),
            Self::WrongUnit => ("wrong-unit", "the answer has another unit id"),
            Self::WrongFunction => ("wrong-function", "the answer has another function code"),
            Self::TooShort => ("too-short", "the answer has less data than requested"),
            Self::TooLong => ("too-long", "the answer has more data than requested"),
            Self::Oversize => ("oversize", "the length field of the answer is 255 to 65535"),
            Self::Truncated => {
                ("truncated", "the beginning is sent, then nothing more on this connection")
            }
            Self::Silent => ("silent", "nothing is sent"),
            Self::Reset => ("reset", "the connection is reset, before the answer or within it"),
            Self::Exception => ("exception", "a Modbus exception with any code is sent instead"),
            Self::MalformedException => {
                ("malformed-exception", "a malformed Modbus exception is sent instead")
            }
        }
    }
}

/// Returns an unsolicited answer: other data, and the transaction id after this one.
pub(super) fn unsolicited(answer: &[u8]) -> Vec<u8> {
    let mut draft = FrameDraft::from_answer(answer);
    draft.transaction = draft.transaction.wrapping_add(1);
    for byte in draft.pdu.iter_mut().skip(2) {
        *byte = !*byte;
    }
    draft.into_frame()
}

/// Returns the answer with its bytes changed; unchanged if the fault affects only the sending.
pub(super) fn corrupt(fault: Fault, answer: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut draft = FrameDraft::from_answer(answer);
    let function = draft.pdu.first().copied().unwrap_or_default();
    match fault {
        Fault::WrongId => {
            let off = if random.bool() { 1 } else { random.u16(1..) };
            draft.transaction = draft.transaction.wrapping_add(off);
        }
        Fault::WrongProtocol => draft.protocol = random.u16(1..),
        Fault::WrongUnit => {
            // The other of the two units of an M2xx, 255 and 1, or any unit.
            draft.unit ^= if random.bool() { UNIT_SWAP_MASK } else { random.u8(1..) };
        }
        Fault::WrongFunction => draft.set(0, function ^ random.u8(1..8)),
        Fault::TooShort => draft.shorten(random.bool()),
        Fault::TooLong => draft.lengthen(random.bool()),
        Fault::Oversize => {
            let length = random.u16(MAX_LENGTH_FIELD + 1..);
            draft.length = Some(length);
            if random.bool() {
                draft.pdu.resize(usize::from(length) - 1, function);
            }
        }
        Fault::Exception => {
            let code = random.choice(EXCEPTION_CODES).unwrap_or_default();
            draft.pdu = vec![function | 0x80, code];
        }
        Fault::MalformedException => {
            draft.pdu = match random.u8(0..4) {
                0 => vec![0x80, 1],
                1 => vec![function | 0x80],
                2 => vec![function | 0x80, random.u8(12..)],
                _ => vec![function | 0x80, 2, random.u8(..), random.u8(..)],
            };
        }
        Fault::Late
        | Fault::Split
        | Fault::SlowDrip
        | Fault::Merged
        | Fault::Duplicated
        | Fault::Unsolicited
        | Fault::Crossed
        | Fault::Truncated
        | Fault::Silent
        | Fault::Reset => {}
    }
    draft.into_frame()
}

/// An answer whose fields can be changed one by one.
struct FrameDraft {
    transaction: u16,
    protocol: u16,
    /// Value of the length field if it is wrong.
    length: Option<u16>,
    unit: u8,
    pdu: Vec<u8>,
}

impl FrameDraft {
    fn from_answer(answer: &[u8]) -> Self {
        let (transaction, unit, pdu) = match frame::split_first(answer) {
            Ok(Some((frame, _))) => (frame.transaction, frame.unit, frame.pdu),
            Ok(None) | Err(frame::NotModbus) => ([0, 0], 0, &[][..]),
        };
        let transaction = u16::from_be_bytes(transaction);
        Self { transaction, protocol: 0, length: None, unit, pdu: pdu.to_vec() }
    }

    fn into_frame(self) -> Vec<u8> {
        let actual_length = u16::try_from(self.pdu.len() + 1).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(self.pdu.len() + 7);
        for field in [self.transaction, self.protocol, self.length.unwrap_or(actual_length)] {
            frame.extend(field.to_be_bytes());
        }
        frame.push(self.unit);
        frame.extend(self.pdu);
        frame
    }

    /// Removes a register or eight bits; an honest one adapts the byte count.
    fn shorten(&mut self, is_honest: bool) {
        let less = self.data_unit_len().min(self.pdu.len().saturating_sub(1));
        self.pdu.truncate(self.pdu.len() - less);
        if is_honest {
            self.update_byte_count();
        }
    }

    /// Adds a register or eight bits; an honest one adapts the byte count.
    fn lengthen(&mut self, is_honest: bool) {
        self.pdu.extend([0xA5, 0x5A].iter().take(self.data_unit_len()));
        if is_honest {
            self.update_byte_count();
        }
    }

    fn data_unit_len(&self) -> usize {
        if matches!(self.pdu.first(), Some(1 | 2)) { 1 } else { 2 }
    }

    fn update_byte_count(&mut self) {
        let count = u8::try_from(self.pdu.len().saturating_sub(2)).unwrap_or(u8::MAX);
        self.set(1, count);
    }

    fn set(&mut self, at: usize, byte: u8) {
        if let Some(place) = self.pdu.get_mut(at) {
            *place = byte;
        }
    }
}
