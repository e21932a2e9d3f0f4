//! The web server of the bundles at a hub.

use super::wireguard::AFTER_TUNNEL;
use super::{BUNDLE_PORT, HubFile, HubView, public};

/// Returns its site, which is inside the tunnel only, and when it starts.
pub(super) fn render(view: &HubView<'_>) -> Vec<HubFile> {
    let site = format!(
        "# Made by edge-provision; changes here are lost.\n\
         server {{\n\
         \x20   listen {}:{BUNDLE_PORT};\n\
         \x20   location /bundles/ {{ alias /srv/bundles/; }}\n\
         }}\n",
        view.hub.address
    );
    vec![
        public("etc/nginx/conf.d/edge.conf", site),
        public("etc/systemd/system/nginx.service.d/edge.conf", AFTER_TUNNEL.to_owned()),
    ]
}
