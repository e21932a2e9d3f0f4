//! What a device says it is, and what its program does: the system variable PLC_R of a Modicon, and
//! Read Device Identification.

use std::fmt;

use provisioning::plan::ReadRequest;
use provisioning::plc::{PlcFamily, PlcModel, Table};

use super::Registers;

/// What a device says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// From PLC_R.
    Modicon(ModiconIdentity),
    /// From Read Device Identification.
    Named(DeviceIdentification),
}

/// What PLC_R says of the hardware; its vendor is 16#101A, Schneider Electric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ModiconIdentity {
    /// `i_wProductID`: the commercial reference.
    pub product: u16,
    /// `i_dwSerialNumber`.
    pub serial: u32,
    /// `i_byFirmVersion`: four parts, as in 5.1.9.44.
    pub firmware: [u8; 4],
}

/// The basic objects of Read Device Identification (Modbus Application Protocol V1.1b3, 6.21); one
/// that the device leaves out is empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DeviceIdentification {
    /// `VendorName`.
    pub vendor: String,
    /// `ProductCode`.
    pub product: String,
    /// `MajorMinorRevision`.
    pub revision: String,
}

/// What PLC_R says of the program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Program {
    /// `i_wStatus`.
    pub state: ProgramState,
    /// `i_wLastStopCause`; absent when it is none that is known, or cannot be read.
    pub last_stop: Option<StopCause>,
    /// `i_lwAppliSignature`; absent when it cannot be read.
    pub signature: Option<Signature>,
}

/// What the program does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProgramState {
    /// There is none.
    Empty,
    /// It is stopped.
    Stopped,
    /// It runs.
    Running,
    /// An error stopped it.
    Halted,
    /// Somebody holds it at a breakpoint.
    Breakpoint,
    /// A number that is not in the manual.
    Unknown(u16),
}

/// Why the program stopped last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopCause {
    /// The hardware watchdog.
    Watchdog,
    /// A reset.
    Reset,
    /// An exception in the program.
    Exception,
    /// A person, or a switch.
    User,
    /// The program itself.
    Program,
    /// It was deleted.
    Deletion,
}

/// Names a program: another download has another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Signature(pub [u32; 4]);

/// Most letters that are kept of what a device calls itself.
const MAX_NAME_CHARS: usize = 64;
const PLC_R_ADDRESS: u16 = 60_000;
const SCHNEIDER_ELECTRIC: u16 = 0x101A;

/// `i_wVendorID` to the application signature: %MW60000 to %MW60035.
pub(super) const FULL_IDENTITY: ReadRequest = holding_registers(PLC_R_ADDRESS, 36);
/// `i_wVendorID` to `i_wLastStopCause`, for a PLC that has no signature.
pub(super) const SHORT_IDENTITY: ReadRequest = holding_registers(PLC_R_ADDRESS, 15);
/// `i_wStatus` to the application signature.
pub(super) const FULL_STATUS: ReadRequest =
    holding_registers(PLC_R_ADDRESS + STATUS_OFFSET, 36 - STATUS_OFFSET);
/// `i_wStatus` to `i_wLastStopCause`.
pub(super) const SHORT_STATUS: ReadRequest =
    holding_registers(PLC_R_ADDRESS + STATUS_OFFSET, 15 - STATUS_OFFSET);

const STATUS_OFFSET: u16 = 12;

const fn holding_registers(first: u16, count: u16) -> ReadRequest {
    ReadRequest { table: Table::HoldingRegister, first, count, tags: Vec::new() }
}

/// Whether a model has PLC_R.
pub(super) const fn has_plc_r(model: PlcModel) -> bool {
    match model.family() {
        PlcFamily::MachineExpert => true,
        PlcFamily::MachineExpertBasic | PlcFamily::ModbusTables => false,
    }
}

/// Reads the answer to [`WHOLE`] or [`SHORT`]. Gives nothing when the vendor is another: then the
/// registers mean something else.
pub(super) fn parse_identity(answer: &Registers) -> Option<(ModiconIdentity, Program)> {
    let Registers::Words(words) = answer else { return None };
    let &[vendor, product, serial_low, serial_high, firmware_1, firmware_2, ..] = words.as_slice()
    else {
        return None;
    };
    let [a, b] = firmware_1.to_le_bytes();
    let [c, d] = firmware_2.to_le_bytes();
    let serial = to_u32(serial_low, serial_high);
    let modicon = ModiconIdentity { product, serial, firmware: [a, b, c, d] };
    let program = parse_program(words.get(STATUS_OFFSET.into()..)?)?;
    (vendor == SCHNEIDER_ELECTRIC).then_some((modicon, program))
}

/// Reads the answer to [`WHOLE_STATUS`] or [`SHORT_STATUS`].
pub(super) fn parse_status(answer: &Registers) -> Option<Program> {
    match answer {
        Registers::Words(words) => parse_program(words),
        Registers::Bits(_) => None,
    }
}

fn parse_program(words: &[u16]) -> Option<Program> {
    let (&status, cause) = (words.first()?, words.get(2));
    Some(Program {
        state: ProgramState::from_register(status),
        last_stop: cause.and_then(|cause| StopCause::from_register(*cause)),
        signature: parse_signature(words.get(16..24).unwrap_or_default()),
    })
}

