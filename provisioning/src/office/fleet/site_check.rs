//! Checks the `gateway.toml` of sites with the code that the gateway uses.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use super::problems::FleetProblem;
use super::render::{MachineTemplate, RenderedConfig, merge_settings};
use super::site::Site;
use super::tree::{FilePlace, FleetFile, SettingEntry, SettingTable, SettingValue};
use super::{FleetSettings, FleetSources, Uplink, hubs_of, in_parallel};
use crate::config::{InspectedConfig, inspect_rendered};

/// What checking a site gives.
#[derive(Debug)]
struct CheckedSite {
    topics: SiteTopics,
    /// Valid settings that are probably a mistake.
    notes: Vec<FleetProblem>,
}

/// What checking all sites gives.
#[derive(Debug, Default)]
pub(super) struct CheckedSites {
    /// In the order of the sites.
    pub(super) topics: Vec<SiteTopics>,
    pub(super) problems: Vec<FleetProblem>,
    /// Valid settings that are probably a mistake.
    pub(super) notes: Vec<FleetProblem>,
}

/// Where a site publishes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum SiteTopics {
    /// To `edge/ID/data/` and `edge/ID/status` only.
    Own,
    /// To these topics too.
    Extra(Vec<String>),
}

impl SiteTopics {
    pub(super) fn into_extra(self) -> Vec<String> {
        match self {
            Self::Own => Vec::new(),
            Self::Extra(topics) => topics,
        }
    }
}

/// Returns the `gateway.toml` of a site as text and as the gateway reads it.
pub(super) fn inspect(
    fleet: &FleetSettings,
    templates: &[MachineTemplate],
    site: &Site,
) -> Result<(RenderedConfig, InspectedConfig), Vec<FleetProblem>> {
    let problems = RefCell::new(Vec::new());
    let settings = merge_settings(fleet, templates, site, &hubs_of(fleet, site), &problems);
    let rendered = RenderedConfig::new(&settings, &site.places.file);
    // Its name is not shown: every problem is located in a file of the fleet.
    let inspected = inspect_rendered("gateway.toml".as_ref(), rendered.text.clone());
    let mut problems = problems.into_inner();
    match inspected {
        Ok(config) if problems.is_empty() => {
            check_machine_network(site, &settings, &mut problems);
            if problems.is_empty() { Ok((rendered, config)) } else { Err(problems) }
        }
        Ok(_) => Err(problems),
        // Without its template a PLC lacks keys, which is no second problem.
        Err(_) if !problems.is_empty() => Err(problems),
        Err(rejected) => {
            Err(rejected.problems.iter().map(|problem| rendered.locate(problem)).collect())
        }
    }
}

/// Checks all sites.
///
/// Sites with the same shape pass or fail together, so only the first of them is rendered; if it
/// fails, publishes to other topics, or has a note in its own file, each is.
pub(super) fn check_all(
    sources: &FleetSources,
    fleet: &FleetSettings,
    templates: &[MachineTemplate],
    sites: &[&Site],
) -> CheckedSites {
    let shared: Vec<&str> = std::iter::once(&sources.fleet)
        .chain(&sources.templates)
        .map(|source| source.text.as_str())
        .collect();
    let checked = in_parallel(sites, |_, sites| {
        let mut good = HashSet::new();
        let check = |site: &&Site| check_one(fleet, templates, &shared, site, &mut good);
        sites.iter().map(check).collect()
    });
    let mut topics = Vec::new();
    let (mut problems, mut notes) = (ProblemsOfSites::default(), ProblemsOfSites::default());
    for (site, result) in sites.iter().zip(checked) {
        match result {
            Ok(checked) => {
                topics.push(checked.topics);
                notes.add(site, checked.notes);
            }
            Err(found) => {
                topics.push(SiteTopics::Own);
                problems.add(site, found);
            }
        }
    }
    CheckedSites { topics, problems: problems.finish(), notes: notes.finish_uncounted() }
}

fn check_one(
    fleet: &FleetSettings,
    templates: &[MachineTemplate],
    shared: &[&str],
    site: &Site,
    good: &mut HashSet<(u64, Vec<String>)>,
) -> Result<CheckedSite, Vec<FleetProblem>> {
    let names = names_of(site);
    let is_named = |text: &&str| names.iter().any(|name| text.contains(name));
    let shape = site.shape.filter(|_| !shared.iter().any(is_named));
    let hubs = || hubs_of(fleet, site).into_iter().map(|hub| hub.name.clone()).collect();
    let shape = shape.map(|shape| (shape, hubs()));
    if shape.as_ref().is_some_and(|shape| good.contains(shape)) {
        return Ok(CheckedSite { topics: SiteTopics::Own, notes: Vec::new() });
    }
    let (rendered, config) = inspect(fleet, templates, site)?;
    let topics = topics_of(&config);
    let notes = config.notes.as_problems().iter().map(|note| rendered.locate(note));
    let notes: Vec<FleetProblem> = notes.collect();
    let has_own_note = notes.iter().any(|note| note.place.file == site.places.file.file);
    if let (Some(shape), SiteTopics::Own, false) = (shape, &topics, has_own_note) {
        good.insert(shape);
    }
    Ok(CheckedSite { topics, notes })
}

