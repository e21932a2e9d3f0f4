//! docs/status.md lists every code that the status can carry, with the arguments of its sentence.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Marks an enum whose variants are sentences of the status.
const TAG: &str = "#[serde(tag = \"code\", content = \"arguments\"";

/// A code and the names of its arguments.
type Code = (String, BTreeSet<String>);

#[test]
fn every_code_is_listed_with_its_arguments() {
    let listed = listed_codes();
    let missing: Vec<String> = sources()
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).expect("sources are text");
            codes(product_part(&text)).into_iter().map(|code| (path.clone(), code))
        })
        .filter(|(_, code)| !listed.contains(code))
        .map(|(path, (code, arguments))| format!("{}: {code} {arguments:?}", path.display()))
        .collect();

    assert!(missing.is_empty(), "not in docs/status.md:\n{}", missing.join("\n"));
}

#[test]
fn every_listed_code_exists() {
    let texts: Vec<_> = sources().iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    let existing: BTreeSet<Code> =
        texts.iter().flat_map(|text| codes(product_part(text))).collect();

    let unknown: Vec<_> =
        listed_codes().into_iter().filter(|code| !existing.contains(code)).collect();

    assert!(unknown.is_empty(), "docs/status.md lists what does not exist: {unknown:?}");
}

/// Programs decide by the code alone.
#[test]
fn each_reason_for_which_there_is_no_broker_has_a_code_of_its_own() {
    let mut codes_so_far = BTreeSet::new();
    for file in [
        "gateway/src/mqtt/diagnosis.rs",
        "gateway/src/uplink/error.rs",
        "provisioning/src/certificates/fault.rs",
    ] {
        let text = fs::read_to_string(workspace().join(file)).expect("it is there");
        let found = codes(product_part(&text));
        assert!(!found.is_empty(), "{file}");
        for (code, _) in found {
            assert!(codes_so_far.insert(code.clone()), "{file}: {code} has two meanings");
        }
    }
}

#[test]
fn variants_and_fields_become_codes_and_arguments() {
    let text = r#"
#[derive(Debug, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum Weather {
    /// No wind.
    Calm,
    StrongWind { knots: u8 },
    #[serde(rename = "rain")]
    HeavyRain {
        /// In millimetres.
        amount: u8,
        #[serde(skip)]
        text: String,
    },
    #[error(
        "A tornado: {0}."
    )]
    #[serde(untagged)]
    Tornado(Other),
}
pub enum Other { A }
"#;
    let code = |code: &str, arguments: &[&str]| -> Code {
        (code.to_owned(), arguments.iter().map(|name| (*name).to_owned()).collect())
    };
    let expected =
        vec![code("calm", &[]), code("strong_wind", &["knots"]), code("rain", &["amount"])];
    assert_eq!(codes(text), expected);
}

/// The rows of docs/status.md whose first cell is a code.
fn listed_codes() -> BTreeSet<Code> {
    let text = fs::read_to_string(workspace().join("docs/status.md")).expect("it is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let code = cells.next()?.trim().trim_end_matches('`').to_owned();
        let arguments = cells.next()?.split(',').map(|name| name.trim().trim_matches('`'));
        let arguments = arguments.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some((code, arguments))
    });
    rows.collect()
}

/// The codes of every enum of sentences in a source, in the layout of rustfmt.
fn codes(text: &str) -> Vec<Code> {
    text.split(TAG).skip(1).flat_map(codes_of_enum).collect()
}

fn codes_of_enum(text: &str) -> Vec<Code> {
    let mut codes: Vec<Code> = Vec::new();
    let mut attributes = String::new();
    let body = text.lines().skip_while(|line| !line.contains("enum ")).skip(1);
    for line in body.take_while(|line| !line.starts_with('}')) {
        let code = line.trim_start();
        let is_in_attribute = !attributes.is_empty() && !attributes.ends_with(']');
        if code.starts_with("#[") || is_in_attribute {
            attributes.push_str(code);
        } else if !code.starts_with("//") {
            read_line(line, &std::mem::take(&mut attributes), &mut codes);
        }
    }
    codes
}

/// Reads a variant, a field, or the end of a variant. What serde leaves out has no code.
fn read_line(line: &str, attributes: &str, codes: &mut Vec<Code>) {
    let code = line.trim_start();
    if attributes.contains("serde(skip)") || attributes.contains("serde(untagged)") {
        return;
    }
    if !code.starts_with(|c: char| c.is_ascii_uppercase()) {
        if let Some((_, arguments)) = codes.last_mut() {
            arguments.extend(field_names(code));
        }
        return;
    }
    let name: String = code.chars().take_while(char::is_ascii_alphanumeric).collect();
    let renamed = attributes.split("rename = \"").nth(1).and_then(|rest| rest.split('"').next());
    let arguments = code.split_once('{').map_or("", |(_, fields)| fields);
    codes.push((renamed.map_or_else(|| snake_case(&name), str::to_owned), field_names(arguments)));
}

/// The names in `a: u8, b: Option<String> }`.
fn field_names(text: &str) -> BTreeSet<String> {
    let names = text.split(", ").filter_map(|field| field.trim().split_once(": "));
    names.map(|(name, _)| name.trim_start_matches("pub ").to_owned()).collect()
}

fn snake_case(name: &str) -> String {
    name.char_indices().fold(String::new(), |mut snake, (at, letter)| {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        snake
    })
}

/// Everything before an inline test module, which the house rules put last.
fn product_part(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn sources() -> Vec<PathBuf> {
    let mut todo =
        ["gateway/src", "provisioning/src", "tunnel/src"].map(|dir| workspace().join(dir)).to_vec();
    let mut sources = Vec::new();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a directory can be read");
            todo.extend(entries.map(|entry| entry.expect("readable").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    // Below the workspace: its own directory may be called tests.
    let root = workspace();
    let below = |path: &PathBuf| path.strip_prefix(&root).unwrap_or(path).to_owned();
    sources.retain(|path| !below(path).iter().any(|part| part == "tests" || part == "tests.rs"));
    sources
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in it").to_owned()
}
