//! Mosquitto and mosquitto_sub as child processes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static BROKERS: AtomicU32 = AtomicU32::new(0);

/// A broker with its own directory and port. Dropping it kills the process.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    directory: PathBuf,
    process: Child,
}

/// A subscriber whose subscription the broker has acknowledged.
pub(crate) struct Subscriber {
    process: Child,
    lines: BufReader<ChildStdout>,
}

impl Mosquitto {
    /// Starts a broker with these additional lines of configuration; `ACL` is replaced by the path
    /// of a file that allows `topic1` only.
    ///
    /// `max_queued_messages 0` (no limit) does not work: with it, Mosquitto 2.0.11 closes the
    /// connection after every refused message of QoS 1.
    pub(crate) fn start(more: &str) -> Self {
        Self::launch(more, "pattern readwrite topic1\n")
    }

    /// Starts a broker with this access list.
    pub(crate) fn start_with_acl(more: &str, acl: &str) -> Self {
        Self::launch(&format!("acl_file ACL\n{more}"), acl)
    }

    fn launch(more: &str, access: &str) -> Self {
        let number = BROKERS.fetch_add(1, Ordering::Relaxed);
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("mosquitto-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("the target directory is writable");
        let acl = directory.join("acl");
        fs::write(&acl, access).expect("the directory is writable");
        let port = free_port();
        let anonymous =
            if more.contains("allow_anonymous") { "" } else { "allow_anonymous true\n" };
        let more = more.replace("ACL", &acl.display().to_string());
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence false\nlog_type none\n\
             max_inflight_messages 0\nmax_queued_messages 100000\n{anonymous}{more}\n"
        );
        fs::write(directory.join("config"), config).expect("the directory is writable");
        let process = spawn(&directory, port);
        Self { port, directory, process }
    }

    /// Kills the broker, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it was killed");
    }

    pub(crate) fn restart(&mut self) {
        self.process = spawn(&self.directory, self.port);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

fn spawn(directory: &std::path::Path, port: u16) -> Child {
    let mut process = Command::new("/usr/sbin/mosquitto")
        .arg("-c")
        .arg(directory.join("config"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the Debian package mosquitto is installed");
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        let ended = process.try_wait().expect("it is our child");
        assert!(ended.is_none(), "mosquitto does not take its configuration");
        std::thread::yield_now();
    }
    process
}

impl Subscriber {
    pub(crate) fn start(broker: &Mosquitto, topic: &str) -> Self {
        let mut process = Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(["-h", "127.0.0.1", "-p", &broker.port.to_string()])
            .args(["-t", topic, "-q", "2", "-R", "-d", "-F", "payload:%p"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Debian package mosquitto-clients is installed");
        let stdout = process.stdout.take().expect("it was piped");
        let mut subscriber = Self { process, lines: BufReader::new(stdout) };
        while !subscriber.line().contains("SUBACK") {}
        subscriber
    }

    /// Waits for `count` messages and returns their payloads.
    pub(crate) fn take(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::with_capacity(count);
        while payloads.len() < count {
            if let Some(payload) = self.line().strip_prefix("payload:") {
                payloads.push(payload.trim_end().to_owned());
            }
        }
        payloads
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("mosquitto_sub writes text");
        assert_ne!(read, 0, "mosquitto_sub has ended");
        line
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
