//! The simulated PLC, read and written by clients that share no code with it: mbpoll (on libmodbus)
//! and pymodbus.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use gateway::simulate::{Handle, SimulatedPlc, SimulatedProgram, SimulatorSettings, serve};
use provisioning::plc::PlcModel;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest run of a client; its own time-outs are one second per request.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn mbpoll_reads_holding_registers() {
    let plc = Plc::start(PlcModel::M241).await;
    plc.handle.set_registers(10, &[0xE979, 0x42F6, 0x1234]).await.expect("a register");

    assert_eq!(plc.mbpoll(&["-t", "4:hex", "-r", "12"]).await, ["[12]: 0x1234"]);
    assert_eq!(plc.mbpoll(&["-t", "4:float", "-r", "10"]).await, ["[10]: 123.456"]);
    let block = plc.mbpoll(&["-t", "4", "-r", "0", "-c", "125"]).await;
    assert_eq!((block.len(), block[12].as_str()), (125, "[12]: 4660"));
}

#[tokio::test]
async fn mbpoll_reads_outputs_and_inputs() {
    let plc = Plc::start(PlcModel::M241).await;
    plc.handle.set_output(9, true).await.expect("an output");
    plc.handle.set_input(13, true).await.expect("an input");

    let outputs = plc.mbpoll(&["-t", "0", "-r", "8", "-c", "3"]).await;
    assert_eq!(outputs, ["[8]: 0", "[9]: 1", "[10]: 0"]);
    let inputs = plc.mbpoll(&["-t", "1", "-r", "12", "-c", "2"]).await;
    assert_eq!(inputs, ["[12]: 0", "[13]: 1"]);
}

#[tokio::test]
async fn mbpoll_writes_registers_and_outputs() {
    let plc = Plc::start(PlcModel::M251).await;

    plc.mbpoll_writes(&["-t", "4", "-r", "100", "1234"]).await; // function code 6
    plc.mbpoll_writes(&["-t", "4", "-r", "101", "1", "2", "3"]).await; // 16
    plc.mbpoll_writes(&["-t", "4:float", "-r", "20", "1.5"]).await; // 16
    plc.mbpoll_writes(&["-t", "0", "-r", "4", "1", "0", "1"]).await; // 15

    assert_eq!(plc.registers(100, 4).await, [1234, 1, 2, 3]);
    assert_eq!(plc.registers(20, 2).await, [0, 0x3FC0]);
    assert_eq!(plc.outputs(3, 5).await, [false, true, false, true, false]);
}

#[tokio::test]
async fn mbpoll_is_refused_what_the_manual_does_not_list() {
    let plc = Plc::start(PlcModel::M241).await;

    let input_registers = ["-t", "3", "-r", "0"]; // function code 4
    assert_eq!(plc.mbpoll_refusal(&input_registers).await, "Illegal function");
    let one_output = ["-t", "0", "-r", "0", "1"]; // function code 5
    assert_eq!(plc.mbpoll_refusal(&one_output).await, "Illegal function");
    let reserved = ["-t", "4", "-r", "64000"];
    assert_eq!(plc.mbpoll_refusal(&reserved).await, "Illegal data address");
    let system = ["-t", "4", "-r", "60012", "1"];
    assert_eq!(plc.mbpoll_refusal(&system).await, "Illegal data address");
    assert_eq!(plc.outputs(0, 1).await, [false]);
}

#[tokio::test]
async fn mbpoll_finds_the_slave_device_at_unit_1_and_no_device_at_2() {
    let plc = Plc::start(PlcModel::M241).await;

    plc.mbpoll_at(1, &["-t", "4", "-r", "39", "77"]).await;
    let read = plc.mbpoll_at(1, &["-t", "4", "-r", "39"]).await;
    assert_eq!(values(&read), ["[39]: 77"]);
    assert_eq!(plc.registers(39, 1).await, [0]);
    let nobody = plc.mbpoll_at(2, &["-t", "4", "-r", "0"]).await;
    assert!(text(&nobody).contains("Target device failed to respond"), "{}", text(&nobody));
}

