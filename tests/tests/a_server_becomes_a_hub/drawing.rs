//! Pictures of the dashboards for the book, drawn from their own queries: Grafana itself is not to be
//! had here. `E2E_DASHBOARD_PICTURES` says where they go.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use e2e::eventually;
use serde_json::Value;

use crate::SITE;
use crate::dashboards::dashboards;
use crate::hub_server::HubServer;

/// Size of a cell of Grafana's grid, which has 24 columns.
const CELL: (f64, f64) = (50.0, 32.0);
/// Time that a graph shows, if there are values for it.
const SECONDS: f64 = 120.0;
/// Time in which a gateway has values for a whole graph.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(240);
/// Width of a letter.
const LETTER: f64 = 7.5;
const COLORS: [&str; 6] = ["#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b"];

/// A panel, and where it is in the picture.
struct Panel<'v> {
    value: &'v Value,
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl<'v> Panel<'v> {
    fn new(value: &'v Value) -> Self {
        let cells = |name: &str| value["gridPos"][name].as_f64().expect("a number");
        let (left, top) = (cells("x") * CELL.0 + 4.0, cells("y") * CELL.1 + 4.0);
        let (width, height) = (cells("w") * CELL.0 - 8.0, cells("h") * CELL.1 - 8.0);
        Self { value, left, top, width, height }
    }

    fn title(&self) -> String {
        escaped(self.value["title"].as_str().expect("a title"))
    }

    fn targets(&self) -> impl Iterator<Item = (&'v Value, String)> {
        let targets = self.value["targets"].as_array().expect("a list").iter();
        targets.map(|target| {
            (target, target["expr"].as_str().expect("a query").replace("$gateway", SITE))
        })
    }

    fn unit(&self) -> &'v str {
        self.value["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or("short")
    }
}

/// Draws each dashboard, and writes the pictures if a directory is set.
pub(crate) fn each_dashboard_is_drawn(hub: &HubServer<'_>) {
    if test_settings::DASHBOARD_PICTURES.path().is_some() {
        let query = format!("count_over_time(up{{gateway=\"{SITE}\"}}[2m]) >= 118");
        eventually("there are values for a graph", HISTORY_TIMEOUT, || {
            (!hub.query(&query).is_empty()).then_some(())
        });
    }
    let now: f64 = number(&hub.query("vector(time())")[0]["value"]);
    for (name, dashboard) in dashboards() {
        let panels: Vec<_> =
            dashboard["panels"].as_array().expect("a list").iter().map(Panel::new).collect();
        let mut drawn = String::new();
        for panel in &panels {
            let kind = panel.value["type"].as_str().expect("a type");
            let content = match kind {
                "stat" => stat(hub, panel),
                "table" => table(hub, panel),
                "timeseries" => graph(hub, panel, now),
                _ => panic!("{name}: a panel of the type {kind}"),
            };
            assert!(!content.is_empty(), "{name}: {} is empty", panel.title());
            drawn += &frame(panel, &content);
        }
        let height = panels.iter().map(|panel| panel.top + panel.height).fold(0.0, f64::max);
        let picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1200 {:.0}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#f4f5f5\"/>\n{drawn}</svg>\n",
            height + 4.0
        );
        if let Some(dir) = test_settings::DASHBOARD_PICTURES.path() {
            let file = dir.join(format!("dashboard-{name}.svg"));
            fs::write(file, picture).expect("the directory is writable");
        }
    }
}

/// Each panel has its title in the picture in `docs/pictures`.
pub(crate) fn each_panel_is_in_the_book() {
    for (name, dashboard) in dashboards() {
        let path = format!("../docs/pictures/dashboard-{name}.svg");
        let picture = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path));
        let picture = picture.expect("it is there");
        for panel in dashboard["panels"].as_array().expect("a list") {
            let title = format!(">{}</text>", Panel::new(panel).title());
            assert!(picture.contains(&title), "{name}: draw {title} with E2E_DASHBOARD_PICTURES");
        }
    }
}

fn frame(panel: &Panel<'_>, content: &str) -> String {
    let Panel { left, top, width, height, .. } = panel;
    let title = panel.title();
    let size = (13.0 * (width - 10.0) / (1.15 * text_width(&title))).min(13.0);
    format!(
        "<g transform=\"translate({left} {top})\">\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"2\" fill=\"#fff\" stroke=\"#ccc\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"{size:.1}\" font-weight=\"bold\">{title}</text>\n\
         {content}</g>\n"
    )
}

