//! The compared programs and their configurations: the gateway, its floor, and other gateways.

use std::fmt::Write;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::hub::Hub;
use super::workload::{Block, Workload};

/// The PLCs to read and the broker to publish to.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) workload: &'a Workload,
    /// Ports of the PLCs.
    pub(crate) plcs: &'a [u16],
    pub(crate) broker: u16,
    /// A hub in front of the same broker.
    pub(crate) hub: &'a Hub,
    /// Directory for configurations; empty at the start.
    pub(crate) dir: &'a Path,
}

/// One or several programs that do the task.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Writes its configuration and returns the commands that start it, or the reason why it cannot.
    pub(crate) prepare: fn(&Task<'_>, &ProgramPaths) -> Result<Vec<Command>, String>,
}

/// Paths of the programs.
#[derive(Debug)]
pub(crate) struct ProgramPaths {
    pub(crate) floor: std::path::PathBuf,
    pub(crate) gateway: std::path::PathBuf,
    /// As `cargo xtask bench --peers` installs them.
    pub(crate) peers: std::path::PathBuf,
}

/// The gateway and its floor.
pub(crate) const OWN_PROGRAMS: [Contender; 3] = [
    Contender { name: "floor", prepare: floor },
    Contender { name: "gateway", prepare: gateway },
    Contender { name: "tunnelled", prepare: tunnelled },
];

/// Other gateways. They use QoS 0, their default and the cheaper one; edge-gateway uses QoS 1.
pub(crate) const PEERS: [Contender; 4] = [
    Contender { name: "script", prepare: script },
    Contender { name: "modpoll", prepare: modpoll },
    Contender { name: "modbus2mqtt", prepare: modbus2mqtt },
    Contender { name: "node-red", prepare: node_red },
];

/// Shortest scan of the gateway. To read as fast as possible, its limits are lifted too.
const SHORTEST_SCAN_MS: u128 = 1;
const NO_LIMITS: &str = "max_share = 100\nmax_requests = 10000\n";
/// Shortest period used for Node-RED.
const SHORTEST_RATE_MS: u128 = 10;
const TEXT: &str = "a string takes text";

impl ProgramPaths {
    /// Returns the path of a peer's program, unless its installation failed.
    fn peer(&self, name: &str, program: &str) -> Result<std::path::PathBuf, String> {
        let dir = self.peers.join(name);
        let found = dir.join(program);
        if dir.join("holds").exists() && found.exists() {
            return Ok(found);
        }
        let reason = std::fs::read_to_string(self.peers.join(format!("{name}.failed")));
        Err(reason.unwrap_or_else(|_| "not set up: `cargo xtask bench --peers` does it".to_owned()))
    }
}

impl Task<'_> {
    fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, text).expect("the temporary directory takes files");
        path
    }

    fn seconds(&self) -> f64 {
        self.workload.period.as_secs_f64()
    }
}

fn floor(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let mut floor = Command::new(&places.floor);
    let period = task.workload.period.as_millis();
    floor
        .args([&task.broker, &u16::try_from(task.workload.tags).expect("few")].map(u16::to_string));
    floor.arg(period.to_string()).args(task.plcs.iter().map(u16::to_string));
    Ok(vec![floor])
}

fn gateway(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    Ok(vec![start(task, places, &format!("127.0.0.1:{}", task.broker), "")])
}

/// The gateway with a tunnel in `userspace` mode.
fn tunnelled(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let key = task.write("tunnel.key", task.hub.site.expose().as_str());
    let readable_by_us = Permissions::from_mode(0o600);
    std::fs::set_permissions(&key, readable_by_us).expect("the test owns the file");
    let tunnel = format!(
        "[tunnel]\nprivate_key_file = \"{}\"\naddress = \"{}\"\n[[tunnel.hub]]\nname = \"hub\"\n\
         endpoint = \"127.0.0.1:{}\"\npublic_key = \"{}\"\nallowed_ips = [\"10.77.0.0/16\"]\n",
        key.display(),
        Hub::SITE,
        task.hub.port,
        task.hub.key
    );
    Ok(vec![start(task, places, Hub::BROKER, &tunnel)])
}

