//! The status for people: one headline, then a table.

use std::fmt;

use super::{ConnectionState, Headline, PlcStatus, QueueStatus, Status, TunnelStatus};
use crate::model::{Escaped, PlcIdentity, UnixTime};

impl Status {
    /// Returns the one sentence that matters most now: of everything that keeps values from
    /// arriving, what is nearest to the broker.
    #[must_use]
    pub fn headline(&self) -> Headline {
        self.tunnel_problem()
            .or_else(|| self.broker_problem())
            .or_else(|| self.plc_problem())
            .or_else(|| self.late_values())
            .or_else(|| self.storage_problem())
            .or_else(|| self.connection_attempt())
            .or_else(|| self.missing_value())
            .or_else(|| self.clock_problem())
            .or_else(|| self.certificate_problem())
            .or_else(|| self.bundle_problem())
            .unwrap_or_else(|| Headline::AllWell {
                plcs: self.plcs.len(),
                broker: self.broker.address.clone().unwrap_or_default(),
            })
    }

    /// Returns a problem of the tunnel. The broker cannot be reached without it, and one behind a
    /// faulty tunnel only seems to be connected.
    fn tunnel_problem(&self) -> Option<Headline> {
        let tunnel = self.tunnel.as_ref().filter(|tunnel| !tunnel.is_healthy())?;
        let sentence = tunnel.sentence.clone();
        match self.broker.state {
            ConnectionState::Disconnected => {
                Some(Headline::Disconnected { sentence, values: self.queue.stored })
            }
            ConnectionState::Connecting if !tunnel.is_faulty() => None,
            ConnectionState::Connecting | ConnectionState::Connected => {
                Some(Headline::Tunnel { sentence })
            }
        }
    }

    fn broker_problem(&self) -> Option<Headline> {
        if self.broker.state == ConnectionState::Disconnected {
            let sentence = self.broker.sentence.clone();
            return Some(Headline::Disconnected { sentence, values: self.queue.stored });
        }
        Some(Headline::Broker { sentence: self.broker.refusal.clone()? })
    }

    fn late_values(&self) -> Option<Headline> {
        let QueueStatus { stored: values, oldest, max_wait_seconds, .. } = self.queue;
        let oldest = oldest.filter(|_| self.broker.state == ConnectionState::Connected)?;
        let waited = self.gateway.at.as_millis().saturating_sub(oldest.as_millis());
        let is_late = u64::try_from(waited / 1000).is_ok_and(|waited| waited > max_wait_seconds);
        is_late.then_some(Headline::Waiting { values, oldest })
    }

    fn storage_problem(&self) -> Option<Headline> {
        Some(Headline::Storage { sentence: self.queue.storage.clone()? })
    }

    /// Returns the first PLC with a tag that has no good value, or was not read yet.
    fn missing_value(&self) -> Option<Headline> {
        let plc = self.plcs.iter().find(|plc| !plc.tags.are_good())?;
        let sentence = plc.tags.sentence.as_ref().unwrap_or(&plc.sentence).clone();
        Some(Headline::Plc { plc: plc.name.clone(), sentence })
    }

    /// Returns that values are `unsynced`, or that it is not known whether they are.
    fn clock_problem(&self) -> Option<Headline> {
        let clock = self.gateway.clock.as_ref().filter(|clock| !clock.is_plausible())?;
        Some(Headline::Clock { sentence: clock.sentence.clone() })
    }

    /// Returns that a bundle is on trial, or is not what the office expects.
    fn bundle_problem(&self) -> Option<Headline> {
        Some(Headline::Bundle { sentence: self.trial.as_ref()?.sentence.clone() })
    }

    fn certificate_problem(&self) -> Option<Headline> {
        let urgent = self.certificates.iter().find(|certificate| certificate.urgent)?;
        Some(Headline::Certificate { sentence: urgent.sentence.clone() })
    }

    fn plc_problem(&self) -> Option<Headline> {
        let headline = |(plc, sentence): (&PlcStatus, &String)| Headline::Plc {
            plc: plc.name.clone(),
            sentence: sentence.clone(),
        };
        let mut disconnected = self.plcs_in(ConnectionState::Disconnected);
        if let Some(first) = disconnected.next() {
            return Some(match disconnected.count() {
                0 => headline((first, &first.sentence)),
                others => Headline::PlcsDisconnected {
                    disconnected: others + 1,
                    total: self.plcs.len(),
                    plc: first.name.clone(),
                    sentence: first.sentence.clone(),
                },
            });
        }
        let plcs = || self.plcs.iter();
        let not_running = plcs().find(|plc| plc.running == Some(false));
        not_running
            .map(|plc| (plc, &plc.sentence))
            .or_else(|| plcs().find_map(|plc| Some((plc, plc.limit.as_ref()?))))
            .or_else(|| plcs().find_map(|plc| Some((plc, plc.refusal.as_ref()?))))
            .or_else(|| plcs().find_map(|plc| Some((plc, plc.missing_values()?))))
            .map(headline)
    }

    fn connection_attempt(&self) -> Option<Headline> {
        if self.broker.state == ConnectionState::Connecting {
            return Some(Headline::Broker { sentence: self.broker.sentence.clone() });
        }
        let plc = self.plcs_in(ConnectionState::Connecting).next()?;
        Some(Headline::Plc { plc: plc.name.clone(), sentence: plc.sentence.clone() })
    }

    fn plcs_in(&self, state: ConnectionState) -> impl Iterator<Item = &PlcStatus> {
        self.plcs.iter().filter(move |plc| plc.state == state)
    }
}

