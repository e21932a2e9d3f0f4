//! The files of the hubs, for software that exists: WireGuard, nftables, a broker, chrony,
//! Prometheus, nginx. The same fleet and secrets give the same bytes.

mod accounts;
mod chrony;
mod emqx;
mod mosquitto;
mod nats;
mod nftables;
mod nginx;
mod password_hash;
mod prometheus;
mod wireguard;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::certificates::{BROKER_KEY, CertificateError, Certificates};
use super::fleet::{BrokerSoftware, Fleet, FleetHub, RejectedFleet, Site};
use super::output_file::{FileAccess, FileChange, FileError, create_directory, replace_if_changed};
use super::secrets::{SecretError, Secrets};
use accounts::Account;

/// Name of the WireGuard interface at the hub.
pub(crate) const INTERFACE: &str = "edge";
/// TCP port of the server of bundles at the hub.
pub(crate) const BUNDLE_PORT: u16 = 80;
/// TCP port of the metrics of a gateway inside the tunnel.
pub(crate) const METRICS_PORT: u16 = 9464;

/// Files for containers: path below the directory of the hub, and text.
const CONTAINER_FILES: [(&str, &str); 7] = [
    ("compose.yaml", include_str!("../../../deploy/hub/compose.yaml")),
    ("image/Dockerfile", include_str!("../../../deploy/hub/image/Dockerfile")),
    ("image/node-red.js", include_str!("../../../deploy/hub/image/node-red.js")),
    (
        "grafana/provisioning/datasources/edge.yaml",
        include_str!("../../../deploy/grafana/provisioning/datasources/edge.yaml"),
    ),
    (
        "grafana/provisioning/dashboards/edge.yaml",
        include_str!("../../../deploy/grafana/provisioning/dashboards/edge.yaml"),
    ),
    (
        "grafana/dashboards/fleet.json",
        include_str!("../../../deploy/grafana/dashboards/fleet.json"),
    ),
    ("grafana/dashboards/site.json", include_str!("../../../deploy/grafana/dashboards/site.json")),
];

/// A file of a hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubFile {
    /// Path below the directory of the hub: `etc/wireguard/edge.conf`.
    pub path: &'static str,
    /// Its content.
    pub content: Vec<u8>,
    /// Who may read it.
    pub access: FileAccess,
}

/// Why the files of the hubs cannot be made.
#[derive(Debug, Error)]
pub enum HubError {
    /// A secret is missing or unusable.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The fleet has a problem.
    #[error(transparent)]
    Fleet(#[from] RejectedFleet),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The private key is not that of `public_key` in fleet.toml.
    #[error(
        "secrets/hubs/{hub}/tunnel.key is not the key of {hub}: its public key is {actual}, and \
         fleet.toml says {expected}"
    )]
    OtherKey {
        /// Name of the hub.
        hub: String,
        /// Public key of the secret.
        actual: String,
        /// Public key of fleet.toml.
        expected: String,
    },
    /// The configuration of the broker cannot express this.
    #[error("{software} cannot do this: {problem}")]
    Unsupported {
        /// Name of the software.
        software: &'static str,
        /// What it cannot do.
        problem: String,
    },
}

/// What belongs to one hub.
pub(crate) struct HubView<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) hub: &'a FleetHub,
    /// Sites that use this hub, as primary or as spare, with their keys known or not.
    pub(crate) sites: Vec<HubSite<'a>>,
}

impl HubView<'_> {
    /// Returns the other hubs, if their brokers are one cluster.
    fn cluster_peers(&self) -> impl Iterator<Item = &FleetHub> {
        let settings = self.fleet.settings();
        let is_cluster = !cluster_ports(settings.broker.software).is_empty();
        let is_other = move |hub: &&FleetHub| is_cluster && hub.name != self.hub.name;
        settings.hubs.iter().filter(is_other)
    }
}

/// Returns the TCP ports at which the nodes of a cluster of brokers reach each other (NATS,
/// "Clustering"; EMQX, "Cluster security"). None if each broker is alone.
const fn cluster_ports(software: BrokerSoftware) -> &'static [u16] {
    match software {
        BrokerSoftware::Mosquitto => &[],
        BrokerSoftware::Nats => &[6222],
        BrokerSoftware::Emqx => &[4370, 5370],
    }
}

/// A site that uses a hub.
pub(crate) struct HubSite<'a> {
    pub(crate) site: &'a Site,
    pub(crate) is_primary: bool,
}

