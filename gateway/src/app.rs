//! Wires the modules together: starts the tasks, and stops them in an order that loses nothing.
//!
//! The only module that knows all others.

mod certificates;
mod command_file;
mod hub_cache;
mod local_socket;
mod local_write;
mod network;
mod open_files;
mod order_channels;
mod pump;
mod state_dir;
pub(crate) mod systemd;
mod tunnel_keys;
mod watched_files;

use std::io;
use std::path::Path;
use std::time::Duration;

use provisioning::config::{Config, HostPort, Listen, LoadedConfig, Plc, Qos, Will};
use rustix::fs::Mode;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::certificates::CertificateEnds;
use self::network::Network;
use self::pump::{BundleChannels, CommandInputs, HealthInputs, Pump, QueueStorage};
pub use self::watched_files::WatchedFiles;
use crate::apply::{ApplyInputs, ApplySettings, BundleTask, Bundles, WebFile};
use crate::metrics::Metrics;
use crate::model::PlcOrder;
use crate::mqtt::{self, Acknowledgements, ClientSettings, SessionPersistence};
use crate::plc::{self, ConnectionSlots};
use crate::queue::storage::{DirStorage, DirStorageError};
use crate::supervise::Stage;
use crate::uplink::Uplink;
use crate::web::{self, Sources};

pub use self::local_socket::socket_path;
pub(crate) use self::open_files::note as note_open_files;
pub(crate) use self::state_dir::note as note_state_dir;

