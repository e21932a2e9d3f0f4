//! `audit`: checks at the receiver that no message is missing.

mod capture;
mod recorder;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use provisioning::config::{self, Broker, Credentials, Lower, Mqtt, PasswordFile, Qos, Tls, Via};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::capture::{Since, parse_since, read_capture};
use self::recorder::Recorder;
use super::{EXIT_NEGATIVE, EXIT_OK, print_line, run, runtime};
use crate::audit::{Auditor, LEGEND};
use crate::clock;
use crate::logging::Logging;
use crate::metrics::MqttMetrics;
use crate::mqtt::{self, Acknowledgements, ClientSettings, MqttEvent, SessionPersistence};
use crate::uplink::Uplink;

/// Capacity of the channel to the auditor, which is faster than any broker.
const EVENT_CAPACITY: usize = 256;
/// How long a recorded message may wait for the file.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// `audit`.
#[derive(Args, Debug)]
#[command(after_help = help_after_options())]
pub(super) struct AuditOptions {
    /// Broker to subscribe to, like mqtt://127.0.0.1:1883.
    #[arg(long, value_name = "URL", required_unless_present = "capture")]
    broker: Option<Broker>,
    /// Read a file with one {"topic":..,"payload":..} per line instead, after FILE.1 if that
    /// exists; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "broker")]
    capture: Option<PathBuf>,
    /// Append every message to this file while listening. At 512 MiB it becomes FILE.1.
    #[arg(long, value_name = "FILE", requires = "broker")]
    record: Option<PathBuf>,
    /// Check only what a capture received since then: 12h, 22:00 or 2026-12-01T22:00Z.
    #[arg(long, value_name = "TIME", requires = "capture", value_parser = parse_since)]
    since: Option<Since>,
    /// Topics to check; repeat the option if `publish.topic` is not below edge/.
    #[arg(long, value_name = "FILTER", default_value = "edge/#")]
    topic: Vec<String>,
    /// Time to listen, like 90s or 10m [default: until Ctrl-C].
    #[arg(long = "for", value_name = "TIME", value_parser = config::parse_duration)]
    duration: Option<Duration>,
    /// PEM file with the authorities that may issue the certificate of an mqtts:// broker [default:
    /// those of the system].
    #[arg(long, value_name = "FILE", requires = "broker")]
    ca_file: Option<PathBuf>,
    /// User name for the broker.
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// File with the password; only its owner may have access.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Returns what the help says below the options.
fn help_after_options() -> String {
    format!(
        "\
Examples:
  edge-gateway audit --broker mqtt://127.0.0.1:1883 --for 10m
  edge-gateway demo --json --for 20s | edge-gateway audit --capture -
  edge-gateway audit --broker mqtt://127.0.0.1:1883 --record capture       keeps running
  edge-gateway audit --capture capture --since 12h                         was anything lost?
  mosquitto_sub -h HOST -t 'edge/#' -F '{{\"at\":\"%I\",\"topic\":\"%t\",\"payload\":%p}}' > capture

Columns of the report:

{LEGEND}
The report also says how long the values of a PLC were unreachable: then nothing is missing, because
there was nothing to publish. Lines of a capture that are no messages are counted. Exit code 1 if a
message is missing that no gap event announced, or if there was nothing to check."
    )
}

/// Listens to a broker or reads a capture, and prints the report.
pub(super) fn audit(options: &AuditOptions) -> anyhow::Result<u8> {
    let mut auditor = Auditor::default();
    match (&options.capture, &options.broker) {
        (Some(path), _) => {
            let since = options.since.map(|since| since.resolve(clock::now().timestamp()));
            read_capture(path, since, &mut auditor)?;
        }
        (None, Some(broker)) => {
            let _log = Logging::start()?;
            runtime()?.block_on(follow_broker(broker, options, &mut auditor))?;
        }
        (None, None) => bail!("give --broker or --capture"),
    }
    let report = auditor.report();
    if options.json {
        print_line(serde_json::to_string_pretty(&report)?)?;
    } else {
        print_line(format_args!("{report}"))?;
    }
    // An audit without messages proves nothing.
    let is_proven = report.unaccounted == 0 && !report.streams.is_empty();
    Ok(if is_proven { EXIT_OK } else { EXIT_NEGATIVE })
}

async fn follow_broker(
    broker: &Broker,
    options: &AuditOptions,
    auditor: &mut Auditor,
) -> anyhow::Result<()> {
    let settings = mqtt_settings(broker, options)?;
    let (outbox, outgoing) = mpsc::channel(1);
    let (sender, mut events) = mpsc::channel(EVENT_CAPACITY);
    let end = options.duration.map(|duration| Instant::now().into_std() + duration);
    let stop = CancellationToken::new();
    let signals = run::stop_on_signal(stop.clone())?;
    let client = mqtt::run(settings, outgoing, sender, MqttMetrics::unregistered()?, stop.clone());
    let mut recorder = options.record.as_deref().map(Recorder::open).transpose()?;
    let mut flush = tokio::time::interval(FLUSH_INTERVAL);
    let listening = async {
        let _outbox = outbox; // Dropping it would end the client.
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => on_event(event, auditor, recorder.as_mut())?,
                    None => return anyhow::Ok(()),
                },
                _ = flush.tick() => recorder.iter_mut().try_for_each(Recorder::flush)?,
                () = stop.cancelled() => return Ok(()),
                () = clock::sleep_until(end) => return Ok(()),
            }
        }
    };
    tokio::select! {
        done = listening => done?,
        () = client => bail!("the MQTT client ended unexpectedly"),
        () = signals => {}
    }
    recorder.iter_mut().try_for_each(Recorder::flush)
}