/// Writes a typical configuration: names, addresses, types, and defaults.
fn start(task: &Task<'_>, places: &ProgramPaths, broker: &str, tunnel: &str) -> Command {
    let dir = task.dir.display();
    let mut toml = format!(
        "[gateway]\nid = \"load\"\nstate_dir = \"{dir}/state\"\n\
         [mqtt]\nbrokers = [\"mqtt://{broker}\"]\n[metrics]\nlisten = []\n{tunnel}"
    );
    let scan = task.workload.period.as_millis().max(SHORTEST_SCAN_MS);
    let limits = if task.workload.period.is_zero() { NO_LIMITS } else { "" };
    for (plc, port) in task.plcs.iter().enumerate() {
        write!(
            toml,
            "[[plc]]\nname = \"plc{plc}\"\nmodel = \"M241\"\naddress = \"127.0.0.1:{port}\"\n\
             scan = \"{scan}ms\"\n{limits}"
        )
        .expect(TEXT);
        for tag in task.workload.tags() {
            let iec = match tag.kind {
                "i16" => "INT",
                "u16" => "UINT",
                "i32" => "DINT",
                _ => "REAL",
            };
            let (name, word) = (tag.name, tag.register);
            writeln!(toml, "[[plc.tag]]\nname = \"{name}\"\nat = \"%MW{word}\"\ntype = \"{iec}\"")
                .expect(TEXT);
        }
    }
    let mut gateway = Command::new(&places.gateway);
    gateway.arg("run").arg(task.write("gateway.toml", &toml)).env("RUST_LOG", "warn");
    // As the unit starts it.
    gateway.env("MALLOC_ARENA_MAX", "1");
    gateway
}

/// asyncio, pymodbus and aiomqtt: one process that reads all PLCs at the same instant.
fn script(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/script/script.py");
    let plcs = task.plcs.iter().enumerate();
    let argument = json!({
        "broker": task.broker,
        "period": task.seconds(),
        "plcs": plcs.map(|(n, port)| json!([format!("plc{n}"), port])).collect::<Vec<_>>(),
        "blocks": task.workload.blocks().iter()
            .map(|block| json!([block.first, block.count, offsets(block)]))
            .collect::<Vec<_>>(),
    });
    let mut script = Command::new(places.peer("script", "bin/python")?);
    script.arg(text).arg(argument.to_string());
    Ok(vec![script])
}

/// Returns name, kind and offset in the block of each tag.
fn offsets(block: &Block) -> Vec<Value> {
    let tags = block.tags.iter();
    tags.map(|tag| json!([tag.name, tag.kind, tag.register - block.first])).collect()
}

/// One process for each PLC. It connects only with MQTT 5; its pause between blocks is set to 0.
fn modpoll(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let program = places.peer("modpoll", "bin/modpoll")?;
    let command = |(plc, port): (usize, &u16)| {
        let mut csv = format!("device,plc{plc},255,,\n");
        for Block { first, count, tags } in task.workload.blocks() {
            writeln!(csv, "poll,holding_register,{first},{count},BE_LE").expect(TEXT);
            for tag in tags {
                let kind = ["int16", "uint16", "int32", "float32"];
                let kind = kind[KINDS.iter().position(|known| *known == tag.kind).expect("one")];
                writeln!(csv, "ref,{},{},{kind},r", tag.name, tag.register).expect(TEXT);
            }
        }
        let mut modpoll = Command::new(&program);
        modpoll.arg("-f").arg(task.write(&format!("modpoll{plc}.csv"), &csv));
        modpoll.args(["-d", "--loglevel", "ERROR", "--interval", "0", "--mqtt-version", "5.0"]);
        modpoll.args(["--rate", &task.seconds().to_string()]);
        modpoll.args(["--tcp", "127.0.0.1", "--tcp-port", &port.to_string()]);
        modpoll.args(["--mqtt-host", "127.0.0.1", "--mqtt-port", &task.broker.to_string()]);
        modpoll.args(["--mqtt-clientid", &format!("modpoll{plc}")]);
        modpoll
    };
    Ok(task.plcs.iter().enumerate().map(command).collect())
}

const KINDS: [&str; 4] = ["i16", "u16", "i32", "f32"];

