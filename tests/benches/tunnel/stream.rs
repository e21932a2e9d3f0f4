//! One TCP stream through the userspace stack, in both directions. The other end is a kernel socket on
//! the hub's machine.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Process, WireguardGo, eventually};
use provisioning::wg_quick;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tunnel::{ClockBounds, LocalPort, Now, Tunnel, UdpTransport, UserspaceTunnel};

use crate::report::{Flow, Row};
use crate::site::{Contender, cpu_seconds, idle, peak_rss_mb};
use crate::world::World;

const PORT: u16 = 7000;
const CHUNK: usize = 64 * 1024;
/// First byte of a connection: the sender.
const UP: u8 = b'u';
const DOWN: u8 = b'd';

/// Measures it; starts this program on each machine.
pub(crate) fn userspace(world: &World, seconds: u32, with_idle: bool) -> Row {
    let program = std::env::current_exe().expect("its own path").display().to_string();
    let _server = Process::start(world.pair.hub.command(&program).args(["--part", "serve"]));
    eventually("the server listens", Duration::from_secs(5), || {
        let port = format!(":{PORT}");
        let listening = world.pair.hub.run("ss", &["-ltnH", "sport", "=", &port]);
        (!listening.trim().is_empty()).then_some(())
    });
    let conf = world.conf().display().to_string();
    let seconds = seconds.to_string();
    let idle = if with_idle { "idle" } else { "" };
    let arguments = ["--part", "site", &conf, &seconds, idle];
    let mut site = world.pair.site.command(&program);
    let output = site.args(arguments).stderr(Stdio::inherit()).output().expect("it starts");
    assert!(output.status.success(), "the site's part failed");
    let figures: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let flow = |name: &str| Flow {
        mbit: figures[name]["mbit"].as_f64().expect("a number"),
        cpu_per_gb: figures[name]["cpu_per_gb"].as_f64().expect("a number"),
    };
    let rss_mb = figures["rss_mb"].as_f64().expect("a number");
    let contender = Contender::Userspace;
    let idle_percent = figures["idle_percent"].as_f64();
    let (up, down) = (flow("up"), flow("down"));
    Row { contender, mtu: world.mtu, up, down, datagrams: None, idle_percent, rss_mb }
}

/// Runs the part of one machine.
pub(crate) fn part(words: &[&str]) {
    match *words {
        ["serve", ..] => serve(),
        ["site", conf, seconds, idle] => {
            site(conf, seconds.parse().expect("seconds"), !idle.is_empty());
        }
        _ => panic!("--part serve, or --part site CONF SECONDS [idle]"),
    }
}

fn serve() {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a free port");
    for stream in listener.incoming() {
        // A broken connection ends its part of the measurement; another one may follow.
        let _ = stream.and_then(answer);
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    let mut chunk = vec![0; CHUNK];
    if first == [DOWN] {
        loop {
            stream.write_all(&chunk)?;
        }
    }
    let mut bytes = 0_u64;
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.write_all(&bytes.to_be_bytes()),
            read => bytes += read as u64,
        }
    }
}

fn site(conf: &str, seconds: u64, with_idle: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let duration = Duration::from_secs(seconds);
    runtime.expect("a runtime").block_on(async {
        let read = wg_quick::load(conf.as_ref()).expect("the file is good");
        let seed = u64::from(std::process::id());
        let tunnel = Tunnel::site(read.settings, ClockBounds::default(), Now::read(), seed);
        let path = UdpTransport::bind(LocalPort::Any).expect("a UDP port");
        let (stack, driver) = tunnel::userspace_tunnel(tunnel, path, seed);
        let measuring = async {
            let up = up(&stack, duration).await;
            let down = down(&stack, duration).await;
            let pid = std::process::id();
            let rss_mb = peak_rss_mb(pid);
            let idle = tokio::task::spawn_blocking(move || with_idle.then(|| idle(pid))).await;
            let idle_percent = idle.expect("it measures");
            let figures =
                json!({ "up": up, "down": down, "rss_mb": rss_mb, "idle_percent": idle_percent });
            println!("{figures}");
        };
        tokio::select! {
            ended = driver.run(pending()) => panic!("the tunnel has ended: {ended:?}"),
            () = measuring => {}
        }
    });
}

async fn connect(stack: &UserspaceTunnel, first: u8) -> tunnel::TcpStream {
    let address = SocketAddr::new(WireguardGo::ADDRESS.parse().expect("an address"), PORT);
    let mut stream = stack.connect(address).await.expect("the server answers");
    stream.write_u8(first).await.expect("the connection holds");
    stream
}

async fn up(stack: &UserspaceTunnel, duration: Duration) -> Value {
    let mut stream = connect(stack, UP).await;
    let chunk = vec![0; CHUNK];
    let (begin, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    while begin.elapsed() < duration {
        stream.write_all(&chunk).await.expect("the connection holds");
    }
    stream.shutdown().await.expect("the connection holds");
    let bytes = stream.read_u64().await.expect("the server counts");
    flow(bytes, begin, cpu)
}

async fn down(stack: &UserspaceTunnel, duration: Duration) -> Value {
    let mut stream = connect(stack, DOWN).await;
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0_u64;
    let (begin, cpu) = (Instant::now(), cpu_seconds(std::process::id()));
    while begin.elapsed() < duration {
        bytes += stream.read(&mut chunk).await.expect("the connection holds") as u64;
    }
    flow(bytes, begin, cpu)
}

#[expect(clippy::cast_precision_loss, reason = "a measurement")]
fn flow(bytes: u64, begin: Instant, cpu: f64) -> Value {
    let cpu = cpu_seconds(std::process::id()) - cpu;
    let mbit = bytes as f64 * 8e-6 / begin.elapsed().as_secs_f64();
    json!({ "mbit": mbit, "cpu_per_gb": cpu / (bytes as f64 / 1e9) })
}
