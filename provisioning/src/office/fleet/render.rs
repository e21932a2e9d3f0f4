//! The `gateway.toml` of a site, rendered from fleet, templates and site, with the place of every
//! line, so that a problem in it is shown where it was written.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use super::fleet_toml::{BrokerAuthentication, FleetHub, FleetSettings};
use super::problems::FleetProblem;
use super::site::Site;
use super::tree::{FilePlace, SettingEntry, SettingTable, SettingValue};
use crate::config::nearest;
use crate::diagnostics::{Problem, SourceSpan};

/// A machine type: `templates/NAME.toml`.
#[derive(Clone, Debug)]
pub(crate) struct MachineTemplate {
    pub(crate) name: String,
    /// The keys of a `[[plc]]`.
    pub(crate) settings: SettingTable,
}

/// A rendered `gateway.toml`.
#[derive(Debug)]
pub(crate) struct RenderedConfig {
    pub(crate) text: String,
    /// In the order of the text.
    segments: Vec<Segment>,
    /// The file of the site, for what stands nowhere.
    site: FilePlace,
}

/// A part of the text and where it comes from.
#[derive(Debug)]
struct Segment {
    rendered: Range<usize>,
    origin: FilePlace,
    is_copied: bool,
}

/// Files of secrets and certificates on the box, in the directory of its gateway.toml.
pub mod box_files {
    /// Private key of the tunnel.
    pub const TUNNEL_KEY: &str = "secrets/tunnel.key";
    /// Password at the broker.
    pub const PASSWORD: &str = "secrets/mqtt.password";
    /// Private key of the certificate.
    pub const CERTIFICATE_KEY: &str = "secrets/mqtt.key";
    /// Certificate of the gateway.
    pub const CERTIFICATE: &str = "certificates/gateway.pem";
    /// Certificate of the authority that signed the brokers' certificates.
    pub const AUTHORITY: &str = "certificates/ca.pem";
}

/// Path of the directory with bundles on the web server of a hub, which listens on port 80.
const BUNDLE_PATH: &str = "/bundles";

/// Port of the broker inside the tunnel.
pub(crate) const BROKER_PORT: u16 = 1883;
/// Port of the broker for certificates.
pub(crate) const BROKER_TLS_PORT: u16 = 8883;

/// Key of a `[[plc]]` that names its template.
const TEMPLATE_KEY: &str = "template";
/// Key of a `[[plc]]` that lists tags of the template which this machine does not have.
const OMIT_KEY: &str = "omit";

/// Returns the settings of a site: generated ones, overridden by `[defaults]` of the fleet,
/// overridden by the file of the site. `hubs` are those that the site uses, in its order.
pub(crate) fn merge_settings(
    fleet: &FleetSettings,
    templates: &[MachineTemplate],
    site: &Site,
    hubs: &[&FleetHub],
    problems: &RefCell<Vec<FleetProblem>>,
) -> SettingTable {
    let mut root = generated_settings(fleet, site, hubs);
    root.merge(fleet.defaults.clone());
    let mut own = site.settings.clone();
    let mut rejected = Vec::new();
    for entry in &mut own.entries {
        if entry.key == "plc"
            && let SettingValue::Tables(plcs) = &mut entry.value
        {
            for plc in plcs {
                expand_template(plc, templates, &mut rejected);
            }
        }
    }
    problems.borrow_mut().extend(rejected);
    // PLCs are a site's own: a list of them in two files would be joined by name.
    root.merge(own);
    root
}

