//! Names of tags: unique, and accepted by the gateway.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::declaration::{Declarations, DeclaredVariable};
use super::expand::{ImportedTag, SkippedVariable};
use super::skip::SkipReason;
use crate::config::{is_reserved_tag_name, tag_name_error};

/// Removes repeated declarations: some exports write a list twice. Returns those that differ from
/// the first one with the same name.
pub(super) fn remove_repeated(declarations: &mut Declarations) -> Vec<SkippedVariable> {
    let mut first: HashMap<(String, String), DeclaredVariable> = HashMap::new();
    let mut skipped = Vec::new();
    declarations.variables.retain(|variable| {
        let scope = variable.scope.as_deref().unwrap_or_default().to_lowercase();
        let key = (scope, variable.name.to_lowercase());
        let Some(earlier) = first.get(&key) else {
            first.insert(key, variable.clone());
            return true;
        };
        let is_same = earlier.at == variable.at && earlier.declared == variable.declared;
        if !is_same {
            let name = variable.qualified(&variable.name);
            let reason = SkipReason::NameTaken { name: name.clone(), line: earlier.place.line };
            skipped.push(SkippedVariable { variable: name, reason, place: variable.place });
        }
        false
    });
    skipped
}

/// Returns the numbers of variables whose names occur in several lists, or are reserved: their tags
/// have the name of the list in front.
pub(super) fn qualified_roots(variables: &[DeclaredVariable]) -> BTreeSet<usize> {
    let mut scopes: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, variable) in variables.iter().enumerate() {
        if variable.at.is_some() {
            scopes.entry(variable.name.to_lowercase()).or_default().push(number);
        }
    }
    let taken = scopes.into_values().filter(|numbers| numbers.len() > 1).flatten();
    let reserved = variables.iter().enumerate();
    let reserved = reserved.filter(|(_, variable)| is_reserved_tag_name(&variable.name));
    taken.chain(reserved.map(|(number, _)| number)).collect()
}

/// Gives the tags their names, and moves those to `skipped` that have no possible name.
pub(super) fn assign(
    tags: Vec<ImportedTag>,
    qualified: &BTreeSet<usize>,
    skipped: &mut Vec<SkippedVariable>,
) -> Vec<ImportedTag> {
    let mut lines: HashMap<String, usize> = HashMap::new();
    let mut named = Vec::with_capacity(tags.len());
    for mut tag in tags {
        if qualified.contains(&tag.root) {
            tag.name.clone_from(&tag.variable);
        }
        let line = tag.place.line;
        let reason = match lines.get(&tag.name.to_lowercase()) {
            Some(line) => Some(SkipReason::NameTaken { name: tag.name.clone(), line: *line }),
            None if is_reserved_tag_name(&tag.name) => {
                Some(SkipReason::ReservedName(tag.name.clone()))
            }
            None => tag_name_error(&tag.name).map(SkipReason::InvalidName),
        };
        match reason {
            Some(reason) => {
                let (variable, place) = (tag.variable, tag.place);
                skipped.push(SkippedVariable { variable, reason, place });
            }
            None => {
                lines.insert(tag.name.to_lowercase(), line);
                named.push(tag);
            }
        }
    }
    named
}