#[tokio::test]
async fn pymodbus_uses_every_function_code() {
    let plc = Plc::start(PlcModel::M241).await;
    plc.handle.set_registers(10, &[0xE979, 0x42F6]).await.expect("a register");
    plc.handle.set_input(13, true).await.expect("an input");

    let script = include_str!("the_simulator_speaks_to_foreign_clients/every_function.py");
    let port = plc.address.port().to_string();
    let output = run(&e2e::python().display().to_string(), &["-c", script, &port]).await;

    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all as expected");
    assert_eq!(plc.registers(100, 4).await, [1234, 1, 2, 3]);
    assert_eq!(plc.registers(110, 1).await, [7]);
    assert_eq!(plc.outputs(4, 4).await, [true, false, true, false]);
}

#[tokio::test]
async fn pymodbus_sees_the_pump_station_move() {
    let plc = Plc::running(PlcModel::M251, SimulatedProgram::PumpStation).await;

    let script = include_str!("the_simulator_speaks_to_foreign_clients/pump_station.py");
    let port = plc.address.port().to_string();
    let output = run(&e2e::python().display().to_string(), &["-c", script, &port]).await;

    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all as expected");
}

/// A simulated PLC on a free port. Dropping it stops it.
struct Plc {
    address: SocketAddr,
    handle: Handle,
    _task: JoinSet<()>,
}

impl Plc {
    /// Starts a PLC whose memory changes only by writes.
    async fn start(model: PlcModel) -> Self {
        Self::running(model, SimulatedProgram::Idle).await
    }

    async fn running(model: PlcModel, program: SimulatedProgram) -> Self {
        let mut settings = SimulatorSettings::new(model).expect("a Modicon can be simulated");
        settings.program = program;
        let plc = SimulatedPlc::new(settings);
        let handle = plc.handle();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let mut task = JoinSet::new();
        task.spawn(serve(plc, listener, CancellationToken::new()));
        Self { address, handle, _task: task }
    }

    /// Reads once with mbpoll from unit id 255 and returns the printed values: `[10]: 42`.
    async fn mbpoll(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.mbpoll_at(255, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        values(&output)
    }

    async fn mbpoll_writes(&self, arguments: &[&str]) {
        let output = self.mbpoll_at(255, arguments).await;
        let told = text(&output);
        assert!(output.status.success() && told.contains("Written"), "{arguments:?}: {told}");
    }

    /// Returns the exception that mbpoll prints for a refused request.
    async fn mbpoll_refusal(&self, arguments: &[&str]) -> String {
        let told = text(&self.mbpoll_at(255, arguments).await);
        let refusal = told.lines().find_map(|line| line.split_once("failed: "));
        refusal.unwrap_or_else(|| panic!("{arguments:?}: {told}")).1.to_owned()
    }

    /// Runs mbpoll once; addresses in `arguments` count from zero.
    async fn mbpoll_at(&self, unit: u8, arguments: &[&str]) -> Output {
        let (port, unit) = (self.address.port().to_string(), unit.to_string());
        let (options, written) = arguments.split_at(arguments.len().min(options_in(arguments)));
        let common = ["-m", "tcp", "-0", "-1", "-p", &port, "-a", &unit];
        run("mbpoll", &[&common[..], options, &["127.0.0.1"], written].concat()).await
    }

    async fn registers(&self, first: u16, count: u16) -> Vec<u16> {
        self.handle.registers(first, count).await.expect("registers of the PLC")
    }

    async fn outputs(&self, first: u16, count: u16) -> Vec<bool> {
        let mut outputs = Vec::new();
        for output in first..first + count {
            outputs.push(self.handle.output(output).await.expect("an output of the PLC"));
        }
        outputs
    }
}

/// Returns how many arguments of mbpoll are options with values; the others are values to write.
fn options_in(arguments: &[&str]) -> usize {
    2 * arguments.iter().step_by(2).take_while(|argument| argument.starts_with('-')).count()
}

async fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).kill_on_drop(true).output();
    let output = tokio::time::timeout(CLIENT_TIMEOUT, output).await;
    output
        .expect("the process ends in time")
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
}

/// Returns the lines of mbpoll's output that show a value, with single blanks.
fn values(output: &Output) -> Vec<String> {
    let told = text(output);
    let lines = told.lines().filter(|line| line.starts_with('['));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}
