//! The tunnel as a smoltcp device: packets go directly into it and out of it.

use smoltcp::phy::{self, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::path_mtu::PathMtus;
use crate::core::{DropReason, Now, Tunnel};
use crate::device::{clamp_mss, split_tcp};
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
    pub(super) paths: &'d mut PathMtus,
}

/// A packet from the tunnel.
pub(super) struct TunnelRxToken<'d>(&'d [u8]);

/// A packet for the tunnel.
pub(super) struct TunnelTxToken<'d> {
    tunnel: &'d mut Tunnel,
    now: Now,
    out: &'d mut SendBatch,
    scratch: &'d mut Vec<u8>,
    paths: &'d mut PathMtus,
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
        self.paths.on_received(self.now.instant, packet);
        self.transmit(timestamp).map(|leaving| (TunnelRxToken(packet), leaving))
    }

    fn transmit(&mut self, _: Instant) -> Option<TunnelTxToken<'_>> {
        if self.out.is_full() {
            return None;
        }
        let Self { tunnel, now, out, scratch, paths, .. } = self;
        Some(TunnelTxToken { tunnel, now: *now, out, scratch, paths })
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
        let Self { tunnel, now, out, scratch, paths } = self;
        scratch.resize(len, 0);
        let result = f(scratch);
        let Some(mtu) = paths.on_sent(now.instant, scratch, tunnel.silent_for(now.instant)) else {
            tunnel.handle_packet(now, scratch, out);
            return result;
        };
        if len <= usize::from(mtu) {
            clamp_mss(scratch, mtu);
            tunnel.handle_packet(now, scratch, out);
        } else if split_tcp(scratch, mtu, |part| tunnel.handle_packet(now, part, out)).is_err() {
            // Nothing was sent: a packet that cannot be split is malformed.
            tunnel.add_dropped(DropReason::Malformed, 1);
        }
        result
    }
}
