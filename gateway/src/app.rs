//! Puts the rooms together: starts the tasks, stops them in an order that loses nothing.
//!
//! The only room that knows all others.

mod certificates;
mod hub_cache;
mod local_socket;
mod network;
mod pump;

use std::io;
use std::time::Duration;

use provisioning::config::{Config, Listen, LoadedConfig, Will};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::network::Network;
use self::pump::{HealthInputs, Pump};
use crate::metrics::Metrics;
use crate::mqtt::{self, ClientSettings};
use crate::plc;
use crate::queue::storage::{DirStorage, DirStorageError};
use crate::supervise::Stage;
use crate::uplink::Uplink;
use crate::web::{self, Sources};

pub use self::local_socket::socket_path;

/// Readings on their way to the pump. It takes them faster than PLCs answer; a full channel makes
/// the PLC tasks wait, and missed cycles are counted there.
const PLC_EVENT_CAPACITY: usize = 64;
/// Longest wait for PLC tasks to finish the request that is on the wire.
const POLLING_GRACE: Duration = Duration::from_secs(4);
/// Longest wait for the broker to take what is left.
const DRAIN_GRACE: Duration = Duration::from_secs(5);
/// Longest wait for the tunnel to say goodbye.
const TUNNEL_CLOSE_GRACE: Duration = Duration::from_secs(3);

/// Why the gateway does not run, or stopped by itself.
#[derive(Debug, Error)]
pub enum AppError {
    /// A metrics address cannot be had.
    #[error(
        "cannot serve metrics on {listen}; stop the program that listens there, or change metrics.listen"
    )]
    Listen {
        /// As configured.
        listen: Listen,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The tunnel's network device cannot be had.
    #[error("cannot open the tunnel")]
    Tunnel(#[from] tunnel::DeviceError),
    /// Its name is none.
    #[error(transparent)]
    InterfaceName(#[from] tunnel::InterfaceNameError),
    /// No socket for the tunnel.
    #[error("cannot open a UDP socket for the tunnel")]
    UdpSocket(#[source] io::Error),
    /// The metrics could not be set up.
    #[error("cannot set up the metrics")]
    Metrics(#[from] prometheus::Error),
    /// Another gateway answers on the socket in the state directory.
    #[error("another gateway runs with state_dir {0}; two must not share one")]
    AlreadyRunning(String),
    /// Another process has the queue.
    #[error("another gateway has the queue in {0}; two must not share one state_dir")]
    QueueInUse(String),
    /// A task ended that should not have.
    #[error("a task ended unexpectedly; the log says which")]
    TaskEnded,
}

/// Runs the gateway until `stop` fires, then drains it.
///
/// # Errors
/// Fails when a listener cannot be opened, or when a task ends by itself.
pub async fn run(loaded: LoadedConfig, stop: CancellationToken) -> Result<(), AppError> {
    let (config, hash) = loaded.into_parts();
    let metrics = Metrics::new(&config, &hash)?;
    let state_dir = config.gateway.state_dir.clone();
    let local = local_socket::bind(&state_dir).await?;
    let fatal = CancellationToken::new();
    let mut reach = Network::open(&config, &fatal).await?;
    let (plc_events, from_plcs) = mpsc::channel(PLC_EVENT_CAPACITY);
    let (outbox, outgoing) = mpsc::channel(mqtt::MAX_INFLIGHT);
    let (mqtt_events, from_broker) = mpsc::channel(2 * mqtt::MAX_INFLIGHT);

    let watched = HealthInputs { tunnel: reach.tunnel.clone(), clock: reach.clock.clone() };
    let pump = Pump::new(&config, &hash, &metrics, watched, open_storage(&config)?, outbox);
    let router = web::router(Sources {
        metrics: metrics.clone(),
        liveness: pump.liveness(),
        readiness: pump.readiness(),
        status: pump.status(),
    });
    let serving = Stage::new("serving");
    reach.serve(&router, &serving, &fatal);
    serving.spawn(fatal.clone(), |stop| local_socket::serve(state_dir, local, router, stop));
    let publishing = Stage::new("publishing");
    let settings = mqtt_settings(&config, reach.uplink.clone());
    let tls = config.mqtt.tls.clone();
    let expiries = metrics.certificates.clone();
    serving.spawn(fatal.clone(), |stop| certificates::watch(tls, expiries, stop));
    let mqtt_metrics = metrics.mqtt.clone();
    publishing.spawn(fatal.clone(), |_| {
        mqtt::run(settings, outgoing, mqtt_events, mqtt_metrics, CancellationToken::new())
    });
    let pumping = Stage::new("pumping");
    pumping.spawn(fatal.clone(), |_| pump.run(from_plcs, from_broker, DRAIN_GRACE));
    let polling = Stage::new("polling");
    for link in plc::group_by_address(config.plcs, &metrics, fastrand::f64()) {
        let events = plc_events.clone();
        polling.spawn(fatal.clone(), |stop| plc::run(link, events, stop));
    }
    drop(plc_events);

    local_socket::notify_ready();
    let failed = tokio::select! {
        () = stop.cancelled() => false,
        () = fatal.cancelled() => true,
    };
    local_socket::notify_stopping();
    // Each ends when its source does: the PLC tasks at the token, the pump when the last of them is
    // gone and the queue is empty, the MQTT task when the pump has closed the outbox.
    tokio::join!(
        polling.drain(POLLING_GRACE),
        pumping.drain(POLLING_GRACE + DRAIN_GRACE),
        publishing.drain(POLLING_GRACE + 2 * DRAIN_GRACE),
    );
    serving.drain(Duration::from_secs(1)).await;
    reach.into_stage().drain(TUNNEL_CLOSE_GRACE).await;
    if failed { Err(AppError::TaskEnded) } else { Ok(()) }
}

/// Where the queue lies. That there is no such place is lived with; that another process has it is
/// not.
fn open_storage(config: &Config) -> Result<Result<DirStorage, DirStorageError>, AppError> {
    match DirStorage::open(&config.gateway.state_dir.join(pump::QUEUE_DIR)) {
        Err(DirStorageError::InUse(dir)) => Err(AppError::QueueInUse(dir.display().to_string())),
        usable_or_not => Ok(usable_or_not),
    }
}

/// Payload of the default will, and of the last status before a stop.
const OFFLINE_PAYLOAD: &str = r#"{"state":"offline"}"#;

/// Topic of the retained status.
fn status_topic(gateway_id: &str) -> String {
    format!("edge/{gateway_id}/status")
}

fn mqtt_settings(config: &Config, uplink: Uplink) -> ClientSettings {
    let will = config.mqtt.will.clone().unwrap_or_else(|| Will {
        topic: status_topic(&config.gateway.id),
        payload: OFFLINE_PAYLOAD.to_owned(),
        qos: provisioning::config::Qos::AtLeastOnce,
        retain: true,
    });
    ClientSettings {
        mqtt: config.mqtt.clone(),
        will: Some(will),
        subscriptions: Vec::new(),
        uplink,
    }
}
