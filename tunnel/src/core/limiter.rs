//! What a handshake message has to show before anything is computed for it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};

use super::counters::DropReason;
use super::peer;
use crate::key::{PrivateKey, PublicKey};

/// Handshake messages per second that are answered without proof of their sender's address. Each
/// initiation counts twice at a hub.
const HANDSHAKES_PER_SECOND: u64 = 20;

/// Keeps a flood of handshake messages from costing much: when there are many, only those are looked
/// at whose sender has proven its address by a cookie.
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

    /// Lets the next second begin, if it has. To be called whenever a message comes.
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
    /// It says that it is this one; the handshake will show.
    ClaimsKey(PublicKey),
    /// We are under load: this answers it.
    Cookie(Vec<u8>),
    /// Nobody who knows us.
    Dropped(DropReason),
}

/// Finds out who sent an initiation, at the price of two points multiplied; only for one whose first
/// MAC is valid and, under load, whose second is.
pub(super) fn check_initiator(
    private_key: &PrivateKey,
    limiter: &HandshakeLimiter,
    from: IpAddr,
    datagram: &[u8],
) -> Initiator {
    let mut room = [0; peer::MAX_HANDSHAKE_LEN];
    let packet = match limiter.0.verify_packet(Some(from), datagram, &mut room) {
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
