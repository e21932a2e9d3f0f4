//! Eclipse Mosquitto as the broker.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::subscriber::SUBSCRIBE_COMMAND;
use crate::{Log, Port, Process, Subscriber, TempDir, temp_dir};

const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// Account of the test's own clients where the broker requires one; its ACL allows everything.
const OBSERVER_ACCOUNT: (&str, &str) = ("observer", "observer");

/// A broker that keeps its port across restarts. Dropping it kills it.
#[derive(Debug)]
pub struct Mosquitto {
    process: Option<Process>,
    dir: TempDir,
    port: Port,
    has_accounts: bool,
}

/// Configuration of a broker. By default it accepts anonymous clients and loses its state when it
/// stops.
#[derive(Clone, Debug, Default)]
pub struct MosquittoBuilder {
    is_persistent: bool,
    users: Vec<(String, String)>,
    acl: Option<String>,
    extra: String,
}

/// Whether the broker keeps a message for later subscribers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retain {
    /// It keeps the message.
    Yes,
    /// It does not keep it.
    No,
}

impl MosquittoBuilder {
    /// Sessions, queued and retained messages survive a restart and a `kill -9`.
    #[must_use]
    pub const fn persistent(mut self) -> Self {
        self.is_persistent = true;
        self
    }

    /// Adds a user. With at least one, anonymous clients are rejected.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Sets the text of the ACL file (mosquitto.conf(5), `acl_file`). The test's own clients may
    /// always do everything.
    #[must_use]
    pub fn acl(mut self, text: &str) -> Self {
        self.acl = Some(text.to_owned());
        self
    }

    /// Adds a line to mosquitto.conf.
    #[must_use]
    pub fn line(mut self, line: &str) -> Self {
        self.extra.push_str(line);
        self.extra.push('\n');
        self
    }

    /// Starts it and waits until it accepts connections.
    #[must_use]
    pub fn start(self) -> Mosquitto {
        let (dir, port) = (temp_dir(), Port::reserve());
        let has_accounts = self.acl.is_some() || !self.users.is_empty();
        if has_accounts {
            self.write_accounts(&dir);
        }
        dir.write("mosquitto.conf", &self.configuration(dir.path(), &port));
        let mut broker = Mosquitto { process: None, dir, port, has_accounts };
        broker.start_again();
        broker
    }

    fn write_accounts(&self, dir: &TempDir) {
        let passwords = dir.write("passwords", "");
        let (observer, password) = OBSERVER_ACCOUNT;
        let observer = (observer.to_owned(), password.to_owned());
        for (name, password) in self.users.iter().chain([&observer]) {
            let added = Command::new("mosquitto_passwd")
                .arg("-b")
                .args([&passwords, Path::new(name), Path::new(password)])
                .output()
                .expect("mosquitto_passwd is installed");
            assert!(added.status.success(), "mosquitto_passwd: {added:?}");
        }
        if let Some(acl) = &self.acl {
            dir.write("acl", &format!("{acl}\n\nuser {}\ntopic readwrite #\n", observer.0));
        }
    }

    /// Returns the text of mosquitto.conf. `user root` only matters to root: Mosquitto would drop
    /// its privileges and could not read the directory of the test. The limits make it keep every
    /// message that it acknowledges: by default it drops after 1,000 queued messages and saves
    /// every 30 minutes.
    fn configuration(&self, dir: &Path, port: &Port) -> String {
        let mut text = format!(
            "listener {} 127.0.0.1\nuser root\nlog_dest stderr\nlog_type all\n\
             allow_anonymous {}\nmax_queued_messages 1000000\nmax_inflight_messages 0\n",
            port.number(),
            self.users.is_empty(),
        );
        let dir = dir.display();
        if self.is_persistent {
            let _ = write!(
                text,
                "persistence true\npersistence_location {dir}/\n\
                 autosave_on_changes true\nautosave_interval 1\n"
            );
        }
        if self.acl.is_some() || !self.users.is_empty() {
            let _ = writeln!(text, "password_file {dir}/passwords");
        }
        if self.acl.is_some() {
            let _ = writeln!(text, "acl_file {dir}/acl");
        }
        text + &self.extra
    }
}

