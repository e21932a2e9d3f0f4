//! Software bill of materials in CycloneDX 1.5, from `cargo tree`.
//!
//! cargo-cyclonedx takes minutes to build, writes a file into every member's folder, and puts paths
//! of the machine into it. The format needs names, versions, licences and who uses whom. `cargo
//! metadata` would list too much: it takes the features that any member of the workspace enables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::VERSION;
use crate::run::{cargo, output_of};

/// How a program was built.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramBuild {
    pub(super) member: &'static str,
    pub(super) target: &'static str,
    pub(super) features: &'static str,
}

/// Writes the bill of a program, and returns its path.
pub(super) fn write(program: &str, build: &ProgramBuild, dir: &Path) -> Result<PathBuf> {
    let ProgramBuild { member, target, features } = build;
    // Dependencies of tests and build scripts are not linked.
    let mut tree = cargo(&["tree", "--locked", "--edges", "normal", "-p", member]);
    tree.args(["--target", target, "--features", features]);
    let tree = output_of(tree.args(["--prefix", "depth", "--format", "{p}|{l}"]))?;
    let bill = bill(&tree, program)?;
    let path = dir.join(format!("{program}-{VERSION}-{target}.cdx.json"));
    let text = serde_json::to_string_pretty(&bill)?;
    fs::write(&path, text + "\n").with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A crate, as a line of `cargo tree` describes it.
#[derive(Clone, Copy, Debug)]
struct LinkedCrate<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
}

impl<'a> LinkedCrate<'a> {
    /// Returns a crate and how deep it stands, from a line like `2bytes v1.0.0 (..)|MIT`.
    fn parse(line: &'a str) -> Option<(usize, Self)> {
        // The end of a line whose dependencies stand further up.
        let line = line.trim_end_matches(" (*)");
        let digits = line.find(|c: char| !c.is_ascii_digit())?;
        let (depth, rest) = line.split_at_checked(digits)?;
        let (package, licence) = rest.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        Some((depth.parse().ok()?, Self { name, version, licence }))
    }

    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn component(&self) -> Value {
        json!({
            "type": "library",
            "bom-ref": self.purl(),
            "name": self.name,
            "version": self.version,
            "purl": self.purl(),
            // Old manifests separate licences with a slash, which SPDX does not know.
            "licenses": [{ "expression": self.licence.replace('/', " OR ") }],
        })
    }
}

/// Returns the bill. It has no time and no serial number: it depends on Cargo.lock only.
fn bill(tree: &str, program: &str) -> Result<Value> {
    let mut crates = BTreeMap::new();
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    // The crates that lead to the line, from the root on.
    let mut users: Vec<String> = Vec::new();
    for line in tree.lines() {
        let (depth, one) =
            LinkedCrate::parse(line).with_context(|| format!("cargo tree: {line}"))?;
        users.truncate(depth);
        if let Some(user) = users.last() {
            uses.entry(user.clone()).or_default().insert(one.purl());
        }
        uses.entry(one.purl()).or_default();
        users.push(one.purl());
        crates.insert(one.purl(), one);
    }
    let root = users.first().context("cargo tree printed nothing")?;
    crates.remove(root);
    let dependency =
        |(user, used): (&String, &BTreeSet<String>)| json!({ "ref": user, "dependsOn": used });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": {
            "type": "application", "name": program, "version": VERSION, "bom-ref": root,
        } },
        "components": crates.values().map(LinkedCrate::component).collect::<Vec<_>>(),
        "dependencies": uses.iter().map(dependency).collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_listed_once_with_all_that_it_uses() {
        let tree = "0top v0.1.0 (/src/top)|MIT\n1a v1.0.0|MIT/Apache-2.0\n2b v2.0.0|ISC\n\
                    1c v3.0.0 (proc-macro)|MIT\n2b v2.0.0|ISC (*)\n";
        let bill = bill(tree, "program").unwrap();
        let ids = bill["components"].as_array().unwrap().iter().map(|one| &one["bom-ref"]);
        let all = ["pkg:cargo/a@1.0.0", "pkg:cargo/b@2.0.0", "pkg:cargo/c@3.0.0"];
        assert_eq!(ids.collect::<Vec<_>>(), all);
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let uses =
            |at: usize| (&bill["dependencies"][at]["ref"], &bill["dependencies"][at]["dependsOn"]);
        assert_eq!(uses(0), (&json!(all[0]), &json!([all[1]])));
        assert_eq!(uses(1), (&json!(all[1]), &json!([])));
        assert_eq!(uses(2), (&json!(all[2]), &json!([all[1]])));
        assert_eq!(uses(3), (&json!("pkg:cargo/top@0.1.0"), &json!([all[0], all[2]])));
    }
}