/// The headline, and a table with one line for each part.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", escaped(&self.headline().to_string()))?;
        let rows = rows(self);
        let width = |column: fn(&StatusRow) -> &str| {
            rows.iter().map(|row| column(row).chars().count()).max().unwrap_or(0)
        };
        let (part, name) = (width(|row| row.part), width(|row| &row.name));
        let state = width(|row| &row.state);
        for row in &rows {
            write!(f, "{:part$}  {:name$}  {:state$}", row.part, row.name, row.state)?;
            writeln!(f, "  {}", row.text)?;
        }
        Ok(())
    }
}

struct StatusRow {
    part: &'static str,
    name: String,
    state: String,
    text: String,
}

fn rows(status: &Status) -> Vec<StatusRow> {
    let now = status.gateway.at;
    let mut rows = vec![gateway_row(status), broker_row(status), queue_row(&status.queue)];
    if let Some(tunnel) = &status.tunnel {
        rows.insert(1, tunnel_row(tunnel, now));
    }
    rows.extend(status.certificates.iter().map(|certificate| StatusRow {
        part: "certificate",
        name: escaped(&certificate.file),
        state: if certificate.urgent { "renew" } else { "good" }.to_owned(),
        text: escaped(&certificate.sentence),
    }));
    rows.extend(status.plcs.iter().map(|plc| StatusRow {
        part: "PLC",
        name: escaped(&plc.name),
        state: format!("{} {}", plc.state.as_str(), elapsed(plc.since, now)),
        text: escaped(&plc_text(plc)),
    }));
    rows.extend(status.writes.iter().map(|notice| StatusRow {
        part: "writes",
        name: "-".to_owned(),
        state: "attention".to_owned(),
        text: escaped(&notice.sentence),
    }));
    rows
}

fn gateway_row(status: &Status) -> StatusRow {
    let gateway = &status.gateway;
    let mut text = format!(
        "Version {}, configuration {}, at {}.",
        gateway.version, gateway.config.hash, gateway.at
    );
    if let Some(clock) = &gateway.clock {
        text.push(' ');
        text.push_str(&clock.sentence);
    }
    StatusRow {
        part: "gateway",
        name: escaped(&gateway.id),
        state: format!("up {}", elapsed(gateway.started, gateway.at)),
        text: escaped(&text),
    }
}

fn broker_row(status: &Status) -> StatusRow {
    let broker = &status.broker;
    StatusRow {
        part: "broker",
        name: escaped(broker.address.as_deref().unwrap_or("-")),
        state: format!("{} {}", broker.state.as_str(), elapsed(broker.since, status.gateway.at)),
        text: escaped(broker.refusal.as_ref().unwrap_or(&broker.sentence)),
    }
}

fn tunnel_row(tunnel: &TunnelStatus, now: UnixTime) -> StatusRow {
    let state = tunnel.state.replace('_', " ");
    StatusRow {
        part: "tunnel",
        name: escaped(&tunnel.hub),
        state: format!("{} {}", escaped(&state), elapsed(tunnel.since, now)),
        text: escaped(&tunnel.sentence),
    }
}

fn queue_row(queue: &QueueStatus) -> StatusRow {
    let mut text = format!("{} of {} used", size(queue.bytes), size(queue.max_bytes));
    if let Some(hours) = queue.hours {
        text.push_str(&format!(", enough for {} without a broker", hours_or_days(hours)));
    }
    if let Some(oldest) = queue.oldest {
        text.push_str(&format!(", oldest from {oldest}"));
    }
    text.push_str(&format!(", {} dropped since the start.", queue.dropped));
    if let Some(storage) = &queue.storage {
        text.push_str(&format!(" Attention: {storage}"));
    }
    let state = format!("{} values wait", queue.stored);
    StatusRow { part: "queue", name: "-".to_owned(), state, text: escaped(&text) }
}

fn plc_text(plc: &PlcStatus) -> String {
    let mut text = plc.sentence.clone();
    let tags = plc.missing_values().filter(|_| plc.refusal.is_none());
    for more in plc.refusal.iter().chain(tags).chain(&plc.limit) {
        text.push(' ');
        text.push_str(more);
    }
    if let Some(seconds) = plc.tried_within_seconds {
        let within = match seconds {
            0..180 => format!("{seconds} s"),
            _ => format!("{} min", seconds.div_ceil(60)),
        };
        text.push_str(&format!(" Retried within {within}."));
    }
    if let Some(PlcIdentity { vendor, product, revision }) = &plc.identity {
        text.push_str(&format!(" {vendor} {product}, firmware {revision}."));
    }
    if let Some(cycle) = plc.cycle {
        let millis = cycle.seconds * 1000.0;
        text.push_str(&format!(" Last cycle {millis:.1} ms, {} missed.", cycle.missed));
    }
    text
}

/// Returns a sentence that begins with a capital and ends with one full stop: the texts of errors
/// of other crates do neither.
pub(super) fn to_sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

/// Returns the two largest units of a duration: `3 h 12 min`.
fn elapsed(from: UnixTime, to: UnixTime) -> String {
    let seconds = (to.as_millis().saturating_sub(from.as_millis()) / 1000).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} d {} h", hours % 24),
    }
}

/// Returns an estimate in hours below two days, else in whole days, rounded down.
fn hours_or_days(hours: f64) -> String {
    const TWO_DAYS: f64 = 48.0;
    if hours < TWO_DAYS { format!("{hours} h") } else { format!("{} days", (hours / 24.0).floor()) }
}

/// Returns a number of bytes with one digit after the point: `4.1 KiB`.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}
