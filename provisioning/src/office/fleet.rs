//! One fleet: `fleet.toml`, a file for each site in `sites/`, and machine types in `templates/`.
//!
//! [`Fleet::check`] reports every problem at once. The `gateway.toml` of each site passes the very
//! code that the gateway uses, and a problem in it is shown where it was written: in the file of
//! the site, in its template, or in `fleet.toml`.

mod fleet_toml;
mod keys;
mod network;
mod network_files;
mod problems;
mod render;
mod site;
mod site_check;
mod source;
mod tree;
mod versions;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

pub use fleet_toml::{
    BrokerAuthentication, BrokerSettings, BrokerSoftware, FleetHub, FleetSettings, KeyHolder,
    OfficeComputer,
};
pub use network::{MachineSide, SiteNetwork, Uplink};
pub use problems::RejectedFleet;
pub use render::box_files;
pub use site::Site;

pub(crate) use fleet_toml::is_label;
pub(crate) use render::{BROKER_PORT, BROKER_TLS_PORT};
pub(crate) use site::{OFFICE_USER, check_id};

use super::hub_choice::preferred_hubs;
use super::packages::PackageList;
use problems::FleetProblem;
use render::{MachineTemplate, RenderedConfig};
use site_check::SiteTopics;
use source::{FleetSource, list_toml_files, read_source};
use tree::{FilePlace, FleetFile, SettingTable};

use crate::config::InspectedConfig;
use crate::diagnostics::{Notes, Problem, RejectedFile, SourceSpan};

/// Name of the file that all sites share.
pub const FLEET_TOML: &str = "fleet.toml";
/// Directory with a file for each site.
pub const SITES_DIR: &str = "sites";
/// Directory with a file for each machine type.
pub const TEMPLATES_DIR: &str = "templates";

/// A fleet whose files have no problem of their own.
#[derive(Debug)]
pub struct Fleet {
    sources: FleetSources,
    settings: FleetSettings,
    templates: Vec<MachineTemplate>,
    sites: Vec<Site>,
    packages: Option<PackageList>,
    notes: Vec<FleetProblem>,
}

/// A file for a gateway.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SiteFile {
    /// Name in the bundle: `gateway.toml`, `network/edge-machine.nmconnection`.
    pub name: String,
    /// Its content; no secret.
    pub content: Vec<u8>,
}

#[derive(Debug, Default)]
struct FleetSources {
    fleet: FleetSource,
    templates: Vec<FleetSource>,
    sites: Vec<FleetSource>,
}

/// A fleet while it is read.
#[derive(Default)]
struct FleetDraft {
    sources: FleetSources,
    settings: Option<FleetSettings>,
    templates: Vec<MachineTemplate>,
    sites: Vec<Site>,
    packages: Option<PackageList>,
    notes: Vec<FleetProblem>,
    problems: Vec<FleetProblem>,
    rejected: Vec<RejectedFile>,
}

impl Fleet {
    /// Reads the files of a fleet, without the check of each site's `gateway.toml`.
    ///
    /// # Errors
    /// When a file cannot be read, is not TOML, or has a problem that its own text shows.
    pub fn load(dir: &Path) -> Result<Self, RejectedFleet> {
        FleetDraft::read(dir).finish()
    }

    /// Reads the files of a fleet and checks everything that will be rendered from them.
    ///
    /// # Errors
    /// With all problems at once.
    pub fn check(dir: &Path) -> Result<Self, RejectedFleet> {
        let mut draft = FleetDraft::read(dir);
        draft.check_sites();
        draft.finish()
    }

    /// Returns what all sites share.
    #[must_use]
    pub const fn settings(&self) -> &FleetSettings {
        &self.settings
    }

    /// Returns valid settings that are probably a mistake, file by file, which only [`Self::check`]
    /// finds, and files that are probably meant to be packages.
    #[must_use]
    pub fn notes(&self) -> Vec<Notes> {
        let mut notes = problems::notes_by_file(self.notes.clone(), |file| self.sources.get(file));
        notes.extend(self.packages.iter().flat_map(PackageList::ignored).map(|path| {
            let message = "this file is ignored, because its name is not that of a package";
            let help = "a package is called edge-gateway_VERSION_ARCHITECTURE.deb";
            let note = Problem::new(SourceSpan::WholeFile, message, help);
            Notes::new(path, String::new, vec![note])
        }));
        notes
    }

    /// Returns the packages that bundles may name; `None` without a directory `packages/`.
    #[must_use]
    pub const fn packages(&self) -> Option<&PackageList> {
        self.packages.as_ref()
    }

    /// Returns the version of edge-gateway that the box of a site shall run.
    #[must_use]
    pub fn version_of<'a>(&'a self, site: &'a Site) -> Option<&'a str> {
        site.version.as_deref().or(self.settings.version.as_deref())
    }