fn on_event(
    event: MqttEvent,
    auditor: &mut Auditor,
    recorder: Option<&mut Recorder>,
) -> anyhow::Result<()> {
    match event {
        MqttEvent::Connected { broker, version, .. } => {
            writeln!(io::stderr(), "listening at {broker} with MQTT {}", version.as_str())?;
        }
        // Messages published meanwhile are not received here; the report shows them as missing.
        MqttEvent::Disconnected { sentence, .. } => writeln!(io::stderr(), "{sentence}")?,
        MqttEvent::SubscriptionRefused { filter, reason, .. } => {
            bail!("the broker refuses the subscription to {filter}: {reason}")
        }
        MqttEvent::Received(message) if !message.retain => {
            auditor.on_message(&message.topic, &message.payload);
            if let Some(recorder) = recorder {
                recorder.record(clock::now(), &message.topic, &message.payload)?;
            }
        }
        // Retained: an old message of data would count as out of order.
        MqttEvent::Received(message) => auditor.on_status(&message.topic, &message.payload),
        MqttEvent::Acknowledged { .. } | MqttEvent::Deferred { .. } | MqttEvent::Refused { .. } => {
        }
    }
    Ok(())
}

/// Returns the settings of the audit client: direct, under a client id of its own.
fn mqtt_settings(broker: &Broker, options: &AuditOptions) -> anyhow::Result<ClientSettings> {
    let password = options.password_file.as_deref().map(PasswordFile::from_argument).transpose()?;
    if let Some(password) = &password {
        // A file that cannot be read is reported now, not with every attempt to connect.
        password.read()?;
    }
    let credentials = options.username.clone().map(|username| Credentials { username, password });
    let mqtt = Mqtt {
        brokers: vec![broker.clone()],
        via: Via::Direct,
        tls: Tls { ca_file: options.ca_file.clone(), ..Tls::default() },
        version: None,
        client_id: format!("edge-audit-{}", std::process::id()),
        keep_alive: Duration::from_secs(30),
        credentials,
        will: None,
        lower: Lower::default(),
        session_expiry: Duration::ZERO,
        writes_in_clear: false,
    };
    let uplink = Uplink::direct(mqtt.tls.clone());
    Ok(ClientSettings {
        mqtt,
        will: None,
        publish_qos: Qos::AtMostOnce,
        publish_retain: false,
        subscriptions: options.topic.clone(),
        persistence: SessionPersistence::Clean,
        acknowledgements: Acknowledgements::OnReceipt,
        uplink,
        restarts_on_new_secrets: false,
    })
}

#[cfg(test)]
mod test_dir {
    use std::path::PathBuf;

    /// A directory that goes away with the test.
    pub(super) struct TestDir(pub(super) PathBuf);

    impl TestDir {
        pub(super) fn new() -> Self {
            let name = format!("edge-audit-{}", fastrand::u64(..));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