/// Returns what the fleet decides for every site.
fn generated_settings(fleet: &FleetSettings, site: &Site, hubs: &[&FleetHub]) -> SettingTable {
    let file = &site.places.file;
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut gateway = SettingTable::empty(file.clone());
    gateway.generate("id", quoted(&site.id), file);

    let mut tunnel = SettingTable::empty(file.clone());
    tunnel.generate("private_key_file", quoted(box_files::TUNNEL_KEY), file);
    tunnel.generate("address", format!("\"{}/32\"", site.address), &site.places.address);
    let office = fleet.plan.office;
    let hub_table = |hub: &&FleetHub| {
        let mut table = SettingTable::empty(hub.places.name.clone());
        table.generate("name", quoted(&hub.name), &hub.places.name);
        table.generate("endpoint", quoted(&hub.endpoint.to_string()), &hub.places.endpoint);
        table.generate("public_key", format!("\"{}\"", hub.public_key), &hub.places.public_key);
        // A site reaches its hub and the office, and no other site.
        let networks = format!("[\"{}/32\", \"{office}\"]", hub.address);
        table.generate("allowed_ips", networks, &hub.places.address);
        table
    };
    tunnel.push("hub", SettingValue::Tables(hubs.iter().map(hub_table).collect()));

    let mut mqtt = SettingTable::empty(file.clone());
    let (scheme, port) = match fleet.broker.authentication {
        BrokerAuthentication::Password => ("mqtt", BROKER_PORT),
        BrokerAuthentication::Certificate => ("mqtts", BROKER_TLS_PORT),
    };
    let broker = |hub: &&FleetHub| format!("\"{scheme}://{}:{port}\"", hub.address);
    let brokers: Vec<_> = hubs.iter().map(broker).collect();
    mqtt.generate("brokers", format!("[{}]", brokers.join(", ")), file);
    match fleet.broker.authentication {
        BrokerAuthentication::Password => {
            mqtt.generate("username", quoted(&site.user_name(site.login)), file);
            mqtt.generate("password_file", quoted(box_files::PASSWORD), file);
        }
        BrokerAuthentication::Certificate => {
            mqtt.generate("ca_file", quoted(box_files::AUTHORITY), file);
            mqtt.generate("cert_file", quoted(box_files::CERTIFICATE), file);
            mqtt.generate("key_file", quoted(box_files::CERTIFICATE_KEY), file);
        }
    }
    let mut root = SettingTable::empty(file.clone());
    root.push("gateway", SettingValue::Table(gateway));
    root.push("tunnel", SettingValue::Table(tunnel));
    root.push("mqtt", SettingValue::Table(mqtt));
    if let Some(primary) = hubs.first() {
        let mut bundle = SettingTable::empty(primary.places.address.clone());
        let url = format!("\"http://{}{BUNDLE_PATH}\"", primary.address);
        bundle.generate("url", url, &primary.places.address);
        root.push("bundle", SettingValue::Table(bundle));
    }
    root
}

/// Replaces `template = "pump"` in a `[[plc]]` by the keys of that template which the site does not
/// set itself.
fn expand_template(
    plc: &mut SettingTable,
    templates: &[MachineTemplate],
    problems: &mut Vec<FleetProblem>,
) {
    let template = take(plc, TEMPLATE_KEY);
    let omit = take(plc, OMIT_KEY);
    let Some(entry) = template else {
        if let Some(omit) = omit {
            let message = "`omit` lists tags of a template, and this [[plc]] has none";
            problems.push(FleetProblem::new(&omit.place, message, "remove `omit`"));
        }
        return;
    };
    let name = entry.value.as_text();
    let found = templates.iter().find(|template| Some(&template.name) == name.as_ref());
    let Some(found) = found else {
        let names = || templates.iter().map(|template| template.name.as_str());
        let name = name.unwrap_or_default();
        let help = match nearest(&name, names()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None if templates.is_empty() => format!("write templates/{name}.toml"),
            None => format!("the templates are {}", names().collect::<Vec<_>>().join(", ")),
        };
        let place = entry.value.place(&entry.place);
        problems.push(FleetProblem::new(place, format!("there is no template \"{name}\""), help));
        return;
    };
    let mut merged = SettingTable::empty(plc.place.clone());
    // The name comes first, as in a file that a person writes.
    merged.entries.extend(plc.get("name").cloned());
    merged.merge(found.settings.clone());
    if let Some(omit) = omit {
        omit_tags(&mut merged, &omit, &found.name, problems);
    }
    merged.merge(std::mem::replace(plc, SettingTable::empty(plc.place.clone())));
    *plc = merged;
}

