//! Checks the versions of edge-gateway that boxes shall run against `min_version` and `packages/`.

use super::problems::FleetProblem;
use super::tree::FilePlace;
use super::{FleetSettings, Site};
use crate::bundle::compare_versions;
use crate::office::packages::PackageList;

/// Returns the versions that no box would install.
pub(super) fn check(
    settings: &FleetSettings,
    sites: &[Site],
    packages: Option<&PackageList>,
) -> Vec<FleetProblem> {
    let fleet = (&settings.version, &settings.places.version);
    let sites = sites.iter().map(|site| (&site.version, &site.places.version));
    let located = std::iter::once(fleet).chain(sites);
    let located = located.filter_map(|(version, place)| Some((version.as_ref()?, place.as_ref()?)));
    located.filter_map(|(version, place)| check_one(version, place, settings, packages)).collect()
}

fn check_one(
    version: &str,
    place: &FilePlace,
    settings: &FleetSettings,
    packages: Option<&PackageList>,
) -> Option<FleetProblem> {
    let is_below = |min: &&str| compare_versions(version, min).is_lt();
    if let Some(min) = settings.min_version.as_deref().filter(is_below) {
        let message = format!("version {version} is older than min_version {min}");
        let help = format!(
            "a box that had a bundle with min_version {min} installs nothing older: write {min} or \
             a newer version, or correct min_version in fleet.toml"
        );
        let same_file = settings.places.min_version.as_ref().filter(|min| min.file == place.file);
        let related = same_file.map(|min| (min.span.clone(), "min_version".to_owned()));
        return Some(FleetProblem { related, ..FleetProblem::new(place, message, help) });
    }
    let packages = packages.filter(|packages| !packages.has_version(version))?;
    let message = format!("packages/ has no package of version {version}");
    let mut help = format!("put edge-gateway_{version}_ARCHITECTURE.deb there");
    let there = packages.versions();
    if !there.is_empty() {
        let there: Vec<&str> = there.iter().take(MAX_NAMED).map(String::as_str).collect();
        help.push_str(&format!(", or write a version that is there: {}", there.join(", ")));
    }
    Some(FleetProblem::new(place, message, help))
}

/// Maximum number of versions that a problem names.
const MAX_NAMED: usize = 8;
