use super::*;

fn nets(text: &str) -> Vec<IpNet> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

fn hub() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

#[test]
fn networks_behind_the_hub_are_routed_once() {
    let allowed = nets("10.77.3.9/16 10.77.0.0/16 fd00::/64 10.1.0.0/24");
    let routes = tunnel_routes(&allowed, &nets("10.1.0.5/24 10.77.0.12/32"), &[hub()]);
    assert_eq!(routes, Ok(nets("10.77.0.0/16 fd00::/64")));
}

#[test]
fn the_way_to_the_hub_is_never_taken_into_the_tunnel() {
    let network = nets("192.0.0.0/16")[0];
    let refused = Err(RouteError::ContainsHub { network, hub: hub() });
    assert_eq!(tunnel_routes(&nets("10.0.0.0/8 192.0.2.0/16"), &[], &[hub()]), refused);
    assert_eq!(tunnel_routes(&[], &nets("192.0.9.9/16"), &[hub()]), refused);
    assert_eq!(containing_route(&nets("10.0.0.0/8"), hub()), None);
}

#[test]
fn everything_is_refused_in_one_piece_or_two() {
    for all in ["0.0.0.0/0", "0.0.0.0/1 128.0.0.0/1", "10.0.0.0/8 ::/0", "::/1 8000::/1"] {
        let refused = tunnel_routes(&nets(all), &[], &[]);
        assert!(matches!(refused, Err(RouteError::CoversEverything(_))), "{all}");
    }
}
