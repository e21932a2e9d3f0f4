//! `rotate`: new keys and passwords in place of old ones.

use std::path::Path;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};

use super::enrol::edit;
use super::key_options::SigningKeyOptions;
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, print_line};
use crate::bundle::SigningKey;
use crate::office::fleet_signing::SIGNING_KEY;
use crate::office::output_file::{FileAccess, replace_if_changed};
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

A new password comes with a new user name. The hub lets both in until --confirmed, so that a box that
takes its new bundle back is not locked out.")]
pub(super) struct RotateOptions {
    /// The site.
    #[arg(value_name = "SITE", value_parser = super::label, required_unless_present = "signing_key",
        conflicts_with = "signing_key")]
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
    #[command(flatten)]
    key: SigningKeyOptions,
}

pub(super) fn rotate(options: &RotateOptions) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let _lock = options.fleet.lock()?;
    let Some(site) = &options.site else { return rotate_signing_key(options, dir) };
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

/// Replaces the key `secrets/signing.key`, and keeps the others of the list.
fn rotate_signing_key(options: &RotateOptions, dir: &Path) -> anyhow::Result<u8> {
    let (mut lists, signer) = options.key.open(dir)?;
    let path = Secrets::of_fleet(dir).file(SIGNING_KEY);
    let password = options.key.new_password()?;
    let password = password.as_ref().map(|password| password.as_str());
    let made = NewKey::generate(password, "edge-gateway signing.key")?;
    let new = SigningKey::from_pub_file(&made.public)?;
    let offline = lists.last()?.keys().get(1).cloned();
    let keys = [Some(new.clone()), offline].into_iter().flatten().collect();
    // The secret first: a list with a key that is lost would leave the second key alone.
    let old = path.with_extension("key.old");
    if path.exists() {
        std::fs::rename(&path, &old)
            .with_context(|| format!("cannot rename {}", path.display()))?;
    }
    replace_if_changed(&path, made.secret.as_bytes(), FileAccess::Secret)?;
    lists.replace(dir, keys, signer)?;
    let number = lists.last()?.number();
    print_line(format_args!(
        "signing/keys-{number}.txt: the new key {} signs; every bundle shows it from now on",
        new.id()
    ))?;
    Ok(EXIT_OK)
}
