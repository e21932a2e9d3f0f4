//! The gateway program as a child process.

use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use provisioning::plc::Table;

use crate::{
    EVENT_TIMEOUT, HttpResponse, Log, Port, Process, Pymodbus, TempDir, eventually, http_get,
    resources, temp_dir,
};

/// Metrics address in the examples of the documentation; replaced by a free one.
const DOCUMENTED_METRICS: &str = "127.0.0.1:9464";

/// `edge-gateway run` with its own directory and metrics port. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    process: Option<Process>,
    /// Messages to its service manager since its last start.
    notifications: Receiver<String>,
    metrics: Port,
    environment: Vec<(String, String)>,
    /// A limit on its resources, as an option of prlimit(1).
    limit: Option<String>,
    state: PathBuf,
    dir: TempDir,
}

impl Gateway {
    /// Starts it with this `gateway.toml`; [`Self::wait_until_ready`] waits for it.
    ///
    /// `state_dir` is always a directory of this gateway. A metrics listener on 127.0.0.1:9464 gets
    /// a free port instead; without a `[metrics]` section one is added.
    #[must_use]
    pub fn start(config: impl Display) -> Self {
        let (config, metrics) = (config.to_string(), Port::reserve());
        let address = metrics.address().to_string();
        let config = if config.contains("[metrics]") {
            assert!(config.contains(DOCUMENTED_METRICS), "[metrics] must use {DOCUMENTED_METRICS}");
            config.replace(DOCUMENTED_METRICS, &address)
        } else {
            format!("{config}\n[metrics]\nlisten = [\"{address}\"]\n")
        };
        Self::launch(&config, metrics, &[], None)
    }

    /// Starts it with an existing `state_dir`.
    #[must_use]
    pub fn start_on(state: &Path, config: impl Display) -> Self {
        let metrics = Port::reserve();
        let config = format!("{config}\n[metrics]\nlisten = [\"{}\"]\n", metrics.address());
        Self::launch(&config, metrics, &[], Some(state))
    }

    /// Starts it with environment variables. A `[metrics]` section is left unchanged.
    #[must_use]
    pub fn start_with(config: impl Display, environment: &[(&str, &str)]) -> Self {
        let config = config.to_string();
        if config.contains("[metrics]") {
            return Self::launch(&config, Port::reserve(), environment, None);
        }
        let metrics = Port::reserve();
        let config = format!("{config}\n[metrics]\nlisten = [\"{}\"]\n", metrics.address());
        Self::launch(&config, metrics, environment, None)
    }

    /// Starts it with a limit on its resources, an option of prlimit(1) such as `--nofile=64:64`.
    #[must_use]
    pub fn start_with_limit(limit: &str, config: impl Display) -> Self {
        let metrics = Port::reserve();
        let config = format!("{config}\n[metrics]\nlisten = [\"{}\"]\n", metrics.address());
        let mut gateway = Self::prepare(&config, metrics, &[], None);
        gateway.limit = Some(limit.to_owned());
        gateway.start_again();
        gateway
    }

    fn launch(
        config: &str,
        metrics: Port,
        environment: &[(&str, &str)],
        state: Option<&Path>,
    ) -> Self {
        let mut gateway = Self::prepare(config, metrics, environment, state);
        gateway.start_again();
        gateway
    }

    fn prepare(
        config: &str,
        metrics: Port,
        environment: &[(&str, &str)],
        state: Option<&Path>,
    ) -> Self {
        let dir = temp_dir();
        dir.write("gateway.toml", config);
        let state = state.map_or_else(|| dir.path().join("state"), Path::to_owned);
        fs::create_dir_all(&state).expect("its own directory is writable");
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(text).collect();
        let notifications = mpsc::channel().1;
        let (process, limit) = (None, None);
        Self { process, notifications, metrics, environment, limit, state, dir }
    }

    /// Starts it and waits until it is ready.
    #[must_use]
    pub fn start_ready(config: impl Display) -> Self {
        const READY_TIMEOUT: Duration = Duration::from_secs(10);
        let mut gateway = Self::start(config);
        gateway.wait_until_ready(READY_TIMEOUT);
        gateway
    }

