//! The hardware of the PLC, and the PLC_R block that describes it to clients.

use provisioning::plc::PlcModel;

use super::image::WordMemory;

const VENDOR_ID: u16 = 0x101A;
const STATUS_WORD: u16 = 60_012;
const STOP_CAUSE_WORD: u16 = 60_014;
const SIGNATURE_WORD: u16 = 60_028;
const STOPPED_BY_EXCEPTION: u16 = 3;
const STOPPED_BY_USER: u16 = 4;

/// State of the program, as %MW60012 shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunState {
    /// Stopped: the values do not change, and the Modbus server keeps answering.
    Stopped,
    /// Running.
    Running,
    /// Stopped by an exception in the program; everything is still served.
    Halted,
}

/// Identity of the hardware.
///
/// Reference and firmware have the format of real ones; the product id and the exact firmware were
/// not read from a real PLC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hardware {
    pub(super) model: PlcModel,
    pub(super) vendor: &'static str,
    pub(super) reference: &'static str,
    product_id: u16,
    firmware: [u8; 4],
}

impl Hardware {
    /// Returns the hardware of a model; `None` if the model is not simulated.
    pub(super) const fn of(model: PlcModel) -> Option<Self> {
        let (reference, product_id) = match model {
            PlcModel::M241 => ("TM241CEC24T", 0x0702),
            PlcModel::M251 => ("TM251MESE", 0x0711),
            PlcModel::M262 | PlcModel::M221 | PlcModel::Generic => return None,
        };
        let firmware = [5, 1, 9, 44];
        Some(Self { model, vendor: "Schneider Electric", reference, product_id, firmware })
    }

    /// Returns the firmware version as text: `V5.1.9.44`.
    pub(super) fn revision(&self) -> String {
        let [a, b, c, d] = self.firmware;
        format!("V{a}.{b}.{c}.{d}")
    }

    /// Fills PLC_R (system library guide, "PLC_R structure") except for status and signature.
    pub(super) fn fill_plc_r(&self, words: &mut WordMemory, serial_number: u32) {
        words.store(60_000, &VENDOR_ID.to_le_bytes());
        words.store(60_001, &self.product_id.to_le_bytes());
        words.store(60_002, &serial_number.to_le_bytes());
        words.store(60_004, &self.firmware);
        words.store(60_006, &[1, 0, 0, 1]); // boot version
        words.store(60_016, &[0xFF; 16]); // system faults are active low: none
        words.store(60_024, &[0xFF; 4]); // I/O status: no fault, neither embedded nor TM3
        words.store(60_026, &100_u16.to_le_bytes()); // clock battery, percent
    }
}

/// Writes the state of the program to %MW60012, and the cause of its last stop to %MW60014.
pub(super) fn write_state(words: &mut WordMemory, state: RunState) {
    let (status, cause): (u16, Option<u16>) = match state {
        RunState::Stopped => (1, Some(STOPPED_BY_USER)),
        RunState::Running => (2, None),
        RunState::Halted => (4, Some(STOPPED_BY_EXCEPTION)),
    };
    words.store(STATUS_WORD, &status.to_le_bytes());
    if let Some(cause) = cause {
        words.store(STOP_CAUSE_WORD, &cause.to_le_bytes());
    }
}

/// Writes the application signature to %MW60028..=%MW60035.
pub(super) fn write_signature(words: &mut WordMemory, signature: [u32; 4]) {
    for (at, part) in (SIGNATURE_WORD..).step_by(2).zip(signature) {
        words.store(at, &part.to_le_bytes());
    }
}
