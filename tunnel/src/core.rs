//! The tunnel as a state machine: no socket, no runtime, and no clock but boringtun's own.
//!
//! `peer` is the only module that uses boringtun's `Tunn`. The other modules decide: `handshake`
//! when to begin one, `hub_selector` with which hub, `hub_link` at which address, `clock` whether
//! the wall clock allows it, `ip_header` and `allowed_ips` which packets pass, `black_hole` whether
//! the MTU is too large.

mod allowed_ips;
mod black_hole;
mod clock;
mod counters;
mod handshake;
mod hub;
mod hub_link;
mod hub_links;
mod hub_selector;
mod ip_header;
mod key_sharing;
mod limiter;
mod path_error;
mod peer;
mod pending_packets;
mod report;
mod site;
mod tcp_segment;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

pub use clock::{ClockBounds, Now};
pub use counters::{Counters, DropReason};
pub use path_error::{PathError, PathErrorCause};
pub use report::{TunnelDiagnosis, TunnelReport, TunnelState};
pub(crate) use tcp_segment::TcpSegment;

use crate::packet_buffer::PacketSink;
use crate::settings::{self, Endpoint};
use crate::transport::SendBatch;

/// One end of a tunnel.
///
/// The driver calls a `handle_` method for each input, and [`Tunnel::handle_timeout`] at
/// [`Tunnel::poll_timeout`] at the latest. Then it executes what [`Tunnel::next_request`] returns,
/// and last sends the [`SendBatch`]: an initiation that follows a [`TunnelRequest::Rebind`] must
/// leave from the new port, or its response is lost. Calls that come late, even by days, do no
/// harm.
#[derive(Debug)]
pub struct Tunnel {
    role: Role,
}

#[derive(Debug)]
enum Role {
    Site(Box<site::SiteTunnel>),
    Hub(Box<hub::HubTunnel>),
}

/// Something that has happened outside the tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TunnelEvent {
    /// A look-up has ended; no addresses mean that it failed.
    Resolved {
        /// Number of the hub in the settings.
        hub: usize,
        /// All of its addresses, in the order in which to try them.
        addresses: Vec<SocketAddr>,
    },
    /// The hub has accepted a handshake with this timestamp from an earlier run. It only changes
    /// the diagnosis, because the hub may have forgotten it.
    StampAccepted {
        /// Number of the hub in the settings.
        hub: usize,
        /// The timestamp, a time of this machine's wall clock.
        stamp: SystemTime,
    },
    /// The host has routed a datagram of this tunnel into the tunnel, which cannot carry itself.
    DatagramLooped,
    /// This host reaches the hub through another interface, router or source address, or again.
    NetworkChanged,
    /// The network interface of the tunnel was taken down.
    InterfaceDown {
        /// Its present name.
        name: String,
    },
    /// The network interface of the tunnel is up again.
    InterfaceUp,
    /// New bounds for the wall clock.
    ClockBoundsChanged(ClockBounds),
    /// A datagram did not arrive. It only changes the diagnosis, because it can be forged.
    PathError(PathError),
    /// What the routers and DNS servers of this host are. It only changes the diagnosis.
    HostNetwork {
        /// Its default routers.
        routers: Vec<IpAddr>,
        /// The DNS servers that it reaches through the tunnel only.
        resolvers_inside: Vec<IpAddr>,
    },
}

/// Something that the driver must do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TunnelRequest {
    /// Look up a name and answer with [`TunnelEvent::Resolved`]. Without an answer it is requested
    /// again after a minute.
    Resolve(HubLookup),
    /// Open another local port: [`Transport::rebind`](crate::Transport::rebind).
    Rebind,
}

/// A name to look up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubLookup {
    /// Number of the hub in the settings.
    pub hub: usize,
    /// The name and port.
    pub endpoint: Endpoint,
}

impl Tunnel {
    /// Creates the site's end; its first initiation is due at once. `seed` determines jitter and
    /// indices and must differ at each start.
    #[must_use]
    pub fn site(settings: settings::Settings, bounds: ClockBounds, now: Now, seed: u64) -> Self {
        Self { role: Role::Site(Box::new(site::SiteTunnel::new(settings, bounds, now, seed))) }
    }

