//! A fleet in files: what is rendered from it, and how its problems are shown.
#![cfg(feature = "office")]
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::{Path, PathBuf};

use provisioning::config::{self, FileCheck};
use provisioning::office::fleet::Fleet;
use provisioning::office::hub::{self, HubFile};
use provisioning::office::secrets::Secrets;

const FLEET: &str = r#"[tunnel]
network = "10.77.0.0/16"
office = "10.77.255.0/24"

[[hub]]
name = "hub-a"
endpoint = "hub-a.example.net:51820"
address = "10.77.0.1"
public_key = "smHP2oe+Kdv+hX5kSF4kHZNjM32BFwCLyJTL5bs4cnk="

[[hub]]
name = "hub-b"
endpoint = "hub-b.example.net:51820"
address = "10.77.0.2"
public_key = "njwtOLiSbsm4XIUPw9NwoMyA2y++wXTcS4uL1WsISgs="
ssh_port = 2222

[[office]]
name = "anna"
address = "10.77.255.2"
public_key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

[defaults.publish]
qos = 1
heartbeat = "10s"
"#;

const PUMP: &str = r#"model = "M241"
scan = "1s"

[[tag]]
name = "temperature"
at = "%MW10"
type = "REAL"
deadband = 0.1

[[tag]]
name = "pressure"
at = "%MW12"
type = "INT"
"#;

const AMSTERDAM: &str = r#"[site]
address = "10.77.0.12"
public_key = "5xMve9k3zqemgSiwMWoPX12a+hVpvek1ccHCfWKd4n4="
counter = 17

[gateway]
location = "Amsterdam"

[publish]
heartbeat = "60s"

[network.machine]
interface = "eth1"
address = "192.168.1.2/24"

[network.uplink]
interface = "eth0"
method = "static"
address = "10.1.2.3/24"
gateway = "10.1.2.1"
dns = ["10.1.2.1", "10.1.2.4"]

[[plc]]
name = "pump6"
template = "pump"
address = "192.168.1.10:502"

[[plc.tag]]
name = "temperature"
deadband = 0.5

[[plc.tag]]
name = "speed"
at = "%MW20"
type = "UINT"

[[plc]]
name = "pump7"
template = "pump"
omit = ["pressure"]
address = "192.168.1.11:502"
"#;

const ROTTERDAM: &str = r#"[site]
address = "10.77.0.13"

[[plc]]
name = "pump1"
template = "pump"
address = "192.168.1.10:502"
"#;

/// Private key of amsterdam-01.
const SITE_KEY: &str = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
/// Keys of hub-a and hub-b.
const HUB_KEYS: [&str; 2] = [
    "MJqMBCBiYAIAqjOL9MIX2vyJwmhoF3lPw3uIzVe3BEU=",
    "kIXTnHCcz/aZbyjsGQRJr02qnYUHPTW8YdUVvTGtNmA=",
];

/// A fleet in a directory of its own, removed when dropped.
struct FleetDir(PathBuf);

impl FleetDir {
    fn new(files: &[(&str, &str)]) -> Self {
        let name = format!("edge-fleet-{}-{:016x}", std::process::id(), fastrand::u64(..));
        let dir = Self(std::env::temp_dir().join(name));
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    /// A good fleet with these files added or replaced.
    fn good(files: &[(&str, &str)]) -> Self {
        let dir = Self::new(&[
            ("fleet.toml", FLEET),
            ("templates/pump.toml", PUMP),
            ("sites/amsterdam-01.toml", AMSTERDAM),
            ("sites/rotterdam-01.toml", ROTTERDAM),
        ]);
        for (name, text) in files {
            dir.write(name, text);
        }
        dir
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn write_secret(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;

        self.write(&format!("secrets/{name}"), text);
        let path = self.0.join("secrets").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn write_secrets(&self) {
        for (name, key) in ["hub-a", "hub-b"].iter().zip(HUB_KEYS) {
            self.write_secret(&format!("hubs/{name}/tunnel.key"), key);
        }
        self.write_secret("office/mqtt.password", "geheim-office\n");
        for site in ["amsterdam-01", "rotterdam-01"] {
            self.write_secret(
                &format!("sites/{site}/mqtt.password.1"),
                &format!("geheim-{site}\n"),
            );
        }
    }

    fn check(&self) -> Result<Fleet, String> {
        Fleet::check(&self.0).map_err(|rejected| self.shown(&rejected.to_string()))
    }

    fn problems(&self) -> String {
        self.check().unwrap_err()
    }

    fn hubs(&self) -> Vec<(String, Vec<HubFile>)> {
        let fleet = self.check().unwrap();
        let rendered = hub::render(&fleet, &Secrets::of_fleet(&self.0)).unwrap();
        rendered.into_iter().map(|(hub, files)| (hub.name.clone(), files)).collect()
    }

    fn shown(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.0.display()), "")
    }
}

impl Drop for FleetDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn with_names<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let shown =
        files.map(|(name, content)| format!("=== {name}\n{}\n", String::from_utf8_lossy(content)));
    shown.collect()
}

