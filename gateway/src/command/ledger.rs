//! What the gateway remembers of commands, also after a power cut: which ids were used, and what
//! became of them. Pure; the caller appends the batches to a file and reads it at the start.
//!
//! The file has one record per line: the CRC-32C of the rest as 8 hexadecimal digits, a space, and
//! JSON. A line that a power cut has torn, or that is damaged, does not count. The ledger does not
//! use the wall clock, which may jump: it counts the time during which the gateway runs. So an id
//! is kept for at least 7 days, and longer while the gateway is off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::CommandId;
use super::{CommandReply, MAX_ALL_IDS, MAX_IDS};
use crate::model::ProgramSignature;

/// How long an id is kept.
const ID_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A longer reply is stored without its tags, so that many replies take little memory.
const MAX_STORED_REPLY: usize = 512;
/// A file shorter than this is not rewritten.
const MIN_REWRITE_BYTES: u64 = 256 << 10;
/// How often a full ledger looks for ids that are old: that takes a look at each of them.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// How often the running time is recorded while there are ids.
const RUNNING_INTERVAL: Duration = Duration::from_secs(3600);

/// An accepted command, as it is recorded before its first write.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Intent {
    pub(super) number: u64,
    /// `plc.name`: indices change with the configuration.
    pub(super) plc: String,
    /// JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
    /// Values by the names of their tags.
    pub(super) write: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub(super) expect: Map<String, Value>,
}

/// One line of the file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum LedgerRecord {
    Intent {
        seconds: u64,
        #[serde(flatten)]
        intent: Intent,
    },
    Outcome {
        seconds: u64,
        number: u64,
        plc: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        reply: Map<String, Value>,
    },
    Running {
        seconds: u64,
    },
    /// The first program of a PLC that was seen with a configuration.
    Program(AcceptedProgram),
}

/// The program with which a PLC may be written to, where the configuration names none.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct AcceptedProgram {
    pub(super) plc: String,
    /// Hash of the configuration.
    pub(super) config: String,
    pub(super) signature: ProgramSignature,
}

/// What is known of an id.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum IdState {
    /// The command is not over.
    UnderWay,
    /// The command is over, and this process sent the reply.
    Answered(CommandReply),
    /// The command was over before this process started; the requester may not have the reply.
    Stored(CommandReply),
}

#[derive(Clone, Debug)]
struct KnownId {
    /// Running time at its last record, in seconds.
    seconds: u64,
    number: u64,
    outcome: Option<StoredReply>,
}

#[derive(Clone, Debug)]
struct StoredReply {
    body: Box<str>,
    is_of_this_run: bool,
}

/// Lines for the file of the ledger.
#[derive(Debug)]
pub struct LedgerBatch {
    /// One or more lines.
    pub bytes: Vec<u8>,
    /// Whether they have to be durable before anything is written to a PLC.
    pub has_intents: bool,
    /// Whether they are the whole new file, instead of lines to append.
    pub replaces_file: bool,
}

/// The ids of all PLCs, and the commands that are not over.
#[derive(Debug)]
pub(super) struct CommandLedger {
    ids: BTreeMap<String, BTreeMap<CommandId, KnownId>>,
    /// Commands without an outcome.
    open: BTreeMap<u64, Intent>,
    /// By the name of the PLC.
    programs: BTreeMap<String, AcceptedProgram>,
    next_number: u64,
    /// Running time before this process, and when it started.
    seconds_before: u64,
    started: Instant,
    lines: Vec<u8>,
    has_intents: bool,
    recorded_running_at: Instant,
    /// When it looked for old ids last because it was full.
    looked_for_room_at: Option<Instant>,
    file_bytes: u64,
    /// Bytes of the file after it was rewritten last.
    rewritten_bytes: u64,
}

impl CommandLedger {
    /// Returns the ledger with the records of a file; empty for a new one.
    pub(super) fn load(file: &[u8], now: Instant) -> Self {
        let mut ledger = Self {
            ids: BTreeMap::new(),
            open: BTreeMap::new(),
            programs: BTreeMap::new(),
            next_number: 0,
            seconds_before: 0,
            started: now,
            lines: Vec::new(),
            has_intents: false,
            recorded_running_at: now,
            looked_for_room_at: None,
            file_bytes: file.len().try_into().unwrap_or(u64::MAX),
            rewritten_bytes: 0,
        };
        for line in file.split(|byte| *byte == b'\n') {
            if let Some(record) = parse_line(line) {
                ledger.replay(record);
            }
        }
        // What follows a torn line must not continue it.
        if file.last().is_some_and(|last| *last != b'\n') {
            ledger.lines.push(b'\n');
        }
        ledger
    }

