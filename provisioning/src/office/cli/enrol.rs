//! `enrol`, `replace` and `revoke`: which box is the gateway of a site.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use clap::Args;

use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, print_line};
use crate::enrolment::{Enrolment, MAX_ENROLMENT_BYTES};
use crate::office::boxes::Boxes;
use crate::office::build::{SEALED_DIR, remove_bundles};
use crate::office::certificates::AUTHORITY_DIR;
use crate::office::enrol::{EnrolError, KnownBoxes, is_same_box};
use crate::office::fleet::{Fleet, SITES_DIR, Site};
use crate::office::output_file::{FileAccess, remove_if_there, replace_if_changed};
use crate::office::secrets::{SITE_KEY, Secrets};
use crate::office::site_edit::{SiteValue, set};
use crate::regular_file;

/// `enrol`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision enrol amsterdam-01 edge-enrol-5f2c91aa.txt
  edge-provision build amsterdam-01 && edge-provision hub

Takes in the public keys of the box of a site. The file comes from the box's stick; it holds no
secret and no name. If the first key of the site was made here, the box's own replaces it.")]
pub(super) struct EnrolOptions {
    /// The site.
    #[arg(value_name = "SITE", value_parser = super::label)]
    site: String,
    /// edge-enrol-ID.txt from the box.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    fleet: FleetOption,
}

/// `replace`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision replace amsterdam-01 edge-enrol-0b77d3e4.txt
  edge-provision build amsterdam-01 && edge-provision hub

Gives a site a new box with the same id and address. The keys of the old box are refused for
ever, and the site gets a new password.")]
pub(super) struct ReplaceOptions {
    /// The site.
    #[arg(value_name = "SITE", value_parser = super::label)]
    site: String,
    /// edge-enrol-ID.txt from the new box.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    fleet: FleetOption,
}

/// `revoke`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision revoke amsterdam-01
  edge-provision hub && rsync -a out/hubs/hub-a/etc/ root@hub-a.example.net:/etc/

Withdraws the access of a site: `hub` renders neither its peer nor its password nor its access
list, and its keys are refused for ever. The site keeps its file and its address.")]
pub(super) struct RevokeOptions {
    /// The site.
    #[arg(value_name = "SITE", value_parser = super::label)]
    site: String,
    #[command(flatten)]
    fleet: FleetOption,
}

pub(super) fn enrol(options: &EnrolOptions) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let site = active_site(&fleet, &options.site)?;
    let boxes = Boxes::of_fleet(dir);
    let enrolment = checked(&fleet, &boxes, site, &options.file)?;
    if let Some(known) = boxes.get(&site.id)?
        && !is_same_box(&known, &enrolment)?
    {
        return Err(EnrolError::OtherBox { site: site.id.clone() }.into());
    }
    // Each step can be repeated. The file of the site tells whether its box was taken in, and a key
    // that was made here goes last.
    let secrets = Secrets::of_fleet(dir);
    let first_key = site.public_key.filter(|key| *key != enrolment.tunnel_public_key);
    let has_secret = secrets.site_file(&site.id, SITE_KEY).exists();
    let mut values = vec![public_key_of(&enrolment)];
    if let Some(key) = first_key {
        boxes.refuse(&site.id, &[key.to_string()], Some(&enrolment))?;
        if has_secret {
            // The key served the first contact: it lay on a stick, and the password too.
            values.push(next_login(&secrets, site)?);
        }
    }
    boxes.store(&site.id, &enrolment)?;
    edit(dir, &site.id, &values)?;
    if has_secret {
        remove_bundles(dir, &site.id)?;
        secrets.remove_site_file(&site.id, SITE_KEY)?;
    }
    print_enrolled(site, &enrolment)
}

pub(super) fn replace(options: &ReplaceOptions) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let site = active_site(&fleet, &options.site)?;
    let boxes = Boxes::of_fleet(dir);
    let enrolment = checked(&fleet, &boxes, site, &options.file)?;
    if site.public_key == Some(enrolment.tunnel_public_key) {
        bail!("this is the box that {} has already", site.id);
    }
    // Each step can be repeated until the last one, which makes the site the one of the new box.
    let old: Vec<_> = site.public_key.iter().map(ToString::to_string).collect();
    boxes.refuse(&site.id, &old, Some(&enrolment))?;
    let secrets = Secrets::of_fleet(dir);
    edit(dir, &site.id, &[next_login(&secrets, site)?])?;
    // The old box knew them.
    secrets.forget_old_passwords(&site.id, site.login.saturating_add(1))?;
    remove_bundles(dir, &site.id)?;
    secrets.remove_site_file(&site.id, SITE_KEY)?;
    boxes.store(&site.id, &enrolment)?;
    edit(dir, &site.id, &[public_key_of(&enrolment)])?;
    print_enrolled(site, &enrolment)
}

