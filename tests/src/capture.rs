//! The messages that a consumer received, and checks for gaps in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Gateway, Message};

/// Messages with a sequence number, in the order of arrival.
#[derive(Debug, Default)]
pub struct Capture {
    lines: Vec<String>,
    /// Sequence numbers by topic and epoch.
    numbers: BTreeMap<(String, String), BTreeSet<u64>>,
}

/// Counters of samples. They come from one scrape, so that they are consistent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SampleCounts {
    /// Read from the PLCs.
    pub produced: u64,
    /// Acknowledged by the broker.
    pub delivered: u64,
    /// In the queue, including those in flight.
    pub stored: u64,
    /// Dropped, for any reason.
    pub dropped: u64,
}

impl SampleCounts {
    /// Scrapes the counters of a gateway.
    #[must_use]
    pub fn of(gateway: &Gateway) -> Self {
        let text = gateway.get("/metrics").body;
        let sum = |name: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        Self {
            produced: sum("edge_samples_produced_total"),
            delivered: sum("edge_samples_delivered_total"),
            stored: sum("edge_samples_stored"),
            dropped: sum("edge_samples_dropped_total"),
        }
    }
}

impl Capture {
    /// Collects messages in the order of arrival, except status messages, which have no number.
    ///
    /// # Panics
    /// When another message has no stamp.
    #[must_use]
    pub fn of<'m>(messages: impl IntoIterator<Item = &'m Message>) -> Self {
        let mut capture = Self::default();
        let numbered = messages.into_iter().filter(|message| !message.topic.ends_with("/status"));
        numbered.for_each(|message| capture.add(message));
        capture
    }

    /// Adds a message.
    ///
    /// # Panics
    /// When the message has no stamp.
    pub fn add(&mut self, message: &Message) {
        let payload = message.json();
        let stamp = &payload["gateway"];
        let (Some(epoch), Some(seq)) = (stamp["epoch"].as_str(), stamp["seq"].as_u64()) else {
            panic!("no stamp: {message:?}");
        };
        self.numbers.entry((message.topic.clone(), epoch.to_owned())).or_default().insert(seq);
        let line = serde_json::json!({"topic": message.topic, "payload": payload});
        self.lines.push(line.to_string());
    }

    /// Returns the number of distinct messages.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.numbers.values().map(BTreeSet::len).sum()
    }

    /// Returns the number of repeated messages, counting each repetition.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.lines.len() - self.distinct()
    }

    /// Adds messages until `wanted` more distinct ones have arrived.
    ///
    /// # Panics
    /// When they do not arrive in time.
    pub fn add_distinct(
        &mut self,
        wanted: usize,
        deadline: Duration,
        mut next: impl FnMut(Duration) -> Option<Message>,
    ) {
        let (end, wanted) = (Instant::now() + deadline, self.distinct() + wanted);
        while self.distinct() < wanted {
            let Some(message) = next(end.saturating_duration_since(Instant::now())) else {
                panic!("not within {deadline:?}: {wanted} messages, only {}", self.distinct());
            };
            self.add(&message);
        }
    }

    /// Adds messages until their number equals the delivered samples and the gateway stores none.
    /// This needs PLCs with one tag each that have stopped: then one message is one sample.
    ///
    /// # Panics
    /// When the numbers do not agree in time.
    pub fn add_rest(
        &mut self,
        gateway: &Gateway,
        deadline: Duration,
        mut next: impl FnMut(Duration) -> Option<Message>,
    ) -> SampleCounts {
        const QUIET: Duration = Duration::from_millis(100);
        let end = Instant::now() + deadline;
        loop {
            while let Some(message) = next(QUIET).filter(|_| Instant::now() < end) {
                self.add(&message);
            }
            let figures = SampleCounts::of(gateway);
            if figures.stored == 0 && u64::try_from(self.distinct()) == Ok(figures.delivered) {
                return figures;
            }
            assert!(
                Instant::now() < end,
                "not within {deadline:?}: all that was delivered; {} came, {figures:?}\n{}",
                self.distinct(),
                gateway.log().text(),
            );
        }
    }

    /// Checks that the numbers of every topic begin at 0 and have no gap, and that
    /// `edge-gateway audit` reports none.
    ///
    /// # Panics
    /// When a number is missing.
    pub fn assert_complete(&self) {
        for ((topic, epoch), numbers) in &self.numbers {
            let count = u64::try_from(numbers.len()).expect("the number fits");
            let last = numbers.last().expect("there is a number");
            assert_eq!(last + 1, count, "{topic} in epoch {epoch} has holes: {numbers:?}");
        }
        let (is_clean, report) = self.audit();
        assert!(is_clean, "{report}");
    }

    /// Returns the numbers of a topic that arrived with an epoch.
    #[must_use]
    pub fn numbers(&self, topic: &str, epoch: &str) -> BTreeSet<u64> {
        self.numbers.get(&(topic.to_owned(), epoch.to_owned())).cloned().unwrap_or_default()
    }

    /// Runs `edge-gateway audit`. Returns whether every missing message was announced, and the
    /// report.
    #[must_use]
    pub fn audit(&self) -> (bool, String) {
        let mut audit = Command::new(Gateway::program())
            .args(["audit", "--capture", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is built");
        let mut input = audit.stdin.take().expect("it is piped");
        for line in &self.lines {
            writeln!(input, "{line}").expect("the process reads its input");
        }
        drop(input);
        let output = audit.wait_with_output().expect("the process ends");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
