//! MBAP framing (Modbus Messaging on TCP/IP Implementation Guide V1.0b, 3.1.3). Pure.

/// Transaction id, protocol id and length; the unit id counts as content.
const PREFIX_LEN: usize = 6;
/// Longest PDU, in bytes (Modbus Application Protocol V1.1b3, 4.1).
pub(super) const MAX_PDU_LEN: usize = 253;
/// Longest frame, in bytes.
pub(super) const MAX_LEN: usize = PREFIX_LEN + 1 + MAX_PDU_LEN;

/// One request or answer.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct MbapFrame<'a> {
    /// Chosen by the client and returned unchanged.
    pub(super) transaction: [u8; 2],
    pub(super) unit: u8,
    pub(super) pdu: &'a [u8],
}

/// The stream is not Modbus, or has lost its framing. The connection has to be closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotModbus;

/// Splits the first frame off `bytes`; returns `None` if it is incomplete.
pub(super) fn split_first(bytes: &[u8]) -> Result<Option<(MbapFrame<'_>, &[u8])>, NotModbus> {
    let Some(([t0, t1, protocol @ .., l0, l1], rest)) = bytes.split_first_chunk::<PREFIX_LEN>()
    else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    if *protocol != [0, 0] || !(2..=1 + MAX_PDU_LEN).contains(&len) {
        return Err(NotModbus);
    }
    let Some(([unit, pdu @ ..], rest)) = rest.split_at_checked(len) else { return Ok(None) };
    Ok(Some((MbapFrame { transaction: [*t0, *t1], unit: *unit, pdu }, rest)))
}

/// Appends a frame that answers `request`; `pdu` appends its PDU.
pub(super) fn push_answer(
    request: &MbapFrame<'_>,
    out: &mut Vec<u8>,
    pdu: impl FnOnce(&mut Vec<u8>),
) {
    let [t0, t1] = request.transaction;
    out.extend([t0, t1, 0, 0, 0, 0, request.unit]);
    let start = out.len() - 1;
    pdu(out);
    let len = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(start - 2..start) {
        field.copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: [u8; 12] = [0, 1, 0, 0, 0, 6, 0xFF, 3, 0, 10, 0, 2];

    #[test]
    fn a_frame_is_split_off_only_when_it_is_complete() {
        for len in 0..READ.len() {
            assert_eq!(split_first(&READ[..len]), Ok(None), "{len} bytes");
        }
        let frame = MbapFrame { transaction: [0, 1], unit: 255, pdu: &READ[7..] };
        let two = [READ, READ].concat();
        assert_eq!(split_first(&two), Ok(Some((frame, &READ[..]))));
    }

    #[test]
    fn a_header_that_is_not_modbus_is_rejected() {
        let with = |at: usize, byte| {
            let mut bytes = READ;
            bytes[at] = byte;
            split_first(&bytes).map(|frame| frame.is_some())
        };
        assert_eq!(with(2, 1), Err(NotModbus), "protocol id");
        assert_eq!(with(3, 1), Err(NotModbus), "protocol id");
        assert_eq!(with(5, 1), Err(NotModbus), "no PDU");
        assert_eq!(with(5, 0), Err(NotModbus), "nothing");
        assert_eq!(with(5, 255), Err(NotModbus), "255 > 254");
        assert_eq!(with(4, 1), Err(NotModbus), "262 > 254");
        assert_eq!(with(5, 254), Ok(false), "the longest frame, not whole yet");
    }
}