fn topics_of(config: &InspectedConfig) -> SiteTopics {
    let id = &config.gateway.id;
    let (data, status) = (format!("edge/{id}/data/"), format!("edge/{id}/status"));
    let will = config.will_topic.iter();
    let mut extra: Vec<String> = config
        .plcs
        .iter()
        .map(|plc| &plc.publish.topic)
        .chain(will)
        .filter(|topic| !topic.starts_with(&data) && **topic != status)
        .cloned()
        .collect();
    extra.sort();
    extra.dedup();
    if extra.is_empty() { SiteTopics::Own } else { SiteTopics::Extra(extra) }
}

/// Problems of many sites: one in a template or in `fleet.toml` is reported once for all sites.
#[derive(Default)]
struct ProblemsOfSites<'a> {
    own: Vec<FleetProblem>,
    /// By file, place and message, with the first site and the number of sites.
    shared: BTreeMap<(FleetFile, usize, String), (FleetProblem, &'a str, usize)>,
}

impl<'a> ProblemsOfSites<'a> {
    fn add(&mut self, site: &'a Site, problems: Vec<FleetProblem>) {
        for problem in problems {
            let FilePlace { file, span } = &problem.place;
            if *file == site.places.file.file {
                self.own.push(problem);
                continue;
            }
            let key = (*file, span.start, problem.message.clone());
            let entry = self.shared.entry(key).or_insert_with(|| (problem, &site.id, 0));
            entry.2 += 1;
        }
    }

    /// Returns them without the number of sites, which is not known where one stands for others.
    fn finish_uncounted(self) -> Vec<FleetProblem> {
        let shared = self.shared.into_values().map(|(problem, _, _)| problem);
        self.own.into_iter().chain(shared).collect()
    }

    fn finish(self) -> Vec<FleetProblem> {
        let shared = self.shared.into_values().map(|(mut problem, site, count)| {
            let sites = match count {
                1 => format!(" (site {site})"),
                _ => format!(" ({count} sites, first {site})"),
            };
            problem.message.push_str(&sites);
            problem
        });
        self.own.into_iter().chain(shared).collect()
    }
}

/// Reports PLCs that the box cannot reach with the addresses of `[network]`.
fn check_machine_network(site: &Site, settings: &SettingTable, problems: &mut Vec<FleetProblem>) {
    let Some(network) = &site.network else { return };
    let machine = network.machine.address;
    for plc in settings.tables("plc") {
        let Some(entry) = plc.get("address") else { continue };
        let text = entry.value.as_text().unwrap_or_default();
        let host = text.split(':').next().unwrap_or_default();
        let Ok(address) = host.parse::<Ipv4Addr>() else { continue };
        let is_behind_uplink = match &network.uplink {
            Some(Uplink::Static { address: uplink, .. }) => uplink.contains(&address),
            // What its network is turns out on site.
            Some(Uplink::Dhcp { .. } | Uplink::Lte { .. }) | None => false,
        };
        let place = entry.value.place(&entry.place);
        if address == machine.addr() {
            let message = format!("{address} is the address of the box itself");
            let help = "write the address of the PLC";
            problems.push(FleetProblem::new(place, message, help));
        } else if !machine.contains(&address) && !is_behind_uplink && !address.is_loopback() {
            let message = format!("{address} is not in the network of the machines");
            let help = format!("[network.machine] is {}: correct one of them", machine.trunc());
            problems.push(FleetProblem::new(place, message, help));
        }
    }
}

/// Returns a number that is equal for sites whose settings differ in their id, their address and
/// their location only; `None` if other settings contain one of these.
///
/// The check of a `gateway.toml` gives the same result for those: each of the three is valid by
/// itself, and they are compared with other settings only as whole texts.
pub(super) fn shape(site: &Site) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    site.id.len().hash(&mut hasher);
    format!("{:?}", site.network).hash(&mut hasher);
    hash_table(&site.settings, &names_of(site), &mut hasher)?;
    Some(hasher.finish())
}

/// Returns the texts in which sites of one shape differ: id, address, and a plain location.
fn names_of(site: &Site) -> Vec<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || " -_".contains(c);
    let location = site.settings.table("gateway").and_then(|table| table.text("location"));
    let location = location.filter(|text| !text.is_empty() && text.chars().all(is_plain));
    [site.id.clone(), site.address.to_string()].into_iter().chain(location).collect()
}

/// Adds a table to a hash; `None` if a value contains one of `names`. Of a value that is one of them
/// only its length is added.
fn hash_table(table: &SettingTable, names: &[String], hasher: &mut DefaultHasher) -> Option<()> {
    table.entries.len().hash(hasher);
    for entry in &table.entries {
        entry.key.hash(hasher);
        match &entry.value {
            SettingValue::Literal(literal) if is_location(entry, names) => {
                literal.toml.len().hash(hasher);
            }
            SettingValue::Literal(literal) => {
                if names.iter().any(|name| literal.toml.contains(name)) {
                    return None;
                }
                literal.toml.hash(hasher);
            }
            SettingValue::Table(table) => hash_table(table, names, hasher)?,
            SettingValue::Tables(tables) => {
                tables.len().hash(hasher);
                tables.iter().try_for_each(|table| hash_table(table, names, hasher))?;
            }
        }
    }
    Some(())
}

/// Returns whether this is the key `location` of `[gateway]` with one of `names`. No other key of
/// this name is valid.
fn is_location(entry: &SettingEntry, names: &[String]) -> bool {
    entry.key == "location" && entry.value.as_text().is_some_and(|text| names.contains(&text))
}
