//! What a consumer got, and whether that is all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Gateway, Message};

/// Data messages in the order of their arrival.
#[derive(Debug, Default)]
pub struct Capture {
    lines: Vec<String>,
    /// Numbers by topic and epoch.
    numbers: BTreeMap<(String, String), BTreeSet<u64>>,
}

/// What became of the samples, from one scrape, so that the figures belong together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SampleCounts {
    /// Taken from the PLCs.
    pub produced: u64,
    /// Acknowledged by the broker.
    pub delivered: u64,
    /// Waiting or under way.
    pub stored: u64,
    /// Given up, for whatever reason.
    pub dropped: u64,
}

impl SampleCounts {
    /// Scrapes them.
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
    /// Takes messages as they arrived, but for those that tell the status, which have no number.
    ///
    /// # Panics
    /// When another one has no stamp.
    #[must_use]
    pub fn of<'m>(messages: impl IntoIterator<Item = &'m Message>) -> Self {
        let mut capture = Self::default();
        let numbered = messages.into_iter().filter(|message| !message.topic.ends_with("/status"));
        numbered.for_each(|message| capture.add(message));
        capture
    }

    /// Takes a message.
    ///
    /// # Panics
    /// When it has no stamp.
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

    /// How many different messages there are.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.numbers.values().map(BTreeSet::len).sum()
    }

    /// How many messages came more than once, each time counted.
    #[must_use]
    pub fn duplicates(&self) -> usize {
        self.lines.len() - self.distinct()
    }

    /// Takes messages until there are so many more different ones.
    ///
    /// # Panics
    /// When they do not come in time.
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

    /// Takes messages until they are as many as the samples that the gateway calls delivered, and
    /// it has nothing left. For PLCs with one tag each that have gone silent: then a message is a
    /// sample.
    ///
    /// # Panics
    /// When that is not so in time, or more came than was delivered.
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

    /// Checks that every topic is there from number 0 on without a hole, and that
    /// `edge-gateway audit` says so too.
    ///
    /// # Panics
    /// When it is not.
    pub fn assert_complete(&self) {
        for ((topic, epoch), numbers) in &self.numbers {
            let count = u64::try_from(numbers.len()).expect("it fits");
            let last = numbers.last().expect("there is a number");
            assert_eq!(last + 1, count, "{topic} in epoch {epoch} has holes: {numbers:?}");
        }
        let (is_clean, report) = self.audit();
        assert!(is_clean, "{report}");
    }

    /// Which numbers of a topic came under an epoch.
    #[must_use]
    pub fn numbers(&self, topic: &str, epoch: &str) -> BTreeSet<u64> {
        self.numbers.get(&(topic.to_owned(), epoch.to_owned())).cloned().unwrap_or_default()
    }

    /// What `edge-gateway audit` says: whether all that is missing was announced, and why.
    #[must_use]
    pub fn audit(&self) -> (bool, String) {
        let mut audit = Command::new(Gateway::program())
            .args(["audit", "--capture", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let mut input = audit.stdin.take().expect("it is piped");
        for line in &self.lines {
            writeln!(input, "{line}").expect("it reads");
        }
        drop(input);
        let output = audit.wait_with_output().expect("it ends");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
