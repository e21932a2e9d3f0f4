//! Rate limit of handshake messages, which are expensive to process.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};

use super::counters::DropReason;
use super::peer;
use crate::key::{PrivateKey, PublicKey};

/// Handshake messages per second that are processed without proof of the sender's address. Each
/// initiation counts twice at a hub.
const HANDSHAKES_PER_SECOND: u64 = 20;

/// Bounds the cost of a flood of handshake messages: above the limit only those are processed whose
/// sender has proven its address with a cookie (WireGuard whitepaper, 5.3).
#[derive(Clone)]
pub(super) struct HandshakeLimiter(Arc<RateLimiter>);

impl HandshakeLimiter {
    pub(super) fn new(private_key: &PrivateKey) -> Self {
        let public = private_key.public_key().to_x25519();
        Self(Arc::new(RateLimiter::new(&public, HANDSHAKES_PER_SECOND)))
    }

    pub(super) const fn inner(&self) -> &Arc<RateLimiter> {
        &self.0
    }

    /// Starts the next second once the current one is over. To be called for each message.
    pub(super) fn reset_count(&self) {
        self.0.reset_count();
    }
}

impl fmt::Debug for HandshakeLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Limiter(..)")
    }
}

/// Who sent an initiation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Initiator {
    /// The sender claims this key; the handshake proves it.
    ClaimsKey(PublicKey),
    /// This end is under load and replies with this cookie.
    Cookie(Vec<u8>),
    /// The initiation is not valid for this end.
    Dropped(DropReason),
}

/// Returns who sent an initiation, at the cost of two point multiplications. They are only spent on
/// a valid first MAC and, under load, on a valid second one.
pub(super) fn check_initiator(
    private_key: &PrivateKey,
    limiter: &HandshakeLimiter,
    from: IpAddr,
    datagram: &[u8],
) -> Initiator {
    // The MACs are checked before any curve operation, which an attacker could otherwise cause at
    // will.
    let mut buffer = [0; peer::MAX_HANDSHAKE_LEN];
    let packet = match limiter.0.verify_packet(Some(from), datagram, &mut buffer) {
        Ok(Packet::HandshakeInit(packet)) => packet,
        Err(TunnResult::WriteToNetwork(cookie)) => return Initiator::Cookie(cookie.to_vec()),
        Ok(_) | Err(_) => return Initiator::Dropped(DropReason::Malformed),
    };
    let secret = private_key.to_static_secret();
    let public = private_key.public_key().to_x25519();
    match parse_handshake_anon(&secret, &public, &packet) {
        Ok(half) => Initiator::ClaimsKey(PublicKey::from_bytes(half.peer_static_public)),
        Err(error) => Initiator::Dropped(peer::drop_reason(&error)),
    }
}