#[test]
fn a_site_is_rendered_from_fleet_template_and_site() {
    let fleet = FleetDir::good(&[]).check().unwrap();
    let files = fleet.site_files(fleet.site("amsterdam-01").unwrap()).unwrap();
    let shown = files.iter().map(|file| (file.name.as_str(), file.content.as_slice()));
    insta::assert_snapshot!(with_names(shown));
}

#[test]
fn every_kind_of_uplink_is_rendered() {
    let site = |uplink: &str| {
        format!(
            "[site]\naddress = \"10.77.0.14\"\n[network.machine]\ninterface = \"eth1\"\n\
             address = \"192.168.1.2/24\"\n[network.uplink]\n{uplink}\n[[plc]]\nname = \"p\"\n\
             template = \"pump\"\naddress = \"192.168.1.10:502\"\n"
        )
    };
    let dir = FleetDir::good(&[
        ("sites/dhcp.toml", &site("method = \"dhcp\"\ninterface = \"eth0\"")),
        ("sites/lte.toml", &site("method = \"lte\"\napn = \"internet\"").replace(".14", ".15")),
    ]);
    let fleet = dir.check().unwrap();
    let shown = ["dhcp", "lte"].map(|id| {
        let files = fleet.site_files(fleet.site(id).unwrap()).unwrap();
        let uplink = files.iter().filter(|file| file.name.contains("uplink"));
        with_names(uplink.map(|file| (file.name.as_str(), file.content.as_slice())))
    });
    insta::assert_snapshot!(shown.concat());
}

#[test]
fn every_file_of_the_hubs_is_rendered() {
    let dir = FleetDir::good(&[]);
    dir.write_secrets();
    for (name, files) in dir.hubs() {
        let shown = files.iter().map(|file| (file.path, file.content.as_slice()));
        insta::assert_snapshot!(name, with_names(shown));
    }
}

#[test]
fn accounts_are_rendered_for_every_broker() {
    for (software, authentication) in
        [("nats", "password"), ("emqx", "password"), ("mosquitto", "certificate")]
    {
        let broker = format!(
            "{FLEET}\n[broker]\nsoftware = \"{software}\"\nauthentication = \"{authentication}\"\n"
        );
        let dir = FleetDir::good(&[("fleet.toml", &broker)]);
        dir.write_secrets();
        let hubs = dir.hubs();
        let files = hubs[0].1.iter().filter(|file| file.path.contains(software));
        let shown = files.map(|file| (file.path, file.content.as_slice()));
        insta::assert_snapshot!(software, with_names(shown));
    }
}

/// The other brokers could not let any gateway in.
#[test]
fn certificates_are_for_mosquitto_only() {
    for software in ["nats", "emqx"] {
        let broker = format!(
            "{FLEET}\n[broker]\nsoftware = \"{software}\"\nauthentication = \"certificate\"\n"
        );
        let dir = FleetDir::good(&[("fleet.toml", &broker)]);
        let problems = dir.problems();
        assert!(problems.contains("ask for passwords only"), "{problems}");
        assert!(problems.contains("authentication = \"password\", or"), "{problems}");
    }
}