    fn replay(&mut self, record: LedgerRecord) {
        match record {
            LedgerRecord::Running { seconds } => self.on_seconds(seconds),
            LedgerRecord::Program(program) => {
                self.programs.insert(program.plc.clone(), program);
            }
            LedgerRecord::Intent { seconds, intent } => {
                self.on_seconds(seconds);
                self.next_number = self.next_number.max(intent.number.saturating_add(1));
                self.insert(&intent, seconds);
                self.open.insert(intent.number, intent);
            }
            LedgerRecord::Outcome { seconds, number, plc, id, reply } => {
                self.on_seconds(seconds);
                self.next_number = self.next_number.max(number.saturating_add(1));
                self.open.remove(&number);
                let Some(id) = id.map(CommandId::from_json_text) else { return };
                let body = Value::Object(reply).to_string().into();
                let outcome = Some(StoredReply { body, is_of_this_run: false });
                self.ids.entry(plc).or_default().insert(id, KnownId { seconds, number, outcome });
            }
        }
    }

    fn on_seconds(&mut self, seconds: u64) {
        self.seconds_before = self.seconds_before.max(seconds);
    }

    /// Returns the running time in seconds, over all runs.
    fn seconds(&self, now: Instant) -> u64 {
        self.seconds_before.saturating_add(now.saturating_duration_since(self.started).as_secs())
    }

    fn insert(&mut self, intent: &Intent, seconds: u64) {
        let Some(id) = intent.id.clone().map(CommandId::from_json_text) else { return };
        let known = KnownId { seconds, number: intent.number, outcome: None };
        self.ids.entry(intent.plc.clone()).or_default().insert(id, known);
    }

    /// Returns the program of a PLC that was recorded with this configuration.
    pub(super) fn program(&self, plc: &str, config: &str) -> Option<ProgramSignature> {
        let program = self.programs.get(plc).filter(|program| program.config == config);
        program.map(|program| program.signature)
    }

    /// Records the first program of a PLC that was seen with a configuration.
    pub(super) fn set_program(&mut self, program: AcceptedProgram) {
        push_line(&mut self.lines, &LedgerRecord::Program(program.clone()));
        self.programs.insert(program.plc.clone(), program);
    }

    /// Returns the commands of earlier runs that have no outcome.
    pub(super) fn open(&self) -> impl Iterator<Item = &Intent> {
        self.open.values()
    }

    /// Returns what is known of an id.
    pub(super) fn find(&self, plc: &str, id: &CommandId) -> Option<IdState> {
        let Some(stored) = &self.ids.get(plc)?.get(id)?.outcome else {
            return Some(IdState::UnderWay);
        };
        let reply = CommandReply::from_stored(&stored.body)?;
        Some(if stored.is_of_this_run { IdState::Answered(reply) } else { IdState::Stored(reply) })
    }

    /// Returns whether there is room for another id of this PLC. Forgets only ids that are old, and
    /// looks for them once a minute: a flood of commands must not cost a look at each id.
    pub(super) fn has_room(&mut self, plc: &str, now: Instant) -> bool {
        let is_full = |ledger: &Self| {
            ledger.ids.get(plc).is_some_and(|ids| ids.len() >= MAX_IDS)
                || ledger.ids.values().map(BTreeMap::len).sum::<usize>() >= MAX_ALL_IDS
        };
        let is_look_due = self.looked_for_room_at.is_none_or(|at| now >= at + FORGET_INTERVAL);
        if is_full(self) && is_look_due {
            self.looked_for_room_at = Some(now);
            self.forget_old(now);
        }
        !is_full(self)
    }

    fn forget_old(&mut self, now: Instant) {
        let seconds = self.seconds(now);
        let is_kept = |known: &KnownId| {
            known.outcome.is_none() || seconds < known.seconds.saturating_add(ID_AGE.as_secs())
        };
        self.ids.values_mut().for_each(|ids| ids.retain(|_, known| is_kept(known)));
        self.ids.retain(|_, ids| !ids.is_empty());
    }

    /// Returns the number of the next command.
    pub(super) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Records a command that is about to be carried out.
    pub(super) fn begin(&mut self, intent: Intent, now: Instant) {
        let seconds = self.seconds(now);
        self.next_number = self.next_number.max(intent.number.saturating_add(1));
        self.insert(&intent, seconds);
        self.has_intents = true;
        push_line(&mut self.lines, &LedgerRecord::Intent { seconds, intent: intent.clone() });
        self.open.insert(intent.number, intent);
    }

