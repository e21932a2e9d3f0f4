use tunnel::MTU_RANGE;
use tunnel::wg_quick::{WgQuick, parse};

/// A file of wg-quick: what is taken keeps what `Settings` promises, what is not is explained.
pub fn wg_quick(bytes: &[u8]) {
    match parse(bytes) {
        Ok(WgQuick { settings, .. }) => {
            assert!(MTU_RANGE.contains(&settings.mtu));
            assert!(!settings.addresses.is_empty() && !settings.hubs.is_empty());
            for hub in &settings.hubs {
                assert!(hub.endpoint.port > 0 && !hub.endpoint.host.is_empty());
                assert!(!hub.allowed_ips.is_empty());
            }
        }
        Err(rejected) => {
            assert!((1..=50).contains(&rejected.problems.len()));
            assert!(rejected.problems.iter().all(|it| !it.what.is_empty() && !it.help.is_empty()));
            assert!(rejected.problems.is_sorted_by_key(|problem| problem.line));
            assert!(rejected.to_string().len() < 50 * 300, "{rejected}");
        }
    }
}
