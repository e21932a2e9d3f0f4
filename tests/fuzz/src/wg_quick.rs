use provisioning::wg_quick::{WgQuick, parse};
use tunnel::MTU_RANGE;

/// A file of wg-quick: a valid one has the properties of `Settings`, all others are explained.
pub fn wg_quick(bytes: &[u8]) {
    match parse("site.conf".as_ref(), bytes) {
        Ok(WgQuick { settings, .. }) => {
            assert!(MTU_RANGE.contains(&settings.mtu));
            assert!(!settings.addresses.is_empty() && !settings.hubs.is_empty());
            for hub in &settings.hubs {
                assert!(hub.endpoint.port > 0 && !hub.endpoint.host.is_empty());
                assert!(!hub.allowed_ips.is_empty());
            }
        }
        Err(rejected) => {
            let problems = &rejected.problems;
            assert!((1..=50).contains(&problems.len()));
            assert!(problems.iter().all(|problem| !problem.message.is_empty()));
            assert!(problems.iter().all(|problem| problem.help.is_some()));
            assert!(problems.is_sorted_by_key(|problem| problem.line));
            assert!(rejected.to_string().len() < 50 * 1000, "{rejected}");
        }
    }
}
