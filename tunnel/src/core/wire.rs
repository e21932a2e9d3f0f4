//! The headers of WireGuard's datagrams (WireGuard whitepaper, 5.4).

/// A receiver index is 24 bits for the peer and 8 for one of its sessions.
pub(super) const PEER_INDEX_MASK: u32 = 0x00ff_ffff;
const SESSION_BITS: u32 = 8;

/// Types of datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MessageType {
    Initiation,
    Response,
    CookieReply,
    Data,
}

/// Returns the type of a datagram by its first bytes and its length; `None` if it is not one of
/// WireGuard's.
pub(super) fn message_type(datagram: &[u8]) -> Option<MessageType> {
    match (read_u32(datagram, 0)?, datagram.len()) {
        // The lengths include both MACs; a data message has at least a header and a tag.
        (1, 148) => Some(MessageType::Initiation),
        (2, 92) => Some(MessageType::Response),
        (3, 64) => Some(MessageType::CookieReply),
        (4, 32..) => Some(MessageType::Data),
        _ => None,
    }
}

pub(super) fn is_data(datagram: &[u8]) -> bool {
    message_type(datagram) == Some(MessageType::Data)
}

/// Returns the sender index of an initiation or a response.
pub(super) fn sender_index(datagram: &[u8]) -> Option<u32> {
    read_u32(datagram, 4)
}

/// Returns the receiver index, which all types but an initiation have.
pub(super) fn receiver_index(datagram: &[u8], kind: MessageType) -> Option<u32> {
    match kind {
        MessageType::Initiation => None,
        MessageType::Response => read_u32(datagram, 8),
        MessageType::CookieReply | MessageType::Data => read_u32(datagram, 4),
    }
}

/// Returns the bits of a receiver index that belong to the peer.
pub(super) const fn peer_index(receiver: u32) -> u32 {
    receiver >> SESSION_BITS
}

fn read_u32(datagram: &[u8], at: usize) -> Option<u32> {
    let (bytes, _) = datagram.get(at..)?.split_first_chunk::<4>()?;
    // The type and its three reserved zero bytes read as one little-endian number.
    Some(u32::from_le_bytes(*bytes))
}
