//! The outside of WireGuard's datagrams (WireGuard whitepaper, 5.4).

/// A receiver index is 24 bits of a peer and 8 of one of its sessions.
pub(super) const INDEX_MASK: u32 = 0x00ff_ffff;
const SESSION_BITS: u32 = 8;

/// Types of datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Initiation,
    Response,
    Cookie,
    Data,
}

/// What a datagram claims to be, if its length fits; `None` if it is none of WireGuard's.
pub(super) fn kind(datagram: &[u8]) -> Option<Kind> {
    match (word(datagram, 0)?, datagram.len()) {
        (1, 148) => Some(Kind::Initiation),
        (2, 92) => Some(Kind::Response),
        (3, 64) => Some(Kind::Cookie),
        (4, 32..) => Some(Kind::Data),
        _ => None,
    }
}

pub(super) fn is_data(datagram: &[u8]) -> bool {
    kind(datagram) == Some(Kind::Data)
}

/// The sender index of an initiation or a response.
pub(super) fn sender(datagram: &[u8]) -> Option<u32> {
    word(datagram, 4)
}

/// The receiver index of everything but an initiation.
pub(super) fn receiver(datagram: &[u8], kind: Kind) -> Option<u32> {
    match kind {
        Kind::Initiation => None,
        Kind::Response => word(datagram, 8),
        Kind::Cookie | Kind::Data => word(datagram, 4),
    }
}

/// The part of a receiver index that names the peer.
pub(super) const fn peer_of(receiver: u32) -> u32 {
    receiver >> SESSION_BITS
}

fn word(datagram: &[u8], at: usize) -> Option<u32> {
    let (bytes, _) = datagram.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}
