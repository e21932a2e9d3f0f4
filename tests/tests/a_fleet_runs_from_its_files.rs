//! Three sites run with what `edge-provision` renders: their values reach the broker of the hub
//! through WireGuard and the hub's packet filter, and each site's name is its own.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::{Gateway, Namespace, Office, Process, RECOVERY_TIMEOUT};
use provisioning::office::fleet::{Fleet, box_files};

const SITES: [&str; 3] = ["amsterdam-01", "rotterdam-01", "utrecht-01"];
/// The same at every site, as the template of `init` and `add` say.
const PLC: &str = "192.168.1.10";

/// A box with its PLC.
struct Site {
    _gateway: Process,
    _plc: Process,
    _namespace: Namespace,
}

impl Site {
    /// Starts the gateway with the files of the fleet, as a bundle would bring them.
    fn start(office: &Office, fleet: &Fleet, id: &str, namespace: Namespace) -> Self {
        let dir = office.path(format!("boxes/{id}"));
        for file in fleet.site_files(fleet.site(id).expect("it was added")).expect("it is valid") {
            write(&dir.join(&file.name), &file.content, 0o644);
        }
        let secrets = [
            (box_files::TUNNEL_KEY, "tunnel.key"),
            // Of its first login.
            (box_files::PASSWORD, "mqtt.password.1"),
        ];
        for (name, kept) in secrets {
            let secret = office.read(&format!("secrets/sites/{id}/{kept}"));
            write(&dir.join(name), secret.as_bytes(), 0o600);
        }
        namespace.ip(&["address", "add", &format!("{PLC}/24"), "dev", "lo"]);
        let program = Gateway::program().display().to_string();
        let listen = format!("{PLC}:502");
        let arguments = ["simulate", "--model", "M241", "--listen", &listen];
        let plc = Process::start(namespace.command(&program).args(arguments));
        let gateway = Process::start(
            namespace
                .command(&program)
                .arg("run")
                .arg(dir.join("gateway.toml"))
                .env("EDGE_GATEWAY__STATE_DIR", dir.join("state")),
        );
        Self { _gateway: gateway, _plc: plc, _namespace: namespace }
    }
}

fn write(path: &Path, content: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("the directory is writable");
    fs::write(path, content).expect("the directory is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own file");
}

#[test]
fn as_root_three_sites_publish_through_the_hub_of_the_fleet() {
    // All sites reach the hub at the address of the first cable.
    let office = Office::new("192.0.2.1:51820");
    for site in SITES {
        office.run(&["add", site, "--location", site, "--template", "pump", "--with-key"]);
    }
    let hub = Namespace::new();
    let _interface = office.start_hub(&hub);
    let listener = format!("listener 1883 {}", Office::HUB);
    let _broker = office.start_mosquitto(|program| hub.command(program), &listener);
    let fleet = Fleet::check(&office.path("")).expect("it has no problems");

    let mut sites = Vec::new();
    for (number, id) in SITES.into_iter().enumerate() {
        let namespace = Namespace::new();
        let (near, far) = (4 * number + 1, 4 * number + 2);
        let ends = (format!("192.0.2.{near}/30"), format!("192.0.2.{far}/30"));
        let device = format!("cable{number}");
        hub.connect((&device, &ends.0), &namespace, ("cable", &ends.1));
        namespace.ip(&["route", "replace", "default", "via", &format!("192.0.2.{near}")]);
        sites.push(Site::start(&office, &fleet, id, namespace));
    }

    let password = office.read("secrets/office/mqtt.password");
    let user = ["-u", "office", "-P", password.trim()];
    let consumer = hub.subscribe_as(&user, Office::HUB, "edge/+/data/#");
    let mut heard = BTreeSet::new();
    while heard.len() < SITES.len() {
        let message = consumer.next(RECOVERY_TIMEOUT);
        let payload = message.json();
        let id = payload["gateway"]["id"].as_str().expect("an id").to_owned();
        assert_eq!(message.topic, format!("edge/{id}/data/pump"));
        if payload["temperature"].is_number() && payload["pressure"].is_number() {
            heard.insert(id);
        }
    }
    assert_eq!(heard, SITES.map(str::to_owned).into());
}
