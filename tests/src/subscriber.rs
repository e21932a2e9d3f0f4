//! `mosquitto_sub` as the consumer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Process;

/// A consumer that is subscribed. It comes back by itself when the broker does. Dropping it kills
/// it.
#[derive(Debug)]
pub struct Subscriber {
    process: Process,
    events: Receiver<Event>,
    /// What a session that was taken up again had waiting, sent before the SUBACK.
    waiting: RefCell<VecDeque<Message>>,
}

/// One message as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// The lower of the publisher's and the subscriber's quality of service; the latter is 2.
    pub qos: u8,
    /// Whether it is an old message that the broker had kept.
    pub retained: bool,
    /// When it arrived: `2026-11-23T18:44:20.110549Z+0000`.
    pub arrived: String,
}

#[derive(Debug)]
enum Event {
    Subscribed,
    Message(Message),
}

impl Message {
    /// The payload as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.payload)
            .unwrap_or_else(|error| panic!("{error} in the payload of {self:?}"))
    }
}

impl Subscriber {
    /// Starts `mosquitto_sub` with what `client` already holds, and waits for the SUBACK.
    pub(crate) fn start(mut client: Command, filter: &str) -> Self {
        const PATIENCE: Duration = Duration::from_secs(10);
        let mut process = Process::start(client.args(["-q", "2", "-d", "-F", "%j", "-t", filter]));
        let events = follow(process.stdout());
        let mut waiting = VecDeque::new();
        loop {
            match events.recv_timeout(PATIENCE) {
                Ok(Event::Subscribed) => break,
                Ok(Event::Message(message)) => waiting.push_back(message),
                Err(error) => panic!("not subscribed: {error}; {}", process.log().text()),
            }
        }
        Self { process, events, waiting: RefCell::new(waiting) }
    }

    /// The next message; absent when none comes in time.
    pub fn try_next(&self, deadline: Duration) -> Option<Message> {
        if let Some(message) = self.waiting.borrow_mut().pop_front() {
            return Some(message);
        }
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(Event::Message(message)) => return Some(message),
                Ok(Event::Subscribed) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("mosquitto_sub has ended: {}", self.process.log().text())
                }
            }
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn next(&self, deadline: Duration) -> Message {
        self.try_next(deadline).unwrap_or_else(|| panic!("no message within {deadline:?}"))
    }

    /// The next message that satisfies `wanted`; those before it are gone.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn until(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Message) -> bool,
    ) -> Message {
        let end = Instant::now() + deadline;
        let mut others = 0;
        while let Some(message) = self.try_next(end.saturating_duration_since(Instant::now())) {
            if wanted(&message) {
                return message;
            }
            others += 1;
        }
        panic!("not within {deadline:?}, with {others} other messages: {what}")
    }

    /// Everything that arrives until nothing has come for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Vec<Message> {
        std::iter::from_fn(|| self.try_next(quiet)).collect()
    }
}

/// With `-d` it tells about the protocol on the same pipe; only its SUBACK line matters.
fn follow(pipe: ChildStdout) -> Receiver<Event> {
    let (events, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let event = if line.starts_with("Subscribed ") {
                Event::Subscribed
            } else if line.starts_with('{') {
                Event::Message(parse(&line))
            } else {
                continue;
            };
            if events.send(event).is_err() {
                return; // The test has ended.
            }
        }
    });
    receiver
}

fn parse(line: &str) -> Message {
    let fields: Value = serde_json::from_str(line).expect("%j is JSON");
    let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
    Message {
        topic: text("topic"),
        payload: text("payload"),
        qos: fields["qos"].as_u64().and_then(|qos| u8::try_from(qos).ok()).expect("has a QoS"),
        retained: fields["retain"] == 1,
        arrived: text("tst"),
    }
}
