//! `[tunnel]`, and its effect on `[mqtt]` and `[metrics]`.
#![expect(clippy::result_large_err, reason = "figment's jail requires its own error")]
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use figment::Jail;
use provisioning::config::{self, Config, FileCheck, Listen, TunnelMode, Via};

const FILE: &str = r#"
[gateway]
id = "plant-7"

[tunnel]
private_key_file = "tunnel.key"
address = "10.77.0.12/32"

[[tunnel.hub]]
name = "hub-a"
endpoint = "hub-a.example.net:51820"
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
allowed_ips = ["10.77.0.0/16", "fd77::/48"]

[mqtt]
brokers = ["mqtt://10.77.0.1"]

[[plc]]
name = "pump6"
model = "M241"
address = "192.168.1.10"

[[plc.tag]]
name = "temperature"
at = "%MW10"
type = "REAL"
"#;

const KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n";

fn with(text: &str, mode: u32, check: impl FnOnce()) {
    Jail::expect_with(|jail| {
        jail.create_file("gateway.toml", text)?;
        jail.create_file("tunnel.key", KEY)?;
        fs::set_permissions("tunnel.key", fs::Permissions::from_mode(mode)).unwrap();
        check();
        Ok(())
    });
}

fn load() -> Config {
    match config::load(Path::new("gateway.toml")) {
        Ok(loaded) => loaded.config,
        Err(rejected) => unreachable!("{rejected}"),
    }
}

fn error_text() -> String {
    match config::load(Path::new("gateway.toml")) {
        Ok(_) => unreachable!("an invalid configuration was accepted"),
        Err(rejected) => rejected.to_string(),
    }
}

#[test]
fn mqtt_and_metrics_use_the_tunnel_by_default() {
    with(FILE, 0o600, || {
        let config = load();
        let tunnel = config.tunnel.unwrap();
        assert_eq!(tunnel.mode, TunnelMode::Userspace);
        assert_eq!(tunnel.settings.mtu, 1280);
        assert_eq!(tunnel.settings.keep_alive, Some(Duration::from_secs(25)));
        assert_eq!(tunnel.settings.addresses[0].to_string(), "10.77.0.12/32");
        assert_eq!(tunnel.settings.hubs[0].endpoint.to_string(), "hub-a.example.net:51820");
        assert_eq!(tunnel.settings.hubs[0].allowed_ips[1].to_string(), "fd77::/48");
        assert_eq!(config.mqtt.via, Via::Tunnel);
        assert_eq!(config.metrics.listen, [Listen::Tunnel(9464)]);
    });
}

#[test]
fn a_tunnel_with_mode_off_is_absent_and_its_keys_are_ignored() {
    let off = FILE.replace("private_key_file = \"tunnel.key\"", "mode = \"off\"");
    with(&off, 0o600, || {
        let config = load();
        assert!(config.tunnel.is_none());
        assert_eq!(config.mqtt.via, Via::Direct);
        assert_eq!(config.metrics.listen, [Listen::Address(([127, 0, 0, 1], 9464).into())]);
    });
}

#[test]
fn mqtt_can_be_configured_to_bypass_the_tunnel() {
    let direct = FILE.replace("brokers =", "via = \"direct\"\nbrokers =");
    let direct = direct.replace("mqtt://10.77.0.1", "mqtt://192.168.7.7");
    with(&direct, 0o600, || assert_eq!(load().mqtt.via, Via::Direct));
}

#[test]
fn a_broker_outside_the_allowed_ips_is_rejected() {
    with(&FILE.replace("mqtt://10.77.0.1", "mqtt://192.168.7.7"), 0o600, || {
        insta::assert_snapshot!("broker_outside_the_hubs", error_text());
    });
}

#[test]
fn bundles_are_fetched_through_the_tunnel_or_not_at_all() {
    let with_url =
        |url: &str| FILE.replace("[[plc]]", &format!("[bundle]\nurl = \"{url}\"\n[[plc]]"));
    with(&with_url("http://10.77.0.1/bundles"), 0o600, || {
        let url = load().bundle.url.unwrap();
        assert_eq!(url.path_of("a.tar"), "/bundles/a.tar");
    });
    for (url, message) in [
        ("http://192.168.7.7/bundles", "the web server 192.168.7.7 is not in allowed_ips"),
        ("http://10.77.0.12/bundles", "has the address of this gateway in the tunnel"),
        ("http://[fd77::1]/bundles", "no IPv6 address from which to reach fd77::1"),
    ] {
        with(&with_url(url), 0o600, || {
            let text = error_text();
            assert!(text.contains(message) && !text.contains("via ="), "{text}");
        });
    }
    // Without a tunnel, the routes of the machine decide.
    let off =
        with_url("http://192.168.7.7/bundles").replace("[tunnel]", "[tunnel]\nmode = \"off\"");
    with(&off, 0o600, || assert!(load().bundle.url.is_some()));
}