/// One line for each value: as the panel maps it, or with its unit.
fn stat(hub: &HubServer<'_>, panel: &Panel<'_>) -> String {
    let mut lines = Vec::new();
    for (target, query) in panel.targets() {
        for series in hub.query(&query) {
            let value = number(&series["value"]);
            let name = legend(target, &series);
            let text = match panel.value["options"]["textMode"].as_str() {
                Some("name") => name,
                _ if name.is_empty() => shown(panel, value),
                _ => format!("{name} {}", shown(panel, value)),
            };
            lines.push((text, color(panel, value)));
        }
    }
    let size = if lines.len() > 1 { 20.0 } else { 32.0 };
    let mut content = String::new();
    let mut y = 34.0 + size;
    for (text, color) in lines {
        content += &format!(
            "<text x=\"{}\" y=\"{y}\" font-size=\"{size}\" text-anchor=\"middle\" \
             fill=\"{color}\">{}</text>\n",
            panel.width / 2.0,
            escaped(&text)
        );
        y += size + 6.0;
    }
    content
}

/// The text of a value: that of its mapping, or a number with its unit.
fn shown(panel: &Panel<'_>, value: f64) -> String {
    let mapped = mapping(panel, value).and_then(|mapping| mapping["text"].as_str());
    mapped.map_or_else(|| with_unit(value, panel.unit()), str::to_owned)
}

fn mapping<'v>(panel: &Panel<'v>, value: f64) -> Option<&'v Value> {
    let mappings = panel.value["fieldConfig"]["defaults"]["mappings"].as_array()?;
    mappings.first()?["options"].get(format!("{value}"))
}

/// That of the mapping, the highest threshold below the value, or the one of the panel.
fn color(panel: &Panel<'_>, value: f64) -> String {
    let defaults = &panel.value["fieldConfig"]["defaults"];
    let steps = defaults["thresholds"]["steps"].as_array().into_iter().flatten();
    let mut reached = steps.filter(|step| step["value"].as_f64().is_none_or(|from| from <= value));
    let color = mapping(panel, value)
        .or_else(|| reached.next_back())
        .map_or(&defaults["color"]["fixedColor"], |found| &found["color"]);
    color.as_str().unwrap_or("black").to_owned()
}

