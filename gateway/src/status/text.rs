//! The status for people: one headline, then a table.

use std::fmt;

use super::{ConnectionState, PlcStatus, QueueStatus, Status, TunnelStatus};
use crate::model::{
    PlcIdentity, ProgramState, ProgramStatus, QuarantinedTag, RateLimit, StopCause, UnixTime,
};

/// What keeps values from arriving comes first, and of that what is nearest to the broker.
pub(super) fn headline(status: &Status) -> String {
    let silent_tunnel = status.tunnel.as_ref().filter(|tunnel| !tunnel.is_healthy());
    if status.broker.state == ConnectionState::Disconnected {
        // Without the tunnel there is no broker: the first cause is what can be mended.
        return waiting(status, silent_tunnel.map_or(&status.broker.sentence, |it| &it.sentence));
    }
    if let Some(refusal) = &status.broker.refusal {
        return refusal.clone();
    }
    let all = status.plcs.len();
    let silent: Vec<&PlcStatus> = in_state(status, ConnectionState::Disconnected).collect();
    match silent.as_slice() {
        [] => {}
        [plc] => return format!("PLC {}: {}", plc.name, plc.sentence),
        [plc, ..] => {
            let count = silent.len();
            return format!("{count} of {all} PLCs do not answer. {}: {}", plc.name, plc.sentence);
        }
    }
    if let Some(plc) = status.plcs.iter().find(|plc| plc.running == Some(false)) {
        return format!("PLC {}: {}", plc.name, plc.sentence);
    }
    let limited = status.plcs.iter().find_map(|plc| Some((plc, plc.limit.as_ref()?)));
    if let Some((plc, limit)) = limited {
        return format!("PLC {}: {limit}", plc.name);
    }
    let refusing = status.plcs.iter().find_map(|plc| Some((plc, plc.refusal.as_ref()?)));
    if let Some((plc, refusal)) = refusing {
        return format!("PLC {}: {refusal}", plc.name);
    }
    if status.broker.state == ConnectionState::Connecting {
        return status.broker.sentence.clone();
    }
    if let Some(plc) = in_state(status, ConnectionState::Connecting).next() {
        return format!("PLC {}: {}", plc.name, plc.sentence);
    }
    let plcs = if all == 1 { "the PLC answers".to_owned() } else { format!("{all} PLCs answer") };
    let broker = status.broker.address.as_deref().unwrap_or("the other end");
    format!("All is well: {plcs}, and the broker at {broker} takes the values.")
}

/// What a PLC that answers does.
pub(super) fn answers(running: Option<bool>, program: Option<&ProgramStatus>) -> String {
    let what = match program.map(|program| program.state) {
        Some(ProgramState::Empty) => "there is no program in it",
        Some(ProgramState::Halted) => "an error halted its program",
        Some(ProgramState::Breakpoint) => "its program is held at a breakpoint",
        Some(ProgramState::Stopped | ProgramState::Running | ProgramState::Unknown) | None => {
            "its program is stopped"
        }
    };
    let cause = match program.and_then(|program| program.last_stop) {
        Some(StopCause::Watchdog) => ", by the hardware watchdog",
        Some(StopCause::Reset) => ", by a reset",
        Some(StopCause::Exception) => ", by an exception in it",
        Some(StopCause::User) => ", by somebody",
        Some(StopCause::Program) => ", by itself",
        Some(StopCause::Deletion) => ", since it was deleted",
        None => "",
    };
    match running {
        Some(true) => "The PLC answers; its program runs.".to_owned(),
        Some(false) => format!("The PLC answers, but {what}{cause}: values stand still."),
        None => "The PLC answers.".to_owned(),
    }
}

/// Why cycles are skipped, and what to change.
pub(super) fn limit(limit: RateLimit) -> String {
    const CURE: &str = "read less often, or raise it";
    match limit {
        RateLimit::Share(percent) => format!(
            "Cycles are skipped, since reading may take {percent} % of the PLC's time (max_share): \
             {CURE}."
        ),
        RateLimit::Requests(most) => format!(
            "Cycles are skipped, since {most} requests a second are allowed (max_requests): {CURE}."
        ),
    }
}

