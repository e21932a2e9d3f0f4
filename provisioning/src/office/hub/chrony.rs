//! The time server inside the tunnel.

use super::HubView;

/// Returns `/etc/chrony/conf.d/edge.conf`: answers only the sites and the office.
pub(super) fn settings(view: &HubView<'_>) -> String {
    // Without the internet the hub's own clock is better than none: a box without a battery clock
    // begins in 1970.
    format!(
        "# Made by edge-provision; changes here are lost.\n\
         allow {}\n\
         bindaddress {}\n\
         local stratum 10\n",
        view.fleet.settings().plan.network,
        view.hub.address,
    )
}