    /// Returns all sites, sorted by id.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Returns a site by its id.
    #[must_use]
    pub fn site(&self, id: &str) -> Option<&Site> {
        let at = self.sites.binary_search_by(|site| site.id.as_str().cmp(id));
        self.sites.get(at.ok()?)
    }

    /// Returns the hubs that a site uses, in its order: the primary, and a spare if there is one.
    #[must_use]
    pub fn hubs_of(&self, site: &Site) -> Vec<&FleetHub> {
        hubs_of(&self.settings, site)
    }

    /// Returns the names of the machine types, sorted.
    pub fn template_names(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().map(|template| template.name.as_str())
    }

    /// Returns everything of a site that holds no secret, sorted by name. The same fleet gives the
    /// same bytes.
    ///
    /// # Errors
    /// When its `gateway.toml` has a problem.
    pub fn site_files(&self, site: &Site) -> Result<Vec<SiteFile>, RejectedFleet> {
        let (rendered, _) = self.inspect(site)?;
        let mut files =
            vec![SiteFile { name: "gateway.toml".to_owned(), content: rendered.text.into_bytes() }];
        files.extend(site.network.iter().flat_map(network_files::render));
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Returns the topics to which each site publishes in addition to `edge/ID/data/` and
    /// `edge/ID/status`; empty for most sites.
    ///
    /// # Errors
    /// When the `gateway.toml` of a site has a problem.
    pub fn extra_topics(&self) -> Result<Vec<Vec<String>>, RejectedFleet> {
        let sites: Vec<&Site> = self.sites.iter().collect();
        let checked = site_check::check_all(&self.sources, &self.settings, &self.templates, &sites);
        if checked.problems.is_empty() {
            return Ok(checked.topics.into_iter().map(SiteTopics::into_extra).collect());
        }
        Err(self.sources.reject(checked.problems, Vec::new()))
    }

    fn inspect(&self, site: &Site) -> Result<(RenderedConfig, InspectedConfig), RejectedFleet> {
        site_check::inspect(&self.settings, &self.templates, site)
            .map_err(|problems| self.sources.reject(problems, Vec::new()))
    }
}

fn hubs_of<'a>(settings: &'a FleetSettings, site: &Site) -> Vec<&'a FleetHub> {
    let names: Vec<&str> = settings.hubs.iter().map(|hub| hub.name.as_str()).collect();
    let order = preferred_hubs(&site.id, &names).into_iter();
    order.filter_map(|position| settings.hubs.get(position)).take(HUBS_PER_SITE).collect()
}

/// Number of hubs that a site knows: its primary and a spare.
const HUBS_PER_SITE: usize = 2;

impl FleetDraft {
    fn read(dir: &Path) -> Self {
        let mut draft = Self::default();
        // "./fleet.toml" is shown as "fleet.toml".
        let dir = if dir == Path::new(".") { Path::new("") } else { dir };
        let problems = RefCell::new(Vec::new());
        let (fleet, root) = read_source(&dir.join(FLEET_TOML), FleetFile::Fleet);
        draft.sources.fleet = fleet;
        match root {
            Ok(root) => draft.settings = fleet_toml::read_fleet(&root, &problems),
            Err(rejected) => {
                draft.rejected.push(rejected);
                // Without it this is probably no fleet at all.
                if draft.sources.fleet.text.is_empty() {
                    return draft;
                }
            }
        }
        draft.problems = problems.into_inner();
        draft.read_templates(dir);
        draft.read_sites(dir);
        draft.check_addresses();
        draft.check_versions(dir);
        draft
    }

    fn list(&mut self, dir: &Path) -> Vec<PathBuf> {
        list_toml_files(dir).unwrap_or_else(|rejected| {
            self.rejected.push(rejected);
            Vec::new()
        })
    }

    fn read_templates(&mut self, dir: &Path) {
        for path in self.list(&dir.join(TEMPLATES_DIR)) {
            let file = FleetFile::Template(self.sources.templates.len());
            let (source, settings) = read_source(&path, file);
            match settings {
                Ok(settings) => self.add_template(source.stem().to_owned(), settings),
                Err(rejected) => self.rejected.push(rejected),
            }
            self.sources.templates.push(source);
        }
    }

    fn add_template(&mut self, name: String, settings: SettingTable) {
        for key in ["name", "template", "omit", "plc"] {
            if let Some(entry) = settings.get(key) {
                let message = format!("`{key}` is not set in a template");
                let help = "a template holds the other keys of a [[plc]], and its [[tag]] sections";
                self.problems.push(FleetProblem::new(&entry.place, message, help));
            }
        }
        self.templates.push(MachineTemplate { name, settings });
    }