pub(super) fn revoke(options: &RevokeOptions) -> anyhow::Result<u8> {
    let dir = &options.fleet.dir;
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let site = existing_site(&fleet, &options.site)?;
    // First: with it, everything that is rendered leaves the site out.
    edit(dir, &site.id, &[("revoked", SiteValue::Boolean(true))])?;
    let keys: Vec<_> = site.public_key.iter().map(ToString::to_string).collect();
    Boxes::of_fleet(dir).refuse(&site.id, &keys, None)?;
    let secrets = Secrets::of_fleet(dir);
    remove_if_there(&dir.join(SEALED_DIR).join(format!("{}.age", site.id)))?;
    let certificate = dir.join(AUTHORITY_DIR).join("sites").join(format!("{}.pem", site.id));
    remove_if_there(&certificate)?;
    remove_bundles(dir, &site.id)?;
    match fs::remove_dir_all(secrets.site_file(&site.id, "")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context("cannot remove the secrets of the site");
        }
        _ => {}
    }
    print_line(format_args!("{}: revoked; write and copy the files of the hubs now", site.id))?;
    Ok(EXIT_OK)
}

fn existing_site<'a>(fleet: &'a Fleet, name: &str) -> anyhow::Result<&'a Site> {
    fleet
        .site(name)
        .with_context(|| format!("there is no site {name}; `edge-provision add` makes it"))
}

fn active_site<'a>(fleet: &'a Fleet, name: &str) -> anyhow::Result<&'a Site> {
    let site = existing_site(fleet, name)?;
    if site.is_revoked {
        bail!("{name} is revoked for ever; add a new site for the box");
    }
    Ok(site)
}

fn checked(fleet: &Fleet, boxes: &Boxes, site: &Site, file: &Path) -> anyhow::Result<Enrolment> {
    let shown = || file.display().to_string();
    let bytes = regular_file::read(file, MAX_ENROLMENT_BYTES as u64);
    let bytes = bytes.with_context(|| format!("cannot read {}", file.display()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let known: KnownBoxes = boxes.known(fleet.sites().iter().map(|site| site.id.as_str()))?;
    let enrolment = known.check(&site.id, &text).with_context(shown)?;
    let key = enrolment.tunnel_public_key;
    if let Some((_, holder)) = fleet.settings().keys().find(|(known, _)| *known == key) {
        let holder = holder.to_string();
        return Err(EnrolError::KeyOfPeer { holder }).with_context(shown);
    }
    let holder = fleet.sites().iter().find(|other| other.public_key == Some(key));
    if let Some(other) = holder.filter(|other| other.id != site.id) {
        let (part, site) = ("tunnel_public_key", other.id.clone());
        return Err(EnrolError::Known { part, site }).with_context(shown);
    }
    Ok(enrolment)
}

/// Returns the line with the key of a box for the file of its site.
fn public_key_of(enrolment: &Enrolment) -> (&'static str, SiteValue) {
    ("public_key", SiteValue::Text(enrolment.tunnel_public_key.to_string()))
}

/// Makes the next password of a site, and returns the line that puts it to use. A password before
/// the present one ends: a box that did not take the present one in time gets the next one.
fn next_login(secrets: &Secrets, site: &Site) -> anyhow::Result<(&'static str, SiteValue)> {
    secrets.forget_old_passwords(&site.id, site.login)?;
    secrets.make_next_password(&site.id, site.login)?;
    Ok(("login", SiteValue::Number(site.login.saturating_add(1))))
}

fn print_enrolled(site: &Site, enrolment: &Enrolment) -> anyhow::Result<u8> {
    let (id, name) = (&site.id, enrolment.short_id());
    print_line(format_args!(
        "{id}: the box {name}; build its bundle and the files of the hubs now"
    ))?;
    Ok(EXIT_OK)
}

/// Sets keys of `[site]` in the file of a site, all at once.
pub(super) fn edit(dir: &Path, site: &str, values: &[(&str, SiteValue)]) -> anyhow::Result<()> {
    let path = dir.join(SITES_DIR).join(format!("{site}.toml"));
    let mut text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (key, value) in values {
        let edited = set(&text, key, value);
        text = edited.with_context(|| format!("{} has no section [site]", path.display()))?;
    }
    replace_if_changed(&path, text.as_bytes(), FileAccess::Public)?;
    Ok(())
}
