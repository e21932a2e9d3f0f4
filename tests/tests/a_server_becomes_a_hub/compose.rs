//! The compose file of a hub: the programs and the files of `install.sh`, and no other open port.
//! Docker itself is not used: `docker-compose config` reads the file, and systemd runs the commands
//! with their mounts.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use e2e::{Office, RECOVERY_TIMEOUT, eventually};
use serde_json::Value;

use crate::hub_server::{HubServer, UNITS};
use crate::{RETURN_TIMEOUT, SITE, log_in};

const DIR: &str = "out/hubs/hub-a";
const TO_JSON: &str = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)";
const DOCKERFILE: &str = include_str!("../../../deploy/hub/image/Dockerfile");
const SCRIPT: &str = include_str!("../../../deploy/hub/install.sh");
/// Where `docker-compose` puts the password of Node-RED.
const PASSWORD_FILE: &str = "/run/secrets/node_red_password";
const PASSWORD: &str = "of the compose file";

/// Returns the services of the compose file next to the files of the hub.
fn services(office: &Office) -> Vec<(String, Value)> {
    let mut reader = Command::new("docker-compose");
    reader.args(["--profile", "node-red", "--profile", "grafana", "config"]);
    reader.current_dir(office.path(DIR)).env_remove("DEBIAN").stdout(Stdio::piped());
    let mut reader = reader.spawn().expect("docker-compose is installed");
    // The modules of docker-compose are those of Debian's Python.
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", TO_JSON]).stdin(reader.stdout.take().expect("it is a pipe"));
    let converted = python.output().expect("Python is installed");
    assert!(reader.wait().expect("it is a child").success());
    let compose: Value = serde_json::from_slice(&converted.stdout).expect("it prints JSON");
    let services = compose["services"].as_object().expect("a map").clone();
    services.into_iter().collect()
}

/// Returns what a service mounts, as source and place; sources below the hub's files begin with
/// `./`, volumes of Docker have no `/`.
fn mounts(office: &Office, service: &Value) -> Vec<(String, String)> {
    let dir = office.path(DIR).canonicalize().expect("the directory is there");
    let dir = dir.display().to_string();
    let mut all = Vec::new();
    for volume in service["volumes"].as_array().into_iter().flatten() {
        let text = volume.as_str().expect("a text");
        let parts: Vec<&str> = text.split(':').collect();
        let [source, place, mode] = parts[..] else { panic!("{text}") };
        assert!(mode == "ro" || !source.contains('/'), "{text} can be changed by its service");
        all.push((source.replace(&dir, "."), place.to_owned()));
    }
    all
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn it_runs_what_the_script_runs(office: &Office) {
    let services = services(office);
    let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
    let own = ["alertmanager", "chrony", "grafana", "mosquitto", "nginx", "node-red"];
    assert_eq!(names, [&own[..], &["prometheus", "wireguard"]].concat());
    let mut mounted = BTreeSet::new();
    for (name, service) in &services {
        assert_eq!(service["network_mode"], "host", "{name}");
        assert!(service["ports"].is_null(), "{name} publishes a port");
        let (_, tag) =
            service["image"].as_str().and_then(|image| image.rsplit_once(':')).expect("a tag");
        assert!(tag.starts_with(|c: char| c.is_ascii_digit()), "{name}: {tag}");
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            assert!(!variable.contains("PASSWORD") || variable.ends_with("__FILE"), "{value}");
        }
        for (source, place) in mounts(office, service) {
            let Some(file) = source.strip_prefix("./") else { continue };
            // The receivers of alerts are the administrator's.
            assert!(file == "alertmanager" || office.path(DIR).join(file).exists(), "{file}");
            let of_program = file.strip_prefix("etc/").and_then(|path| path.split('/').next());
            assert!(of_program != Some("wireguard") || name == "wireguard", "{name}: {place}");
            mounted.extend(of_program.map(str::to_owned));
        }
    }
    assert_eq!(mounted, programs_with_files(office));
    each_argument_of_a_unit_is_in_its_command(office, &services);
    it_has_the_packages_of_the_script();
}

/// Returns the names below `etc`, without the units of systemd.
fn programs_with_files(office: &Office) -> BTreeSet<String> {
    let entries = fs::read_dir(office.path(DIR).join("etc")).expect("the directory is there");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let names = entries.map(|entry| name(entry.expect("it is readable")));
    names.filter(|name| name != "systemd").collect()
}

