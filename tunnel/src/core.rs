//! The tunnel as a state machine: no socket, no runtime, and no clock but boringtun's own.
//!
//! `peer` is the only file that names boringtun's `Tunn`. Everything else decides: `handshake` when
//! to begin one, `hubs` with whom, `link` where to, `clock` whether the wall clock allows it,
//! `packet` and `allowed` what may pass, `long` whether the MTU is too large.

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
mod limiter;
mod peer;
mod pending_packets;
mod report;
mod site;
mod wire;

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

pub use clock::{ClockBounds, Now};
pub use counters::{Counters, DropReason};
pub use report::{TunnelDiagnosis, TunnelReport, TunnelState};

use crate::packet_buffer::PacketSink;
use crate::settings::{self, Endpoint};
use crate::transport::SendBatch;

/// One end of a tunnel.
///
/// Whoever drives it calls one of the verbs whenever something happens, at the latest at
/// [`Tunnel::poll_timeout`], then obeys [`Tunnel::next_request`] and at last sends what is in the
/// [`Outbox`]: an initiation that follows a [`Request::Rebind`] leaves from the new port, or its
/// answer is lost. It may be driven late, or not for days: it then catches up.
#[derive(Debug)]
pub struct Tunnel {
    role: Role,
}

#[derive(Debug)]
enum Role {
    Site(Box<site::SiteTunnel>),
    Hub(Box<hub::HubTunnel>),
}

/// Something that has happened outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TunnelEvent {
    /// A name was looked up; no addresses mean that it failed.
    Resolved {
        /// The hub's number in the settings.
        hub: usize,
        /// All of its addresses, in the order in which to try them.
        addresses: Vec<SocketAddr>,
    },
    /// A name was looked up, and all of its addresses lie in networks that the tunnel leads to: it
    /// cannot carry itself.
    ResolvedInsideTunnel {
        /// The hub's number in the settings.
        hub: usize,
    },
    /// The way out is another: device, router or our address; or there is one again.
    NetworkChanged,
    /// What is known about the right time.
    ClockBoundsChanged(ClockBounds),
    /// The host at this address says that nothing listens there (ICMP port unreachable). Only makes
    /// the sentence better, since anybody can say so.
    PortUnreachable(SocketAddr),
}

/// Something that has to be done outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TunnelRequest {
    /// Look up a name and answer with [`Event::Resolved`] or [`Event::Inside`]. What is not answered
    /// within a minute is asked again.
    Resolve(HubLookup),
    /// Take a new local port: [`Path::rebind`](crate::Path::rebind).
    Rebind,
}

/// A name that has to be looked up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubLookup {
    /// The hub's number in the settings.
    pub hub: usize,
    /// What to look up.
    pub endpoint: Endpoint,
}

impl Tunnel {
    /// Makes the site's end; its first initiation is due at once. `seed` decides jitter and
    /// indices: another one at each start.
    #[must_use]
    pub fn site(settings: settings::Settings, bounds: ClockBounds, now: Now, seed: u64) -> Self {
        Self { role: Role::Site(Box::new(site::SiteTunnel::new(settings, bounds, now, seed))) }
    }

    /// Makes the hub's end. `seed` as for a site.
    #[must_use]
    pub fn hub(settings: settings::HubSettings, now: Now, seed: u64) -> Self {
        Self { role: Role::Hub(Box::new(hub::HubTunnel::new(settings, now, seed))) }
    }

    /// Takes a datagram. A packet inside it goes to `packets`, what answers it to `out`.
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

    /// Takes an IP packet to the other end. It is encrypted into `out`; without a session up to 64
    /// of them wait, 5 s at most. Whatever is dropped is counted.
    pub fn handle_packet(&mut self, now: Now, packet: &[u8], out: &mut SendBatch) {
        match &mut self.role {
            Role::Site(site) => site.handle_packet(now, packet, out),
            Role::Hub(hub) => hub.handle_packet(now, packet, out),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, out: &mut SendBatch) {
        match &mut self.role {
            Role::Site(site) => site.handle_timeout(now, out),
            Role::Hub(hub) => hub.handle_timeout(now, out),
        }
    }

    /// When to call [`Tunnel::handle_timeout`] at the latest. May lie in the past.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.role {
            Role::Site(site) => site.poll_timeout(),
            Role::Hub(hub) => hub.poll_timeout(),
        }
    }

    /// Takes what has happened outside. What follows from it is done at the next
    /// [`Tunnel::handle_timeout`], which is due at once.
    pub fn handle_event(&mut self, now: Now, event: TunnelEvent) {
        match &mut self.role {
            Role::Site(site) => site.handle_event(now, event),
            Role::Hub(_) => {}
        }
    }

    /// What has to be done outside, if anything.
    pub fn next_request(&mut self) -> Option<TunnelRequest> {
        match &mut self.role {
            Role::Site(site) => site.next_request(),
            Role::Hub(_) => None,
        }
    }

    /// Counts what was lost outside.
    pub fn add_dropped(&mut self, reason: DropReason, count: u64) {
        let counters = match &mut self.role {
            Role::Site(site) => site.counters_mut(),
            Role::Hub(hub) => hub.counters_mut(),
        };
        counters.add_dropped(reason, count);
    }

    /// How it is; cheap.
    #[must_use]
    pub fn state(&self, now: Now) -> TunnelState {
        match &self.role {
            Role::Site(site) => site.state(now),
            Role::Hub(hub) => hub.state(now),
        }
    }

    /// How it is, with everything that can be told.
    #[must_use]
    pub fn report(&self, now: Now) -> TunnelReport {
        match &self.role {
            Role::Site(site) => site.report(now),
            Role::Hub(hub) => hub.report(now),
        }
    }

    /// Our addresses inside.
    #[must_use]
    pub fn addresses(&self) -> &[IpNet] {
        match &self.role {
            Role::Site(site) => &site.settings().addresses,
            Role::Hub(hub) => &hub.settings().addresses,
        }
    }

    /// Longest packet inside, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        match &self.role {
            Role::Site(site) => site.settings().mtu,
            Role::Hub(hub) => hub.settings().mtu,
        }
    }
}