fn with_unit(value: f64, unit: &str) -> String {
    if value.is_infinite() {
        return "∞".to_owned();
    }
    let (value, prefix) = match value.abs() {
        _ if matches!(unit, "s" | "percentunit") => (value, ""),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    match unit {
        "percentunit" => format!("{}%", rounded(value * 100.0)),
        "s" if value >= 172_800.0 => format!("{} days", rounded(value / 86_400.0)),
        "s" if value < 1.0 => format!("{} ms", rounded(value * 1_000.0)),
        "s" => format!("{} s", rounded(value)),
        "bps" => format!("{} {prefix}bit/s", rounded(value)),
        "Bps" => format!("{} {prefix}B/s", rounded(value)),
        _ => format!("{}{prefix}", rounded(value)),
    }
}

/// A number with up to two decimals, as far as they say something.
fn rounded(value: f64) -> String {
    if value.abs() >= 100.0 {
        return format!("{value:.0}");
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The rows of all queries, joined by the gateway if there is more than one.
fn table(hub: &HubServer<'_>, panel: &Panel<'_>) -> String {
    let is_joined = panel.targets().count() > 1;
    let (columns, rows) = if is_joined { joined(hub, panel) } else { listed(hub, panel) };
    let length = |column: &String| {
        let texts = rows.iter().filter_map(|row| row.get(column)).chain([column]);
        texts.map(|text| text_width(text)).fold(0.0, f64::max) + LETTER
    };
    let mut content = String::new();
    let mut left = 8.0;
    for column in &columns {
        let cells = rows.iter().map(|row| (row.get(column).map_or("", String::as_str), "black"));
        for (line, (text, color)) in
            (0_u32..).zip([(column.as_str(), "#1f60c4")].into_iter().chain(cells))
        {
            let y = 44.0 + 22.0 * f64::from(line);
            // A String accepts every text.
            let _ = writeln!(
                content,
                "<text x=\"{left:.0}\" y=\"{y}\" fill=\"{color}\">{}</text>",
                escaped(text)
            );
        }
        left += length(column);
    }
    content
}

type Row = BTreeMap<String, String>;

/// One column for each query, and one row for each gateway.
fn joined(hub: &HubServer<'_>, panel: &Panel<'_>) -> (Vec<String>, Vec<Row>) {
    let renamed = &panel.value["transformations"][1]["options"]["renameByName"];
    let mut columns = vec!["gateway".to_owned()];
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for (target, query) in panel.targets() {
        let column = format!("Value #{}", target["refId"].as_str().expect("a letter"));
        let column = renamed[&column].as_str().expect("it is renamed").to_owned();
        for series in hub.query(&query) {
            let gateway = series["metric"]["gateway"].as_str().expect("a label").to_owned();
            let row = rows.entry(gateway.clone()).or_default();
            row.insert("gateway".to_owned(), gateway);
            row.insert(column.clone(), rounded(number(&series["value"])));
        }
        columns.push(column);
    }
    (columns, rows.into_values().collect())
}

/// One column for each label, and one row for each series.
fn listed(hub: &HubServer<'_>, panel: &Panel<'_>) -> (Vec<String>, Vec<Row>) {
    let series = panel.targets().flat_map(|(_, query)| hub.query(&query));
    let rows = series.map(|series| {
        let labels = series["metric"].as_object().expect("labels").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        labels.map(|(name, value)| (name.clone(), text(value))).collect()
    });
    let rows: Vec<Row> = rows.collect();
    let columns: BTreeSet<String> = rows.iter().flat_map(|row| row.keys().cloned()).collect();
    (columns.into_iter().collect(), rows)
}

/// One line for each series, over the last two minutes.
fn graph(hub: &HubServer<'_>, panel: &Panel<'_>, now: f64) -> String {
    let mut lines = Vec::new();
    for (target, query) in panel.targets() {
        for series in hub.query_range(&query, (now - SECONDS, now)) {
            let points = series["values"].as_array().expect("a list").iter();
            let points = points.map(|point| (point[0].as_f64().expect("a time"), number(point)));
            let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
            if !points.is_empty() {
                lines.push((legend(target, &series), points));
            }
        }
    }
    let highest = lines.iter().flat_map(|(_, points)| points).map(|point| point.1);
    let highest = highest.fold(0.0, f64::max);
    let highest = if highest > 0.0 { highest } else { 1.0 };
    let (left, right, top, bottom) = (80.0, panel.width - 12.0, 34.0, panel.height - 44.0);
    let at = |(time, value): &(f64, f64)| {
        let x = right - (now - time) / SECONDS * (right - left);
        let y = bottom - value / highest * (bottom - top);
        format!("{x:.1},{y:.1}")
    };
    let mut content = format!(
        "<path d=\"M{left} {top}H{right}M{left} {bottom}H{right}\" stroke=\"#ddd\"/>\n\
         <g fill=\"#666\" font-size=\"11\"><text x=\"{0}\" y=\"{1}\" text-anchor=\"end\">{2}</text>\n\
         <text x=\"{0}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
         <text x=\"{left}\" y=\"{3}\">2 minutes ago</text>\n\
         <text x=\"{right}\" y=\"{3}\" text-anchor=\"end\">now</text></g>\n",
        left - 6.0,
        top + 4.0,
        with_unit(highest, panel.unit()),
        bottom + 14.0,
    );
    let mut x = left;
    for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let path: Vec<String> = points.iter().map(at).collect();
        let path = path.join(" ");
        // A String accepts every text.
        let _ = writeln!(
            content,
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>"
        );
        // Names without room are left out.
        let has_room = x + text_width(name) < panel.width;
        if has_room || x < panel.width {
            let name = if has_room { escaped(name) } else { "…".to_owned() };
            let y = panel.height - 10.0;
            let _ = writeln!(
                content,
                "<text x=\"{x:.0}\" y=\"{y}\" font-size=\"12\" fill=\"{color}\">{name}</text>"
            );
        }
        x += if has_room { 2.0 * LETTER + text_width(name) } else { panel.width };
    }
    content
}

/// The name of a series, as Grafana makes it of `legendFormat`: `{{plc}}: {{outcome}}`.
fn legend(target: &Value, series: &Value) -> String {
    let mut name = target["legendFormat"].as_str().unwrap_or_default().to_owned();
    for (label, text) in series["metric"].as_object().into_iter().flatten() {
        name = name.replace(&format!("{{{{{label}}}}}"), text.as_str().unwrap_or_default());
    }
    name
}

/// The value of a point, `[time, "value"]`.
fn number(point: &Value) -> f64 {
    let text = point[1].as_str().expect("a value is a text");
    text.parse().expect("a number")
}

/// About the width of a text.
fn text_width(text: &str) -> f64 {
    LETTER * f64::from(u32::try_from(text.chars().count()).unwrap_or(0))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