/// Capacity of the channel from the PLC tasks to the pump. The pump empties it faster than PLCs
/// answer; a full channel blocks the PLC tasks, which count the cycles that they miss.
const PLC_EVENT_CAPACITY: usize = 64;
/// Commands of `edge-gateway write` that wait for the pump.
const LOCAL_COMMAND_CAPACITY: usize = 8;
/// Time for the PLC tasks to finish the request that is on the wire.
const POLLING_GRACE: Duration = Duration::from_secs(4);
/// Time for the broker to acknowledge what is left in the queue.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Time for the tunnel to close.
const TUNNEL_CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Why the gateway could not start, or stopped without being asked to.
#[derive(Debug, Error)]
pub enum AppError {
    /// A metrics address cannot be listened on.
    #[error(
        "cannot serve metrics on {listen}; stop the program that listens there, or change \
         metrics.listen"
    )]
    Listen {
        /// The address of `metrics.listen`.
        listen: Listen,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// The name of that interface is invalid.
    #[error(transparent)]
    InterfaceName(#[from] tunnel::InterfaceNameError),
    /// The UDP socket of the tunnel cannot be opened.
    #[error("cannot open a UDP socket for the tunnel")]
    UdpSocket(#[source] io::Error),
    /// The metrics could not be registered.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// Another gateway answers on the status socket in `state_dir`.
    #[error("another gateway is running with state_dir {0}; each needs its own")]
    AlreadyRunning(String),
    /// Another process has locked the directory of the queue.
    #[error("another gateway is using the queue in {0}; each needs its own state_dir")]
    QueueInUse(String),
    /// A task ended that should run until the stop.
    #[error("a task ended unexpectedly; the log says which")]
    TaskEnded,
}

/// Why the gateway was drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RunOutcome {
    /// It was stopped.
    Stopped,
    /// It has to start again, with the configuration of another bundle, or with other keys.
    Restart,
}

/// The tasks of a running gateway.
struct RunningStages {
    network: Network,
    serving: Stage,
    publishing: Stage,
    pumping: Stage,
    polling: Stage,
}

/// Runs the gateway until `stop` fires, or until another bundle or other keys of the tunnel are to
/// be used, then drains it. `files` are those that `loaded` was read from, if they are to be read
/// again. Takes `bundles`, if there are any, when nothing can prevent the start any more.
///
/// # Errors
/// Fails when a listener cannot be opened, when another gateway uses `state_dir`, or when a task
/// ends before the stop.
pub async fn run(
    loaded: LoadedConfig,
    files: Option<WatchedFiles>,
    bundles: &mut Option<Bundles>,
    stop: CancellationToken,
) -> Result<RunOutcome, AppError> {
    let (restart, fatal) = (CancellationToken::new(), CancellationToken::new());
    let stages = start(loaded, files, bundles, &restart, &fatal).await?;
    let end = wait_for_end(&stop, &restart, &fatal).await;
    stages.drain().await;
    end
}

/// Starts all tasks of the gateway. They cancel `restart` when it is to start again, and `fatal`
/// when one of them ends too early.
async fn start(
    loaded: LoadedConfig,
    files: Option<WatchedFiles>,
    bundles: &mut Option<Bundles>,
    restart: &CancellationToken,
    fatal: &CancellationToken,
) -> Result<RunningStages, AppError> {
    let LoadedConfig { config, hash, .. } = loaded;
    let slots = prepare_process(&config);
    let metrics = Metrics::new(&config, &hash)?;
    let state_dir = config.gateway.state_dir.clone();
    // First, because it fails if another gateway uses this `state_dir`: nothing else is open yet.
    let status_socket = local_socket::bind(&state_dir).await?;
    let mut network = Network::open(&config, fatal).await?;
    let (plc_events, from_plcs) = mpsc::channel(PLC_EVENT_CAPACITY);
    let (outbox, outgoing) = mpsc::channel(mqtt::OUTBOX_CAPACITY);
    let (mqtt_events, from_broker) = mpsc::channel(2 * mqtt::MAX_INFLIGHT);

    let certificate_ends = watch::Sender::new(CertificateEnds::new());
    let inputs = HealthInputs {
        tunnel: network.tunnel.clone(),
        clock: network.clock.clone(),
        certificates: certificate_ends.subscribe(),
    };
    let endpoints = plc::group_by_address(config.plcs.clone(), &metrics, fastrand::f64());
    let order_channels = order_channels::open(&endpoints);
    let (local_commands, local) = mpsc::channel(LOCAL_COMMAND_CAPACITY);
    let command_inputs = CommandInputs { orders: order_channels.senders, local };
    let ends = (open_storage(&config)?, outbox);
    let mut pump = Pump::new(&config, &hash, &metrics, inputs, ends, command_inputs);
    let router = web::router(sources(&config, &metrics, &mut pump));
    let serving = Stage::new("serving");
    network.serve(&router, &serving, fatal);
    let router = router.merge(local_write::router(local_commands));
    serving
        .spawn(fatal.clone(), |stop| local_socket::serve(state_dir, status_socket, router, stop));
    network.follow_keys(&config, files, restart.clone(), fatal);
    if let Some(bundles) = bundles.take() {
        let task = bundle_task(&config, bundles, &mut pump, &network, &metrics);
        let restart = restart.clone();
        serving.spawn(fatal.clone(), |stop| task.run(restart, stop));
    }
    let publishing = Stage::new("publishing");
    let settings = mqtt_settings(&config, network.uplink.clone());
    let (tls, uplink) = (config.mqtt.tls.clone(), network.uplink.clone());
    let expiries = metrics.certificates.clone();
    serving.spawn(fatal.clone(), |stop| {
        certificates::watch(tls, uplink, expiries, certificate_ends, stop)
    });
    let mqtt_metrics = metrics.mqtt.clone();
    // Not stopped by the token of its stage: it has to publish what the pump drains, and ends when
    // the pump closes the outbox.
    publishing.spawn(fatal.clone(), |_| {
        mqtt::run(settings, outgoing, mqtt_events, mqtt_metrics, CancellationToken::new())
    });
    let pumping = Stage::new("pumping");
    pumping.spawn(fatal.clone(), |_| pump.run(from_plcs, from_broker, DRAIN_GRACE));
    let polling = start_polling(endpoints, order_channels.receivers, &plc_events, &slots, fatal);
    // The pump begins to drain when the last sender is gone, so only the PLC tasks may hold one.
    drop(plc_events);
    Ok(RunningStages { network, serving, publishing, pumping, polling })
}

impl RunningStages {
    /// Stops all tasks, and publishes what is queued as far as time allows.
    async fn drain(self) {
        // Each stage ends when its source does: the PLC tasks at the token, the pump when the last
        // PLC task has ended and the queue is empty, the MQTT task when the pump has closed the
        // outbox.
        tokio::join!(
            self.polling.drain(POLLING_GRACE),
            self.pumping.drain(POLLING_GRACE + DRAIN_GRACE),
            self.publishing.drain(POLLING_GRACE + 2 * DRAIN_GRACE),
        );
        // Status and metrics are served until the queue is drained.
        self.serving.drain(Duration::from_secs(1)).await;
        // The tunnel last: the drained messages and the DISCONNECT went through it.
        self.network.into_stage().drain(TUNNEL_CLOSE_GRACE).await;
    }
}

/// Starts the tasks that read the PLCs.
fn start_polling(
    endpoints: Vec<plc::Endpoint>,
    orders: Vec<mpsc::Receiver<PlcOrder>>,
    plc_events: &mpsc::Sender<plc::PlcEvent>,
    slots: &ConnectionSlots,
    fatal: &CancellationToken,
) -> Stage {
    let polling = Stage::new("polling");
    for (endpoint, orders) in endpoints.into_iter().zip(orders) {
        let (events, slots) = (plc_events.clone(), slots.clone());
        let channels = plc::PollChannels { orders, events };
        polling.spawn(fatal.clone(), |stop| plc::run(endpoint, slots, channels, stop));
    }
    polling
}

/// Returns the task that applies bundles.
fn bundle_task(
    config: &Config,
    bundles: Bundles,
    pump: &mut Pump,
    network: &Network,
    metrics: &Metrics,
) -> BundleTask {
    let counter = bundles.active.as_ref().map(|active| active.counter);
    let BundleChannels { reports, offers, session } = pump.bundle_channels(counter);
    let tunnel = config.tunnel.as_ref();
    let settings = ApplySettings {
        url: bundle_url(config),
        confirm: config.bundle.confirm,
        tunnel_public_key: tunnel.map(|tunnel| tunnel.settings.private_key.public_key()),
    };
    let (tunnel, uplink) = (network.tunnel.clone(), network.uplink.clone());
    let inputs = ApplyInputs { offers, session, tunnel, uplink };
    BundleTask::new(bundles, settings, inputs, reports, metrics.bundle.clone())
}

/// Returns where the bundles of this gateway are.
fn bundle_url(config: &Config) -> Option<WebFile> {
    let url = config.bundle.url.as_ref()?;
    let path = url.path_of(&format!("edge-bundle-{}.tar", config.gateway.id));
    let (host, port) = (url.address.ip().to_string(), url.address.port());
    Some(WebFile { server: HostPort { host, port }, path })
}

/// Returns what the HTTP pages show.
fn sources(config: &Config, metrics: &Metrics, pump: &mut Pump) -> Sources {
    let has_tags = config.plcs.iter().flat_map(|plc| &*plc.tags).any(|tag| tag.metric);
    Sources {
        metrics: metrics.clone(),
        tags: has_tags.then(|| pump.tag_page()),
        liveness: pump.liveness(),
        readiness: pump.readiness(),
        status: pump.status(),
    }
}

/// Reports to systemd that the gateway runs, and waits until it has to end.
async fn wait_for_end(
    stop: &CancellationToken,
    restart: &CancellationToken,
    fatal: &CancellationToken,
) -> Result<RunOutcome, AppError> {
    systemd::notify_ready();
    tracing::info!("running");
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(RunOutcome::Stopped),
        () = fatal.cancelled() => Err(AppError::TaskEnded),
        () = restart.cancelled() => Ok(RunOutcome::Restart),
    };
    match end {
        Ok(RunOutcome::Restart) => systemd::notify_restarting(),
        Ok(RunOutcome::Stopped) | Err(_) => systemd::notify_stopping(),
    }
    end
}