    /// Records how a command ended.
    pub(super) fn end(&mut self, number: u64, reply: &CommandReply, now: Instant) {
        let Some(intent) = self.open.remove(&number) else { return };
        let seconds = self.seconds(now);
        let mut body = reply.body.clone();
        if Value::Object(body.clone()).to_string().len() > MAX_STORED_REPLY {
            body.shift_remove("tags");
        }
        let id = intent.id.clone().map(CommandId::from_json_text);
        let known = id.and_then(|id| self.ids.get_mut(&intent.plc)?.get_mut(&id));
        if let Some(known) = known.filter(|known| known.number == number) {
            let body = Value::Object(body.clone()).to_string().into();
            known.outcome = Some(StoredReply { body, is_of_this_run: true });
            known.seconds = seconds;
        }
        let Intent { plc, id, .. } = intent;
        let record = LedgerRecord::Outcome { seconds, number, plc, id, reply: body };
        push_line(&mut self.lines, &record);
    }

    /// Forgets a command that was never carried out and got a reply that says so: its id may be
    /// used again.
    pub(super) fn withdraw(&mut self, number: u64, reply: &CommandReply, now: Instant) {
        let intent = self.open.get(&number).cloned();
        self.end(number, reply, now);
        let id = intent.as_ref().and_then(|intent| intent.id.clone());
        let (Some(intent), Some(id)) = (intent, id.map(CommandId::from_json_text)) else { return };
        if let Some(ids) = self.ids.get_mut(&intent.plc) {
            ids.remove(&id);
        }
    }

    /// Returns what has to be appended to the file now, if anything. Call it again after the bytes
    /// were written, or after they could not be.
    pub(super) fn take_batch(&mut self, now: Instant) -> Option<LedgerBatch> {
        let is_running_due = now >= self.recorded_running_at + RUNNING_INTERVAL;
        if is_running_due && !self.ids.is_empty() {
            self.recorded_running_at = now;
            self.forget_old(now);
            let seconds = self.seconds(now);
            push_line(&mut self.lines, &LedgerRecord::Running { seconds });
        }
        if self.lines.is_empty() {
            return None;
        }
        let has_intents = std::mem::take(&mut self.has_intents);
        let bytes = std::mem::take(&mut self.lines);
        self.file_bytes += u64::try_from(bytes.len()).unwrap_or_default();
        let is_long = self.file_bytes > MIN_REWRITE_BYTES.max(2 * self.rewritten_bytes);
        if !is_long {
            return Some(LedgerBatch { bytes, has_intents, replaces_file: false });
        }
        let bytes = self.all_lines(now);
        self.file_bytes = u64::try_from(bytes.len()).unwrap_or_default();
        self.rewritten_bytes = self.file_bytes;
        Some(LedgerBatch { bytes, has_intents, replaces_file: true })
    }

    /// Records that a batch could not be written: the next one is the whole file, because a part
    /// of this one may be there.
    pub(super) const fn on_batch_failed(&mut self) {
        self.file_bytes = u64::MAX / 2;
    }

    /// Returns the lines of a file that holds everything that is remembered, and nothing else.
    fn all_lines(&mut self, now: Instant) -> Vec<u8> {
        self.forget_old(now);
        let mut lines = Vec::new();
        push_line(&mut lines, &LedgerRecord::Running { seconds: self.seconds(now) });
        for (plc, ids) in &self.ids {
            for (id, known) in ids {
                let reply = known.outcome.as_ref();
                let reply = reply.and_then(|stored| serde_json::from_str(&stored.body).ok());
                let Some(reply) = reply else { continue };
                let KnownId { seconds, number, .. } = *known;
                let id = Some(id.as_json_text().to_owned());
                let plc = plc.clone();
                push_line(&mut lines, &LedgerRecord::Outcome { seconds, number, plc, id, reply });
            }
        }
        for program in self.programs.values().cloned() {
            push_line(&mut lines, &LedgerRecord::Program(program));
        }
        let seconds = self.seconds(now);
        for intent in self.open.values().cloned() {
            push_line(&mut lines, &LedgerRecord::Intent { seconds, intent });
        }
        lines
    }
}

fn push_line(lines: &mut Vec<u8>, record: &LedgerRecord) {
    // A record of texts, numbers and JSON always has a JSON form.
    let Ok(json) = serde_json::to_string(record) else { return };
    let line = format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes()));
    lines.extend_from_slice(line.as_bytes());
}