/// A peer of the hub would take the tunnel of the other one.
#[test]
fn no_site_has_the_key_of_a_hub_or_of_a_computer_of_the_office() {
    for (key, holder) in [
        ("njwtOLiSbsm4XIUPw9NwoMyA2y++wXTcS4uL1WsISgs=", "the hub hub-b has the same public key"),
        (
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
            "the computer anna of the office has the same public key",
        ),
    ] {
        let site = ROTTERDAM.replace("\n\n", &format!("\npublic_key = \"{key}\"\n\n"));
        let problems = FleetDir::good(&[("sites/rotterdam-01.toml", &site)]).problems();
        assert!(problems.contains(holder), "{problems}");
    }
}

/// The nodes of a cluster are on the hubs, which are closed to all others.
#[test]
fn the_hubs_of_a_cluster_let_each_other_in() {
    for (software, ports) in [("nats", "6222"), ("emqx", "4370, 5370")] {
        let broker = format!("{FLEET}\n[broker]\nsoftware = \"{software}\"\n");
        let dir = FleetDir::good(&[("fleet.toml", &broker)]);
        dir.write_secrets();
        let hubs = dir.hubs();
        let text = |path: &str| {
            let file = hubs[0].1.iter().find(|file| file.path == path).unwrap();
            String::from_utf8(file.content.clone()).unwrap()
        };
        let peer = "PublicKey = njwtOLiSbsm4XIUPw9NwoMyA2y++wXTcS4uL1WsISgs=\n\
                    Endpoint = hub-b.example.net:51820\nAllowedIPs = 10.77.0.2/32\n";
        assert!(text("etc/wireguard/edge.conf").contains(peer));
        let rule = format!("ip saddr {{ 10.77.0.2 }} tcp dport {{ {ports} }} accept\n");
        assert!(text("etc/nftables.d/edge.nft").contains(&rule));
    }
}

#[test]
fn a_rendered_configuration_is_one_that_the_gateway_runs_with() {
    let dir = FleetDir::good(&[]);
    let fleet = dir.check().unwrap();
    let files = fleet.site_files(fleet.site("amsterdam-01").unwrap()).unwrap();
    let gateway_toml = files.iter().find(|file| file.name == "gateway.toml").unwrap();
    let on_the_box = dir.0.join("box");
    dir.write("box/gateway.toml", str::from_utf8(&gateway_toml.content).unwrap());
    for (name, text) in [("tunnel.key", SITE_KEY), ("mqtt.password", "geheim")] {
        dir.write_secret(&format!("../box/secrets/{name}"), text);
    }
    let loaded = config::load(&on_the_box.join("gateway.toml")).unwrap();
    assert!(loaded.notes.is_empty(), "{}", loaded.notes);
    let pump7 = &loaded.config.plcs[1];
    assert_eq!(pump7.tags.iter().map(|tag| &tag.name).collect::<Vec<_>>(), ["temperature"]);
}

/// Every problem at once, each in the file in which it was written.
#[test]
fn all_problems_are_shown_where_they_were_written() {
    let dir = FleetDir::new(&[
        (
            "fleet.toml",
            &FLEET
                .replace("hub-b.example.net:51820", "hub-b.example.net")
                .replace("ssh_port", "ssh-port")
                .replace("10.77.255.2\"", "10.78.0.2\""),
        ),
        ("templates/pump.toml", &PUMP.replace("REAL", "FLOAT")),
        ("templates/fan.toml", "model = M251\n"),
        ("sites/Amsterdam.toml", AMSTERDAM),
        ("sites/no-section.toml", "[gateway]\nid = \"other\"\n"),
        ("sites/no-address.toml", "[site]\nadress = \"10.77.0.14\"\n"),
        (
            "sites/wrong.toml",
            "[site]\naddress = \"10.77.0.900\"\ncounter = -1\nrevoked = \"no\"\n[tunnel]\n\
             address = \"10.77.0.15/32\"\n[network.machine]\ninterface = \"eth0/1\"\n\
             address = \"192.168.1.0/24\"\n[network.uplink]\nmethod = \"cable\"\n",
        ),
    ]);
    insta::assert_snapshot!(dir.problems());
}

