//! Function code 43, MEI type 14: read device identification (Modbus Application Protocol
//! V1.1b3, 6.21).

use super::pdu::Exception;
use super::system::Hardware;

const MEI_TYPE: u8 = 14;
/// Basic objects, stream and individual access.
const CONFORMITY_LEVEL: u8 = 0x81;
const INDIVIDUAL_ACCESS: u8 = 4;

/// Appends the answer to `request`, which begins behind the function code.
///
/// A client that asks for more than the basic objects gets the basic ones, and an unknown first
/// object starts from the beginning, as the specification wants it.
pub(super) fn answer(
    hardware: &Hardware,
    request: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Exception> {
    let &[MEI_TYPE, access, first] = request else {
        let known = request.first().is_none_or(|mei| *mei == MEI_TYPE);
        return Err(if known { Exception::IllegalValue } else { Exception::IllegalFunction });
    };
    let revision = hardware.revision();
    let objects = [(0, hardware.vendor), (1, hardware.reference), (2, revision.as_str())];
    let asked = match access {
        1..=3 if objects.iter().any(|(id, _)| *id == first) => first..=2,
        1..=3 => 0..=2,
        INDIVIDUAL_ACCESS => first..=first,
        _ => return Err(Exception::IllegalValue),
    };
    let asked = objects.iter().filter(|(id, _)| asked.contains(id));
    let count = match asked.clone().count() {
        0 => return Err(Exception::IllegalAddress),
        some => u8::try_from(some).unwrap_or(u8::MAX),
    };
    out.extend([MEI_TYPE, access, CONFORMITY_LEVEL, 0, 0, count]);
    for (id, text) in asked {
        out.extend([*id, u8::try_from(text.len()).unwrap_or(u8::MAX)]);
        out.extend(text.as_bytes());
    }
    Ok(())
}