    fn read_sites(&mut self, dir: &Path) {
        let paths = self.list(&dir.join(SITES_DIR));
        let read = |first: usize, paths: &[PathBuf]| {
            let mut read = Vec::new();
            for (offset, path) in paths.iter().enumerate() {
                let file = FleetFile::Site(first + offset);
                let (source, root) = read_source(path, file);
                let problems = RefCell::new(Vec::new());
                let site = root.map(|root| read_named_site(&source, file, root, &problems));
                read.push((source, site, problems.into_inner()));
            }
            read
        };
        for (source, site, problems) in in_parallel(&paths, read) {
            self.sources.sites.push(source);
            self.problems.extend(problems);
            match site {
                Ok(site) => self.sites.extend(site),
                Err(rejected) => self.rejected.push(rejected),
            }
        }
        // Sorted by file name, "a-1.toml" comes before "a.toml".
        self.sites.sort_by(|a, b| a.id.cmp(&b.id));
    }

    /// Reports addresses and keys that a site may not have, or that two sites have.
    fn check_addresses(&mut self) {
        let Some(settings) = &self.settings else { return };
        let plan = &settings.plan;
        let mut addresses = BTreeMap::new();
        let mut keys: BTreeMap<_, _> = settings.keys().collect();
        for site in &self.sites {
            let place = &site.places.address;
            if !plan.is_for_sites(site.address) {
                let message = format!("{} is not an address for sites", site.address);
                let help = format!(
                    "sites have addresses in {}, but not in {}, nor that of a hub",
                    plan.network, plan.office
                );
                self.problems.push(FleetProblem::new(place, message, help));
            }
            if let Some(first) = addresses.insert(site.address, &site.id) {
                let message = format!("the site {first} has the address {} too", site.address);
                let taken = self.sites.iter().map(|site| site.address).collect();
                let help = plan.propose(&site.id, &taken).map(|free| {
                    format!("the newer one of them gets a free one: address = \"{free}\"")
                });
                self.problems.push(FleetProblem::new(place, message, help.unwrap_or_default()));
            }
            if let (Some(key), Some(place)) = (site.public_key, &site.places.public_key)
                && let Some(first) = keys.insert(key, KeyHolder::Site(&site.id))
            {
                let message = format!("{first} has the same public key");
                let help = "two peers with one key disturb each other: each makes its own";
                self.problems.push(FleetProblem::new(place, message, help));
            }
        }
    }

    /// Reads `packages/`, and reports versions that no box would install.
    fn check_versions(&mut self, dir: &Path) {
        let Some(settings) = &self.settings else { return };
        match PackageList::read(dir) {
            Ok(packages) => self.packages = packages,
            Err(rejected) => self.rejected.extend(rejected),
        }
        let problems = versions::check(settings, &self.sites, self.packages.as_ref());
        self.problems.extend(problems);
    }

    /// Checks the `gateway.toml` of every site.
    fn check_sites(&mut self) {
        let Some(settings) = &self.settings else { return };
        let sites: Vec<&Site> = self.sites.iter().collect();
        let checked = site_check::check_all(&self.sources, settings, &self.templates, &sites);
        self.problems.extend(checked.problems);
        self.notes = checked.notes;
    }

    fn finish(self) -> Result<Fleet, RejectedFleet> {
        let Self { sources, settings, templates, sites, packages, notes, problems, rejected } =
            self;
        match settings {
            Some(settings) if problems.is_empty() && rejected.is_empty() => {
                Ok(Fleet { sources, settings, templates, sites, packages, notes })
            }
            _ => Err(sources.reject(problems, rejected)),
        }
    }
}

fn read_named_site(
    source: &FleetSource,
    file: FleetFile,
    root: SettingTable,
    problems: &RefCell<Vec<FleetProblem>>,
) -> Option<Site> {
    let id = source.stem();
    if let Err((message, help)) = check_id(id) {
        let place = FilePlace { file, span: 0..0 };
        problems.borrow_mut().push(FleetProblem::new(&place, message, help));
        return None;
    }
    let site = site::read_site(id, file, root, problems)?;
    Some(Site { shape: site_check::shape(&site), ..site })
}

impl FleetSources {
    fn get(&self, file: FleetFile) -> (PathBuf, &str) {
        let source = match file {
            FleetFile::Fleet => Some(&self.fleet),
            FleetFile::Template(at) => self.templates.get(at),
            FleetFile::Site(at) => self.sites.get(at),
        };
        source.map_or((PathBuf::new(), ""), |source| (source.path.clone(), &source.text))
    }

    fn reject(&self, problems: Vec<FleetProblem>, rejected: Vec<RejectedFile>) -> RejectedFleet {
        RejectedFleet::new(problems, rejected, |file| self.get(file))
    }
}

/// Returns what `work` returns for all items, in their order. Each processor takes a part of the
/// items; `work` gets the position of the first item and the part.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &[T]) -> Vec<R> + Sync,
) -> Vec<R> {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let size = items.len().div_ceil(processors).max(MIN_PART);
    let work = &work;
    let parts = items.chunks(size).enumerate();
    thread::scope(|scope| {
        let running: Vec<_> =
            parts.map(|(at, part)| scope.spawn(move || work(at * size, part))).collect();
        running
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Fewer items than this are not worth a thread.
const MIN_PART: usize = 64;
