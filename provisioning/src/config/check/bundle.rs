//! `[bundle]`.

use super::tunnel::TunnelPresence;
use crate::config::BundleSettings;
use crate::config::context::ReadContext;
use crate::config::field::FieldState;
use crate::config::raw::RawBundle;

/// Returns the settings. Rejects an address that could not be reached through the tunnel, because
/// nothing is fetched outside of it.
pub(super) fn check_bundle(
    raw: &RawBundle,
    tunnel: &TunnelPresence<'_>,
    context: &mut ReadContext<'_>,
) -> Option<BundleSettings> {
    let url = raw.url.optional(context);
    let confirm = raw.confirm.optional(context)?.0;
    let Some(url) = url else {
        let is_absent = matches!(raw.url.state, FieldState::Absent);
        return is_absent.then_some(BundleSettings { url: None, confirm });
    };
    let server = url.0.address.ip();
    if let Some((message, help)) = tunnel.unreachable("web server", server, "") {
        context.reject(&raw.url.key, message, Some(help));
        return None;
    }
    Some(BundleSettings { url: Some(url.0), confirm })
}
