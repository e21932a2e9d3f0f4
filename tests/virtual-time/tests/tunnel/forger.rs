//! An attacker who speaks WireGuard.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use tunnel::{PrivateKey, PublicKey};

/// One end of a tunnel that sends anything a test wants.
pub(crate) struct Forger {
    tunn: Tunn,
}

impl Forger {
    /// Creates a forger with this key that connects to that peer.
    pub(crate) fn new(key: &PrivateKey, peer: PublicKey) -> Self {
        let (secret, public) = (bytes(&key.expose()), bytes(&peer.to_string()));
        Self { tunn: Tunn::new(secret.into(), public.into(), None, None, 4711, None) }
    }

    /// Returns an initiation with a valid first MAC.
    pub(crate) fn initiation(&mut self) -> Vec<u8> {
        let mut buffer = [0; 148];
        match self.tunn.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(initiation) => initiation.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Handles a datagram; returns the reply.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 70_000];
        match self.tunn.decapsulate(Some([192, 0, 2, 1].into()), datagram, &mut buffer) {
            TunnResult::WriteToNetwork(answer) => Some(answer.to_vec()),
            _ => None,
        }
    }

    /// Encrypts any bytes, whether they are a packet or not.
    pub(crate) fn encrypt(&mut self, inside: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        match self.tunn.encapsulate(inside, &mut buffer) {
            TunnResult::WriteToNetwork(datagram) => datagram.to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

fn bytes(key: &str) -> [u8; 32] {
    STANDARD.decode(key).expect("a key").try_into().expect("32 bytes")
}
