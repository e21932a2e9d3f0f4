//! `diff`: what a change of the fleet's files changes on which gateway.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use clap::Args;
use similar::TextDiff;

use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of, print_line};
use crate::bundle::MANIFEST;
use crate::office::fleet::{FLEET_TOML, Fleet, RejectedFleet, SITES_DIR, Site, TEMPLATES_DIR};

/// `diff`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision diff                     what the changes since the last commit do
  edge-provision diff --since v12         since a tag
  edge-provision diff amsterdam-01        at one site

Compares the files of each gateway, as they are rendered from the fleet's files now and from
those of a revision of git. Sites with the same change are shown once. Of manifest.toml only the
version to run and min_version are compared.

Exit code 1 if there is a difference.")]
pub(super) struct DiffOptions {
    /// Sites to compare; all by default.
    #[arg(value_name = "SITE")]
    sites: Vec<String>,
    #[command(flatten)]
    fleet: FleetOption,
    /// Revision of git.
    #[arg(long, value_name = "REVISION", default_value = "HEAD")]
    since: String,
}

/// Text of the difference, and the sites that have it.
type SitesByDifference = BTreeMap<String, Vec<String>>;

pub(super) fn diff(options: &DiffOptions) -> anyhow::Result<u8> {
    let Some(now) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let exported = ExportedFleet::of(&options.fleet.dir, &options.since, &options.sites)?;
    let before = Fleet::load(exported.dir.as_ref()).map_err(|rejected| {
        anyhow::anyhow!("the files of {} have problems\n\n{rejected}", options.since)
    })?;
    for id in &options.sites {
        if now.site(id).is_none() && before.site(id).is_none() {
            bail!("there is no site {id}");
        }
    }
    let compared = compare(options, &before, &now);
    let by_difference = match compared {
        Ok(by_difference) => by_difference,
        Err(rejected) => return super::reject(&rejected),
    };
    for (difference, sites) in &by_difference {
        let shown = sites.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match sites.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        print_line(format_args!("{}: {shown}{more}", count_of(sites.len(), "site")))?;
        print_line(difference)?;
    }
    Ok(if by_difference.is_empty() { EXIT_OK } else { EXIT_NEGATIVE })
}

/// Maximum number of sites that are named for one difference.
const MAX_NAMES: usize = 10;

fn compare(
    options: &DiffOptions,
    before: &Fleet,
    now: &Fleet,
) -> Result<SitesByDifference, RejectedFleet> {
    let is_asked = |id: &String| options.sites.is_empty() || options.sites.contains(id);
    let ids = before.sites().iter().chain(now.sites()).map(|site| site.id.clone());
    let ids: std::collections::BTreeSet<String> = ids.filter(is_asked).collect();
    let mut by_difference = SitesByDifference::new();
    for id in ids {
        let difference = match (before.site(&id), now.site(&id)) {
            (None, Some(_)) => "new\n".to_owned(),
            (Some(_), None) => "removed\n".to_owned(),
            _ => file_differences(&files_of(before, &id)?, &files_of(now, &id)?),
        };
        if !difference.is_empty() {
            by_difference.entry(difference).or_default().push(id);
        }
    }
    Ok(by_difference)
}

fn files_of(fleet: &Fleet, id: &str) -> Result<BTreeMap<String, String>, RejectedFleet> {
    let Some(site) = fleet.site(id) else { return Ok(BTreeMap::new()) };
    let files = fleet.site_files(site)?.into_iter();
    let text = |content: Vec<u8>| String::from_utf8_lossy(&content).into_owned();
    let versions = (MANIFEST.to_owned(), versions_of(fleet, site));
    Ok(files.map(|file| (file.name, text(file.content))).chain([versions]).collect())
}

/// Returns what the manifest of a site says about versions.
fn versions_of(fleet: &Fleet, site: &Site) -> String {
    let min_version = fleet.settings().min_version.as_deref();
    let lines = [("version", fleet.version_of(site)), ("min_version", min_version)];
    let line = |(key, version)| Some(format!("{key} = \"{}\"\n", version?));
    lines.into_iter().filter_map(line).collect()
}

fn file_differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    let names: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in names {
        let content =
            |files: &BTreeMap<String, String>| files.get(name).cloned().unwrap_or_default();
        let (before, now) = (content(before), content(now));
        if before != now {
            let difference = TextDiff::from_lines(&before, &now);
            let mut unified = difference.unified_diff();
            // A String accepts every text.
            let _ = write!(text, "{}", unified.context_radius(2).header(name, name));
        }
    }
    text
}

/// The files of a revision in a temporary directory, which is removed when dropped.
struct ExportedFleet {
    dir: PathBuf,
}

impl ExportedFleet {
    fn of(fleet: &Path, revision: &str, sites: &[String]) -> anyhow::Result<Self> {
        let name = format!("edge-provision-diff-{}-{:016x}", std::process::id(), random()?);
        let exported = Self { dir: std::env::temp_dir().join(name) };
        fs::create_dir(&exported.dir).context("cannot create a temporary directory")?;
        // Only what is compared: a fleet may have megabytes of other files, and many sites.
        let mut wanted = vec![FLEET_TOML.to_owned(), TEMPLATES_DIR.to_owned()];
        if sites.is_empty() {
            wanted.push(SITES_DIR.to_owned());
        }
        wanted.extend(sites.iter().map(|id| format!("{SITES_DIR}/{id}.toml")));
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let list = [&["ls-tree", "--name-only", revision, "--"], &wanted[..]].concat();
        let listed = git(fleet, &list)?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let paths: Vec<&str> = listed.lines().collect();
        if !paths.contains(&FLEET_TOML) {
            bail!("there is no {FLEET_TOML} in {revision}");
        }
        let archive =
            git(fleet, &[&["archive", "--format=tar", revision, "--"], &paths[..]].concat())?;
        unpack(&archive, &exported.dir)?;
        Ok(exported)
    }
}

impl Drop for ExportedFleet {
    fn drop(&mut self) {
        // The system removes what is left there.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn git(dir: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output();
    let output = output.context("cannot run git")?;
    if !output.status.success() {
        bail!("git: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn unpack(archive: &[u8], dir: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;

    let mut tar = Command::new("tar")
        .args(["-x", "-C"])
        .arg(dir)
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot run tar")?;
    if let Some(mut input) = tar.stdin.take() {
        input.write_all(archive).context("tar")?;
    }
    if !tar.wait()?.success() {
        bail!("tar cannot unpack what git archived");
    }
    Ok(())
}

fn random() -> anyhow::Result<u64> {
    use ring::rand::{SecureRandom, SystemRandom};

    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).ok().context("no random numbers")?;
    Ok(u64::from_ne_bytes(bytes))
}