fn each_argument_of_a_unit_is_in_its_command(office: &Office, services: &[(String, Value)]) {
    for (unit, service) in
        [("prometheus", "prometheus"), ("prometheus-alertmanager", "alertmanager")]
    {
        let unit = office.read(&format!("{DIR}/etc/systemd/system/{unit}.service.d/edge.conf"));
        let (_, service) = services.iter().find(|(name, _)| name == service).expect("it is there");
        let command = words(&service["command"]).join(" ");
        let arguments: Vec<_> = unit.split_whitespace().filter(|w| w.starts_with("--")).collect();
        assert!(!arguments.is_empty(), "{unit}");
        for argument in arguments {
            assert!(command.contains(argument), "{argument}: {command}");
        }
    }
}

fn it_has_the_packages_of_the_script() {
    let list = SCRIPT.split("PACKAGES=\"").nth(1).and_then(|rest| rest.split('"').next());
    let image: BTreeSet<&str> = DOCKERFILE.split_whitespace().collect();
    for package in list.expect("a list").split_whitespace() {
        // A person uses them.
        assert!(package == "mosquitto-clients" || image.contains(package), "{package}");
    }
    let compose = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hub/compose.yaml"),
    );
    let version =
        SCRIPT.lines().find_map(|line| line.strip_prefix("NODE_RED=")).expect("a version");
    assert!(compose.expect("it is there").contains(&format!("NODE_RED:-{version}}}")), "{version}");
}

/// Stops the services of the script, and runs the commands of the compose file in their place.
pub(crate) fn its_commands_make_a_hub(office: &Office, hub: &HubServer<'_>) {
    let services = services(office);
    hub.machine.shell(&format!("systemctl stop edge-node-red {}", UNITS.join(" ")));
    hub.machine.shell("nft flush ruleset; mkdir -p /run/secrets /var/lib/prometheus/alertmanager");
    let settings = DOCKERFILE.split("\nRUN ").nth(2).expect("the image has settings");
    hub.machine.shell(settings);
    hub.machine.shell("install -D -m 600 -t /root/hub-a/alertmanager /root/alertmanager.yml");
    hub.machine.shell(&format!("umask 077; echo '{PASSWORD}' >{PASSWORD_FILE}"));
    let run = |name: &str| {
        let (_, service) = services.iter().find(|(own, _)| own == name).expect("a service");
        start(office, hub, name, service);
    };
    run("wireguard");
    let (_, tunnel) = services.iter().find(|(name, _)| name == "wireguard").expect("a service");
    let test = words(&tunnel["healthcheck"]["test"]);
    eventually("the tunnel is up", RECOVERY_TIMEOUT, || {
        hub.machine.try_run(test[1], &test[2..]).status.success().then_some(())
    });
    for name in ["mosquitto", "nginx", "chrony", "prometheus", "alertmanager", "node-red"] {
        run(name);
    }
    let since = hub.machine.shell("date +%s").trim().to_owned();
    let own = ["tcp 10.77.0.1:1883", "tcp 10.77.0.1:80", "udp 10.77.0.1:123", "tcp 127.0.0.1:9090"];
    for socket in own.into_iter().chain(["tcp 127.0.0.1:9093", "tcp 127.0.0.1:1880"]) {
        eventually(&format!("{socket} is open"), RECOVERY_TIMEOUT, || {
            hub.listeners().iter().any(|listener| listener == socket).then_some(())
        });
    }
    assert_eq!(log_in(hub, PASSWORD), "200\n", "Node-RED takes the password of the file");
    eventually("the gateway is back", RETURN_TIMEOUT, || {
        let connected = format!("edge_mqtt_connected{{gateway=\"{SITE}\"}}");
        let query = format!("{connected} == 1 and timestamp({connected}) > {since}");
        (!hub.query(&query).is_empty()).then_some(())
    });
}

/// Runs a service as Docker would: with its command, its user and its mounts, below systemd.
fn start(office: &Office, hub: &HubServer<'_>, name: &str, service: &Value) {
    let log = format!("append:/root/compose-{name}.log");
    let mut arguments = vec![
        format!("--unit=compose-{name}"),
        "--property=Type=exec".to_owned(),
        format!("--property=StandardOutput={log}"),
        format!("--property=StandardError={log}"),
    ];
    if let Some(user) = service["user"].as_str() {
        arguments.push(format!("--property=User={user}"));
    }
    for (source, place) in mounts(office, service) {
        if let Some(file) = source.strip_prefix("./") {
            arguments.push(format!("--property=BindReadOnlyPaths=/root/hub-a/{file}:{place}"));
        }
    }
    // What the image of Node-RED runs.
    let node_red = "node /opt/node-red/node_modules/node-red/red.js --userDir /tmp/node-red";
    let image = if name == "node-red" { node_red } else { "" };
    arguments.extend(image.split_whitespace().map(str::to_owned));
    arguments.extend(words(&service["command"]).into_iter().map(str::to_owned));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    hub.machine.run("systemd-run", &[&["--quiet", "--collect"], &arguments[..]].concat());
}