/// Sets what holds for the whole process. Returns the connections to PLCs that it may open.
fn prepare_process(config: &Config) -> ConnectionSlots {
    // What the gateway creates is for its own user only.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if let Some(note) = open_files::note(&config.plcs, &config.metrics) {
        tracing::warn!("{note}");
    }
    ConnectionSlots::new(open_files::plc_connections(open_files::raise_limit(), &config.metrics))
}

/// Opens the directory of the queue. An unusable one does not stop the gateway: PLCs are read and
/// published from memory. One that another process uses does.
fn open_storage(config: &Config) -> Result<QueueStorage, AppError> {
    match DirStorage::open(&config.gateway.state_dir.join(pump::QUEUE_DIR)) {
        Ok(storage) => Ok(QueueStorage::Open(storage)),
        Err(DirStorageError::InUse(dir)) => Err(AppError::QueueInUse(dir.display().to_string())),
        Err(error) => Ok(QueueStorage::Unusable(error)),
    }
}

/// Payload of the default will, and of the last status message before a stop.
const OFFLINE_PAYLOAD: &str = r#"{"state":"offline"}"#;

/// Returns the topic of the retained status.
fn status_topic(gateway_id: &str) -> String {
    format!("edge/{gateway_id}/status")
}

/// Returns the topic filters: of the commands, if anything may be written, and of the offers, if
/// bundles are fetched.
fn subscriptions(config: &Config) -> Vec<String> {
    let is_writable = config.plcs.iter().any(Plc::is_writable);
    let commands = is_writable.then(|| format!("edge/{}/set/+", config.gateway.id));
    let offers = config.bundle.url.as_ref().map(|_| pump::offer_topic(&config.gateway.id));
    commands.into_iter().chain(offers).collect()
}

