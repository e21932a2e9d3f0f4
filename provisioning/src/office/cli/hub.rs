//! `hub`: renders the files of the hubs.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use super::key_options::AuthorityKeyOption;
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of, print_line};
use crate::office::certificates::Certificates;
use crate::office::fleet::BrokerAuthentication;
use crate::office::fleet::Site;
use crate::office::hub;
use crate::office::output_file::FileChange;
use crate::office::secrets::Secrets;

/// `hub`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision hub
  tar -C out/hubs/hub-a --owner=root --group=root -c etc | \\
      ssh root@hub-a tar -C / --no-overwrite-dir -x

Writes DIR/NAME/etc for each hub: WireGuard, nftables, the broker, chrony, Prometheus and nginx. A
file that does not change is not touched. On a server with Debian 13, `sh DIR/NAME/install.sh`
installs the programs and puts the files in place; DIR/NAME/compose.yaml runs them in containers. By
hand, at the hub:
  chown mosquitto: /etc/mosquitto/edge.*
  chown mosquitto: /etc/mosquitto/certs/broker.key    with certificates
  wg syncconf edge <(wg-quick strip edge)    no session is lost
  nft -f /etc/nftables.d/edge.nft
  systemctl reload mosquitto prometheus")]
pub(super) struct HubOptions {
    #[command(flatten)]
    fleet: FleetOption,
    #[command(flatten)]
    authority: AuthorityKeyOption,
    /// Directory for the files; out/hubs of the fleet by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn hub(options: &HubOptions) -> anyhow::Result<u8> {
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let secrets = Secrets::of_fleet(&options.fleet.dir);
    let out = options.out.clone().unwrap_or_else(|| options.fleet.path("out/hubs"));
    let mut rendered = match hub::render(&fleet, &secrets) {
        Err(hub::HubError::Fleet(rejected)) => return super::reject(&rejected),
        rendered => rendered?,
    };
    if fleet.settings().broker.authentication == BrokerAuthentication::Certificate {
        let key = options.authority.authority_key.as_deref();
        let certificates = Certificates::open(&options.fleet.dir, key, Timestamp::now())?;
        for (hub, files) in &mut rendered {
            files.extend(hub::certificate_files(&certificates, &secrets, hub)?);
        }
    }
    for (hub, files) in &mut rendered {
        files.push(hub::install_script());
        files.extend(hub::container_files(fleet.settings().broker.software));
        for (path, change) in hub::write(&out.join(&hub.name), files)? {
            let verb = match change {
                FileChange::Created => "created",
                FileChange::Replaced | FileChange::Unchanged => "changed",
            };
            print_line(format_args!("{verb} {}", path.display()))?;
        }
    }
    let is_missing = |site: &&Site| !site.is_revoked && site.public_key.is_none();
    let missing = fleet.sites().iter().filter(is_missing).count();
    if missing > 0 {
        let sites = count_of(missing, "site");
        print_line(format_args!("{sites} not enrolled: no tunnel until `edge-provision enrol`"))?;
    }
    Ok(EXIT_OK)
}