#[test]
fn what_run_would_refuse_or_could_never_reach_is_rejected() {
    let tun = FILE.replace("[tunnel]", "[tunnel]\nmode = \"tun\"");
    let everything = tun.replace("\"10.77.0.0/16\", \"fd77::/48\"", "\"0.0.0.0/0\"");
    let hub_inside = tun
        .replace("hub-a.example.net:51820", "192.0.2.2:51820")
        .replace("\"fd77::/48\"", "\"192.0.2.0/24\"");
    let own_address = FILE.replace("10.77.0.12/32", "10.77.0.1/32");
    let v6_broker = FILE.replace("mqtt://10.77.0.1", "mqtt://[fd77::1]");
    for (text, line, message) in [
        (&everything, 14, "networks that cover all of 0.0.0.0/0"),
        (&hub_inside, 14, "the hub's own address 192.0.2.2"),
        (&own_address, 16, "the broker 10.77.0.1 has the address of this gateway"),
        (&v6_broker, 16, "the tunnel has no IPv6 address from which to reach fd77::1"),
    ] {
        with(text, 0o600, || {
            let rejected = config::load(Path::new("gateway.toml")).unwrap_err();
            let [problem] = rejected.problems.as_slice() else { unreachable!("{rejected}") };
            assert!(problem.message.contains(message), "{rejected}");
            assert_eq!(problem.line, Some(line), "{rejected}");
            assert!(problem.help.is_some(), "{rejected}");
        });
    }
    // In userspace mode there are no routes.
    for text in [everything, hub_inside] {
        with(&text.replace("mode = \"tun\"", ""), 0o600, || drop(load()));
    }
}

#[test]
fn a_byte_order_mark_blanks_and_line_breaks_around_a_key_are_ignored() {
    let key = KEY.trim();
    with(FILE, 0o600, || {
        for text in [
            format!("\u{feff}{key}"),
            format!("{key}\r\n"),
            format!("  {key}\t\n\n"),
            key.to_owned(),
        ] {
            fs::write("tunnel.key", text).unwrap();
            drop(load());
        }
    });
}

#[test]
fn a_broker_name_that_is_resolved_outside_the_tunnel_is_noted() {
    let notes = || config::load(Path::new("gateway.toml")).unwrap().notes.to_string();
    with(FILE, 0o600, || assert_eq!(notes(), ""));
    let named = FILE.replace("mqtt://10.77.0.1", "mqtt://broker.example.net");
    with(&named, 0o600, || {
        assert!(
            notes().contains("the DNS query for broker.example.net is sent outside the tunnel")
        );
    });
    let direct = named.replace("[mqtt]", "[mqtt]\nvia = \"direct\"");
    with(&direct, 0o600, || assert_eq!(notes(), ""));
}

#[test]
fn a_private_key_that_others_can_read_is_rejected() {
    with(FILE, 0o644, || {
        let text = error_text();
        insta::assert_snapshot!("key_open_to_all", text);
        assert!(!text.contains(KEY.trim()));
    });
}

#[test]
fn a_file_without_a_key_is_rejected_and_not_shown() {
    with(FILE, 0o600, || {
        fs::write("tunnel.key", "geheim").unwrap();
        let text = error_text();
        insta::assert_snapshot!("no_key_in_the_file", text);
        assert!(!text.contains("geheim"));
    });
}

#[test]
fn a_hub_with_the_gateways_key_is_rejected() {
    let own: tunnel::PrivateKey = KEY.parse().unwrap();
    let hub = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
    with(&FILE.replace(hub, &own.public_key().to_string()), 0o600, || {
        insta::assert_snapshot!(
            "own_key_as_hub",
            error_text().replace(&own.public_key().to_string(), "OWN")
        );
    });
}

#[test]
fn debug_output_and_settings_do_not_contain_the_key() {
    with(FILE, 0o600, || {
        let loaded = config::load(Path::new("gateway.toml")).unwrap();
        assert!(!format!("{loaded:?}").contains(KEY.trim()));
        let inspected = config::inspect(Path::new("gateway.toml"), FileCheck::Open(None)).unwrap();
        assert!(!format!("{inspected:?}").contains(KEY.trim()));
        assert!(!format!("{:?}", inspected.settings()).contains(KEY.trim()));
    });
}

#[test]
fn metrics_that_the_hub_cannot_reach_are_noted() {
    let notes = |listen: &str| {
        let mut notes = String::new();
        let text = format!("{FILE}\n[metrics]\nlisten = {listen}\n");
        with(&text, 0o600, || {
            notes = config::load(Path::new("gateway.toml")).unwrap().notes.to_string();
        });
        notes
    };
    let noted = notes("[\"127.0.0.1:9464\"]");
    assert!(noted.contains("there is a tunnel, but no metrics are served in it"), "{noted}");
    assert!(noted.contains("add \"tunnel:9464\""), "{noted}");
    assert_eq!(notes("[\"127.0.0.1:9464\", \"tunnel:9464\"]"), "");
    assert_eq!(notes("[]"), "", "no metrics are wanted");
}