/// Which tags a PLC refuses, and what to do about it; nothing when there are none.
pub(super) fn refusal(tags: &[QuarantinedTag]) -> Option<String> {
    const MOST_NAMED: usize = 3;
    let named = tags.iter().take(MOST_NAMED);
    let named: Vec<_> =
        named.map(|QuarantinedTag { tag, at, .. }| format!("{tag} ({at})")).collect();
    let (named, more) = (named.join(", "), tags.len().saturating_sub(MOST_NAMED));
    let which = match (tags.len(), more) {
        (0, _) => return None,
        (_, 0) => named,
        (_, more) => format!("{named} and {more} more"),
    };
    let (them, are) = if tags.len() == 1 { ("it", "it is") } else { ("them", "they are") };
    Some(format!(
        "The PLC refuses {which}: correct the address or remove {them}; {are} tried again now and \
         then, and all others are read."
    ))
}

fn waiting(status: &Status, sentence: &str) -> String {
    match status.queue.stored {
        0 => sentence.to_owned(),
        1 => format!("{sentence} 1 sample waits for it."),
        stored => format!("{sentence} {stored} samples wait for it."),
    }
}

fn in_state(status: &Status, state: ConnectionState) -> impl Iterator<Item = &PlcStatus> {
    status.plcs.iter().filter(move |plc| plc.state == state)
}

/// The headline, and a table with one line for each part.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", Escaped(&headline(self)))?;
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
    let mut rows = vec![
        StatusRow {
            part: "gateway",
            name: escaped(&status.gateway.id),
            state: format!("up {}", elapsed(status.gateway.started, now)),
            text: escaped(&format!(
                "Version {}, configuration {}, at {now}.{}",
                status.gateway.version,
                status.gateway.config.hash,
                status
                    .gateway
                    .clock
                    .as_ref()
                    .map_or_else(String::new, |clock| { format!(" {}", clock.sentence) })
            )),
        },
        StatusRow {
            part: "broker",
            name: escaped(status.broker.address.as_deref().unwrap_or("-")),
            state: state(status.broker.state, status.broker.since, now),
            text: escaped(status.broker.refusal.as_ref().unwrap_or(&status.broker.sentence)),
        },
        queue_row(&status.queue),
    ];
    if let Some(tunnel) = &status.tunnel {
        rows.insert(1, tunnel_row(tunnel, now));
    }
    rows.extend(status.plcs.iter().map(|plc| StatusRow {
        part: "PLC",
        name: escaped(&plc.name),
        state: state(plc.state, plc.since, now),
        text: escaped(&plc_text(plc)),
    }));
    rows
}

fn tunnel_row(tunnel: &TunnelStatus, now: UnixTime) -> StatusRow {
    StatusRow {
        part: "tunnel",
        name: escaped(&tunnel.hub),
        state: format!(
            "{} {}",
            escaped(&tunnel.state.replace('_', " ")),
            elapsed(tunnel.since, now)
        ),
        text: escaped(&tunnel.sentence),
    }
}

fn queue_row(queue: &QueueStatus) -> StatusRow {
    let mut text = format!("{} of {}", size(queue.bytes), size(queue.max_bytes));
    if let Some(hours) = queue.hours {
        text.push_str(&format!(", enough for {hours} h more without a broker"));
    }
    if let Some(oldest) = queue.oldest {
        text.push_str(&format!(", oldest from {oldest}"));
    }
    text.push_str(&format!(", {} dropped since the start.", queue.dropped));
    if let Some(storage) = &queue.storage {
        text.push_str(&format!(" Attention: {storage}."));
    }
    let state = format!("{} samples wait", queue.stored);
    StatusRow { part: "queue", name: "-".to_owned(), state, text }
}

fn plc_text(plc: &PlcStatus) -> String {
    let mut text = plc.sentence.clone();
    for more in plc.refusal.iter().chain(&plc.limit) {
        text.push(' ');
        text.push_str(more);
    }
    if let Some(seconds) = plc.tried_within_seconds {
        let within = match seconds {
            0..180 => format!("{seconds} s"),
            _ => format!("{} min", seconds.div_ceil(60)),
        };
        text.push_str(&format!(" It is tried again within {within}."));
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

fn state(state: ConnectionState, since: UnixTime, now: UnixTime) -> String {
    format!("{} {}", state.as_str(), elapsed(since, now))
}

/// A sentence with a capital and a full stop, whoever began it in the middle.
pub(super) fn to_sentence(sentence: &str) -> String {
    let mut letters = sentence.trim_end_matches('.').chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

/// The two largest units: `3 h 12 min`.
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

/// With one digit after the point: `4.1 KiB`.
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

/// Text from elsewhere, such as a PLC's name for itself, that must not steer a terminal.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .try_for_each(|c| fmt::Write::write_char(f, c))
    }
}
