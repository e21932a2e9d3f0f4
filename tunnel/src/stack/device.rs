//! The tunnel as smoltcp's device: packets go straight into it and out of it.

use smoltcp::phy::{self, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::core::{Now, Tunnel};
use crate::packets::Packets;
use crate::path::Outbox;

/// The tunnel for the time of one poll.
pub(super) struct Device<'d> {
    pub(super) tunnel: &'d mut Tunnel,
    pub(super) now: Now,
    pub(super) out: &'d mut Outbox,
    pub(super) inbound: &'d Packets,
    /// The first of `inbound` that has not been taken.
    pub(super) next: &'d mut usize,
    /// Room for one packet before it is encrypted.
    pub(super) room: &'d mut Vec<u8>,
}

/// A packet that came out of the tunnel.
pub(super) struct Arrived<'d>(&'d [u8]);

/// A packet that goes into the tunnel.
pub(super) struct Leaving<'d> {
    tunnel: &'d mut Tunnel,
    now: Now,
    out: &'d mut Outbox,
    room: &'d mut Vec<u8>,
}

impl phy::Device for Device<'_> {
    type RxToken<'a>
        = Arrived<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Leaving<'a>
    where
        Self: 'a;

    fn receive(&mut self, timestamp: Instant) -> Option<(Arrived<'_>, Leaving<'_>)> {
        let packet = self.inbound.get(*self.next)?;
        // An answer must have room, or the sender has to repeat.
        let at = *self.next;
        *self.next += usize::from(!self.out.is_full());
        (*self.next > at).then_some(())?;
        self.transmit(timestamp).map(|leaving| (Arrived(packet), leaving))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        if self.out.is_full() {
            return None;
        }
        let Self { tunnel, now, out, room, .. } = self;
        Some(Leaving { tunnel, now: *now, out, room })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.tunnel.mtu());
        capabilities
    }
}

impl RxToken for Arrived<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        self.room.resize(len, 0);
        let result = f(self.room);
        self.tunnel.handle_packet(self.now, self.room, self.out);
        result
    }
}
