//! Both ends can initiate the handshake, with and without a preshared key; with different preshared
//! keys there is no session. A router counts the messages.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, NetworkConditions, Traffic, TunnelTestbed, TunnelTestbedBuilder, WireguardGo,
};
use tunnel::PrivateKey;

/// Returns a preshared key: any 32 random bytes, such as those of a private key.
fn preshared() -> String {
    PrivateKey::generate().expose().to_string()
}

fn world(preshared_at_site: Option<&str>, preshared_at_hub: Option<&str>) -> TunnelTestbedBuilder {
    let conditions =
        NetworkConditions { delay: Duration::from_millis(1), ..NetworkConditions::default() };
    TunnelTestbed::builder()
        .behind_router(1, conditions)
        .with_preshared_keys(preshared_at_site, preshared_at_hub)
}

fn both_initiate_and_respond(preshared: Option<&str>) {
    let mut world = world(preshared, preshared).start();
    world.wait_for_data("the first message");
    let Traffic { up, down, mapped, .. } = world.router().traffic();
    assert_eq!(
        (up.initiations(), down.responses()),
        (1, 1),
        "the site initiates, the hub responds"
    );
    assert_eq!((down.initiations(), up.responses()), (0, 0), "the hub does not initiate");

    // A restarted hub with data to send initiates.
    world.hub.kill();
    world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
    assert!(!world.hub.has_handshake(&world.pair.hub));
    world.hub.set_site_endpoint(&world.pair.hub, mapped.expect("the site has sent"));
    assert!(world.scrape().contains("edge_tunnel_up 1"));

    let Traffic { up, down, .. } = world.router().traffic();
    assert!(down.initiations() >= 1 && up.responses() >= 1, "{up:?} {down:?}");
    assert_eq!((up.initiations(), down.responses()), (1, 1), "the site did not initiate again");
    assert!(world.hub.has_handshake(&world.pair.hub));
    world.consumer.drain(Duration::ZERO);
    world.wait_for_data("data on the session that the hub initiated");
}

#[test]
fn as_root_both_ends_initiate_and_respond_without_a_preshared_key() {
    both_initiate_and_respond(None);
}

#[test]
fn as_root_both_ends_initiate_and_respond_with_a_preshared_key() {
    both_initiate_and_respond(Some(&preshared()));
}

#[test]
fn as_root_with_different_preshared_keys_there_is_no_session_and_the_sentence_says_so() {
    let (ours, theirs) = (preshared(), preshared());
    for (at_site, at_hub) in
        [(Some(&ours), Some(&theirs)), (Some(&ours), None), (None, Some(&theirs))]
    {
        let mut world = world(at_site.map(String::as_str), at_hub.map(String::as_str)).start();
        let words = if at_site.is_some() {
            "a different preshared key"
        } else {
            "requires a preshared key"
        };
        let said = world.gateway.log().wait_for_line(words, EVENT_TIMEOUT);
        assert!(said.is_some(), "{at_site:?} {at_hub:?}: {}", world.gateway.log().text());
        assert!(!world.hub.has_handshake(&world.pair.hub));
        // The hub rejects the response of the site, too. It initiates at once only while it has not
        // responded itself.
        world.hub.kill();
        world.hub.start_again(&world.pair.hub, TunnelTestbed::MTU);
        let mapped = world.router().traffic().mapped.expect("the site has sent");
        world.hub.set_site_endpoint(&world.pair.hub, mapped);
        let ping = ["-c", "1", "-W", "2", WireguardGo::SITE_ADDRESS];
        let pinged = world.pair.hub.command("ping").args(ping).output();
        assert!(!pinged.expect("ping is installed").status.success());

        let Traffic { up, down, .. } = world.router().traffic();
        assert!(up.initiations() >= 1 && down.responses() >= 1, "{up:?} {down:?}");
        assert!(down.initiations() >= 1 && up.responses() >= 1, "{up:?} {down:?}");
        assert_eq!((up.data(), down.data()), (0, 0), "data passed");
        assert!(!world.hub.has_handshake(&world.pair.hub));
    }
}