#[test]
fn a_problem_of_a_rendered_configuration_is_shown_in_the_file_that_has_it() {
    let dir = FleetDir::good(&[
        ("fleet.toml", &FLEET.replace("qos = 1", "qos = 7")),
        ("templates/pump.toml", &PUMP.replace("\"INT\"", "\"INTEGER\"")),
        (
            "sites/rotterdam-01.toml",
            "[site]\naddress = \"10.77.0.13\"\n\n[[plc]]\nname = \"pump1\"\ntemplate = \"pump\"\n\
             address = \"192.168.1.10:502\"\nscna = \"1s\"\n\n[[plc.tag]]\nname = \"temperature\"\n\
             scan = \"1 s\"\n",
        ),
    ]);
    insta::assert_snapshot!(dir.problems());
}

#[test]
fn sites_that_disturb_each_other_or_reach_no_plc_are_found() {
    let plc = "[[plc]]\nname = \"p\"\nmodel = \"M241\"\n[[plc.tag]]\nname = \"t\"\nat = \"%MW1\"\n\
               type = \"INT\"\n";
    let network = "[network.machine]\ninterface = \"eth1\"\naddress = \"192.168.1.2/24\"\n";
    let with_plc = |address: &str, own: &str| {
        let plc = plc.replace("\"M241\"", &format!("\"M241\"\naddress = \"{address}:502\""));
        format!("[site]\naddress = \"{own}\"\n{network}{plc}")
    };
    let dir = FleetDir::good(&[
        ("sites/amsterdam-02.toml", AMSTERDAM),
        ("sites/hub.toml", &ROTTERDAM.replace("10.77.0.13", "10.77.0.1")),
        ("sites/desk.toml", &ROTTERDAM.replace("10.77.0.13", "10.77.255.3")),
        ("sites/outside.toml", &ROTTERDAM.replace("10.77.0.13", "10.78.0.3")),
        ("sites/unreachable.toml", &with_plc("192.168.2.10", "10.77.0.20")),
        ("sites/itself.toml", &with_plc("192.168.1.2", "10.77.0.21")),
    ]);
    insta::assert_snapshot!(dir.problems());
}

/// By its user name or its certificate it would be the user who may do everything.
#[test]
fn no_site_has_the_name_of_the_user_of_the_office() {
    let dir = FleetDir::good(&[("sites/office.toml", &ROTTERDAM.replace("0.13", "0.14"))]);
    let shown = dir.problems();
    assert!(shown.contains("\"office\" cannot be the id of a site"), "{shown}");
    assert!(
        shown.contains("sites/office.toml") && shown.contains("choose another name"),
        "{shown}"
    );
}

#[test]
fn a_template_that_is_not_there_or_has_no_such_tag_is_named() {
    let dir = FleetDir::good(&[(
        "sites/rotterdam-01.toml",
        "[site]\naddress = \"10.77.0.13\"\n\n[[plc]]\nname = \"a\"\ntemplate = \"pumps\"\n\
         address = \"192.168.1.10:502\"\n\n[[plc]]\nname = \"b\"\ntemplate = \"pump\"\n\
         omit = [\"presure\"]\naddress = \"192.168.1.11:502\"\n\n[[plc]]\nname = \"c\"\n\
         omit = [\"pressure\"]\naddress = \"192.168.1.12:502\"\n",
    )]);
    insta::assert_snapshot!(dir.problems());
}

#[test]
fn a_note_is_shown_where_it_was_written_and_is_no_problem() {
    let dir = FleetDir::good(&[(
        "fleet.toml",
        &format!("{FLEET}[defaults.metrics]\nlisten = [\"127.0.0.1:9464\"]\n"),
    )]);
    let notes = dir.check().unwrap().notes();
    let shown: Vec<String> = notes.iter().map(|notes| dir.shown(&notes.to_string())).collect();
    insta::assert_snapshot!(shown.join("\n\n"));
}

