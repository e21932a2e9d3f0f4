//! docs/commands.md is what `--help` prints, and docs/metrics.md what `/metrics` serves.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::{CertificateAuthority, Gateway, Office, Port, Simulator, eventually, temp_dir};

const SOON: Duration = Duration::from_secs(10);
const HOW: &str = "`BLESS=1 cargo test -p e2e --test the_reference_pages` writes it.";
/// Labels of which the configuration or the build makes the values.
const OPEN_LABELS: [&str; 5] = ["file", "hash", "plc", "tag", "version"];

/// Compares a page of the book, or writes it.
fn assert_page(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, page).expect("docs/ is writable");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/{name} is stale: {HOW}");
}

fn help(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("COLUMNS", "100").output().expect("it starts");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn commands_are_those_of_the_help() {
    let mut page = format!(
        "# Commands\n\n<!-- Made from `--help`; {HOW} -->\n\n\
         What `--help` prints for each command.\n"
    );
    let for_root = Office::program().with_file_name("edge-gateway-box");
    for program in [Gateway::program(), Office::program(), for_root] {
        page.push_str(&commands_of(&program));
    }
    assert_page("commands.md", &page);
}

/// Returns the help of a program and of each of its commands.
fn commands_of(program: &Path) -> String {
    let main = help(program, &["--help"]);
    let name = program.file_name().expect("a program has a name").display();
    let commands = main
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // A command is indented by two; further lines of its text are indented by more.
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help");
    let mut page = format!("\n## {name}\n\n```text\n{main}```\n");
    for command in commands {
        let text = help(program, &[command, "--help"]);
        let lines = text.lines().map(|line| format!("{}\n", line.trim_end()));
        let text: String = lines.collect();
        write!(page, "\n## {name} {command}\n\n```text\n{text}```\n").expect("text");
    }
    page
}

/// One metric of the exposition.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

#[test]
fn metrics_are_those_that_are_served() {
    let (dir, authority, broker) = (temp_dir(), CertificateAuthority::new(), Port::reserve());
    let authority = dir.write("ca.pem", &authority.pem());
    let plc = Simulator::start();
    let gateway = Gateway::start_ready(format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtts://{}\"]\nca_file = \"{}\"\n\
         [[plc]]\nname = \"pump6\"\nmodel = \"M241\"\naddress = \"{}\"\n\
         [[plc.tag]]\nname = \"t\"\nat = \"%MW0\"\ntype = \"INT\"\nmetric = true\n",
        broker.address(),
        authority.display(),
        plc.address()
    ));
    let mut page = format!(
        "# Metrics\n\n\
         <!-- Made from `/metrics` and `/metrics/tags` of a running gateway; {HOW} -->\n\n\
         Times are in seconds, sizes in bytes. Every counter exists from the start, at 0. A \
         histogram has the\nseries `_bucket`, `_sum` and `_count`. `edge_tag_*` are on \
         `/metrics/tags`.\n\
         [Monitoring and alerts](hub/monitoring.md) shows how to use them.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n"
    );
    // The files of certificates are read after the start.
    let exposition = eventually("the certificate is read", SOON, || {
        let body = gateway.get("/metrics").body;
        body.contains("edge_certificate_").then_some(body)
    });
    let tags = eventually("the tag is read", SOON, || {
        let body = gateway.get("/metrics/tags").body;
        body.contains("edge_tag_value{").then_some(body)
    });
    let exposition = exposition + &tags;
    for (name, metric) in parse(&exposition) {
        let labels: Vec<_> =
            metric.labels.iter().map(|(name, values)| label(name, values)).collect();
        let Metric { kind, help, .. } = metric;
        let labels = labels.join("; ");
        writeln!(page, "| `{name}` | {kind} | {labels} | {help} |").expect("text");
    }
    assert_page("metrics.md", &page);
}

fn label(name: &str, values: &BTreeSet<String>) -> String {
    if OPEN_LABELS.contains(&name) {
        return format!("`{name}`");
    }
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    format!("`{name}`: {}", values.join(", "))
}

fn parse(exposition: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    for line in exposition.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')) {
            metrics.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
        {
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((series, labels)) = line.split_once('{') {
            let base = series.trim_end_matches("_bucket");
            let metric = metrics.entry(base.to_owned()).or_default();
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            for (name, value) in labels.split(',').filter_map(|label| label.split_once('=')) {
                if name != "le" {
                    let value = value.trim_matches('"').to_owned();
                    metric.labels.entry(name.to_owned()).or_default().insert(value);
                }
            }
        }
    }
    // The sum and the count of a histogram are part of it.
    metrics.retain(|_, metric| !metric.kind.is_empty());
    metrics
}

#[test]
fn every_metric_that_the_book_names_exists() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let metrics = fs::read_to_string(docs.join("metrics.md")).expect("the page is there");
    for page in ["hub/monitoring.md", "hub/completeness.md", "hub/maintenance.md", "glossary.md"] {
        let text = fs::read_to_string(docs.join(page)).expect("the page is there");
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("edge_")) {
            assert!(metrics.contains(&format!("| `{word}` |")), "{page}: {word}");
        }
    }
}
