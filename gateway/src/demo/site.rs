//! The site of the demo: two simulated PLCs, and the gateway.toml that reads them.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use provisioning::config::{self, Broker, LoadedConfig, Scheme};
use provisioning::plc::PlcModel;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tunnel::PrivateKey;

use super::hub;
use crate::simulate::{Handle, SimulatedPlc, SimulatorSettings, serve};
use crate::supervise::Stage;
use crate::web::TunnelListener;

/// The configuration that an engineer would write for this site; addresses are filled in.
const CONFIGURATION: &str = include_str!("demo.toml");

/// A running site.
#[derive(Debug)]
pub(super) struct DemoSite {
    pub(super) loaded: LoadedConfig,
    pub(super) broker: DemoBroker,
    /// The PLCs with their names in the configuration.
    pub(super) plcs: Vec<(String, Handle)>,
    pub(super) directory: DemoDirectory,
}

/// Where the gateway publishes to.
#[derive(Debug)]
pub(super) enum DemoBroker {
    /// The demo's own, which accepts connections at the hub's end of the tunnel.
    Own(TunnelListener),
    /// One of the user.
    Other,
}

impl DemoSite {
    /// Starts the PLCs in `stage` and loads the configuration; with a broker of the user, one
    /// without a tunnel.
    pub(super) async fn start(
        broker: Option<&Broker>,
        stage: &Stage,
        fatal: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let key = PrivateKey::generate();
        let (mut text, broker) = match broker {
            Some(broker) => (direct_configuration(broker)?, DemoBroker::Other),
            None => {
                let hub = hub::open(key.public_key(), stage, fatal).await?;
                let text = CONFIGURATION
                    .replace("{hub}", &hub.address.to_string())
                    .replace("{hub_key}", &hub.key.to_string());
                (text, DemoBroker::Own(hub.listener))
            }
        };
        let mut plcs = Vec::new();
        for (name, model, seed) in [("pump6", PlcModel::M241, 6), ("pump7", PlcModel::M251, 7)] {
            let listener = loopback().await?;
            text = text.replace(&format!("{{{name}}}"), &listener.local_addr()?.to_string());
            let mut settings =
                SimulatorSettings::new(model).context("the simulator supports this model")?;
            settings.seed = seed;
            let plc = SimulatedPlc::new(settings);
            plcs.push((name.to_owned(), plc.handle()));
            stage.spawn(fatal.clone(), |stop| serve(plc, listener, stop));
        }
        let directory = DemoDirectory::create()?;
        let text = text.replace("{state_dir}", &directory.0.display().to_string());
        let mut secret = std::fs::OpenOptions::new();
        secret.write(true).create_new(true).mode(0o600);
        let mut secret = secret.open(directory.0.join("tunnel.key"))?;
        secret.write_all(key.expose().as_bytes()).context("cannot write the demo's key")?;
        let file = directory.0.join("gateway.toml");
        std::fs::write(&file, text).context("cannot write the demo's gateway.toml")?;
        let loaded = config::load(&file)?;
        Ok(Self { loaded, broker, plcs, directory })
    }
}

/// Returns the configuration with this broker in place of the tunnel and the broker behind it.
/// Anyone may write to a simulated PLC.
fn direct_configuration(broker: &Broker) -> anyhow::Result<String> {
    let (head, rest) = CONFIGURATION.split_once("[tunnel]").context("demo.toml has a tunnel")?;
    let (_, tail) = rest.split_once("[metrics]").context("demo.toml has metrics")?;
    let scheme = match broker.scheme {
        Scheme::Mqtt => "mqtt",
        Scheme::Mqtts => "mqtts",
    };
    let url = format!("{scheme}://{}", broker.address);
    Ok(format!("{head}[mqtt]\nbrokers = [\"{url}\"]\nwrites_in_clear = true\n\n[metrics]{tail}"))
}

async fn loopback() -> io::Result<TcpListener> {
    TcpListener::bind("127.0.0.1:0").await
}

/// A temporary directory, removed on drop.
#[derive(Debug)]
pub(super) struct DemoDirectory(PathBuf);

impl DemoDirectory {
    /// Creates it for its owner only, in the first of the usual places that can be written: a
    /// container with a read-only root may have no other one than shared memory.
    fn create() -> anyhow::Result<Self> {
        let places = [std::env::temp_dir(), "/dev/shm".into(), "/run".into(), ".".into()];
        Self::create_in(&places)
    }

    fn create_in(places: &[PathBuf]) -> anyhow::Result<Self> {
        let name = format!("edge-gateway-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let mut failures = Vec::new();
        for place in places {
            // The configuration needs absolute paths.
            let path = std::path::absolute(place)?.join(&name);
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) => failures.push(format!("cannot create {}: {error}", path.display())),
            }
        }
        anyhow::bail!("{}; set TMPDIR to a directory that can be written", failures.join(", "))
    }
}

impl Drop for DemoDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "cannot remove the directory of the demo");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_in_the_first_place_that_can_be_written() {
        let nowhere = PathBuf::from("/nonexistent");
        let directory = DemoDirectory::create_in(&[nowhere.clone(), std::env::temp_dir()]).unwrap();
        assert!(directory.0.starts_with(std::env::temp_dir()) && directory.0.is_dir());
        let error = DemoDirectory::create_in(&[nowhere]).unwrap_err().to_string();
        assert!(error.contains("cannot create /nonexistent/") && error.contains("TMPDIR"));
    }
}
