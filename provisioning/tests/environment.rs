//! The environment overrides the file, and secrets are read from files.
//!
//! All tests run in a `Jail`, which locks the environment of the process for one test at a time.
#![expect(clippy::result_large_err, reason = "figment's jail requires its own error")]
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use figment::Jail;
use provisioning::config::{self, Config, FileCheck, InspectedConfig};
use provisioning::diagnostics::RejectedFile;

const FILE: &str = r#"
[gateway]
id = "plant-7"

[mqtt]
brokers = ["mqtt://10.77.0.1"]
client_id = "from-the-file"
username = "plant-7"

[[plc]]
name = "pump6"
model = "M241"
address = "192.168.1.10"

[[plc.tag]]
name = "temperature"
at = "%MW10"
type = "REAL"
"#;

fn with(variables: &[(&str, &str)], check: impl FnOnce()) {
    Jail::expect_with(|jail| {
        jail.create_file("gateway.toml", FILE)?;
        for (variable, value) in variables {
            jail.set_env(variable, value);
        }
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
        Err(rejected) => {
            assert!(!format!("{rejected:?}").contains("geheim"));
            rejected.to_string()
        }
    }
}

#[test]
fn a_variable_overrides_the_file() {
    let variables = [
        ("EDGE_GATEWAY__ID", "plant-8"),
        ("EDGE_MQTT__CLIENT_ID", "from-the-environment"),
        ("EDGE_MQTT__KEEP_ALIVE", "45s"),
        ("EDGE_MQTT__BROKERS", "mqtt://10.77.0.9:1884"),
        ("EDGE_PUBLISH__QOS", "2"),
        ("EDGE_PUBLISH__RETAIN", "true"),
        ("EDGE_QUEUE__MAX_SIZE", "1MiB"),
    ];
    with(&variables, || {
        let config = load();
        assert_eq!(config.gateway.id, "plant-8");
        assert_eq!(config.mqtt.client_id, "from-the-environment");
        assert_eq!(config.mqtt.keep_alive.as_secs(), 45);
        assert_eq!(config.mqtt.brokers[0].address.to_string(), "10.77.0.9:1884");
        assert_eq!(config.plcs[0].publish.qos, config::Qos::ExactlyOnce);
        assert!(config.plcs[0].publish.retain);
        assert_eq!(config.queue.max_size, 1 << 20);
    });
}

#[test]
fn a_variable_with_a_number_stays_text_for_a_text_key() {
    let variables = [("EDGE_MQTT__USERNAME", "007"), ("EDGE_GATEWAY__LOCATION", "true")];
    with(&variables, || {
        let config = load();
        assert_eq!(config.mqtt.credentials.unwrap().username, "007");
        assert_eq!(config.gateway.location, "true");
    });
}

#[test]
fn print_config_names_the_variable() {
    with(&[("EDGE_MQTT__CLIENT_ID", "x")], || {
        let effective =
            config::inspect(Path::new("gateway.toml"), FileCheck::Skip).unwrap().settings();
        let client_id = effective.iter().find(|setting| setting.path == "mqtt.client_id").unwrap();
        assert_eq!(client_id.value, "\"x\"");
        assert_eq!(client_id.source, "environment EDGE_MQTT__CLIENT_ID");
    });
}

#[test]
fn a_problem_in_a_variable_names_the_variable() {
    let variables = [
        ("EDGE_MQTT__KEEP_ALIVE", "1s"),
        ("EDGE_MQTT__PASSWORD", "geheim"),
        ("EDGE_PUBLISH__QOS", "three"),
        ("EDGE_PLC__0__NAME", "pump7"),
        ("EDGE_TUNNEL__MODE", "tun"),
        ("EDGE_GATEWAY__IDD", "x"),
    ];
    with(&variables, || {
        let text = error_text();
        assert!(!text.contains("geheim"));
        insta::assert_snapshot!(text);
    });
}

/// Returns the notes on a configuration that is valid.
fn notes() -> String {
    let Ok(loaded) = config::load(Path::new("gateway.toml")) else {
        unreachable!("{}", error_text())
    };
    assert!(inspect(FileCheck::Skip).is_ok() && inspect(FileCheck::Open(None)).is_ok());
    loaded.notes.to_string()
}

#[test]
fn a_service_whose_name_looks_like_a_section_stops_nothing() {
    let variables = [
        ("EDGE_MQTT__X_SERVICE_HOST", "10.0.0.3"),
        ("EDGE_MQTT__X_SERVICE_PORT", "1883"),
        ("EDGE_MQTT__X_SERVICE_PORT_MQTT", "1883"),
        ("EDGE_MQTT__X_PORT", "tcp://10.0.0.3:1883"),
        ("EDGE_MQTT__X_PORT_1883_TCP", "tcp://10.0.0.3:1883"),
        ("EDGE_MQTT__X_PORT_1883_TCP_PROTO", "tcp"),
        ("EDGE_MQTT__X_PORT_1883_TCP_PORT", "1883"),
        ("EDGE_MQTT__X_PORT_1883_TCP_ADDR", "10.0.0.3"),
    ];
    with(&variables, || assert!(notes().contains("8 environment variables set no key")));
    // A key that does not exist is still one.
    with(&[("EDGE_MQTT__X_PORT", "1883")], || assert!(error_text().contains("x_port")));
}

#[test]
fn variables_of_services_are_one_note_and_stop_nothing() {
    let variables = [
        ("EDGE_GATEWAY_PORT", "tcp://10.0.0.1:9464"),
        ("EDGE_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("EDGE_ROUTER_SERVICE_HOST", "10.0.0.2"),
        ("EDGE_MQTT_PORT_1883_TCP_ADDR", "10.0.0.3"),
        ("EDGE_A__B", "x"),
        ("EDGE_MQTT__", "x"),
        ("EDGE_MQTT", "x"),
    ];
    with(&variables, || {
        insta::assert_snapshot!(notes(), @"
        note: 7 environment variables set no key: EDGE_A__B, EDGE_GATEWAY_PORT, EDGE_GATEWAY_SERVICE_HOST, EDGE_MQTT, EDGE_MQTT_PORT_1883_TCP_ADDR and 2 more
         --> environment:1:1
          |
        1 | EDGE_A__B
          | ^^^^^^^^^
          |
          = help: a variable that sets a key is named EDGE_SECTION__KEY; Kubernetes adds variables for services, unless the pod has enableServiceLinks: false

        gateway.toml: 1 note
        ");
    });
}

#[test]
fn a_misspelt_variable_is_noted_with_the_name_that_is_meant_and_without_its_value() {
    let variables = [("EDGE_MQTT_PASWORD_FILE", "geheim"), ("EDGE_ROUTER_PORT", "tcp://10.0.0.2")];
    with(&variables, || {
        let notes = notes();
        assert!(!notes.contains("geheim"), "{notes}");
        insta::assert_snapshot!(notes, @"
        note: 2 environment variables set no key: EDGE_MQTT_PASWORD_FILE, EDGE_ROUTER_PORT
         --> environment:1:1
          |
        1 | EDGE_MQTT_PASWORD_FILE
          | ^^^^^^^^^^^^^^^^^^^^^^
          |
          = help: did you mean EDGE_MQTT__PASSWORD_FILE for EDGE_MQTT_PASWORD_FILE?

        gateway.toml: 1 note
        ");
    });
}

#[test]
fn an_unknown_key_behind_a_section_is_still_an_error() {
    with(&[("EDGE_MQTT__USER", "x")], || {
        assert!(error_text().contains("there is no key `user` in [mqtt]"), "{}", error_text());
    });
}

/// Runs a check on a configuration whose password file has these contents and this mode.
fn with_password(contents: &str, mode: u32, check: impl FnOnce()) {
    with(&[("EDGE_MQTT__PASSWORD_FILE", "password")], || {
        fs::write("password", contents).unwrap();
        fs::set_permissions("password", fs::Permissions::from_mode(mode)).unwrap();
        check();
    });
}

#[test]
fn one_line_break_at_the_end_is_not_part_of_the_password() {
    for (contents, password) in
        [("geheim\n", "geheim"), ("geheim\r\n", "geheim"), ("ge heim\n\n", "ge heim\n"), ("x", "x")]
    {
        with_password(contents, 0o600, || {
            let credentials = load().mqtt.credentials.unwrap();
            assert_eq!(credentials.password.unwrap().read().unwrap().reveal(), password);
        });
    }
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_password() {
    with_password("\u{feff}geheim\r\n", 0o600, || {
        let credentials = load().mqtt.credentials.unwrap();
        assert_eq!(credentials.password.unwrap().read().unwrap().reveal(), "geheim");
        assert_eq!(notes(), "");
    });
    with_password("\u{feff}\n", 0o600, || assert!(error_text().contains("is empty")));
}

#[test]
fn a_password_that_is_probably_a_mistake_is_noted() {
    for (contents, doubt) in [
        ("geheim \n", "ends with a blank"),
        ("geheim\t", "ends with a blank"),
        ("geheim\u{a0}\n", "ends with a blank"),
        (" geheim\n", "begins with a blank"),
        (" \n", "begins with a blank"),
        ("geheim\n\n", "has more than one line"),
        ("geheim\r\n\r\n", "has more than one line"),
        ("geheim\nplant-7\n", "has more than one line"),
        ("\ngeheim\n", "has more than one line"),
        ("gehe\u{1b}[Dim\n", "contains a control character"),
    ] {
        with_password(contents, 0o600, || {
            let notes = notes();
            assert!(notes.contains(doubt), "{contents:?}: {notes}");
            assert!(!notes.contains("geheim"), "{notes}");
        });
    }
    with_password("ge heim\n", 0o600, || assert_eq!(notes(), ""));
}

#[test]
fn a_password_file_that_others_can_read_or_change_is_rejected() {
    for mode in [0o644, 0o604, 0o660, 0o602] {
        with_password("geheim\n", mode, || {
            let text = error_text();
            assert!(text.contains("chmod 600"), "{mode:o}: {text}");
            assert!(!text.contains("geheim"));
        });
    }
    with_password("geheim\n", 0o640, || assert!(load().mqtt.credentials.is_some()));
}

#[test]
fn an_empty_password_is_rejected() {
    with_password("\n", 0o600, || assert!(error_text().contains("is empty")));
}

#[test]
fn a_password_without_a_user_name_is_rejected() {
    Jail::expect_with(|jail| {
        let file = FILE.replace("username = \"plant-7\"", "password_file = \"password\"");
        jail.create_file("gateway.toml", &file)?;
        jail.create_file("password", "geheim")?;
        fs::set_permissions("password", fs::Permissions::from_mode(0o600)).unwrap();
        assert!(error_text().contains("no user name"));
        Ok(())
    });
}

#[test]
fn a_systemd_credential_is_found_by_its_name() {
    Jail::expect_with(|jail| {
        let credentials = jail.create_dir("credentials")?;
        jail.create_file("credentials/mqtt", "geheim\n")?;
        fs::set_permissions("credentials/mqtt", fs::Permissions::from_mode(0o400)).unwrap();
        jail.set_env("CREDENTIALS_DIRECTORY", credentials.display());
        jail.set_env("EDGE_MQTT__PASSWORD_FILE", "cred:mqtt");
        jail.create_file("gateway.toml", FILE)?;
        let password = load().mqtt.credentials.unwrap().password.unwrap();
        assert_eq!(password.read().unwrap().reveal(), "geheim");
        assert!(password.is_credential());
        Ok(())
    });
}

#[test]
fn a_password_is_read_again_from_its_file() {
    with_password("geheim\n", 0o600, || {
        let password = load().mqtt.credentials.unwrap().password.unwrap();
        assert!(!password.is_credential());
        fs::write("password", "corrected\n").unwrap();
        assert_eq!(password.read().unwrap().reveal(), "corrected");
        fs::remove_file("password").unwrap();
        let error = password.read().unwrap_err().to_string();
        assert!(error.contains("there is no such file"), "{error}");
    });
}

/// Every key that can name a secret or a certificate, each with a file that only systemd has or
/// that does not exist.
const SECRETS: &str = r#"
[gateway]
id = "plant-7"

[tunnel]
private_key_file = "cred:tunnel.key"
address = "10.77.0.12/32"

[[tunnel.hub]]
name = "hub-a"
endpoint = "hub-a.example.net:51820"
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
preshared_key_file = "cred:hub-a.psk"
allowed_ips = ["10.77.0.0/16"]

[mqtt]
brokers = ["mqtts://10.77.0.1"]
username = "plant-7"
password_file = "cred:mqtt.password"
cert_file = "CERT"
key_file = "cred:mqtt.key"

[[plc]]
name = "pump6"
model = "M241"
address = "192.168.1.10"

[[plc.tag]]
name = "temperature"
at = "%MW10"
type = "REAL"
"#;

fn inspect(files: FileCheck<'_>) -> Result<InspectedConfig, RejectedFile> {
    config::inspect(Path::new("gateway.toml"), files)
}

#[test]
fn a_status_needs_no_file_that_the_configuration_names() {
    Jail::expect_with(|jail| {
        let elsewhere = SECRETS.replace("cred:", "/nowhere/");
        for text in [SECRETS, &elsewhere] {
            jail.create_file("gateway.toml", text)?;
            let inspected = inspect(FileCheck::Skip).unwrap();
            assert_eq!(inspected.gateway.id, "plant-7");
            assert!(inspected.notes.is_empty(), "{}", inspected.notes);
            assert!(inspected.settings().iter().any(|one| one.path == "mqtt.password_file"));
        }
        Ok(())
    });
}

#[test]
fn a_check_outside_systemd_notes_each_credential_and_judges_the_rest() {
    Jail::expect_with(|jail| {
        jail.create_file("cert.pem", include_str!("certificates/ec.pem"))?;
        jail.create_file("gateway.toml", &SECRETS.replace("CERT", "cert.pem"))?;
        let notes = inspect(FileCheck::Open(None)).unwrap().notes.to_string();
        for name in ["tunnel.key", "hub-a.psk", "mqtt.password", "mqtt.key"] {
            let note = format!("`cred:{name}` is handed over by systemd when the service starts");
            assert!(notes.contains(&note), "{notes}");
            assert!(notes.contains(&format!("LoadCredential={name}:")), "{notes}");
        }
        let far = SECRETS.replace("CERT", "cert.pem").replace("10.77.0.1\"", "192.168.7.7\"");
        jail.create_file("gateway.toml", &far)?;
        let rejected = inspect(FileCheck::Open(None)).unwrap_err().to_string();
        assert!(rejected.contains("is not in allowed_ips of any hub"), "{rejected}");
        // To run, every secret has to be there.
        let problems = config::load(Path::new("gateway.toml")).unwrap_err().problems;
        assert_eq!(problems.len(), 5, "{problems:?}");
        Ok(())
    });
}

#[test]
fn a_check_with_credentials_reads_them() {
    Jail::expect_with(|jail| {
        let credentials = jail.create_dir("credentials")?;
        jail.set_env("CREDENTIALS_DIRECTORY", credentials.display());
        jail.create_file("gateway.toml", &SECRETS.replace("CERT", "gateway.toml"))?;
        let rejected = inspect(FileCheck::Open(None)).unwrap_err();
        assert_eq!(rejected.problems.len(), 4, "{rejected}");
        assert!(rejected.to_string().contains("there is no such file"), "{rejected}");
        Ok(())
    });
}

#[test]
fn a_relative_password_file_is_next_to_the_configuration() {
    Jail::expect_with(|jail| {
        jail.create_dir("etc")?;
        jail.create_file("etc/gateway.toml", FILE)?;
        jail.create_file("etc/password", "geheim")?;
        fs::set_permissions("etc/password", fs::Permissions::from_mode(0o600)).unwrap();
        jail.set_env("EDGE_MQTT__PASSWORD_FILE", "password");
        let loaded = config::load(Path::new("etc/gateway.toml")).unwrap();
        assert!(loaded.config.mqtt.credentials.unwrap().password.is_some());
        Ok(())
    });
}
