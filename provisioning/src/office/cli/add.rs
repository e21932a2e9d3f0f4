//! `add`: adds a site, or a hub.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, bail};
use clap::Args;
use tunnel::{Endpoint, PublicKey};

use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, print_line};
use crate::office::fleet::{BrokerAuthentication, FLEET_TOML, Fleet, SITES_DIR, check_id};
use crate::office::output_file::{FileAccess, create_new, replace_if_changed};
use crate::office::secrets::Secrets;

/// `add`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision add amsterdam-01 --location Amsterdam --template pump
  edge-provision add amsterdam-02 --template pump --with-key
  edge-provision add hub-b --hub --endpoint hub-b.example.net:51820

Writes sites/NAME.toml with an address inside the tunnel, which never changes, and makes the
password of the site. The box makes the key of its tunnel itself, and `enrol` takes its public
half in; with --with-key the office makes a first key.")]
pub(super) struct AddOptions {
    /// Id of the site, or name of the hub: a-z, 0-9 and -.
    #[arg(value_name = "NAME", value_parser = super::label)]
    name: String,
    #[command(flatten)]
    fleet: FleetOption,
    /// Where the site is, for people and for {location} in topics.
    #[arg(long, value_name = "TEXT")]
    location: Option<String>,
    /// Machine type of its first PLC: a file in templates/.
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
    /// Address of its first PLC.
    #[arg(long, value_name = "ADDRESS", default_value = "192.168.1.10:502")]
    plc_address: String,
    /// Make the key of the tunnel here instead of on the box.
    #[arg(long)]
    with_key: bool,
    /// Add a hub instead of a site.
    #[arg(long, requires = "endpoint",
        conflicts_with_all = ["location", "template", "plc_address", "with_key"])]
    hub: bool,
    /// Where the gateways reach the hub: host:port.
    #[arg(long, value_name = "HOST:PORT", requires = "hub")]
    endpoint: Option<Endpoint>,
}

pub(super) fn add(options: &AddOptions) -> anyhow::Result<u8> {
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    match &options.endpoint {
        Some(endpoint) => add_hub(options, endpoint, &fleet),
        None => add_site(options, &fleet),
    }
}

fn add_site(options: &AddOptions, fleet: &Fleet) -> anyhow::Result<u8> {
    let id = &options.name;
    if let Err((message, help)) = check_id(id) {
        bail!("{message}: {help}");
    }
    if let Some(template) = &options.template
        && !fleet.template_names().any(|name| name == template)
    {
        let names: Vec<&str> = fleet.template_names().collect();
        bail!("there is no template {template}; the templates are {}", names.join(", "));
    }
    let path = options.fleet.path(SITES_DIR).join(format!("{id}.toml"));
    if path.exists() {
        bail!("{} is there already", path.display());
    }
    let taken: BTreeSet<Ipv4Addr> = fleet.sites().iter().map(|site| site.address).collect();
    let plan = &fleet.settings().plan;
    let address = plan.propose(id, &taken).with_context(|| {
        format!("every address in {} is taken; use a wider network", plan.network)
    })?;
    let secrets = Secrets::of_fleet(&options.fleet.dir);
    if fleet.settings().broker.authentication == BrokerAuthentication::Password {
        secrets.ensure_site_password(id)?;
    }
    let key = options.with_key.then(|| secrets.ensure_site_key(id)).transpose()?;
    let text = site_toml(options, address, key);
    create_new(&path, text.as_bytes(), FileAccess::Public)?;
    print_line(format_args!("{}: {address}", path.display()))?;
    Ok(EXIT_OK)
}

fn site_toml(options: &AddOptions, address: Ipv4Addr, key: Option<PublicKey>) -> String {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let key = key.map(|key| format!("public_key = \"{key}\"\n")).unwrap_or_default();
    let location = options.location.as_ref();
    let location = location
        .map(|text| format!("\n[gateway]\nlocation = {}\n", quoted(text)))
        .unwrap_or_default();
    let plc = match &options.template {
        Some(template) => format!(
            "\n[[plc]]\nname = {}\ntemplate = {}\naddress = {}\n",
            quoted(template),
            quoted(template),
            quoted(&options.plc_address),
        ),
        None => "\n# [[plc]]\n# name = \"pump6\"\n# template = \"pump\"\n# address = \
                 \"192.168.1.10:502\"\n"
            .to_owned(),
    };
    format!(
        "[site]\n\
         address = \"{address}\"     # inside the tunnel; never changes\n\
         {key}{location}\
         \n\
         # [network.machine]\n\
         # interface = \"eth1\"\n\
         # address = \"192.168.1.2/24\"   # of the box, in the network of the PLCs\n\
         #\n\
         # [network.uplink]\n\
         # interface = \"eth0\"\n\
         # method = \"dhcp\"              # or static, or lte\n\
         {plc}"
    )
}

fn add_hub(options: &AddOptions, endpoint: &Endpoint, fleet: &Fleet) -> anyhow::Result<u8> {
    let name = &options.name;
    let settings = fleet.settings();
    if settings.hubs.iter().any(|hub| hub.name == *name) {
        bail!("there is a hub {name} already");
    }
    let sites: BTreeSet<Ipv4Addr> = fleet.sites().iter().map(|site| site.address).collect();
    let is_free =
        |address: &Ipv4Addr| settings.plan.is_for_sites(*address) && !sites.contains(address);
    let address = settings.plan.network.hosts().find(is_free);
    let address =
        address.with_context(|| format!("every address in {} is taken", settings.plan.network))?;
    let path = options.fleet.path(FLEET_TOML);
    let mut text = fs::read_to_string(&path)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let key = Secrets::of_fleet(&options.fleet.dir).ensure_hub_key(name)?;
    text.push_str(&super::hub_section(name, endpoint, address, &key));
    replace_if_changed(&path, text.as_bytes(), FileAccess::Public)?;
    print_line(format_args!("{}: the hub {name}, {address}", path.display()))?;
    let count = settings.hubs.len() + 1;
    print_line(format_args!("Roll the sites out again: about 1/{count} of them move to {name}."))?;
    Ok(EXIT_OK)
}