fn omit_tags(
    plc: &mut SettingTable,
    omit: &SettingEntry,
    template: &str,
    problems: &mut Vec<FleetProblem>,
) {
    let place = omit.value.place(&omit.place);
    let names: Option<Vec<String>> = match omit.value.parsed() {
        Some(toml::Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    let Some(names) = names else {
        let help = "write omit = [\"pressure\"]";
        problems.push(FleetProblem::new(place, "`omit` is a list of names", help));
        return;
    };
    let tags = plc.entries.iter_mut().find(|entry| entry.key == "tag");
    let Some(SettingValue::Tables(tags)) = tags.map(|entry| &mut entry.value) else { return };
    let mut missing: BTreeSet<String> = names.into_iter().collect();
    tags.retain(|tag| tag.text("name").is_none_or(|name| !missing.remove(&name)));
    if let Some(name) = missing.first() {
        let message = format!("the template \"{template}\" has no tag \"{name}\"");
        let known: Vec<String> = tags.iter().filter_map(|tag| tag.text("name")).collect();
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("remove \"{name}\" from `omit`"),
        };
        problems.push(FleetProblem::new(place, message, help));
    }
}

fn take(table: &mut SettingTable, key: &str) -> Option<SettingEntry> {
    let at = table.entries.iter().position(|entry| entry.key == key)?;
    Some(table.entries.remove(at))
}

impl RenderedConfig {
    /// Renders the settings of a site.
    pub(crate) fn new(settings: &SettingTable, site: &FilePlace) -> Self {
        let mut rendered = Self { text: String::new(), segments: Vec::new(), site: site.clone() };
        rendered.push_table("", settings);
        rendered
    }

    fn push_table(&mut self, path: &str, table: &SettingTable) {
        for entry in &table.entries {
            if let SettingValue::Literal(literal) = &entry.value {
                self.push(&quoted_key(&entry.key), &entry.place, false);
                self.text.push_str(" = ");
                self.push(&literal.toml, &literal.place, literal.is_copied);
                self.text.push('\n');
            }
        }
        let below = |key: &str| {
            let key = quoted_key(key);
            if path.is_empty() { key } else { format!("{path}.{key}") }
        };
        // In TOML, what follows a section belongs to it: lists of sections come last.
        for entry in &table.entries {
            if let SettingValue::Table(table) = &entry.value {
                let path = below(&entry.key);
                self.push_section(&path, &format!("[{path}]"), table);
            }
        }
        for entry in &table.entries {
            if let SettingValue::Tables(tables) = &entry.value {
                let path = below(&entry.key);
                for table in tables {
                    self.push_section(&path, &format!("[[{path}]]"), table);
                }
            }
        }
    }

    fn push_section(&mut self, path: &str, header: &str, table: &SettingTable) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.push(header, &table.place, false);
        self.text.push('\n');
        self.push_table(path, table);
    }

    fn push(&mut self, text: &str, origin: &FilePlace, is_copied: bool) {
        let start = self.text.len();
        self.text.push_str(text);
        let rendered = start..self.text.len();
        self.segments.push(Segment { rendered, origin: origin.clone(), is_copied });
    }

    /// Returns a problem of the text as a problem of the file in which it was written.
    pub(crate) fn locate(&self, problem: &Problem) -> FleetProblem {
        let place = match &problem.span {
            SourceSpan::File(span) => self.origin(span),
            SourceSpan::WholeFile | SourceSpan::Environment(_) => self.site.clone(),
        };
        let related = problem.related.as_ref().and_then(|(span, label)| {
            let origin = self.origin(span);
            (origin.file == place.file).then(|| (origin.span, label.clone()))
        });
        let help = problem.help.clone().unwrap_or_default();
        FleetProblem { related, ..FleetProblem::new(&place, &problem.message, help) }
    }

    fn origin(&self, span: &Range<usize>) -> FilePlace {
        let after = self.segments.partition_point(|part| part.rendered.start <= span.start);
        let Some(part) = after.checked_sub(1).and_then(|at| self.segments.get(at)) else {
            return self.site.clone();
        };
        let mut origin = part.origin.clone();
        if part.is_copied {
            let from = span.start - part.rendered.start;
            let to = span.end.min(part.rendered.end).saturating_sub(part.rendered.start);
            origin.span = origin.span.start + from..origin.span.start + to.max(from);
        }
        origin
    }
}

fn quoted_key(key: &str) -> String {
    let is_bare = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if !key.is_empty() && key.bytes().all(is_bare) {
        return key.to_owned();
    }
    toml::Value::from(key).to_string()
}