/// One process for each PLC, one retained message for each value.
fn modbus2mqtt(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let program = places.peer("modbus2mqtt", "bin/modbus2mqtt")?;
    let seconds = task.seconds();
    let command = |(plc, port): (usize, &u16)| {
        let mut csv =
            "\"type\",\"topic\",\"col2\",\"col3\",\"col4\",\"col5\",\"col6\"\n".to_owned();
        for Block { first, count, tags } in task.workload.blocks() {
            writeln!(csv, "poll,plc{plc},255,{first},{count},holding_register,{seconds}")
                .expect(TEXT);
            for tag in tags {
                // Its kinds with BE have the low word first.
                let kind = ["int16", "uint16", "int32BE", "float32BE"];
                let kind = kind[KINDS.iter().position(|known| *known == tag.kind).expect("one")];
                writeln!(csv, "ref,{},{},r,{kind},,", tag.name, tag.register).expect(TEXT);
            }
        }
        let mut modbus2mqtt = Command::new(&program);
        modbus2mqtt.arg("--config").arg(task.write(&format!("modbus2mqtt{plc}.csv"), &csv));
        modbus2mqtt.args(["--always-publish", "--verbosity", "1"]);
        if seconds == 0.0 {
            modbus2mqtt.args(["--set-loop-break", "0.001"]);
        }
        modbus2mqtt.args(["--tcp", "127.0.0.1", "--tcp-port", &port.to_string()]);
        modbus2mqtt.args(["--mqtt-host", "127.0.0.1", "--mqtt-port", &task.broker.to_string()]);
        modbus2mqtt.args(["--mqtt-topic", &format!("modbus2mqtt{plc}")]);
        modbus2mqtt
    };
    Ok(task.plcs.iter().enumerate().map(command).collect())
}

/// Node-RED with node-red-contrib-modbus: one process, one read node and one message for each
/// block.
fn node_red(task: &Task<'_>, places: &ProgramPaths) -> Result<Vec<Command>, String> {
    let program = places.peer("node-red", "node_modules/node-red/red.js")?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/node-red");
    let read = |name| std::fs::read_to_string(sources.join(name)).expect("it is in the repository");
    let decode = read("decode.js");
    let mut flows = vec![
        json!({"id": "tab", "type": "tab", "label": "load"}),
        json!({"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1",
            "port": task.broker.to_string(), "autoConnect": true, "protocolVersion": "4",
            "keepalive": "60", "cleansession": true}),
    ];
    for (plc, port) in task.plcs.iter().enumerate() {
        flows.push(node_red_client(plc, *port));
        for (number, block) in task.workload.blocks().iter().enumerate() {
            let function = format!("const TAGS = {};\n{decode}", Value::from(offsets(block)));
            flows.extend(node_red_flow(task, plc, number, block, &function));
        }
    }
    let modules = program.ancestors().nth(2).expect("it lies in node_modules");
    std::os::unix::fs::symlink(modules, task.dir.join("node_modules")).expect("a fresh directory");
    task.write("flows.json", &Value::from(flows).to_string());
    task.write("package.json", &read("package.json"));
    let settings = task.write("settings.js", &read("settings.js"));
    let mut node = Command::new("node");
    node.arg(&program).arg("--settings").arg(settings).arg("--userDir").arg(task.dir);
    Ok(vec![node])
}

fn node_red_client(plc: usize, port: u16) -> Value {
    json!({"id": format!("client{plc}"), "type": "modbus-client", "name": format!("plc{plc}"),
        "clienttype": "tcp", "tcpHost": "127.0.0.1", "tcpPort": port.to_string(),
        "tcpType": "DEFAULT", "unit_id": "255", "bufferCommands": true, "commandDelay": "1",
        "clientTimeout": "1000", "reconnectOnTimeout": true, "reconnectTimeout": "2000",
        "parallelUnitIdsAllowed": true, "serialPort": "/dev/ttyUSB", "serialType": "RTU-BUFFERD",
        "serialBaudrate": "9600", "serialDatabits": "8", "serialStopbits": "1",
        "serialParity": "none", "serialConnectionDelay": "100"})
}

fn node_red_flow(
    task: &Task<'_>,
    plc: usize,
    number: usize,
    block: &Block,
    function: &str,
) -> [Value; 3] {
    let id = |node: &str| format!("{node}{plc}_{number}");
    let rate = task.workload.period.as_millis().max(SHORTEST_RATE_MS);
    [
        json!({"id": id("read"), "type": "modbus-read", "z": "tab", "server": format!("client{plc}"),
            "unitid": "255", "dataType": "HoldingRegister", "adr": block.first.to_string(),
            "quantity": block.count.to_string(), "rate": rate.to_string(), "rateUnit": "ms",
            "wires": [[id("decode")], []]}),
        json!({"id": id("decode"), "type": "function", "z": "tab", "func": function, "outputs": 1,
            "timeout": 0, "libs": [], "wires": [[id("out")]]}),
        json!({"id": id("out"), "type": "mqtt out", "z": "tab", "broker": "broker", "qos": "0",
            "retain": "false", "topic": format!("node-red/plc{plc}/{number}"), "wires": []}),
    ]
}
