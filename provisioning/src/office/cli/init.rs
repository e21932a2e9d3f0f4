//! `init`: makes a new fleet.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use tunnel::Endpoint;

use super::key_options::read_password;
use super::{EXIT_OK, print_line};
use crate::office::certificates::Certificates;
use crate::office::fleet::{FLEET_TOML, SITES_DIR, TEMPLATES_DIR};
use crate::office::fleet_lock::FleetLock;
use crate::office::fleet_signing::SigningLists;
use crate::office::output_file::{FileAccess, create_new, replace_if_changed};
use crate::office::secrets::Secrets;

/// `init`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision init fleet --endpoint hub-a.example.net:51820
  cd fleet && git init && edge-provision add amsterdam-01 --template pump

Makes fleet.toml with one hub, a template for a machine type, and below secrets/, which git ignores,
the keys of the hub, two keys that sign bundles and the key of an authority. Keep a copy of that
directory in a safe place, and move offline.key, and ca.key if you wish, away from this machine.")]
pub(super) struct InitOptions {
    /// Directory of the new fleet; created if it is missing.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where the gateways reach the first hub: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Endpoint,
    /// Name of the first hub.
    #[arg(long, value_name = "NAME", default_value = "hub-a", value_parser = super::label)]
    hub: String,
    /// File with a password for the two keys that sign bundles; none by default.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Addresses inside the tunnel; the office gets the last 256 of them.
    #[arg(long, value_name = "NETWORK", default_value = "10.77.0.0/16")]
    network: Ipv4Net,
}

/// Largest network: 16 million addresses. Smallest: 254 sites and the office.
const PREFIXES: std::ops::RangeInclusive<u8> = 8..=23;

pub(super) fn init(options: &InitOptions) -> anyhow::Result<u8> {
    let network = options.network.trunc();
    if !PREFIXES.contains(&network.prefix_len()) {
        let (widest, narrowest) = PREFIXES.into_inner();
        bail!("--network {network}: its length is not from /{widest} to /{narrowest}");
    }
    let path = options.dir.join(FLEET_TOML);
    if path.exists() {
        bail!("{} is there already; `edge-provision add` adds a site", path.display());
    }
    let secrets = Secrets::of_fleet(&options.dir);
    // Before there is a secret.
    ignore_secrets(&options.dir.join(".gitignore"))?;
    let _lock = FleetLock::take(&options.dir)?;
    let key = secrets.ensure_hub_key(&options.hub)?;
    let password = options.password_file.as_deref().map(read_password).transpose()?;
    SigningLists::ensure(&options.dir, password.as_ref().map(|password| password.as_str()))?;
    Certificates::ensure(&options.dir, Timestamp::now())?;
    secrets.ensure_office_password()?;
    let office = Ipv4Net::new(network.broadcast(), 24).context("the network of the office")?;
    let text = fleet_toml(network, office.trunc(), &hub_section(options, network, &key));
    let template = options.dir.join(TEMPLATES_DIR).join("pump.toml");
    if !template.exists() {
        create_new(&template, TEMPLATE.as_bytes(), FileAccess::Public)?;
    }
    let keep = options.dir.join(SITES_DIR).join(".gitkeep");
    replace_if_changed(&keep, b"", FileAccess::Public)?;
    // Last, because its presence says that the fleet is complete.
    create_new(&path, text.as_bytes(), FileAccess::Public)?;
    print_line(format_args!("{}: a fleet with the hub {}", path.display(), options.hub))?;
    print_line("Next: edge-provision add amsterdam-01 --location Amsterdam --template pump")?;
    Ok(EXIT_OK)
}

/// Adds the directories with secrets to what git ignores.
fn ignore_secrets(path: &Path) -> anyhow::Result<()> {
    let mut text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let is_missing = |line: &&str| !text.lines().any(|own| own == *line);
    let missing: Vec<&str> = ["/secrets/", "/out/"].into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str("# Private keys and passwords, and files that hold them.\n");
    text.extend(missing.iter().flat_map(|line| [*line, "\n"]));
    replace_if_changed(path, text.as_bytes(), FileAccess::Public)?;
    Ok(())
}

fn hub_section(options: &InitOptions, network: Ipv4Net, key: &tunnel::PublicKey) -> String {
    let address = Ipv4Addr::from(u32::from(network.network()) + 1);
    super::hub_section(&options.hub, &options.endpoint, address, key)
}

fn fleet_toml(network: Ipv4Net, office: Ipv4Net, hub: &str) -> String {
    format!(
        "# fleet.toml: what all sites share. Each site has a file in sites/, each machine type one\n\
         # in templates/. `edge-provision check` reports every problem.\n\
         \n\
         [tunnel]\n\
         network = \"{network}\"          # addresses of hubs and sites inside the tunnel\n\
         office = \"{office}\"         # the part of it for computers of the office\n\
         {hub}\
         \n\
         # A computer of the office that reaches the hubs and the metrics of the sites:\n\
         # [[office]]\n\
         # name = \"anna\"\n\
         # address = \"{computer}\"\n\
         # public_key = \"...\"               # wg genkey | tee anna.key | wg pubkey\n\
         \n\
         [broker]\n\
         software = \"mosquitto\"             # mosquitto, nats or emqx\n\
         authentication = \"password\"        # password or certificate\n\
         \n\
         # Sections of gateway.toml for all sites; a site overrides them.\n\
         [defaults.publish]\n\
         qos = 1\n",
        computer = Ipv4Addr::from(u32::from(office.network()) + 2),
    )
}

const TEMPLATE: &str = "\
# A machine type: the keys of a [[plc]] and its tags. A site uses it with template = \"pump\".
model = \"M241\"
scan = \"1s\"

[[tag]]
name = \"temperature\"
at = \"%MW10\"
type = \"REAL\"
unit = \"°C\"

[[tag]]
name = \"pressure\"
at = \"%MW12\"
type = \"INT\"
";