    /// Creates the hub's end. `seed` as for a site.
    #[must_use]
    pub fn hub(settings: settings::HubSettings, now: Now, seed: u64) -> Self {
        Self { role: Role::Hub(Box::new(hub::HubTunnel::new(settings, now, seed))) }
    }

    /// Handles a datagram. A packet inside it goes to `packets`, a reply to `out`.
    pub fn handle_datagram(
        &mut self,
        now: Now,
        datagram: (SocketAddr, &[u8]),
        out: &mut SendBatch,
        packets: &mut impl PacketSink,
    ) {
        match &mut self.role {
            Role::Site(site) => site.handle_datagram(now, datagram, out, packets),
            Role::Hub(hub) => hub.handle_datagram(now, datagram, out, packets),
        }
    }

    /// Encrypts an IP packet for the other end into `out`. Without a session up to 64 packets wait
    /// for at most 5 s. Each packet that is dropped is counted.
    pub fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut SendBatch) {
        match &mut self.role {
            Role::Site(site) => site.handle_packet(now, packet, out),
            Role::Hub(hub) => hub.handle_packet(now, packet, out),
        }
    }

    /// Records the networks that the host routes into the tunnel. The hub is never looked for at an
    /// address in them, whatever its name resolves to and wherever its datagrams come from.
    pub fn set_host_routes(&mut self, networks: Vec<IpNet>) {
        match &mut self.role {
            Role::Site(site) => site.set_host_routes(networks),
            Role::Hub(_) => {}
        }
    }

    /// Returns what [`Tunnel::set_host_routes`] has recorded.
    pub(crate) fn host_routes(&self) -> &[IpNet] {
        match &self.role {
            Role::Site(site) => site.host_routes(),
            Role::Hub(_) => &[],
        }
    }

    /// Returns the time since the other end was last heard; `None` at the hub's end, and before the
    /// first datagram.
    pub(crate) fn silent_for(&self, now: Instant) -> Option<Duration> {
        match &self.role {
            Role::Site(site) => site.silent_for(now),
            Role::Hub(_) => None,
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut SendBatch) {
        match &mut self.role {
            Role::Site(site) => site.handle_timeout(now, out),
            Role::Hub(hub) => hub.handle_timeout(now, out),
        }
    }

    /// Returns when to call [`Tunnel::handle_timeout`] at the latest; may be in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Site(site) => site.poll_timeout(),
            Role::Hub(hub) => hub.poll_timeout(),
        }
    }

    /// Records an event. Its effects follow at the next [`Tunnel::handle_timeout`], which is due at
    /// once.
    pub fn handle_event(&mut self, now: Now, event: TunnelEvent) {
        match &mut self.role {
            Role::Site(site) => site.handle_event(now, event),
            Role::Hub(_) => {}
        }
    }

    /// Returns the next thing that the driver must do.
    pub fn next_request(&mut self) -> Option<TunnelRequest> {
        match &mut self.role {
            Role::Site(site) => site.next_request(),
            Role::Hub(_) => None,
        }
    }

    /// Counts packets that were dropped outside the tunnel.
    pub fn add_dropped(&mut self, reason: DropReason, count: u64) {
        let counters = match &mut self.role {
            Role::Site(site) => site.counters_mut(),
            Role::Hub(hub) => hub.counters_mut(),
        };
        counters.add_dropped(reason, count);
    }

    /// Returns the state; cheap.
    #[must_use]
    pub fn state(&self, now: Now) -> TunnelState {
        match &self.role {
            Role::Site(site) => site.state(now),
            Role::Hub(hub) => hub.state(now),
        }
    }

    /// Returns state, diagnosis and counters.
    #[must_use]
    pub fn report(&self, now: Now) -> TunnelReport {
        match &self.role {
            Role::Site(site) => site.report(now),
            Role::Hub(hub) => hub.report(now),
        }
    }

    /// Returns the addresses of this end inside the tunnel.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        match &self.role {
            Role::Site(site) => &site.settings().addresses,
            Role::Hub(hub) => &hub.settings().addresses,
        }
    }

    /// Returns the length of the longest packet inside the tunnel, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        match &self.role {
            Role::Site(site) => site.settings().mtu,
            Role::Hub(hub) => hub.settings().mtu,
        }
    }
}
