//! `cargo xtask bench`: the side-by-side measurements of docs/performance.md.

use anyhow::Result;
use clap::Args;

use crate::peers;
use crate::run::{cargo, run, step, target_dir};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// W2: 10 PLCs x 200 tags, every second. W3: 50 x 500, every second. W4: 1 x 500, as fast as
    /// possible. W5: W2 with PLCs that answer after 2 ms. All four without a name. `tunnel`:
    /// throughput and processor time, compared with wireguard-go, in network namespaces, as root.
    /// `queue`: appending, replay, start with a backlog. `replay`: the age of new values during the
    /// replay of a backlog to Mosquitto, after an outage of `--seconds`. `wear`: bytes written to
    /// the device, compared with SQLite and redb, on loop devices, as root. `write`: the time from a
    /// command to its reply under W3, beside fdatasync of the same disk. `fleet`: the commands of
    /// `edge-provision` with 10,000 sites. `import`: 20,000 variables of a PLC project, from each
    /// format.
    #[arg(value_parser = [
        "W2", "W3", "W4", "W5", "tunnel", "queue", "replay", "wear", "write", "fleet", "import",
    ])]
    workloads: Vec<String>,
    /// Also measures the peers: a script (pymodbus, aiomqtt), modpoll, modbus2mqtt, Node-RED.
    /// Installs them below target/peers; needs python3-venv and npm.
    #[arg(long)]
    peers: bool,
    /// Only these programs, by their names in the table.
    #[arg(long, value_delimiter = ',', value_name = "PROGRAM", value_parser = program)]
    only: Vec<String>,
    /// Runs of each program; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    turns: u32,
    /// Measured seconds of each run.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
}

/// Builds the measured programs in release and runs the measurements.
pub(crate) fn bench(bench: &BenchArguments) -> Result<()> {
    let named = |name: &str| bench.workloads.iter().any(|workload| workload == name);
    let of_office = |workload: &String| ["fleet", "import"].contains(&workload.as_str());
    if bench.workloads.is_empty() || !bench.workloads.iter().all(of_office) {
        step("build the gateway", || run(&mut cargo(&["build", "--release", "-p", "gateway"])))?;
    }
    if named("tunnel") {
        tunnel(bench)?;
    }
    if named("queue") {
        step("measure the queue", || run(&mut cargo(&["bench", "-p", "e2e", "--bench", "queue"])))?;
    }
    if named("replay") {
        let mut measure = cargo(&["bench", "-p", "e2e", "--bench", "replay", "--"]);
        measure.args(["--turns", &bench.turns.to_string()]);
        measure.args(["--seconds", &bench.seconds.to_string()]);
        step("measure a replay", || run(&mut measure))?;
    }
    if named("write") {
        let mut measure = cargo(&["bench", "-p", "e2e", "--bench", "write", "--"]);
        measure.args(["--turns", &bench.turns.to_string()]);
        measure.args(["--seconds", &bench.seconds.to_string()]);
        step("measure writes", || run(&mut measure))?;
    }
    if named("fleet") {
        fleet()?;
    }
    if named("wear") {
        step("measure the wear", || run(&mut cargo(&["bench", "-p", "e2e", "--bench", "wear"])))?;
    }
    if named("import") {
        let measure = ["bench", "-p", "provisioning", "--bench", "import"];
        step("measure imports", || run(&mut cargo(&measure)))?;
    }
    let loads: Vec<&String> =
        bench.workloads.iter().filter(|workload| workload.starts_with('W')).collect();
    if loads.is_empty() && !bench.workloads.is_empty() {
        return Ok(());
    }
    step("build the floor", || {
        run(&mut cargo(&["bench", "--no-run", "-p", "e2e", "--bench", "floor"]))
    })?;
    let mut load = cargo(&["bench", "-p", "e2e", "--bench", "load", "--"]);
    load.args(loads);
    for program in &bench.only {
        load.args(["--only", program]);
    }
    load.args(["--turns", &bench.turns.to_string(), "--seconds", &bench.seconds.to_string()]);
    if bench.peers {
        let peers = step("set the peers up", peers::provide)?;
        load.arg("--peers").arg(peers);
    }
    let lines = target_dir().join("bench.jsonl");
    load.arg("--json").arg(&lines);
    step("measure", || run(&mut load))?;
    println!("    one line per cell in {}", lines.display());
    Ok(())
}

fn fleet() -> Result<()> {
    step("build edge-provision", || {
        run(&mut cargo(&["build", "--release", "-p", "provisioning"]))
    })?;
    let mut measure = cargo(&["bench", "-p", "e2e", "--bench", "fleet"]);
    measure.env(test_settings::PROVISION.name, target_dir().join("release/edge-provision"));
    step("measure a fleet", || run(&mut measure))
}

fn tunnel(bench: &BenchArguments) -> Result<()> {
    let wireguard_go = step("the newest wireguard-go", peers::wireguard_go::provide)?;
    let mut measure = cargo(&["bench", "-p", "e2e", "--bench", "tunnel", "--"]);
    measure.arg("--wireguard-go").arg(wireguard_go);
    measure.args(["--turns", &bench.turns.to_string(), "--seconds", &bench.seconds.to_string()]);
    step("measure the tunnel", || run(&mut measure))
}

fn program(name: &str) -> Result<String, String> {
    let known: Vec<_> =
        ["floor", "gateway", "tunnelled"].into_iter().chain(peers::names()).collect();
    if known.contains(&name) {
        Ok(name.to_owned())
    } else {
        Err(format!("one of: {}", known.join(", ")))
    }
}
