//! The compared programs at the site.

use std::fs;
use std::thread;
use std::time::Duration;

use e2e::{Process, WireguardGo, eventually, workspace_program};
use serde_json::Value;

use crate::report::{Datagrams, Flow, Row};
use crate::stream;
use crate::world::{World, wait_for_device};

/// Unit of the times in /proc/PID/stat (USER_HZ, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;
/// Payloads of the datagrams: a small one, and one that fills a packet with either MTU.
pub(crate) const SIZES: [u32; 2] = [100, 1232];
/// Time from the first ping until the tunnel is idle.
const SETTLE: Duration = Duration::from_secs(1);
/// Longer than the keepalive interval of 25 s.
const IDLE: Duration = Duration::from_secs(30);

/// A program at the site.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Contender {
    /// `edge-gateway tunnel`, with a TUN device.
    Device,
    /// The TCP stack of the tunnel crate, in a process.
    Userspace,
    /// The newest wireguard-go of Debian.
    WireguardGo,
}

impl Contender {
    pub(crate) const ALL: [Self; 3] = [Self::WireguardGo, Self::Device, Self::Userspace];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Device => "edge-gateway, tun",
            Self::Userspace => "edge-gateway, userspace",
            Self::WireguardGo => "wireguard-go",
        }
    }

    pub(crate) fn run(self, world: &World, seconds: u32, with_idle: bool) -> Row {
        match self {
            Self::Device | Self::WireguardGo => self.with_device(world, seconds, with_idle),
            Self::Userspace => stream::userspace(world, seconds, with_idle),
        }
    }

    fn with_device(self, world: &World, seconds: u32, with_idle: bool) -> Row {
        let site = &world.pair.site;
        let process = match self {
            Self::WireguardGo => start_wireguard_go(world),
            Self::Device | Self::Userspace => {
                let program =
                    workspace_program("edge-gateway", test_settings::GATEWAY).display().to_string();
                let conf = world.conf().display().to_string();
                let arguments = ["tunnel", &conf, "--interface", "site0"];
                Process::start(site.command(&program).args(arguments))
            }
        };
        eventually("the hub answers a ping", Duration::from_secs(15), || {
            let ping =
                site.command("ping").args(["-c", "1", "-W", "1", WireguardGo::ADDRESS]).output();
            ping.expect("ping is installed").status.success().then_some(())
        });
        let pid = process.id();
        let idle_percent = with_idle.then(|| idle(pid));
        let up = iperf(world, pid, seconds, &[]);
        let down = iperf(world, pid, seconds, &["-R"]);
        let rss_mb = peak_rss_mb(pid);
        let datagrams = Some(SIZES.map(|size| {
            let flags = ["-u", "-b", "0", "-l", &size.to_string()];
            let back = [&flags[..], &["-R"]].concat();
            [&flags[..], &back].map(|flags| datagrams(world, pid, seconds, flags))
        }));
        Row { contender: self, mtu: world.mtu, up, down, datagrams, idle_percent, rss_mb }
    }
}

fn start_wireguard_go(world: &World) -> Process {
    let site = &world.pair.site;
    let process = Process::start(
        site.command(&world.wireguard_go.display().to_string())
            .args(["--foreground", "site0"])
            .env("WG_PROCESS_FOREGROUND", "1"),
    );
    wait_for_device(site, "site0");
    let key = world.directory.write("site.key", &world.site_key.expose());
    site.run(
        "wg",
        &[
            "set",
            "site0",
            "private-key",
            &key.display().to_string(),
            "peer",
            &world.hub_key.to_string(),
            "endpoint",
            WireguardGo::ENDPOINT,
            "allowed-ips",
            &format!("{}/32", WireguardGo::ADDRESS),
            "persistent-keepalive",
            "25",
        ],
    );
    let address = format!("{}/24", WireguardGo::SITE_ADDRESS);
    site.ip(&["address", "add", &address, "dev", "site0"]);
    site.ip(&["link", "set", "site0", "mtu", &world.mtu.to_string(), "up"]);
    process
}

/// Measures one TCP stream through the tunnel.
fn iperf(world: &World, pid: u32, seconds: u32, flags: &[&str]) -> Flow {
    let (result, cpu) = iperf3(world, pid, seconds, flags);
    let received = |key: &str| result["end"]["sum_received"][key].as_f64().expect("a number");
    Flow { mbit: received("bits_per_second") / 1e6, cpu_per_gb: cpu / (received("bytes") / 1e9) }
}

/// Sends as many UDP datagrams through the tunnel as possible and counts those that arrive.
fn datagrams(world: &World, pid: u32, seconds: u32, flags: &[&str]) -> Datagrams {
    let (result, cpu) = iperf3(world, pid, seconds, flags);
    let sum = |key: &str| result["end"]["sum"][key].as_f64().expect("a number");
    let arrived = sum("packets") - sum("lost_packets");
    Datagrams { per_second: arrived / sum("seconds"), cpu_per_million: cpu / (arrived / 1e6) }
}

/// Runs iperf3 and returns its report, and the processor time of the site's process meanwhile.
fn iperf3(world: &World, pid: u32, seconds: u32, flags: &[&str]) -> (Value, f64) {
    let _server = Process::start(world.pair.hub.command("iperf3").args(["-s", "-1"]));
    eventually("iperf3 listens", Duration::from_secs(5), || {
        let listening = world.pair.hub.run("ss", &["-ltnH", "sport", "=", ":5201"]);
        (!listening.trim().is_empty()).then_some(())
    });
    let before = cpu_seconds(pid);
    let seconds = seconds.to_string();
    let arguments = [&["-c", WireguardGo::ADDRESS, "-J", "-t", &seconds], flags].concat();
    let printed = world.pair.site.run("iperf3", &arguments);
    let cpu = cpu_seconds(pid) - before;
    (serde_json::from_str(&printed).expect("iperf3 prints JSON"), cpu)
}

/// Returns the processor use of an idle process, in percent.
pub(crate) fn idle(pid: u32) -> f64 {
    thread::sleep(SETTLE);
    let before = scheduled(pid);
    thread::sleep(IDLE);
    (scheduled(pid) - before) / IDLE.as_secs_f64() * 100.0
}

/// Returns the processor time of the living threads by the scheduler's count, which is exact.
fn scheduled(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of = |thread: fs::DirEntry| -> Option<f64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    threads.flatten().filter_map(of).sum::<f64>() / 1e9
}

/// Returns the processor time of a process so far, including all threads.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).expect("utime") + ticks(12).expect("stime")) / TICKS_PER_SECOND
}

pub(crate) fn peak_rss_mb(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0 / 1e6
}
