//! Results as a table and as JSON lines.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::workload::Workload;

/// Result of one turn of one program.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    pub(crate) cpu_per_million: f64,
    pub(crate) cpu_percent: f64,
    pub(crate) values_per_second: f64,
    pub(crate) on_time: Option<f64>,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) peak_mb: f64,
    pub(crate) proportional_mb: f64,
    pub(crate) processes: f64,
    pub(crate) requests_per_cycle: f64,
    pub(crate) bytes_per_value: f64,
    /// Values that must be wrong.
    pub(crate) wrong: f64,
    pub(crate) first_ms: f64,
    /// Load average of the machine at the end of the turn.
    pub(crate) load: f64,
}

/// Results of one program with one workload.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) name: &'static str,
    pub(crate) turns: Vec<Turn>,
    pub(crate) failure: Option<String>,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu_per_million, values_per_second, p99_ms, peak_mb, .. } = self;
        write!(
            f,
            "{cpu_per_million:.2} CPU-s per 10^6 values, {values_per_second:.0} values/s, \
             p99 {p99_ms:.1} ms, {peak_mb:.1} MB"
        )
    }
}

impl Cell {
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, turns: Vec::new(), failure: None }
    }

    fn median(&self, of: impl Fn(&Turn) -> f64) -> f64 {
        let mut values: Vec<f64> = self.turns.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn json(&self, workload: &Workload, window: Duration) -> Value {
        let round = |value: f64| (value * 100.0).round() / 100.0;
        let median = |of: fn(&Turn) -> f64| round(self.median(of));
        let mut cell = json!({
            "workload": workload.name, "contender": self.name, "turns": self.turns.len(),
            "seconds": window.as_secs(), "at": super::clock::now_micros() / 1_000_000,
        });
        if let Some(failure) = &self.failure {
            cell["failure"] = failure.as_str().into();
        }
        if self.turns.is_empty() {
            return cell;
        }
        for (key, value) in [
            ("cpu_s_per_million_values", median(|turn| turn.cpu_per_million)),
            ("cpu_percent", median(|turn| turn.cpu_percent)),
            ("values_per_second", median(|turn| turn.values_per_second)),
            ("age_p50_ms", median(|turn| turn.p50_ms)),
            ("age_p99_ms", median(|turn| turn.p99_ms)),
            ("peak_rss_mb", median(|turn| turn.peak_mb)),
            ("pss_mb", median(|turn| turn.proportional_mb)),
            ("processes", median(|turn| turn.processes)),
            ("requests_per_cycle", median(|turn| turn.requests_per_cycle)),
            ("bytes_per_value", median(|turn| turn.bytes_per_value)),
            ("wrong_values", median(|turn| turn.wrong)),
            ("first_message_ms", median(|turn| turn.first_ms)),
        ] {
            cell[key] = value.into();
        }
        if workload.expected().is_some() {
            cell["on_time_percent"] = median(|turn| turn.on_time.unwrap_or(f64::NAN)).into();
        }
        let each = |of: fn(&Turn) -> f64| self.turns.iter().map(of).map(round).collect::<Vec<_>>();
        cell["cpu_s_per_million_values_of_each_turn"] = each(|turn| turn.cpu_per_million).into();
        cell["load_average_of_each_turn"] = each(|turn| turn.load).into();
        cell
    }
}

/// Prints the medians of all programs, and their ratio to the first.
pub(crate) fn print(workload: &Workload, cells: &[Cell]) {
    let Workload { name, plcs, tags, period, delay } = workload;
    let pace =
        if period.is_zero() { "as fast as it goes".to_owned() } else { format!("{period:?}") };
    println!("\n{name}: {plcs} PLCs x {tags} tags, {pace}, PLC takes {delay:?}; medians\n");
    println!(
        "| program | CPU-s per 10^6 values | x {} | values/s | on time % | age p50 / p99 ms | peak RSS (PSS) MB | processes | requests per cycle | bytes per value | first message ms | CPU-s/10^6 of each turn | load |",
        cells.first().map_or("", |cell| cell.name)
    );
    println!("|{}", "---|".repeat(13));
    let base = cells.first().map_or(f64::NAN, |cell| cell.median(|turn| turn.cpu_per_million));
    for cell in cells {
        if let Some(failure) = &cell.failure {
            println!("| {} | FAILED: {failure} |{}", cell.name, " |".repeat(11));
            continue;
        }
        let on_time = cell.median(|turn| turn.on_time.unwrap_or(f64::NAN));
        let wrong = cell.median(|turn| turn.wrong);
        let cpu = cell.median(|turn| turn.cpu_per_million);
        let each: Vec<_> =
            cell.turns.iter().map(|turn| format!("{:.2}", turn.cpu_per_million)).collect();
        let load: Vec<_> = cell.turns.iter().map(|turn| turn.load.to_string()).collect();
        println!(
            "| {} | {cpu:.2} | {:.2} | {:.0} | {} | {:.1} / {:.1} | {:.1} ({:.1}) | {} | {:.2} | {:.1} | {:.0} | {} | {} |{}",
            cell.name,
            cpu / base,
            cell.median(|turn| turn.values_per_second),
            if on_time.is_nan() { "-".to_owned() } else { format!("{on_time:.1}") },
            cell.median(|turn| turn.p50_ms),
            cell.median(|turn| turn.p99_ms),
            cell.median(|turn| turn.peak_mb),
            cell.median(|turn| turn.proportional_mb),
            cell.median(|turn| turn.processes),
            cell.median(|turn| turn.requests_per_cycle),
            cell.median(|turn| turn.bytes_per_value),
            cell.median(|turn| turn.first_ms),
            each.join(" "),
            load.join(" "),
            if wrong > 0.0 { format!(" {wrong} WRONG VALUES") } else { String::new() },
        );
    }
}

/// Appends one JSON line per cell.
pub(crate) fn append(path: &Path, workload: &Workload, cells: &[Cell], window: Duration) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let mut file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for cell in cells {
        writeln!(file, "{}", cell.json(workload, window)).expect("the file takes lines");
    }
}
