//! Which HTTP connection makes room for a new one.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use tokio::net::unix;

/// A connection that is served.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct OpenConnection {
    /// Address of the peer; absent on a Unix socket.
    pub(super) peer: Option<IpAddr>,
    /// What it waits for.
    pub(super) phase: ConnectionPhase,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum ConnectionPhase {
    /// For the request.
    Requesting,
    /// For the peer to take the answer.
    Answering,
}

/// The address of a peer, as far as it tells peers apart.
pub trait PeerAddress {
    /// Returns the IP address; absent on a Unix socket.
    fn ip(&self) -> Option<IpAddr>;
}

impl PeerAddress for SocketAddr {
    fn ip(&self) -> Option<IpAddr> {
        Some(self.ip())
    }
}

impl PeerAddress for unix::SocketAddr {
    fn ip(&self) -> Option<IpAddr> {
        None
    }
}

/// Returns the index of the connection to drop, given all of them from the oldest to the newest:
/// one without a complete request, of the peer with the most connections, the oldest.
pub(super) fn victim(open: &[OpenConnection]) -> Option<usize> {
    let of_peer = |peer| open.iter().filter(|one| one.peer == peer).count();
    let rank = |one: &OpenConnection| (one.phase, Reverse(of_peer(one.peer)));
    let ranked = open.iter().enumerate().map(|(index, one)| (rank(one), index));
    ranked.min().map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(phase: ConnectionPhase, peer: u8) -> OpenConnection {
        OpenConnection { phase, peer: Some(IpAddr::from([10, 0, 0, peer])) }
    }

    #[test]
    fn a_connection_without_a_request_goes_before_one_that_is_answered() {
        let all = [
            open(ConnectionPhase::Answering, 1),
            open(ConnectionPhase::Answering, 1),
            open(ConnectionPhase::Requesting, 2),
        ];
        assert_eq!(victim(&all), Some(2));
        assert_eq!(victim(&all[..2]), Some(0));
        assert_eq!(victim(&[]), None);
    }

    #[test]
    fn the_peer_with_the_most_connections_loses_its_oldest() {
        let all = [2, 1, 3, 1, 2, 1].map(|peer| open(ConnectionPhase::Requesting, peer));
        assert_eq!(victim(&all), Some(1));
    }
}