fn parse_line(line: &[u8]) -> Option<LedgerRecord> {
    let (sum, json) = line.split_at_checked(8)?;
    let json = json.strip_prefix(b" ")?;
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (crc32c::crc32c(json) == sum).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandState;

    /// Returns a ledger in which each of these PLCs has [`MAX_IDS`] ids.
    fn full_ledger(plcs: &[&str], now: Instant) -> CommandLedger {
        let mut ledger = CommandLedger::load(&[], now);
        for plc in plcs {
            for id in 0..MAX_IDS {
                let number = ledger.next_number();
                let (plc, id) = ((*plc).to_owned(), Some(id.to_string()));
                let (write, expect) = (Map::new(), Map::new());
                ledger.begin(Intent { number, plc, id, by: None, write, expect }, now);
                let reply = CommandReply { state: CommandState::Done, body: Map::new() };
                ledger.end(number, &reply, now);
            }
        }
        ledger
    }

    #[test]
    fn all_plcs_together_have_fifty_thousand_ids() {
        let now = Instant::now();
        let mut ledger = full_ledger(&["a", "b", "c", "d"], now);
        assert!(!ledger.has_room("a", now) && ledger.has_room("f", now));
        let mut ledger = full_ledger(&["a", "b", "c", "d", "e"], now);
        assert!(!ledger.has_room("f", now));
    }

    #[test]
    fn a_full_ledger_looks_for_old_ids_once_a_minute() {
        let start = Instant::now();
        let mut ledger = full_ledger(&["a"], start);
        let old = start + ID_AGE;
        let second = Duration::from_secs(1);
        assert!(!ledger.has_room("a", old - second));
        assert!(!ledger.has_room("a", old), "it has just looked");
        assert!(!ledger.has_room("a", old - second + FORGET_INTERVAL - second));
        assert!(ledger.has_room("a", old - second + FORGET_INTERVAL));
    }

    fn intent(ledger: &CommandLedger, id: Option<&str>) -> Intent {
        Intent {
            number: ledger.next_number(),
            plc: "a".to_owned(),
            id: id.map(|id| format!("{id:?}")),
            by: None,
            write: Map::new(),
            expect: Map::new(),
        }
    }

    #[test]
    fn a_reply_of_more_than_512_bytes_is_stored_without_its_tags() {
        let now = Instant::now();
        for (bytes, has_tags) in [(511, true), (512, true), (513, false), (5000, false)] {
            let mut ledger = CommandLedger::load(&[], now);
            let intent = intent(&ledger, Some("x"));
            let id = CommandId::from_json_text(intent.id.clone().unwrap());
            ledger.begin(intent, now);
            let empty = r#"{"state":"done","tags":{"t":""}}"#.len();
            let text = "x".repeat(bytes - empty);
            let body = serde_json::json!({"state": "done", "tags": {"t": text}});
            assert_eq!(body.to_string().len(), bytes);
            let body = body.as_object().unwrap().clone();
            ledger.end(0, &CommandReply { state: CommandState::Done, body }, now);
            let Some(IdState::Answered(reply)) = ledger.find("a", &id) else { panic!("{bytes}") };
            assert_eq!(
                (&reply.body["state"], reply.body.contains_key("tags")),
                (&"done".into(), has_tags)
            );
        }
    }

    #[test]
    fn a_file_of_more_than_256_kib_is_replaced_by_what_is_remembered() {
        let now = Instant::now();
        let batch = |file: &[u8]| {
            let mut ledger = CommandLedger::load(file, now);
            let intent = intent(&ledger, Some("x"));
            ledger.begin(intent, now);
            ledger.take_batch(now).unwrap()
        };
        let new = batch(&[]);
        assert!(!new.replaces_file && new.has_intents);
        let full = 262_144 - new.bytes.len();
        assert!(!batch(&vec![b'\n'; full]).replaces_file);
        let rewritten = batch(&vec![b'\n'; full + 1]);
        assert!(rewritten.replaces_file && rewritten.has_intents);
        // The file has the running time and the one command.
        let lines = rewritten.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        assert_eq!(lines.count(), 2);
        let after = CommandLedger::load(&rewritten.bytes, now);
        assert_eq!(after.open().count(), 1);
    }

    #[test]
    fn a_batch_that_could_not_be_written_is_in_the_next_one() {
        let now = Instant::now();
        let mut ledger = CommandLedger::load(&[], now);
        for id in ["x", "y"] {
            let intent = intent(&ledger, Some(id));
            ledger.begin(intent, now);
            let batch = ledger.take_batch(now).unwrap();
            assert_eq!(batch.replaces_file, id == "y");
            assert_eq!(
                CommandLedger::load(&batch.bytes, now).open().count(),
                ledger.open().count()
            );
            ledger.on_batch_failed();
        }
    }
}