/// `FLEET` with these lines before its first section, and the start of a package.
fn fleet_with(lines: &str) -> String {
    format!("{lines}\n{FLEET}")
}

const PACKAGE: &str = "!<arch>\ndebian-binary";

#[test]
fn versions_that_no_box_would_install_are_shown_where_they_were_written() {
    let site = |version: &str, address: &str| {
        let site = ROTTERDAM.replace("10.77.0.13", address);
        site.replace("[site]\n", &format!("[site]\nversion = \"{version}\"\n"))
    };
    let versions = "version = \"0.3.0\"\nmin_version = \"0.4.0\"\n";
    let mut files = vec![
        ("fleet.toml", fleet_with(versions)),
        ("sites/rotterdam-01.toml", site("0.4.0~rc1", "10.77.0.13")),
        ("sites/rotterdam-02.toml", site("0.4.1", "10.77.0.14")),
        ("sites/rotterdam-03.toml", site("0.10.0", "10.77.0.15")),
    ];
    let shown = |files: &[(&str, String)]| {
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        FleetDir::good(&files).problems()
    };
    // Without packages/ the boxes get their versions in another way, but not below min_version.
    let without = shown(&files);
    assert!(!without.contains("packages/") && !without.contains("rotterdam-02"), "{without}");
    for version in ["0.3.0", "0.4.0", "0.10.0"] {
        let name = format!("packages/edge-gateway_{version}_arm64.deb");
        files.push((Box::leak(name.into_boxed_str()), PACKAGE.to_owned()));
    }
    insta::assert_snapshot!(shown(&files));
    files[0].1 = fleet_with("version = \"0.5.0\"\nmin_version = \"latest\"\n");
    insta::assert_snapshot!("not_a_version", shown(&files));
    files[0].1 = fleet_with("version = \"0.5.0\"\n");
    insta::assert_snapshot!("no_package_of_the_fleet", shown(&files));
}

/// None of them is read further, and no link is followed: their copies would be public.
#[test]
fn files_that_are_no_packages_are_problems() {
    let dir = FleetDir::good(&[
        ("fleet.toml", &fleet_with("version = \"0.1.0\"")),
        ("packages/edge-gateway_0.1.0_amd64.deb", PACKAGE),
        ("packages/edge-gateway_0.1.0_armhf.deb", "<html>not found</html>"),
        ("packages/edge-gateway_0.1.0_i386.deb", ""),
        ("packages/edge-gateway_0.1.0_riscv64.deb/file", "in a directory"),
        ("packages/edge-provision_0.1.0_amd64.deb", "of another program"),
        ("packages/edge-gateway_0.1.0_amd64.deb.asc", "a signature"),
        ("secrets/signing.key", PACKAGE),
    ]);
    let at = |name: &str| dir.0.join(format!("packages/edge-gateway_0.1.0_{name}.deb"));
    std::os::unix::fs::symlink("../secrets/signing.key", at("arm64")).unwrap();
    fs::File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
    let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(made.success());
    insta::assert_snapshot!(dir.problems());
}

#[test]
fn a_directory_of_packages_that_is_none_or_holds_too_many_is_a_problem() {
    let fleet = fleet_with("version = \"0.1.0\"");
    let dir = FleetDir::good(&[("fleet.toml", &fleet), ("packages", "a file")]);
    let shown = dir.problems();
    assert!(shown.contains("this cannot be read: Not a directory"), "{shown}");
    let dir = FleetDir::good(&[("fleet.toml", &fleet)]);
    for architecture in "abcdefghi".chars() {
        dir.write(&format!("packages/edge-gateway_0.1.0_{architecture}.deb"), PACKAGE);
    }
    let shown = dir.problems();
    assert!(shown.contains("there are more than 8 packages of 0.1.0"), "{shown}");
}

