//! Sites as they are: what firewalls, routers, DNS servers, other devices and the operator of the
//! hub do to a tunnel. Each site has a machine, a gateway and a PLC of its own; all share a router
//! and a hub, and have their trouble at the same time.
//!
//! Public reports of such sites, and the tests of each. `field` is this file; `causes`, `clocks`,
//! `routes` and `states` are those of tests/virtual-time; the rest are unit tests.
//!
//! 1. The hub answers from an address that is routed into the tunnel:
//!    `tunnel::device_tunnel::own_datagrams`,
//!    `states::an_address_inside_the_tunnel_is_not_kept..`.
//! 2. A smaller MTU behind the hub: `tunnel::stack::paths::a_message_arrives_within_30_s..`; "All
//!    is well": `gateway::status`.
//! 3. IPv6 is off, and a network behind the hub is IPv6: field `IPv6 is off`,
//!    `tunnel::netlink::interface::as_root_what_cannot_be_set..`.
//! 4. The DNS server is in a network that is routed through the tunnel: field `DNS server in the
//!    tunnel`, `causes::a_slow_look_up..`, `provisioning` `what_run_would_refuse..`.
//! 5. A strict rp_filter, and the site's network overlaps: field `strict rp_filter`,
//!    `tunnel::netlink::interface::as_root_a_strict_rp_filter..`.
//! 6. The interface is renamed: field `renamed interface`,
//!    `tunnel::netlink::interface::as_root_a_renamed_interface..`.
//! 7. The site's router rejects UDP: field `router rejects`, `causes::the_host_that_rejects..`.
//! 8. `allowed_ips` that `tun` mode cannot have: `provisioning`
//!    `what_run_would_refuse_or_could_never_reach_is_rejected`.
//! 9. The DNS server drops AAAA queries: field `AAAA is dropped`.
//! 10. Own firewall, no route, cable, prohibited: field, a row each;
//!     `causes::a_cable_that_is_pulled..`.
//! 11. The hub knows another address for the key: field `other AllowedIPs`,
//!     `causes::a_hub_with_another_address..`.
//! 12. Two gateways with one key: field `two boxes with one key`, `causes::a_second_device..`.
//! 13. A blocked name, a captive portal: field, a row each; `causes::a_name_that_is_blocked..`.
//! 14. A preshared key at the hub only, a wrong public key: field, a row each;
//!     `causes::a_preshared_key..`.
//! 15. Files of wg-quick as people have them: `provisioning::wg_quick`
//!     `files_of_panels_and_providers_are_accepted` and its siblings.
//! 16. An IPv6 broker, and a tunnel with an IPv4 address: `provisioning` `what_run_would_refuse..`.
//! 17. A ping from the hub:
//!     `tunnel::stack::paths::a_ping_from_the_hub_is_answered_in_both_families`.
//! 18. The broker's address is the gateway's own: `provisioning` `what_run_would_refuse..`.
//! 19. IPv6 addresses of the hub come first and are dead: field `dead AAAA`,
//!     `routes::the_address_that_works..`.
//! 20. An LTE stick comes back with another name, address and router: field, a row for each mode.
//! 21. The hub moves: field `the hub moves`, `routes::a_new_address_of_a_name_is_found`.
//! 22. The tunnel's address is in the site's own network: field `address in the LAN`.
//! 23. The process stops for longer than a session:
//!     `clocks::a_driver_that_was_delayed_by_20_minutes..`, `clocks::after_10_minutes_suspended..`.
//! 24. IPv6 inside the tunnel: field, a row for each mode.
//! 25. Key files with line breaks of Windows, blanks, a byte order mark: `provisioning`
//!     `a_byte_order_mark_blanks_and_line_breaks_around_a_key_are_ignored`.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "test code may stop on the spot")]

#[path = "the_tunnel_in_the_field/cases.rs"]
mod cases;
#[path = "the_tunnel_in_the_field/field.rs"]
mod field;

use std::thread;

use cases::cases;
use field::Field;

#[test]
fn as_root_each_trouble_is_named_by_its_code_and_ends_by_itself() {
    let cases = cases();
    let field = Field::start(cases.len());
    let field = &field;
    let failed: Vec<&str> = thread::scope(|scope| {
        let sites: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(index, case)| (case.name, scope.spawn(move || field.run(index, case))))
            .collect();
        sites.into_iter().filter_map(|(name, site)| site.join().err().map(|_| name)).collect()
    });
    assert!(failed.is_empty(), "see above: {failed:?}");
}
