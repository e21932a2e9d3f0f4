//! Speed of `edge-provision` with 10,000 sites: `cargo xtask bench fleet`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement stops on the spot and prints"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::Office;
use provisioning::enrolment::BoxKeys;

const SITES: u32 = 10_000;
/// PLCs of each site, of one template.
const PLCS: u32 = 5;
/// Tags of the template.
const TAGS: u32 = 40;
const RUNS: usize = 5;

fn main() {
    let office = Office::new("hub-a.example.net:51820");
    office.run(&["add", "hub-b", "--hub", "--endpoint", "hub-b.example.net:51820"]);
    make_sites(&office);
    println!("{SITES} sites with {PLCS} PLCs of {TAGS} tags, 2 hubs; median of {RUNS} runs");
    measure(&office, "check", &["check"]);
    measure(&office, "list", &["list"]);
    measure(&office, "hub files, nothing changed", &["hub"]);
    write_statuses(&office);
    measure(&office, "status of a file", &["status", "--capture", "statuses.txt"]);
    let site = "sites/site-00042.toml";
    let times = (0..RUNS).map(|run| {
        office.change(site, |text| format!("{text}# {run}\n"));
        timed(&office, &["diff", "site-00042"])
    });
    println!("{:32} {:?}", "one changed site (diff)", median(times.collect()));
    println!("{:32} {:?}", "build of all", timed(&office, &["build"]));
    println!("{:32} {:?}", "build, nothing changed", timed(&office, &["build"]));
    let times = (0..RUNS).map(|run| {
        office.change(site, |text| text.replacen("Plant 42", &format!("Plant 42{run}"), 1));
        timed(&office, &["build", "site-00042"])
    });
    println!("{:32} {:?}", "build of one changed site", median(times.collect()));
}

/// Makes the files that `add` makes, at once.
fn make_sites(office: &Office) {
    let mut template = String::from("model = \"M241\"\nscan = \"1s\"\n");
    for tag in 0..TAGS {
        let _ = write!(
            template,
            "\n[[tag]]\nname = \"t{tag}\"\nat = \"%MW{}\"\ntype = \"REAL\"\ndeadband = 0.1\n",
            10 + 2 * tag
        );
    }
    fs::write(office.path("templates/pump.toml"), template).expect("the fleet is writable");
    fs::create_dir_all(office.path("enrolled/sites")).expect("the fleet is writable");
    for site in 0..SITES {
        let id = format!("site-{site:05}");
        let enrolment = BoxKeys::generate().and_then(|keys| keys.enrolment());
        let enrolment = enrolment.expect("keys can be made");
        let key = enrolment.tunnel_public_key;
        let address = format!("10.77.{}.{}", 1 + site / 250, 2 + site % 250);
        let mut text = format!(
            "[site]\naddress = \"{address}\"\npublic_key = \"{key}\"\n\n[gateway]\n\
             location = \"Plant {site}\"\n\n[network.machine]\ninterface = \"eth1\"\n\
             address = \"192.168.1.2/24\"\n"
        );
        for plc in 0..PLCS {
            let _ = write!(
                text,
                "\n[[plc]]\nname = \"pump{plc}\"\ntemplate = \"pump\"\n\
                 address = \"192.168.1.{}:502\"\n",
                10 + plc
            );
        }
        fs::write(office.path(format!("sites/{id}.toml")), text).expect("the fleet is writable");
        let enrolled = office.path(format!("enrolled/sites/{id}.txt"));
        fs::write(enrolled, enrolment.to_string()).expect("the fleet is writable");
        let secrets = office.path(format!("secrets/sites/{id}"));
        fs::create_dir_all(&secrets).expect("the fleet is writable");
        write_password(&secrets.join("mqtt.password.1"), site);
    }
    git(office, &["init", "--quiet"]);
    git(office, &["add", "."]);
    git(office, &["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "all"]);
}

/// Writes the retained statuses of all sites as mosquitto_sub does.
fn write_statuses(office: &Office) {
    let plc = "{\"name\":\"pump\",\"state\":\"connected\",\"sentence\":\"All tags are good.\",\
               \"cycle\":{\"took_ms\":12.5,\"missed\":0},\"tags\":{\"good\":40,\"bad\":0}}";
    let plcs = vec![plc; PLCS as usize].join(",");
    let mut text = String::new();
    for site in 0..SITES {
        let id = format!("site-{site:05}");
        let at = jiff::Timestamp::now();
        let _ = writeln!(
            text,
            "edge/{id}/status {{\"state\":\"online\",\"gateway\":{{\"id\":\"{id}\",\
             \"version\":\"0.1.0\",\"config\":{{\"hash\":\"0123456789ab\",\"counter\":{}}},\
             \"started\":\"{at}\",\"at\":\"{at}\"}},\"plcs\":[{plcs}]}}",
            site % 3
        );
    }
    fs::write(office.path("statuses.txt"), text).expect("the fleet is writable");
}

fn write_password(path: &Path, site: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::write(path, format!("a password of 32 characters {site:05}\n")).expect("it is writable");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is our own");
}

fn git(office: &Office, arguments: &[&str]) {
    let status = Command::new("git").arg("-C").arg(office.path("")).args(arguments).status();
    assert!(status.expect("git is installed").success(), "git {arguments:?}");
}

fn measure(office: &Office, name: &str, arguments: &[&str]) {
    let first = timed(office, arguments);
    let again = median((0..RUNS).map(|_| timed(office, arguments)).collect());
    println!("{name:32} {again:?} (the first time {first:?})");
}

fn timed(office: &Office, arguments: &[&str]) -> Duration {
    let start = Instant::now();
    let output = office.output(arguments);
    let took = start.elapsed();
    // `diff` answers 1 when there is a difference.
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