#[test]
fn packages_are_listed_and_a_wrong_name_is_noted() {
    let dir = FleetDir::good(&[
        ("fleet.toml", &fleet_with("version = \"0.2.0\"\nmin_version = \"0.1.0\"")),
        ("packages/edge-gateway_0.10.0_arm64.deb", PACKAGE),
        ("packages/edge-gateway_0.2.0_arm64.deb", PACKAGE),
        ("packages/edge-gateway_0.2.0_amd64.deb", PACKAGE),
        ("packages/edge-gateway_0.0.9_arm64.deb", PACKAGE),
        ("packages/edge-gateway_0.2.0.deb", PACKAGE),
        ("packages/README", "about these files"),
    ]);
    let fleet = dir.check().unwrap();
    let packages = fleet.packages().unwrap();
    assert_eq!((packages.versions().join(" ").as_str(), packages.len()), ("0.10.0 0.2.0 0.0.9", 4));
    let notes: Vec<_> = fleet.notes().iter().map(|notes| dir.shown(&notes.to_string())).collect();
    insta::assert_snapshot!(notes.join("\n\n"));
    assert!(FleetDir::good(&[]).check().unwrap().packages().is_none());
}

#[test]
fn a_directory_without_a_fleet_says_how_to_make_one() {
    let dir = FleetDir::new(&[("readme", "")]);
    let shown = dir.problems();
    assert!(shown.contains("there is no fleet.toml here"), "{shown}");
    assert!(shown.contains("edge-provision init"), "{shown}");
}

#[test]
fn the_same_fleet_gives_the_same_bytes() {
    let dirs = [FleetDir::good(&[]), FleetDir::good(&[])];
    let rendered = dirs.map(|dir| {
        dir.write_secrets();
        let fleet = dir.check().unwrap();
        let files: Vec<_> =
            fleet.sites().iter().map(|site| fleet.site_files(site).unwrap()).collect();
        (files, dir.hubs())
    });
    assert_eq!(rendered[0], rendered[1]);
}

