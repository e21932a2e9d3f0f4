//! Identity of a device that has no PLC_R: Read Device Identification (function 43/14, Modbus
//! Application Protocol V1.1b3, 6.21).

use crate::model::PlcIdentity;

/// Most characters that are kept of one object.
const MAX_NAME_CHARS: usize = 64;

/// Returns the identity from the basic objects of an answer, each its id and bytes. An object that
/// the device leaves out is empty.
pub(super) fn to_identity<'a>(objects: impl Iterator<Item = (u8, &'a [u8])>) -> PlcIdentity {
    let mut identity = PlcIdentity::default();
    for (id, bytes) in objects {
        match id {
            0 => identity.vendor = printable(bytes),
            1 => identity.product = printable(bytes),
            2 => identity.revision = printable(bytes),
            _ => {}
        }
    }
    identity
}

/// Returns the printable characters of a text from a device, at most [`MAX_NAME_CHARS`].
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    // Control characters could steer the terminal of whoever reads the status.
    let letters = text.chars().filter(|letter| !letter.is_control()).take(MAX_NAME_CHARS);
    letters.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_bounded_and_contain_no_control_characters() {
        let long = [b'x'; 200];
        let objects: [(u8, &[u8]); 4] =
            [(0, b"  Acme\x1b[31m\n"), (1, &long), (2, &[b'V', 0xFF]), (0x80, b"more")];
        let identity = to_identity(objects.into_iter());
        assert_eq!(identity.vendor, "Acme[31m");
        assert_eq!(identity.product.len(), MAX_NAME_CHARS);
        assert_eq!(identity.revision, "V\u{FFFD}");
    }
}
