//! `build`: makes the bundles of sites.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;

use super::key_options::{AuthorityKeyOption, SigningKeyOptions};
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of, print_line};
use crate::office::build::{BUNDLES_DIR, Build, BuildError, BuiltSite};
use crate::office::certificates::Certificates;
use crate::office::fleet::{Fleet, Site};
use crate::office::fleet_signing::SigningLists;
use crate::office::packages::{PACKAGES_DIR, PublishedPackages};

/// `build`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision build                            all sites
  edge-provision build amsterdam-01 --key /media/key/signing.key
  edge-provision build --unsigned                 and `sign` on another machine

Writes edge-bundle-SITE.tar. A bundle gets the next counter only if its content has changed; the
counter is in sites/SITE.toml: commit it. Secrets are encrypted to the box. The bundle of a site
whose first key was made here holds them in clear: it is written to secrets/bundles, for a stick.

The bundle of a site with a version names the packages of that version, and of those to which its
box can go back, with their SHA-256. They are copied from packages/ to the directory packages/ of
the bundles.

Exit code 1 if a bundle cannot be built.")]
pub(super) struct BuildOptions {
    /// Sites to build; all by default.
    #[arg(value_name = "SITE", value_parser = super::label)]
    sites: Vec<String>,
    #[command(flatten)]
    fleet: FleetOption,
    #[command(flatten)]
    key: SigningKeyOptions,
    #[command(flatten)]
    authority: AuthorityKeyOption,
    /// Directory for the bundles; out/bundles of the fleet by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Give the named sites a new counter although nothing has changed: a box that rolled back a
    /// bundle never takes that counter again.
    #[arg(long, requires = "sites")]
    again: bool,
    /// Leave SITE.bundle.tar for `sign` or minisign, on the machine that has the key.
    #[arg(long, conflicts_with_all = ["key", "password_file"])]
    unsigned: bool,
}

/// What a build needs beside the sites.
pub(super) struct BuildRequest<'a> {
    pub(super) fleet: &'a FleetOption,
    /// The key that signs; none leaves that to `sign`.
    pub(super) key: Option<&'a SigningKeyOptions>,
    pub(super) authority: &'a AuthorityKeyOption,
    /// Directory for the bundles; out/bundles of the fleet by default.
    pub(super) out: Option<&'a Path>,
}

pub(super) fn build(options: &BuildOptions) -> anyhow::Result<u8> {
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let sites = selected(&fleet, &options.sites)?;
    let again =
        if options.again { options.sites.iter().cloned().collect() } else { BTreeSet::new() };
    let request = BuildRequest {
        fleet: &options.fleet,
        key: (!options.unsigned).then_some(&options.key),
        authority: &options.authority,
        out: options.out.as_deref(),
    };
    build_sites(&fleet, &sites, &again, &request)
}

/// Builds the bundles of sites and prints what was done; those of `again` get new counters in any
/// case. Returns the exit code.
pub(super) fn build_sites(
    fleet: &Fleet,
    sites: &[&Site],
    again: &BTreeSet<String>,
    request: &BuildRequest<'_>,
) -> anyhow::Result<u8> {
    // "./out" is shown as "out".
    let dir = request.fleet.dir.strip_prefix(".").unwrap_or(&request.fleet.dir);
    let key = request.authority.authority_key.as_deref();
    let certificates = Certificates::open(dir, key, Timestamp::now())?;
    let (lists, signer) = match request.key {
        Some(key) => {
            let (lists, signer) = key.open(dir)?;
            (lists, Some(signer))
        }
        None => (SigningLists::load(dir)?, None),
    };
    for notes in fleet.notes() {
        writeln!(io::stderr(), "{notes}\n")?;
    }
    let out = request.out.map_or_else(|| dir.join(BUNDLES_DIR), Path::to_owned);
    let (certificates, lists, signer) = (&certificates, &lists, signer.as_ref());
    let build = Build { dir, fleet, certificates, lists, signer, out: &out, again };
    let mut progress = Progress::new(sites.len());
    let mut report = Report::default();
    let done = build.run(sites, |sites, built| {
        for (site, built) in sites.iter().zip(built) {
            report.add(site, built);
        }
        progress.on_done(sites.len());
        Ok::<(), BuildError>(())
    });
    let packages = match done {
        Err(BuildError::Fleet(rejected)) => return super::reject(&rejected),
        done => done?,
    };
    report.print(&out)?;
    if fleet.packages().is_some() {
        print_packages(&packages, &out)?;
    }
    Ok(EXIT_OK)
}