impl Mosquitto {
    /// Starts a broker with the default configuration.
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// Returns the default configuration.
    #[must_use]
    pub fn builder() -> MosquittoBuilder {
        MosquittoBuilder::default()
    }

    /// Returns its URL, for `mqtt.brokers`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.port.address())
    }

    /// Returns the port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port.number()
    }

    /// Stops it with SIGTERM.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        process.terminate();
        process.wait(BROKER_TIMEOUT);
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// Starts it on the same port with the same files, and waits until it accepts connections.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker already runs");
        let process = Process::start(
            // Debian installs it in /usr/sbin, which may not be in PATH.
            Command::new("sh")
                .args(["-c", "PATH=$PATH:/usr/sbin exec mosquitto -c \"$1\"", "mosquitto"])
                .arg(self.dir.path().join("mosquitto.conf")),
        );
        process.wait_for_line(" running", BROKER_TIMEOUT);
        self.process = Some(process);
    }

    /// Sends it a signal: `STOP` stops it with its connections open, `CONT` continues it.
    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("the broker runs").signal(name);
    }

    /// [`Self::stop`] and [`Self::start_again`].
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Returns its peak of resident memory since the last start, in bytes.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.process.as_ref().expect("the broker runs").peak_memory()
    }

    /// Returns its log since the last start.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.as_ref().expect("the broker runs").log()
    }

    /// Subscribes with QoS 2, so that messages arrive once and with the QoS of the publisher.
    #[must_use]
    pub fn subscribe(&self, filter: &str) -> Subscriber {
        Subscriber::start(self.client(&SUBSCRIBE_COMMAND), filter)
    }

    /// Subscribes with a session that the broker keeps for an hour after the connection ends, or
    /// resumes the session of this client id, with the messages that were stored meanwhile.
    #[must_use]
    pub fn subscribe_persistent(&self, client_id: &str, filter: &str) -> Subscriber {
        let mut client = self.client(&SUBSCRIBE_COMMAND);
        client.args(["-i", client_id, "-c", "-x", "3600"]);
        Subscriber::start(client, filter)
    }

    /// Publishes with QoS 1 and waits for the acknowledgement.
    pub fn publish(&self, topic: &str, payload: &str, retain: Retain) {
        let mut client = self.client(&["mosquitto_pub"]);
        client.args(["-q", "1", "-t", topic, "-m", payload]);
        if retain == Retain::Yes {
            client.arg("-r");
        }
        let published = client.output().expect("mosquitto_pub is installed");
        assert!(published.status.success(), "mosquitto_pub: {published:?}");
    }

    /// Publishes messages at QoS 1 with one client, as fast as the broker takes them.
    ///
    /// # Panics
    /// When the broker does not take them.
    pub fn publish_lines(&self, topic: &str, payloads: &[String]) {
        let mut client = self.client(&["mosquitto_pub"]);
        client.args(["-q", "1", "-t", topic, "-l"]).stdin(Stdio::piped());
        let mut client = client.spawn().expect("mosquitto_pub is installed");
        let mut input = client.stdin.take().expect("it is piped");
        for payload in payloads {
            writeln!(input, "{payload}").expect("the client reads");
        }
        drop(input);
        assert!(client.wait().expect("it ends").success(), "mosquitto_pub");
    }

    fn client(&self, command: &[&str]) -> Command {
        let mut client = Command::new(command[0]);
        client.args(&command[1..]);
        client.args(["-V", "mqttv5", "-h", "127.0.0.1", "-p", &self.port().to_string()]);
        if self.has_accounts {
            client.args(["-u", OBSERVER_ACCOUNT.0, "-P", OBSERVER_ACCOUNT.1]);
        }
        client
    }
}