/// Returns whether the broker keeps commands for a gateway that is away. A persistent session and
/// QoS 2 exclude each other: docs/decisions/0010.
fn session_persistence(config: &Config) -> SessionPersistence {
    let is_writable = config.plcs.iter().any(Plc::is_writable);
    let publishes_qos_2 = config.plcs.iter().any(|plc| plc.publish.qos == Qos::ExactlyOnce);
    let expiry = config.mqtt.session_expiry;
    if !is_writable || publishes_qos_2 || expiry.is_zero() {
        SessionPersistence::Clean
    } else {
        SessionPersistence::Persistent { expiry }
    }
}

fn mqtt_settings(config: &Config, uplink: Uplink) -> ClientSettings {
    let will = config.mqtt.will.clone().unwrap_or_else(|| Will {
        topic: status_topic(&config.gateway.id),
        payload: OFFLINE_PAYLOAD.to_owned(),
        qos: Qos::AtLeastOnce,
        retain: true,
    });
    let publish = || config.plcs.iter().map(|plc| &plc.publish);
    let publish_qos = publish().map(|publish| publish.qos).max().unwrap_or(Qos::AtMostOnce);
    ClientSettings {
        mqtt: config.mqtt.clone(),
        will: Some(will),
        publish_qos,
        publish_retain: publish().any(|publish| publish.retain),
        subscriptions: subscriptions(config),
        persistence: session_persistence(config),
        acknowledgements: Acknowledgements::ByCaller,
        uplink,
        restarts_on_new_secrets: systemd::restarts_on_new_secrets(Path::new("/")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use provisioning::config::WriteRule;

    use super::*;
    use crate::testing;

    #[test]
    fn the_session_is_kept_unless_a_plc_is_published_with_qos_2() {
        let mut config = testing::config(2);
        config.mqtt.session_expiry = Duration::from_secs(60);
        assert!(subscriptions(&config).is_empty(), "no tag is writable");
        assert_eq!(session_persistence(&config), SessionPersistence::Clean);
        let tags = Arc::make_mut(&mut config.plcs[0].tags);
        tags[0].write = Some(Box::new(WriteRule::default()));
        assert_eq!(subscriptions(&config), ["edge/amsterdam-01/set/+"]);
        for (qos, expected) in [
            (Qos::AtMostOnce, SessionPersistence::Persistent { expiry: Duration::from_secs(60) }),
            (Qos::AtLeastOnce, SessionPersistence::Persistent { expiry: Duration::from_secs(60) }),
            (Qos::ExactlyOnce, SessionPersistence::Clean),
        ] {
            config.plcs[1].publish.qos = qos;
            assert_eq!(session_persistence(&config), expected, "{qos:?}");
        }
        config.plcs[1].publish.qos = Qos::AtLeastOnce;
        config.mqtt.session_expiry = Duration::ZERO;
        assert_eq!(session_persistence(&config), SessionPersistence::Clean);
    }
}
