//! The system variable PLC_R of an M241 and M251 (%MW60000 on): identity of the PLC, and state of
//! its program.

use provisioning::plan::ReadRequest;
use provisioning::plc::{PlcFamily, PlcModel, Table};

use super::Registers;
use crate::model::{PlcIdentity, ProgramSignature, ProgramState, ProgramStatus, StopCause};

/// Hardware of a Modicon, from PLC_R.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ModiconIdentity {
    /// `i_wProductID`: the commercial reference.
    pub(super) product: u16,
    /// `i_dwSerialNumber`.
    pub(super) serial: u32,
    /// `i_byFirmVersion`: four parts, as in 5.1.9.44.
    pub(super) firmware: [u8; 4],
}

const PLC_R_ADDRESS: u16 = 60_000;
/// `i_wVendorID` of Schneider Electric.
const SCHNEIDER_ELECTRIC: u16 = 0x101A;
/// Offset of `i_wStatus`.
const STATUS_OFFSET: u16 = 12;

/// `i_wVendorID` to the application signature: %MW60000 to %MW60035.
pub(super) const FULL_IDENTITY: ReadRequest = holding_registers(PLC_R_ADDRESS, 36);
/// `i_wVendorID` to `i_wLastStopCause`, for a PLC without a signature.
pub(super) const SHORT_IDENTITY: ReadRequest = holding_registers(PLC_R_ADDRESS, 15);
/// `i_wStatus` to the application signature.
pub(super) const FULL_STATUS: ReadRequest =
    holding_registers(PLC_R_ADDRESS + STATUS_OFFSET, 36 - STATUS_OFFSET);
/// `i_wStatus` to `i_wLastStopCause`.
pub(super) const SHORT_STATUS: ReadRequest =
    holding_registers(PLC_R_ADDRESS + STATUS_OFFSET, 15 - STATUS_OFFSET);

const fn holding_registers(first: u16, count: u16) -> ReadRequest {
    ReadRequest { table: Table::HoldingRegister, first, count, tags: Vec::new() }
}

/// Returns whether a model has PLC_R.
pub(super) const fn has_plc_r(model: PlcModel) -> bool {
    match model.family() {
        PlcFamily::MachineExpert => true,
        PlcFamily::MachineExpertBasic | PlcFamily::ModbusTables => false,
    }
}

/// Parses the answer to [`FULL_IDENTITY`] or [`SHORT_IDENTITY`].
///
/// Returns `None` when the vendor is not Schneider Electric: the registers mean something else
/// then.
pub(super) fn parse_identity(answer: &Registers) -> Option<(ModiconIdentity, ProgramStatus)> {
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

/// Parses the answer to [`FULL_STATUS`] or [`SHORT_STATUS`].
pub(super) fn parse_status(answer: &Registers) -> Option<ProgramStatus> {
    match answer {
        Registers::Words(words) => parse_program(words),
        Registers::Bits(_) => None,
    }
}

fn parse_program(words: &[u16]) -> Option<ProgramStatus> {
    let (&status, cause) = (words.first()?, words.get(2));
    Some(ProgramStatus {
        state: to_state(status),
        last_stop: cause.and_then(|cause| to_stop_cause(*cause)),
        signature: parse_signature(words.get(16..24).unwrap_or_default()),
    })
}

/// Parses the signature of the program, which is zero without one; `None` unless it has 8 words.
fn parse_signature(words: &[u16]) -> Option<ProgramSignature> {
    let &[a, b, c, d, e, f, g, h] = words else { return None };
    Some(ProgramSignature([to_u32(a, b), to_u32(c, d), to_u32(e, f), to_u32(g, h)]))
}

fn to_u32(low: u16, high: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}

const fn to_state(status: u16) -> ProgramState {
    match status {
        0 => ProgramState::Empty,
        1 => ProgramState::Stopped,
        2 => ProgramState::Running,
        4 => ProgramState::Halted,
        8 => ProgramState::Breakpoint,
        _ => ProgramState::Unknown,
    }
}

const fn to_stop_cause(cause: u16) -> Option<StopCause> {
    Some(match cause {
        1 => StopCause::Watchdog,
        2 => StopCause::Reset,
        3 => StopCause::Exception,
        4 => StopCause::User,
        5 => StopCause::Program,
        6 => StopCause::Deletion,
        _ => return None,
    })
}

impl From<ModiconIdentity> for PlcIdentity {
    fn from(modicon: ModiconIdentity) -> Self {
        let ModiconIdentity { product, serial, firmware: [a, b, c, d] } = modicon;
        Self {
            // `parse_identity` accepts no other vendor.
            vendor: "Schneider Electric".to_owned(),
            product: format!("16#{product:04X}, serial {serial}"),
            revision: format!("{a}.{b}.{c}.{d}"),
        }
    }
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
    fn plc_r_holds_serial_firmware_state_and_signature() {
        let (modicon, program) = parse_identity(&Registers::Words(words(2))).unwrap();
        assert_eq!(modicon.serial, 0x1234_5678);
        assert_eq!(modicon.firmware, [5, 1, 9, 44]);
        assert_eq!(
            PlcIdentity::from(modicon),
            PlcIdentity {
                vendor: "Schneider Electric".to_owned(),
                product: "16#0702, serial 305419896".to_owned(),
                revision: "5.1.9.44".to_owned(),
            }
        );
        assert_eq!(
            (program.state, program.last_stop),
            (ProgramState::Running, Some(StopCause::User))
        );
        assert_eq!(program.signature.unwrap().to_string(), "5EED00015EED00025EED00035EED0004");
        let status = Registers::Words(words(2)[12..].to_vec());
        assert_eq!(parse_status(&status), Some(program));
    }

    #[test]
    fn every_state_and_stop_cause_of_the_manual_is_known_and_others_are_unknown() {
        let parsed = |status| {
            let state = parse_identity(&Registers::Words(words(status))).unwrap().1.state;
            (state.as_str(), state.is_running())
        };
        let expected = [
            ("empty", Some(false)),
            ("stopped", Some(false)),
            ("running", Some(true)),
            ("halted", Some(false)),
            ("breakpoint", Some(false)),
            ("unknown", None),
        ];
        assert_eq!([0, 1, 2, 4, 8, 3].map(parsed), expected);
        let causes = [1, 2, 3, 4, 5, 6].map(|cause| to_stop_cause(cause).unwrap().as_str());
        assert_eq!(causes, ["watchdog", "reset", "exception", "user", "program", "deletion"]);
        assert_eq!([to_stop_cause(0), to_stop_cause(7)], [None, None]);
    }

    #[test]
    fn a_plc_without_a_signature_has_the_rest_of_its_identity() {
        let (_, program) = parse_identity(&Registers::Words(words(1)[..15].to_vec())).unwrap();
        assert_eq!((program.state, program.signature), (ProgramState::Stopped, None));
        assert_eq!(parse_status(&Registers::Words(words(1)[12..15].to_vec())), Some(program));
    }

    #[test]
    fn registers_of_another_vendor_are_no_identity() {
        assert_eq!(parse_identity(&Registers::Words(vec![7; 36])), None);
        assert_eq!(parse_identity(&Registers::Words(vec![0x101A])), None);
        assert_eq!(parse_identity(&Registers::Bits(vec![true; 36])), None);
        assert_eq!(parse_status(&Registers::Words(Vec::new())), None);
    }
}
