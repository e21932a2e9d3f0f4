//! What a bundle on trial must have reached.

use std::fmt;

/// What was reached with a bundle since its last start. PLCs are no part of it: machines are
/// switched off at night.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// The tunnel is up to one of its hubs, or the bundle has no tunnel.
    pub tunnel: bool,
    /// The broker has accepted the connection.
    pub broker: bool,
    /// The broker has granted the subscription to `offer`, and has sent the offer of this bundle
    /// again if it came by one: some brokers grant what they do not allow.
    pub offer: bool,
    /// The broker has granted the subscription to `set`, or nothing is writable.
    pub set: bool,
    /// The broker has acknowledged the status with the counter of this bundle.
    pub status: bool,
    /// This bundle was fetched again.
    pub bundle_refetched: bool,
    /// The version that the bundle names runs, or the box does not decide about the version.
    pub version: bool,
}

/// Something that a bundle on trial has not reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MissingEvidence {
    /// The tunnel is not up.
    Tunnel,
    /// The broker has not accepted the connection.
    Broker,
    /// The broker has not granted `offer`, or sends nothing on it.
    Offer,
    /// The broker has not granted `set`.
    Set,
    /// The broker has not acknowledged the status.
    Status,
    /// The bundle was not fetched again.
    Refetch,
    /// The version that the bundle names is not installed.
    Version,
}

impl Evidence {
    /// Returns what was not reached, in the order in which it is reached. Nothing behind the first
    /// of it says more, except that both subscriptions may be refused.
    #[must_use]
    pub fn missing(&self) -> Vec<MissingEvidence> {
        let all = [
            (self.tunnel, MissingEvidence::Tunnel),
            (self.broker, MissingEvidence::Broker),
            (self.offer, MissingEvidence::Offer),
            (self.set, MissingEvidence::Set),
            (self.status, MissingEvidence::Status),
            (self.bundle_refetched, MissingEvidence::Refetch),
            (self.version, MissingEvidence::Version),
        ];
        let mut missing: Vec<_> =
            all.into_iter().filter(|(is_reached, _)| !is_reached).map(|(_, what)| what).collect();
        let reported = match missing.as_slice() {
            [MissingEvidence::Offer, MissingEvidence::Set, ..] => 2,
            _ => 1,
        };
        missing.truncate(reported);
        missing
    }
}

impl fmt::Display for MissingEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tunnel => "the tunnel did not come up: check the hub, its key and the network",
            Self::Broker => {
                "the broker did not accept the connection: check its address and the \
                             user of this gateway"
            }
            Self::Offer => {
                "the broker sent no offer, or did not grant the subscription to it: check its \
                 access list for `offer`"
            }
            Self::Set => {
                "the broker did not grant the subscription to `set`: check its access list"
            }
            Self::Status => "the broker did not acknowledge the status: check its access list",
            Self::Refetch => "the bundle could not be fetched again: check `[bundle] url`",
            Self::Version => {
                "the version of the bundle is not installed: check `packages` at the web server, and \
                 `systemctl status edge-gateway-box-update`"
            }
        })
    }
}