/// A second run changes nothing; a change of one site changes the files that name it.
#[test]
fn only_changed_files_of_a_hub_are_written() {
    let dir = FleetDir::good(&[]);
    dir.write_secrets();
    let write = |dir: &FleetDir| {
        let (_, files) = dir.hubs().swap_remove(0);
        let changed = hub::write(&dir.0.join("out"), &files).unwrap();
        changed
            .into_iter()
            .map(|(path, _)| dir.shown(&path.display().to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(write(&dir).len(), 14);
    assert!(write(&dir).is_empty());
    let key = "public_key = \"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\"\n\n[[plc]]";
    dir.write("sites/rotterdam-01.toml", &ROTTERDAM.replace("[[plc]]", key));
    let changed = write(&dir);
    let is_expected = |path: &String| path.contains("wireguard") || path.contains("targets");
    assert!(changed.iter().all(is_expected) && !changed.is_empty(), "{changed:?}");
}

#[test]
fn a_revoked_site_is_in_no_file_of_a_hub() {
    let dir = FleetDir::good(&[(
        "sites/amsterdam-01.toml",
        &AMSTERDAM.replace("counter", "revoked = true\ncounter"),
    )]);
    dir.write_secrets();
    for (_, files) in dir.hubs() {
        for file in files {
            let text = String::from_utf8(file.content).unwrap();
            assert!(!text.contains("amsterdam") && !text.contains("5xMve9k3"), "{}", file.path);
        }
    }
}

/// Greps every rendered byte for every secret. Only the private key of a hub is in a file, because
/// wg-quick reads it there, and others may not read that file.
#[test]
fn no_secret_is_rendered() {
    use provisioning::office::output_file::FileAccess;

    let software = ["mosquitto", "nats", "emqx"];
    for software in software {
        let broker = format!("{FLEET}\n[broker]\nsoftware = \"{software}\"\n");
        let dir = FleetDir::good(&[("fleet.toml", &broker)]);
        dir.write_secrets();
        let fleet = dir.check().unwrap();
        let mut secrets = vec!["geheim-office", "geheim-amsterdam-01", "geheim-rotterdam-01"];
        secrets.extend(HUB_KEYS);
        for site in fleet.sites() {
            for file in fleet.site_files(site).unwrap() {
                let text = String::from_utf8(file.content).unwrap();
                assert!(!secrets.iter().any(|secret| text.contains(secret)), "{}", file.name);
            }
        }
        for (_, files) in dir.hubs() {
            for HubFile { path, content, access } in files {
                let text = String::from_utf8(content).unwrap();
                let found: Vec<_> =
                    secrets.iter().filter(|secret| text.contains(**secret)).collect();
                let is_key_file = path == "etc/wireguard/edge.conf";
                assert_eq!(found.len(), usize::from(is_key_file), "{path}: {found:?}");
                assert!(!is_key_file || access == FileAccess::Secret);
            }
        }
    }
}

#[test]
fn a_site_that_publishes_elsewhere_may_do_so_at_the_broker() {
    let dir = FleetDir::good(&[(
        "sites/amsterdam-01.toml",
        &AMSTERDAM.replace("heartbeat = \"60s\"", "topic = \"plant/{gateway}/{plc}\""),
    )]);
    dir.write_secrets();
    let hubs = dir.hubs();
    let acl = hubs[0].1.iter().find(|file| file.path.ends_with(".acl")).unwrap();
    let acl = str::from_utf8(&acl.content).unwrap();
    for plc in ["pump6", "pump7"] {
        let line = format!("topic write plant/amsterdam-01/{plc}\n");
        assert!(acl.contains(&line), "{acl}");
    }
}

/// Sites of the same shape are checked once; what makes one of them fail must make a difference.
#[test]
fn sites_of_one_shape_are_checked_as_if_each_was_alone() {
    let site = |id: usize, scan: &str| {
        format!(
            "[site]\naddress = \"10.77.1.{id}\"\n[gateway]\nlocation = \"Plant {id}\"\n[[plc]]\n\
             name = \"pump\"\ntemplate = \"pump\"\naddress = \"192.168.1.10:502\"\nscan = \"{scan}\"\n"
        )
    };
    let dir = FleetDir::good(&[]);
    for id in 10..60 {
        let scan = if id == 42 { "fast" } else { "1s" };
        dir.write(&format!("sites/plant-{id}.toml"), &site(id, scan));
    }
    let shown = dir.problems();
    assert!(shown.contains("sites/plant-42.toml:9:8") && shown.contains(": 1 problem"), "{shown}");
    dir.write("sites/plant-42.toml", &site(42, "1s"));
    let fleet = dir.check().unwrap();
    for site in fleet.sites() {
        let files = fleet.site_files(site).unwrap();
        let text = str::from_utf8(&files[0].content).unwrap();
        assert!(text.contains(&format!("id = \"{}\"", site.id)));
        dir.write("gateway.toml", text);
        config::inspect(&dir.0.join("gateway.toml"), FileCheck::Skip).unwrap();
    }
}

/// An unexpected file is a problem with a place, and never a panic.
#[test]
fn mutated_files_are_problems_or_a_fleet() {
    let mut random = fastrand::Rng::with_seed(7);
    let dir = FleetDir::good(&[]);
    for _ in 0..400 {
        let files = [
            ("fleet.toml", FLEET),
            ("templates/pump.toml", PUMP),
            ("sites/amsterdam-01.toml", AMSTERDAM),
        ];
        let (name, text) = random.choice(files).unwrap();
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..random.u8(1..4) {
            let at = random.usize(..bytes.len());
            let to = (at + random.usize(1..40)).min(bytes.len());
            match random.u8(0..3) {
                0 => drop(bytes.drain(at..to)),
                1 => bytes[at] ^= 1 << random.u8(0..8),
                _ => {
                    let copy = bytes[at..to].to_vec();
                    let other = random.usize(..=bytes.len());
                    bytes.splice(other..other, copy);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        fs::write(dir.0.join(name), &bytes).unwrap();
        if let Err(problems) = dir.check() {
            assert!(problems.contains("problem"), "{problems}");
        }
        fs::write(dir.0.join(name), text).unwrap();
    }
}

#[test]
fn the_path_of_a_fleet_may_be_relative() {
    assert!(Fleet::check(Path::new("there-is-none")).is_err());
}