fn print_packages(packages: &PublishedPackages, out: &Path) -> anyhow::Result<()> {
    print_line(format_args!(
        "{}: {}, {} new, {} removed",
        out.join(PACKAGES_DIR).display(),
        count_of(packages.len(), "package"),
        packages.new,
        packages.removed,
    ))
}

/// Returns the sites with these names, sorted; all without names.
pub(super) fn selected<'a>(fleet: &'a Fleet, names: &[String]) -> anyhow::Result<Vec<&'a Site>> {
    let find = |name: &String| match fleet.site(name) {
        Some(site) => Ok(site),
        None => bail!("there is no site {name}; `edge-provision list` shows all"),
    };
    let mut sites = names.iter().map(find).collect::<anyhow::Result<Vec<_>>>()?;
    sites.sort_by(|a, b| a.id.cmp(&b.id));
    sites.dedup_by(|a, b| a.id == b.id);
    Ok(if names.is_empty() { fleet.sites().iter().collect() } else { sites })
}

/// What a run has done.
#[derive(Default)]
struct Report {
    /// Lines about sites with a new bundle.
    counted: Vec<String>,
    unchanged: usize,
    not_enrolled: Vec<String>,
    revoked: usize,
}

/// Sites that are named in the report.
const MAX_NAMED: usize = 20;

impl Report {
    fn add(&mut self, site: &Site, built: &BuiltSite) {
        match built {
            BuiltSite::Unchanged => self.unchanged += 1,
            BuiltSite::Counted(counter) => {
                self.counted.push(format!("{}: bundle {counter}", site.id));
            }
            BuiltSite::ForStick(counter) => self.counted.push(format!(
                "{}: bundle {counter}, with secrets in clear: bring it on a stick from \
                 secrets/bundles",
                site.id
            )),
            BuiltSite::Revoked => self.revoked += 1,
            BuiltSite::NotEnrolled => self.not_enrolled.push(site.id.clone()),
        }
    }

    fn print(&self, out: &Path) -> anyhow::Result<()> {
        for line in self.counted.iter().take(MAX_NAMED) {
            print_line(line)?;
        }
        for site in self.not_enrolled.iter().take(MAX_NAMED) {
            print_line(format_args!("{site}: no bundle, its box is not enrolled"))?;
        }
        let named = |count: usize| count.min(MAX_NAMED);
        let others = self.counted.len() - named(self.counted.len());
        if others > 0 {
            print_line(format_args!("and {} more", count_of(others, "new bundle")))?;
        }
        print_line(format_args!(
            "{}: {}, {} unchanged, {} not enrolled, {} revoked",
            out.display(),
            count_of(self.counted.len(), "new bundle"),
            self.unchanged,
            self.not_enrolled.len(),
            self.revoked,
        ))
    }
}

/// Lines on standard error while a run takes long.
struct Progress {
    total: usize,
    done: usize,
    shown: Instant,
}

/// Time between two lines in a log; a terminal shows each step in one line.
const INTERVAL: Duration = Duration::from_secs(2);

impl Progress {
    fn new(total: usize) -> Self {
        Self { total, done: 0, shown: Instant::now() }
    }

    fn on_done(&mut self, count: usize) {
        self.done += count;
        let is_terminal = io::stderr().is_terminal();
        if self.done == count && self.done == self.total
            || !is_terminal && self.shown.elapsed() < INTERVAL && self.done < self.total
        {
            return;
        }
        self.shown = Instant::now();
        let end = if is_terminal && self.done < self.total { "\r" } else { "\n" };
        // Progress is no result: a closed standard error does not stop the work.
        let _ = write!(io::stderr(), "built {} of {} sites{end}", self.done, self.total);
    }
}
