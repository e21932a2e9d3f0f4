//! `rotate`: new keys and passwords in place of old ones.

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

use super::enrol::edit;
use super::key_options::SigningKeyOptions;
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, print_line};
use crate::office::fleet_signing::{SigningLists, SigningRole};
use crate::office::secrets::Secrets;
use crate::office::signing::NewKey;
use crate::office::site_edit::SiteValue;

/// `rotate`.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("what").required(true),
    after_help = "\
Examples:
  edge-provision rotate amsterdam-01 --password
  edge-provision hub && edge-provision build amsterdam-01
  edge-provision rotate amsterdam-01 --confirmed      when its status shows the new bundle
  edge-provision rotate --signing-key --key /media/safe/offline.key
  edge-provision rotate --offline-key               then move secrets/offline.key to a safe place

A new password comes with a new user name. The hub lets both in until --confirmed, so that a box
that rolls its new bundle back is not locked out.")]
pub(super) struct RotateOptions {
    /// The site.
    #[arg(value_name = "SITE", value_parser = super::label,
        required_unless_present_any = ["signing_key", "offline_key"],
        conflicts_with_all = ["signing_key", "offline_key"])]
    site: Option<String>,
    #[command(flatten)]
    fleet: FleetOption,
    /// Make a new password of the site at the broker; the old one stays valid.
    #[arg(long, group = "what")]
    password: bool,
    /// End the validity of the old password.
    #[arg(long, group = "what")]
    confirmed: bool,
    /// Make a new key that signs bundles; the old one is trusted no more.
    #[arg(long, group = "what")]
    signing_key: bool,
    /// Make a new second key, in the place of one that is lost or stolen.
    #[arg(long, group = "what")]
    offline_key: bool,
    #[command(flatten)]
    key: SigningKeyOptions,
}

pub(super) fn rotate(options: &RotateOptions) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let _lock = options.fleet.lock()?;
    let Some(site) = &options.site else {
        let is_offline = options.offline_key;
        let role = if is_offline { SigningRole::Offline } else { SigningRole::Daily };
        return rotate_key(options, role);
    };
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let site = fleet.site(site).with_context(|| format!("there is no site {site}"))?;
    if site.is_revoked {
        bail!("{} is revoked: it has no password", site.id);
    }
    let secrets = Secrets::of_fleet(dir);
    if options.confirmed {
        let had_one = secrets.forget_old_passwords(&site.id, site.login)?;
        let told = if had_one {
            "the old password ends with the next files of the hubs"
        } else {
            "there is no old password"
        };
        print_line(format_args!("{}: {told}", site.id))?;
        return Ok(EXIT_OK);
    }
    // Each step can be repeated: only the new number in the file of the site puts it to use.
    secrets.make_next_password(&site.id, site.login)?;
    let login = site.login.saturating_add(1);
    edit(dir, &site.id, &[("login", SiteValue::Number(login))])?;
    let user = site.user_name(login);
    print_line(format_args!(
        "{}: a new password for the user {user}; write the files of the hubs first, then its bundle",
        site.id
    ))?;
    Ok(EXIT_OK)
}

/// Replaces one of the two keys that sign, and keeps the others of the list.
fn rotate_key(options: &RotateOptions, role: SigningRole) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let mut lists = SigningLists::load(dir)?;
    let finished = lists.finish_rotation(dir)?;
    // Typed again after it was interrupted.
    if finished != Some(role) {
        let signer = options.key.signer(dir)?;
        let password = options.key.new_password()?;
        let password = password.as_ref().map(|password| password.as_str());
        let made = NewKey::generate(password, &format!("edge-gateway {}", role.file_name()))?;
        lists.rotate(dir, role, &made, signer)?;
    }
    let (number, name) = (lists.last()?.number(), role.file_name());
    print_line(format_args!(
        "signing/keys-{number}.txt: secrets/{name} is a new key; build now, so that every bundle \
         shows it"
    ))?;
    Ok(EXIT_OK)
}