    /// Starts it after it has ended, with the same configuration and state directory.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the gateway already runs");
        let socket = self.dir.path().join("notify");
        self.notifications = listen(&socket);
        let mut command = match &self.limit {
            Some(limit) => {
                let mut command = Command::new("prlimit");
                command.arg(limit).arg(Self::program());
                command
            }
            None => Command::new(Self::program()),
        };
        self.process = Some(Process::start(
            command
                .arg("run")
                .arg(self.config_path())
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .env("EDGE_GATEWAY__STATE_DIR", &self.state)
                .env("NOTIFY_SOCKET", socket),
        ));
    }

    /// Returns the path of the program under test.
    #[must_use]
    pub fn program() -> PathBuf {
        resources::workspace_program("edge-gateway", test_settings::GATEWAY)
    }

    /// Runs a command of the program with its configuration and state; returns the output.
    ///
    /// # Panics
    /// When the command fails.
    #[must_use]
    pub fn command_output(&self, arguments: &[&str]) -> String {
        let output = Command::new(Self::program())
            .args(arguments)
            .arg(self.config_path())
            .env("EDGE_GATEWAY__STATE_DIR", &self.state)
            .output()
            .expect("the program starts");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    }

    /// Returns the path of its `gateway.toml`.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    /// Returns its `state_dir`.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.state.clone()
    }

    /// Returns the reserved address of its HTTP server.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics.address()
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.running().id()
    }

    /// Waits until it notifies its service manager that it is ready (sd_notify(3), `READY=1`).
    ///
    /// # Panics
    /// When it ends before, or is not ready in time.
    pub fn wait_until_ready(&mut self, deadline: Duration) {
        const PROCESS_CHECK_INTERVAL: Duration = Duration::from_millis(100);
        let end = Instant::now() + deadline;
        loop {
            match self.notifications.recv_timeout(PROCESS_CHECK_INTERVAL) {
                Ok(told) if told.lines().any(|line| line == "READY=1") => return,
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the notification socket broke"),
            }
            let process = self.process.as_mut().expect("the gateway was started");
            assert!(process.is_running(), "the gateway ended:\n{}", process.log().text());
            assert!(Instant::now() < end, "not ready:\n{}", process.log().text());
        }
    }

    /// Returns its log since the last start.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.running().log()
    }

    /// Sends a GET request to its HTTP server.
    ///
    /// # Panics
    /// When there is no response.
    #[must_use]
    pub fn get(&self, path: &str) -> HttpResponse {
        http_get(self.metrics.address(), path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\n{}", self.log().text()))
    }

    /// Returns the value of one series, if it exists. The name is that of the exposition:
    /// `edge_plc_up{plc="pump6"}`.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(value.parse().expect("a sample is a number"))
    }

    /// Waits until a series satisfies a condition and returns its value.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for_metric(
        &self,
        series: &str,
        deadline: Duration,
        wanted: impl Fn(f64) -> bool,
    ) -> f64 {
        eventually(series, deadline, || self.metric(series).filter(|value| wanted(*value)))
    }

    /// Writes these values into a holding register, each after the gateway has read the one before.
    ///
    /// It begins after the gateway's first reading: what the register held until then is read too.
    /// The gateway publishes changed values only and has this PLC alone.
    pub fn feed(&self, plc: &mut Pymodbus, register: u16, values: impl IntoIterator<Item = u16>) {
        let samples = "edge_samples_produced_total";
        let mut read = self.wait_for_metric(samples, EVENT_TIMEOUT, |now| now > 0.0);
        for value in values {
            plc.set_registers(Table::HoldingRegister, register, &[value]);
            read = self.wait_for_metric(samples, EVENT_TIMEOUT, |now| now > read);
        }
    }

    /// Returns the resident memory, in bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.running().memory()
    }

    /// Returns the peak of the resident memory, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.running().peak_memory()
    }

    /// Returns the resident memory without the pages of the program, in bytes.
    #[must_use]
    pub fn anonymous_memory(&self) -> u64 {
        self.running().anonymous_memory()
    }

    /// Returns the CPU time of all threads, user and system (proc(5), /proc/pid/schedstat).
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.running().id());
        let threads = fs::read_dir(tasks).expect("a running process has threads");
        let nanos = |thread: fs::DirEntry| -> Option<u64> {
            // A thread may end during the loop; its time is then missing.
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(Result::ok).filter_map(nanos).sum())
    }

    /// Sends SIGTERM and waits until it has drained its queue and ended.
    pub fn terminate(&mut self, deadline: Duration) -> (ExitStatus, Log) {
        let mut process = self.process.take().expect("the gateway runs");
        process.terminate();
        (process.wait(deadline), process.log().clone())
    }

    /// Stops it with its connections open ([`Process::pause`]).
    pub fn pause(&self) {
        self.running().pause();
    }

    /// Continues it.
    pub fn resume(&self) {
        self.running().resume();
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the gateway runs").kill();
    }

    /// Waits until it ends.
    pub fn wait_for_end(&mut self, deadline: Duration) -> (ExitStatus, Log) {
        let mut process = self.process.take().expect("the gateway was started");
        (process.wait(deadline), process.log().clone())
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("the gateway runs")
    }
}

/// Binds the notification socket and reads it on a thread. An existing socket is replaced, since
/// messages of an earlier run may wait in it. It is kept empty: a gateway must not block on it.
fn listen(path: &Path) -> Receiver<String> {
    if path.exists() {
        fs::remove_file(path).expect("its own directory is writable");
    }
    let socket = UnixDatagram::bind(path).expect("its own directory is writable");
    let (told, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(size) = socket.recv(&mut buffer) {
            if told.send(String::from_utf8_lossy(&buffer[..size]).into_owned()).is_err() {
                return; // The gateway was started again.
            }
        }
    });
    receiver
}

/// Shows what the gateway logged when the test fails.
impl Drop for Gateway {
    #[expect(clippy::print_stderr, reason = "the output of a test")]
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(process) = &self.process
        {
            eprintln!("{}", process.log().text());
        }
    }
}
