//! RabbitMQ with its MQTT plugin (MQTT 3.1.1) as the broker.

use std::process::Command;
use std::time::Duration;

use crate::{Port, Process, Subscriber, TempDir, temp_dir};

/// A start takes 12 s on an idle machine, and several times that while a compiler runs.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(100);

/// One node with an epmd of its own, which would otherwise stay as a daemon. It keeps its ports and
/// files across restarts. Dropping it kills both.
#[derive(Debug)]
pub struct RabbitMq {
    broker: Option<Process>,
    _registry: Process,
    mqtt: Port,
    distribution: Port,
    names: Port,
    dir: TempDir,
}

impl RabbitMq {
    /// Starts it and waits until it accepts connections.
    #[must_use]
    pub fn start() -> Self {
        let (mqtt, distribution, names) = (Port::reserve(), Port::reserve(), Port::reserve());
        let dir = temp_dir();
        dir.write("enabled_plugins", "[rabbitmq_mqtt].\n");
        dir.write(
            "rabbitmq.conf",
            &format!(
                "listeners.tcp = none\nmqtt.listeners.tcp.1 = {}\n\
                 mqtt.allow_anonymous = true\nmqtt.default_user = guest\nmqtt.default_pass = guest\n\
                 log.console = true\nlog.file = false\n",
                mqtt.address()
            ),
        );
        let number = names.number().to_string();
        let registry =
            Process::start(Command::new("epmd").args(["-port", &number, "-address", "127.0.0.1"]));
        let mut broker = Self { broker: None, _registry: registry, mqtt, distribution, names, dir };
        broker.start_again();
        broker
    }

    /// Starts it with the same files and waits until it accepts connections.
    pub fn start_again(&mut self) {
        assert!(self.broker.is_none(), "the broker already runs");
        let dir = self.dir.path();
        let process = Process::start(
            Command::new("sh")
                .args(["-c", "exec /usr/lib/rabbitmq/bin/rabbitmq-server >&2"])
                // Without it the broker is a child of a shell, and killing the shell leaves it
                // running.
                .env("RUNNING_UNDER_SYSTEMD", "true")
                .env_remove("NOTIFY_SOCKET")
                .env("HOME", dir)
                .env("RABBITMQ_NODENAME", "edge-e2e@localhost")
                .env("RABBITMQ_DIST_PORT", self.distribution.number().to_string())
                .env("ERL_EPMD_PORT", self.names.number().to_string())
                .env("ERL_EPMD_ADDRESS", "127.0.0.1")
                .env(
                    "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                    "-kernel inet_dist_use_interface {127,0,0,1}",
                )
                .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
                .env("RABBITMQ_LOG_BASE", dir.join("log"))
                .env("RABBITMQ_PID_FILE", dir.join("pid"))
                .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
                .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
                // A file that does not exist: the settings of this machine must not apply.
                .env("RABBITMQ_CONF_ENV_FILE", dir.join("none")),
        );
        process.wait_for_line("Server startup complete", STARTUP_TIMEOUT);
        self.broker = Some(process);
    }

    /// Stops it with SIGKILL.
    pub fn kill(&mut self) {
        self.broker.take().expect("the broker runs").kill();
    }

    /// Returns its URL, for `mqtt.brokers`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.mqtt.address())
    }

    /// Subscribes with a persistent session, a durable queue in RabbitMQ.
    #[must_use]
    pub fn subscribe_persistent(&self, client_id: &str, filter: &str) -> Subscriber {
        Subscriber::start_persistent_v4(self.mqtt.number(), client_id, filter)
    }
}
