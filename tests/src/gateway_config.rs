//! `gateway.toml` of a test, built key by key, so that no test writes TOML text.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use toml::{Table, Value};

/// A whole `gateway.toml`. Its `Display` is the text of the file.
#[derive(Clone, Debug)]
pub struct GatewayConfig(Table);

/// One `[[plc]]` section with its tags.
#[derive(Clone, Debug)]
pub struct PlcConfig(Table);

impl GatewayConfig {
    /// Starts a configuration for a gateway with this id.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(Table::new()).set("gateway.id", id)
    }

    /// Starts a configuration for a gateway with this id that publishes to one broker.
    #[must_use]
    pub fn with_broker(id: &str, url: impl Display) -> Self {
        Self::new(id).brokers([url])
    }

    /// Sets `mqtt.brokers`.
    #[must_use]
    pub fn brokers(self, urls: impl IntoIterator<Item = impl Display>) -> Self {
        self.set("mqtt.brokers", strings(urls))
    }

    /// Sets a key by its dotted path, `"queue.max_size"`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.0, path, value.into());
        self
    }

    /// Adds a PLC.
    #[must_use]
    pub fn plc(self, plc: PlcConfig) -> Self {
        self.plcs([plc])
    }

    /// Adds PLCs.
    #[must_use]
    pub fn plcs(mut self, plcs: impl IntoIterator<Item = PlcConfig>) -> Self {
        for plc in plcs {
            push(&mut self.0, "plc", plc.0);
        }
        self
    }

    /// Returns the text of the file for a [`crate::Guest`], which reaches this machine's loopback
    /// at 10.0.2.2.
    #[must_use]
    pub fn for_guest(&self) -> String {
        self.to_string().replace("127.0.0.1", "10.0.2.2")
    }

    /// Adds a hub of the tunnel that leads to one address.
    #[must_use]
    pub fn hub(
        mut self,
        name: &str,
        endpoint: impl Display,
        public_key: impl Display,
        address: impl Display,
    ) -> Self {
        let mut hub = Table::new();
        insert(&mut hub, "name", name.into());
        insert(&mut hub, "endpoint", endpoint.to_string().into());
        insert(&mut hub, "public_key", public_key.to_string().into());
        insert(&mut hub, "allowed_ips", strings([format!("{address}/32")]));
        let tunnel = self.0.entry("tunnel").or_insert_with(|| Table::new().into());
        push(tunnel.as_table_mut().expect("[tunnel] is a section"), "hub", hub);
        self
    }

    /// Sets a key of the hub that was added last.
    ///
    /// # Panics
    /// When there is no hub.
    #[must_use]
    pub fn set_hub(mut self, key: &str, value: impl Into<Value>) -> Self {
        let tunnel = self.0.get_mut("tunnel").and_then(Value::as_table_mut);
        insert(last(tunnel.expect("a hub was added"), "hub"), key, value.into());
        self
    }
}

impl Display for GatewayConfig {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PlcConfig {
    /// Starts a PLC without tags.
    #[must_use]
    pub fn new(name: &str, model: &str, address: impl Display) -> Self {
        Self(Table::new()).set("name", name).set("model", model).set("address", address.to_string())
    }

    /// Sets a key by its dotted path, `"publish.topic"`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(&mut self.0, path, value.into());
        self
    }

    /// Sets `scan`, in whole milliseconds.
    #[must_use]
    pub fn scan(self, period: Duration) -> Self {
        self.set("scan", format!("{}ms", period.as_millis()))
    }

    /// Adds a tag: its name, its address and its IEC 61131-3 type.
    #[must_use]
    pub fn tag(mut self, name: &str, at: &str, iec: &str) -> Self {
        let mut tag = Table::new();
        for (key, value) in [("name", name), ("at", at), ("type", iec)] {
            insert(&mut tag, key, value.into());
        }
        push(&mut self.0, "tag", tag);
        self
    }

    /// Sets a key of the tag that was added last, by its dotted path.
    ///
    /// # Panics
    /// When there is no tag.
    #[must_use]
    pub fn set_tag(mut self, path: &str, value: impl Into<Value>) -> Self {
        insert(last(&mut self.0, "tag"), path, value.into());
        self
    }

    /// Adds tags of type INT, `w100` at `%MW100` and so on.
    #[must_use]
    pub fn words(self, words: impl IntoIterator<Item = u16>) -> Self {
        words
            .into_iter()
            .fold(self, |plc, word| plc.tag(&format!("w{word}"), &format!("%MW{word}"), "INT"))
    }
}

fn strings(texts: impl IntoIterator<Item = impl Display>) -> Value {
    Value::Array(texts.into_iter().map(|text| text.to_string().into()).collect())
}

/// Sets the key at the end of a dotted path and makes the sections that lead to it.
fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), value)),
        Some((section, rest)) => {
            let section = table.entry(section).or_insert_with(|| Table::new().into());
            insert(section.as_table_mut().expect("a section holds keys"), rest, value);
        }
    }
}

/// Adds a section to a list of sections.
fn push(table: &mut Table, list: &str, section: Table) {
    let list = table.entry(list).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().expect("a list of sections").push(section.into());
}

/// Returns the last section of a list of sections.
fn last<'t>(table: &'t mut Table, list: &str) -> &'t mut Table {
    let sections = table.get_mut(list).and_then(Value::as_array_mut);
    let section = sections.and_then(|sections| sections.last_mut()?.as_table_mut());
    section.expect("a section was added before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_every_section_in_the_order_of_adding() {
        let plc = PlcConfig::new("p", "M241", "127.0.0.1:502")
            .scan(Duration::from_millis(50))
            .set("publish.topic", "t")
            .tag("b", "%MW1", "INT")
            .set_tag("enum.0", "stop")
            .tag("a", "%MW2", "INT");
        let config = GatewayConfig::with_broker("g", "mqtt://h")
            .set("queue.max_size", "1MiB")
            .hub("hub-a", "h:1", "key", "10.0.0.1")
            .set_hub("preshared_key_file", "f")
            .plc(plc);

        let parsed: Table = config.to_string().parse().unwrap();

        assert_eq!(parsed, config.0);
        let names: Vec<_> = parsed["plc"][0]["tag"].as_array().unwrap().iter().collect();
        assert_eq!((names[0]["name"].as_str(), names[1]["name"].as_str()), (Some("b"), Some("a")));
        assert_eq!(parsed["plc"][0]["scan"].as_str(), Some("50ms"));
        assert_eq!(parsed["plc"][0]["tag"][0]["enum"]["0"].as_str(), Some("stop"));
        assert_eq!(parsed["mqtt"]["brokers"][0].as_str(), Some("mqtt://h"));
        assert_eq!(parsed["tunnel"]["hub"][0]["preshared_key_file"].as_str(), Some("f"));
    }
}
