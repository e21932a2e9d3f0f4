//! A made-up tunnel for tests of its users.

/// Returns a hub with one network behind it.
pub(crate) fn hub((name, network): (&str, &str)) -> tunnel::Hub {
    tunnel::Hub {
        name: name.to_owned(),
        endpoint: tunnel::Endpoint { host: "192.0.2.2".to_owned(), port: 51820 },
        public_key: tunnel::PrivateKey::generate().public_key(),
        preshared_key: None,
        allowed_ips: vec![network.parse().unwrap()],
    }
}

/// Returns the report of a tunnel that is up, through this hub.
pub(crate) fn report(hub: &str) -> tunnel::TunnelReport {
    tunnel::TunnelReport {
        state: tunnel::TunnelState::Up,
        diagnosis: tunnel::TunnelDiagnosis::Up { hub: hub.to_owned() },
        hub: hub.to_owned(),
        endpoint: None,
        unanswered_since: None,
        last_handshake: None,
        accepted_stamp: None,
        counters: tunnel::Counters::default(),
    }
}