/// A PLC without a program has a signature of zeros.
fn parse_signature(words: &[u16]) -> Option<Signature> {
    let &[a, b, c, d, e, f, g, h] = words else { return None };
    Some(Signature([to_u32(a, b), to_u32(c, d), to_u32(e, f), to_u32(g, h)]))
}

fn to_u32(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

impl ProgramState {
    const fn from_register(status: u16) -> Self {
        match status {
            0 => Self::Empty,
            1 => Self::Stopped,
            2 => Self::Running,
            4 => Self::Halted,
            8 => Self::Breakpoint,
            other => Self::Unknown(other),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Stopped => "stopped",
            Self::Running => "running",
            Self::Halted => "halted",
            Self::Breakpoint => "breakpoint",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether it runs; absent when the manual does not say what the number means.
    #[must_use]
    pub const fn is_running(self) -> Option<bool> {
        match self {
            Self::Running => Some(true),
            Self::Empty | Self::Stopped | Self::Halted | Self::Breakpoint => Some(false),
            Self::Unknown(_) => None,
        }
    }
}

impl StopCause {
    const fn from_register(cause: u16) -> Option<Self> {
        Some(match cause {
            1 => Self::Watchdog,
            2 => Self::Reset,
            3 => Self::Exception,
            4 => Self::User,
            5 => Self::Program,
            6 => Self::Deletion,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Watchdog => "watchdog",
            Self::Reset => "reset",
            Self::Exception => "exception",
            Self::User => "user",
            Self::Program => "program",
            Self::Deletion => "deletion",
        }
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part:08X}"))
    }
}

impl DeviceIdentification {
    /// From the objects of an answer: id and bytes.
    pub(super) fn new<'a>(objects: impl Iterator<Item = (u8, &'a [u8])>) -> Self {
        let mut naming = Self::default();
        for (id, bytes) in objects {
            match id {
                0 => naming.vendor = printable(bytes),
                1 => naming.product = printable(bytes),
                2 => naming.revision = printable(bytes),
                _ => {}
            }
        }
        naming
    }
}

/// What can be shown of a text from a device.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let letters = text.chars().filter(|letter| !letter.is_control()).take(MAX_NAME_CHARS);
    letters.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(status: u16) -> Vec<u16> {
        let mut words = vec![0; 36];
        words[..6].copy_from_slice(&[0x101A, 0x0702, 0x5678, 0x1234, 0x0105, 0x2C09]);
        (words[12], words[14]) = (status, 4);
        words[28..36].copy_from_slice(&[1, 0x5EED, 2, 0x5EED, 3, 0x5EED, 4, 0x5EED]);
        words
    }

    #[test]
    fn a_modicon_tells_its_serial_firmware_state_and_signature() {
        let (modicon, program) = parse_identity(&Registers::Words(words(2))).unwrap();
        assert_eq!(modicon.serial, 0x1234_5678);
        assert_eq!(modicon.firmware, [5, 1, 9, 44]);
        assert_eq!(
            (program.state, program.last_stop),
            (ProgramState::Running, Some(StopCause::User))
        );
        assert_eq!(program.signature.unwrap().to_string(), "5EED00015EED00025EED00035EED0004");
        let status = Registers::Words(words(2)[12..].to_vec());
        assert_eq!(parse_status(&status), Some(program));
    }

    #[test]
    fn every_state_of_the_manual_has_a_word_and_others_say_nothing() {
        let told = |status| parse_identity(&Registers::Words(words(status))).unwrap().1.state;
        let runs =
            [0, 1, 2, 4, 8, 3].map(|status| (told(status).word(), told(status).is_running()));
        let expected = [
            ("empty", Some(false)),
            ("stopped", Some(false)),
            ("running", Some(true)),
            ("halted", Some(false)),
            ("breakpoint", Some(false)),
            ("unknown", None),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn a_plc_without_a_signature_tells_the_rest() {
        let (_, program) = parse_identity(&Registers::Words(words(1)[..15].to_vec())).unwrap();
        assert_eq!((program.state, program.signature), (ProgramState::Stopped, None));
        assert_eq!(parse_status(&Registers::Words(words(1)[12..15].to_vec())), Some(program));
    }

    #[test]
    fn registers_of_another_vendor_tell_nothing() {
        assert_eq!(parse_identity(&Registers::Words(vec![7; 36])), None);
        assert_eq!(parse_identity(&Registers::Words(vec![0x101A])), None);
        assert_eq!(parse_identity(&Registers::Bits(vec![true; 36])), None);
        assert_eq!(parse_status(&Registers::Words(Vec::new())), None);
    }

    #[test]
    fn what_a_device_calls_itself_steers_no_terminal_and_has_an_end() {
        let long = [b'x'; 200];
        let objects: [(u8, &[u8]); 4] =
            [(0, b"  Acme\x1b[31m\n"), (1, &long), (2, &[b'V', 0xFF]), (0x80, b"more")];
        let naming = DeviceIdentification::new(objects.into_iter());
        assert_eq!(naming.vendor, "Acme[31m");
        assert_eq!(naming.product.len(), MAX_NAME_CHARS);
        assert_eq!(naming.revision, "V\u{FFFD}");
    }
}
