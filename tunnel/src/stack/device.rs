//! The tunnel as a smoltcp device: packets go directly into it and out of it.

use smoltcp::phy::{self, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use crate::core::{Now, Tunnel};
use crate::packet_buffer::PacketBuffer;
use crate::transport::SendBatch;

/// The tunnel during one poll.
pub(super) struct TunnelPhy<'d> {
    pub(super) tunnel: &'d mut Tunnel,
    pub(super) now: Now,
    pub(super) out: &'d mut SendBatch,
    pub(super) inbound: &'d PacketBuffer,
    /// Index of the first packet of `inbound` that was not received yet.
    pub(super) next: &'d mut usize,
    /// Holds one packet before it is encrypted.
    pub(super) scratch: &'d mut Vec<u8>,
}

/// A packet from the tunnel.
pub(super) struct TunnelRxToken<'d>(&'d [u8]);

/// A packet for the tunnel.
pub(super) struct TunnelTxToken<'d> {
    tunnel: &'d mut Tunnel,
    now: Now,
    out: &'d mut SendBatch,
    scratch: &'d mut Vec<u8>,
}

impl phy::Device for TunnelPhy<'_> {
    type RxToken<'a>
        = TunnelRxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TunnelTxToken<'a>
    where
        Self: 'a;

    fn receive(&mut self, timestamp: Instant) -> Option<(TunnelRxToken<'_>, TunnelTxToken<'_>)> {
        let packet = self.inbound.get(*self.next)?;
        // Without room for a reply the peer would have to retransmit.
        let at = *self.next;
        *self.next += usize::from(!self.out.is_full());
        (*self.next > at).then_some(())?;
        self.transmit(timestamp).map(|leaving| (TunnelRxToken(packet), leaving))
    }

    fn transmit(&mut self, _: Instant) -> Option<TunnelTxToken<'_>> {
        if self.out.is_full() {
            return None;
        }
        let Self { tunnel, now, out, scratch, .. } = self;
        Some(TunnelTxToken { tunnel, now: *now, out, scratch })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(self.tunnel.mtu());
        capabilities
    }
}

impl RxToken for TunnelRxToken<'_> {
    fn consume<R, F>(self, f: F) -> R
    where
        F: FnOnce(&[u8]) -> R,
    {
        f(self.0)
    }
}

impl TxToken for TunnelTxToken<'_> {
    fn consume<R, F>(self, len: usize, f: F) -> R
    where
        F: FnOnce(&mut [u8]) -> R,
    {
        self.scratch.resize(len, 0);
        let result = f(self.scratch);
        self.tunnel.handle_packet(self.now, self.scratch, self.out);
        result
    }
}
