//! The ways to spoil one answer, and the bytes of a spoiled one.

use super::frame;

/// The exception codes of Modbus Application Protocol V1.1b3, 7.
const EXCEPTION_CODES: [u8; 9] = [1, 2, 3, 4, 5, 6, 8, 10, 11];
/// The longest length that is right.
const MAX_LENGTH_FIELD: u16 = 254;
/// Makes unit 255 of unit 1 and the other way round.
const UNIT_SWAP_MASK: u8 = 254;

/// One way to spoil an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It comes up to three seconds late.
    Late,
    /// It comes in three pieces.
    Split,
    /// It comes byte by byte.
    SlowDrip,
    /// Another one, to a request that nobody made, comes in the same segment.
    Merged,
    /// It comes twice.
    Duplicated,
    /// One to a request that nobody made comes before or after it.
    Unsolicited,
    /// It is kept back and sent to whoever asks next, before that one's own.
    Crossed,
    /// Its transaction id is another.
    WrongId,
    /// Its protocol id is not that of Modbus.
    WrongProtocol,
    /// Another unit gives it.
    WrongUnit,
    /// Its function code is another.
    WrongFunction,
    /// It holds less than was asked for, with and without saying so.
    TooShort,
    /// It holds more than was asked for, with and without saying so.
    TooLong,
    /// Its header tells of 255 to 65,535 bytes, which come or do not.
    Oversize,
    /// Its beginning comes, and then nothing on this connection ever again.
    Truncated,
    /// It does not come.
    Silent,
    /// The connection is reset, in the midst of it or before.
    Reset,
    /// It is an exception, with any code of the standard.
    Exception,
    /// It is an exception as no standard knows it.
    MalformedException,
}

impl Fault {
    /// All of them.
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

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// How the answer comes.
    #[must_use]
    pub const fn help(self) -> &'static str {
        self.words().1
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Late => ("late", "up to three seconds late"),
            Self::Split => ("split", "in three pieces"),
            Self::SlowDrip => ("slow-drip", "byte by byte"),
            Self::Merged => ("merged", "in one segment with an answer to nobody's request"),
            Self::Duplicated => ("duplicated", "twice"),
            Self::Unsolicited => ("unsolicited", "before or after an answer to nobody's request"),
            Self::Crossed => ("crossed", "kept back for whoever asks next"),
            Self::WrongId => ("wrong-id", "with another transaction id"),
            Self::WrongProtocol => ("wrong-protocol", "with another protocol id"),
            Self::WrongUnit => ("wrong-unit", "from another unit"),
            Self::WrongFunction => ("wrong-function", "with another function code"),
            Self::TooShort => ("too-short", "with less data than asked for"),
            Self::TooLong => ("too-long", "with more data than asked for"),
            Self::Oversize => ("oversize", "with a length of 255 to 65535"),
            Self::Truncated => ("truncated", "its beginning, and then silence on this connection"),
            Self::Silent => ("silent", "not at all"),
            Self::Reset => ("reset", "not at all, and the connection is reset"),
            Self::Exception => ("exception", "an exception of any code instead"),
            Self::MalformedException => {
                ("malformed-exception", "an exception against the standard instead")
            }
        }
    }
}

/// An answer with other data to the request that a counting client would make next.
pub(super) fn unsolicited(answer: &[u8]) -> Vec<u8> {
    let mut draft = FrameDraft::from_answer(answer);
    draft.transaction = draft.transaction.wrapping_add(1);
    for byte in draft.pdu.iter_mut().skip(2) {
        *byte = !*byte;
    }
    draft.into_frame()
}

/// The answer spoiled by a trick that changes its bytes; as it is by any other.
pub(super) fn corrupt(trick: Fault, answer: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut draft = FrameDraft::from_answer(answer);
    let function = draft.pdu.first().copied().unwrap_or_default();
    match trick {
        Fault::WrongId => {
            let off = if random.bool() { 1 } else { random.u16(1..) };
            draft.transaction = draft.transaction.wrapping_add(off);
        }
        Fault::WrongProtocol => draft.protocol = random.u16(1..),
        Fault::WrongUnit => {
            // The two units that an M2xx has, 255 and 1, or any.
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
    /// What the header says instead of the truth.
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
        let truth = u16::try_from(self.pdu.len() + 1).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(self.pdu.len() + 7);
        for field in [self.transaction, self.protocol, self.length.unwrap_or(truth)] {
            frame.extend(field.to_be_bytes());
        }
        frame.push(self.unit);
        frame.extend(self.pdu);
        frame
    }

    /// Takes a register or eight bits away, and says so or not.
    fn shorten(&mut self, is_honest: bool) {
        let less = self.data_unit_len().min(self.pdu.len().saturating_sub(1));
        self.pdu.truncate(self.pdu.len() - less);
        if is_honest {
            self.update_byte_count();
        }
    }

    /// Adds a register or eight bits, and says so or not.
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