/// Returns the files of every hub, in the order of `fleet.toml`. Revoked sites are in none of them.
///
/// # Errors
/// When a secret is missing, or a site has a problem.
pub fn render<'a>(
    fleet: &'a Fleet,
    secrets: &Secrets,
) -> Result<Vec<(&'a FleetHub, Vec<HubFile>)>, HubError> {
    let accounts = accounts::of_fleet(fleet, secrets)?;
    let mut views: Vec<_> = fleet.settings().hubs.iter().map(|hub| (hub, Vec::new())).collect();
    for site in fleet.sites().iter().filter(|site| !site.is_revoked) {
        for (rank, hub) in fleet.hubs_of(site).into_iter().enumerate() {
            if let Some((_, sites)) = views.iter_mut().find(|(own, _)| own.name == hub.name) {
                sites.push(HubSite { site, is_primary: rank == 0 });
            }
        }
    }
    let render = |(hub, sites)| {
        let view = HubView { fleet, hub, sites };
        Ok((view.hub, render_hub(&view, &accounts, secrets)?))
    };
    views.into_iter().map(render).collect()
}

fn render_hub(
    view: &HubView<'_>,
    accounts: &[Account],
    secrets: &Secrets,
) -> Result<Vec<HubFile>, HubError> {
    let key = secrets.hub_key(&view.hub.name)?;
    if key.public_key() != view.hub.public_key {
        return Err(HubError::OtherKey {
            hub: view.hub.name.clone(),
            actual: key.public_key().to_string(),
            expected: view.hub.public_key.to_string(),
        });
    }
    let mut files = vec![
        secret("etc/wireguard/edge.conf", wireguard::interface(view, &key)),
        public("etc/nftables.d/edge.nft", nftables::ruleset(view)),
        public("etc/chrony/conf.d/edge.conf", chrony::settings(view)),
    ];
    files.extend(prometheus::render(view));
    files.extend(nginx::render(view));
    files.extend(match view.fleet.settings().broker.software {
        BrokerSoftware::Mosquitto => mosquitto::render(view, accounts),
        BrokerSoftware::Nats => nats::render(accounts)?,
        BrokerSoftware::Emqx => emqx::render(accounts),
    });
    Ok(files)
}

/// Returns the script that makes a server with Debian 13 a hub, from the other files.
#[must_use]
pub fn install_script() -> HubFile {
    public("install.sh", include_str!("../../../deploy/hub/install.sh").to_owned())
}

/// Returns what runs the same programs in containers, with Node-RED and Grafana. None for a cluster of
/// brokers: there is no container of those.
#[must_use]
pub fn container_files(software: BrokerSoftware) -> Vec<HubFile> {
    match software {
        BrokerSoftware::Nats | BrokerSoftware::Emqx => Vec::new(),
        BrokerSoftware::Mosquitto => {
            CONTAINER_FILES.map(|(path, text)| public(path, text.to_owned())).into()
        }
    }
}

/// Returns the files for TLS of the broker of a hub: its certificate, which is renewed 60 days before
/// its end, the private key, and the certificate of the authority.
///
/// # Errors
/// When a certificate must be issued and the key of the authority is not at hand.
pub fn certificate_files(
    certificates: &Certificates,
    secrets: &Secrets,
    hub: &FleetHub,
) -> Result<Vec<HubFile>, CertificateError> {
    let certificate = certificates.of_hub(secrets, &hub.name, hub.address.into())?;
    let path = secrets.hub_file(&hub.name, BROKER_KEY);
    let key = Secrets::read(&path, "`edge-provision hub` makes it with the certificate")?;
    let mut files = vec![
        public("etc/mosquitto/certs/ca.pem", certificates.authority()?),
        public("etc/mosquitto/certs/broker.pem", certificate),
    ];
    files.push(secret("etc/mosquitto/certs/broker.key", format!("{}\n", key.as_str())));
    Ok(files)
}

fn public(path: &'static str, text: String) -> HubFile {
    HubFile { path, content: text.into_bytes(), access: FileAccess::Public }
}

fn secret(path: &'static str, text: String) -> HubFile {
    HubFile { path, content: text.into_bytes(), access: FileAccess::Secret }
}

/// Writes the files of a hub below a directory and returns those that changed.
///
/// # Errors
/// When one cannot be written.
pub fn write(dir: &Path, files: &[HubFile]) -> Result<Vec<(PathBuf, FileChange)>, FileError> {
    let mut changed = Vec::new();
    for file in files {
        let path = dir.join(file.path);
        // Copied to /etc of the hub with their modes, the directories must stay open to all.
        create_directory(path.parent().unwrap_or(dir))?;
        let change = replace_if_changed(&path, &file.content, file.access)?;
        if change != FileChange::Unchanged {
            changed.push((path, change));
        }
    }
    Ok(changed)
}
