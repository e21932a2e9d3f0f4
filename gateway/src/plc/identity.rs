//! What a Modicon says it is: the first registers of the system variable PLC_R.

use provisioning::plan::ReadRequest;
use provisioning::plc::{Family, Model, Table};

use super::Registers;

/// What a PLC says it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// `i_wVendorID`: always 16#101A, Schneider Electric.
    pub vendor: u16,
    /// `i_wProductID`: the commercial reference.
    pub product: u16,
    /// `i_dwSerialNumber`.
    pub serial: u32,
    /// `i_byFirmVersion`: four parts, as in 5.1.9.44.
    pub firmware: [u8; 4],
}

/// `i_wVendorID` to `i_wStatus`: %MW60000 to %MW60012.
pub(super) const REQUEST: ReadRequest =
    ReadRequest { table: Table::HoldingRegister, first: 60_000, count: 13, tags: Vec::new() };

const SCHNEIDER_ELECTRIC: u16 = 0x101A;
const RUNNING: u16 = 2;

/// Whether a model has PLC_R.
pub(super) const fn is_told_by(model: Model) -> bool {
    match model.family() {
        Family::MachineExpert => true,
        Family::Basic | Family::Tables => false,
    }
}

/// Reads the answer to [`REQUEST`]: the identity, and whether the program runs. Gives nothing when
/// the vendor is another: then the registers mean something else.
pub(super) fn parse(answer: &Registers) -> Option<(Identity, bool)> {
    let Registers::Words(words) = answer else { return None };
    let &[vendor, product, serial_low, serial_high, firmware_1, firmware_2, .., status] =
        words.as_slice()
    else {
        return None;
    };
    let [a, b] = firmware_1.to_le_bytes();
    let [c, d] = firmware_2.to_le_bytes();
    let identity = Identity {
        vendor,
        product,
        serial: u32::from(serial_high) << 16 | u32::from(serial_low),
        firmware: [a, b, c, d],
    };
    (vendor == SCHNEIDER_ELECTRIC).then_some((identity, status == RUNNING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modicon_tells_its_serial_firmware_and_state() {
        let mut words = [0; 13];
        words[..6].copy_from_slice(&[0x101A, 0x0702, 0x5678, 0x1234, 0x0105, 0x2C09]);
        words[12] = 2;
        let (identity, running) = parse(&Registers::Words(words.to_vec())).unwrap();
        assert_eq!(identity.serial, 0x1234_5678);
        assert_eq!(identity.firmware, [5, 1, 9, 44]);
        assert!(running);
        words[12] = 1;
        let (_, running) = parse(&Registers::Words(words.to_vec())).unwrap();
        assert!(!running);
    }

    #[test]
    fn registers_of_another_vendor_tell_nothing() {
        assert_eq!(parse(&Registers::Words(vec![7; 13])), None);
        assert_eq!(parse(&Registers::Words(vec![0x101A])), None);
    }
}
