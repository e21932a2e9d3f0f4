//! What happens outside the tunnel, at the site's end.

use super::super::TunnelEvent;
use super::super::black_hole::BlackHoleDetector;
use super::super::clock::Now;
use super::super::hub_link::HubEndpoint;
use super::SiteTunnel;

impl SiteTunnel {
    pub(in crate::core) fn handle_event(&mut self, now: Now, event: TunnelEvent) {
        self.check_clock(now);
        match event {
            TunnelEvent::Resolved { hub, addresses } => {
                self.links.on_resolved(now.instant, hub, &addresses);
            }
            TunnelEvent::StampAccepted { hub, stamp } => {
                self.links.on_stamp_accepted(hub, stamp);
            }
            TunnelEvent::InterfaceDown { name } => self.interface_down = Some(name),
            TunnelEvent::InterfaceUp => self.interface_down = None,
            TunnelEvent::DatagramLooped => self.last_loop = Some(now.instant),
            TunnelEvent::NetworkChanged => {
                self.black_hole = BlackHoleDetector::default();
                self.request_rebind(now.instant);
                self.request_lookup(self.links.active().hub, now.instant);
                let link = self.links.active_mut();
                link.on_route_changed();
                link.timer.retry_now(now.instant);
            }
            TunnelEvent::ClockBoundsChanged(bounds) => {
                self.clock.bounds = bounds;
                let link = self.links.active_mut();
                if link.peer.is_none() {
                    link.timer.request_session(now.instant);
                }
            }
            TunnelEvent::PathError(error) => {
                let endpoint = self.links.active_endpoint();
                if endpoint.and_then(HubEndpoint::current_address) == Some(error.to) {
                    self.links.active_mut().on_path_error(now.instant, error);
                }
            }
            TunnelEvent::HostNetwork { routers, resolvers_inside } => {
                (self.routers, self.resolvers_inside) = (routers, resolvers_inside);
            }
        }
    }
}
