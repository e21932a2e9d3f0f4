//! Software bill of materials in CycloneDX 1.5, from `cargo metadata`.
//!
//! cargo-cyclonedx takes minutes to build, writes a file into every member's folder, and puts paths
//! of the machine into it. The format needs names, versions, licences and who uses whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::VERSION;
use crate::run::{cargo, output_of};

/// Writes the bill of a program of the crate `member`, for a target of Rust, and returns its path.
pub(super) fn write(program: &str, member: &str, target: &str, dir: &Path) -> Result<PathBuf> {
    let arguments = ["metadata", "--format-version=1", "--locked", "--filter-platform", target];
    let metadata: Value = serde_json::from_str(&output_of(&mut cargo(&arguments))?)?;
    let bill = bill(&metadata, program, member)?;
    let path = dir.join(format!("{program}-{VERSION}-{target}.cdx.json"));
    let text = serde_json::to_string_pretty(&bill)?;
    fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    Ok(path)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the bill. It has no time and no serial number: it depends on Cargo.lock only.
fn bill(metadata: &Value, program: &str, member: &str) -> Result<Value> {
    let packages: BTreeMap<&str, &Value> =
        items(metadata, "packages").map(|package| (text(package, "id"), package)).collect();
    let resolve = metadata.get("resolve").context("cargo metadata resolved nothing")?;
    let uses: BTreeMap<&str, Vec<&str>> =
        items(resolve, "nodes").map(|node| (text(node, "id"), linked(node).collect())).collect();
    let (root, _) = packages
        .iter()
        .find(|(_, package)| text(package, "name") == member && package["source"].is_null())
        .with_context(|| format!("the workspace has no member {member}"))?;
    let reached = reachable(root, &uses);
    let purl = |id: &str| packages.get(id).map(|package| purl(package)).unwrap_or_default();
    let mut components = BTreeMap::new();
    let mut dependencies = BTreeMap::new();
    for id in &reached {
        let Some(package) = packages.get(id) else { continue };
        let used: BTreeSet<_> = uses.get(id).into_iter().flatten().map(|id| purl(id)).collect();
        dependencies.insert(purl(id), json!({ "ref": purl(id), "dependsOn": used }));
        if id != root {
            components.insert(purl(id), component(package));
        }
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": program, "version": VERSION, "bom-ref": purl(root),
        } },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": dependencies.into_values().collect::<Vec<_>>(),
    }))
}

/// Returns the packages that a node is linked to; those of tests and build scripts are not.
fn linked(node: &Value) -> impl Iterator<Item = &str> {
    items(node, "deps")
        .filter(|dep| items(dep, "dep_kinds").any(|kind| kind["kind"].is_null()))
        .map(|dep| text(dep, "pkg"))
}

fn reachable<'a>(root: &'a str, uses: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        if reached.insert(id) {
            waiting.extend(uses.get(id).into_iter().flatten());
        }
    }
    reached
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(package, "name"), text(package, "version"))
}

fn component(package: &Value) -> Value {
    json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": text(package, "name"),
        "version": text(package, "version"),
        "purl": purl(package),
        // Old manifests separate licences with a slash, which SPDX does not know.
        "licenses": [{ "expression": text(package, "license").replace('/', " OR ") }],
    })
}
