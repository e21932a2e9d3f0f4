//! `mosquitto_sub` as the consumer, or a program that prints messages in the same form.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Log, Process};

/// Without line buffering it would print its SUBACK line only with the next message.
pub(crate) const SUBSCRIBE_COMMAND: [&str; 3] = ["stdbuf", "-oL", "mosquitto_sub"];

/// A subscribed consumer. It reconnects automatically. Dropping it kills it.
#[derive(Debug)]
pub struct Subscriber {
    process: Process,
    events: Receiver<SubscriberEvent>,
    /// Stored messages of a resumed session, which arrive before the SUBACK.
    waiting: RefCell<VecDeque<Message>>,
}

/// A received message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Topic.
    pub topic: String,
    /// Payload.
    pub payload: String,
    /// Quality of service of the publisher, since that of the subscriber is 2.
    pub qos: u8,
    /// Whether it is a retained message of the broker.
    pub retained: bool,
    /// Time of arrival: `2026-11-23T18:44:20.110549Z+0000`.
    pub arrived: String,
}

#[derive(Debug)]
enum SubscriberEvent {
    Subscribed,
    Message(Message),
}

impl Message {
    /// Returns the payload as JSON.
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
    /// Starts `mosquitto_sub` with the arguments of `client` and waits for the SUBACK.
    pub(crate) fn start(mut client: Command, filter: &str) -> Self {
        /// A cluster that has just lost a node does not answer for up to 20 s.
        const SUBACK_TIMEOUT: Duration = Duration::from_secs(40);
        let mut subscriber = Self::launch(client.args(["-q", "2", "-d", "-F", "%j", "-t", filter]));
        let log = subscriber.process.log().clone();
        loop {
            match subscriber.events.recv_timeout(SUBACK_TIMEOUT) {
                Ok(SubscriberEvent::Subscribed) => return subscriber,
                Ok(SubscriberEvent::Message(message)) => {
                    subscriber.waiting.get_mut().push_back(message);
                }
                Err(error) => panic!("not subscribed: {error}; {}", log.text()),
            }
        }
    }

    /// Subscribes at a broker on 127.0.0.1 with MQTT 3.1.1 and a persistent session.
    pub(crate) fn start_persistent_v4(port: u16, client_id: &str, filter: &str) -> Self {
        let mut client = Command::new(SUBSCRIBE_COMMAND[0]);
        client.args(&SUBSCRIBE_COMMAND[1..]).args(["-V", "mqttv311", "-h", "127.0.0.1"]);
        client.args(["-p", &port.to_string(), "-i", client_id, "-c"]);
        Self::start(client, filter)
    }

    /// Starts any program that prints messages like `mosquitto_sub -F %j`. Does not wait for its
    /// subscription.
    pub(crate) fn launch(program: &mut Command) -> Self {
        let mut process = Process::start(program);
        let events = follow(process.stdout());
        Self { process, events, waiting: RefCell::default() }
    }

    /// Sends SIGTERM, so that it disconnects from the broker, and waits for its end. Returns the
    /// messages that were received but not read yet: the broker does not send them again.
    #[must_use]
    pub fn stop(mut self) -> Vec<Message> {
        const STOP_TIMEOUT: Duration = Duration::from_secs(20);
        self.process.terminate();
        self.process.wait(STOP_TIMEOUT);
        let rest = self.events.into_iter().filter_map(|event| match event {
            SubscriberEvent::Message(message) => Some(message),
            SubscriberEvent::Subscribed => None,
        });
        self.waiting.into_inner().into_iter().chain(rest).collect()
    }

    /// Returns the lines of its standard error.
    #[must_use]
    pub const fn log(&self) -> &Log {
        self.process.log()
    }

    /// Returns the next message, if one arrives in time.
    pub fn try_next(&self, deadline: Duration) -> Option<Message> {
        if let Some(message) = self.waiting.borrow_mut().pop_front() {
            return Some(message);
        }
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(SubscriberEvent::Message(message)) => return Some(message),
                Ok(SubscriberEvent::Subscribed) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the consumer has ended: {}", self.process.log().text())
                }
            }
        }
    }

    /// Returns the next message.
    ///
    /// # Panics
    /// When none arrives in time.
    pub fn next(&self, deadline: Duration) -> Message {
        self.try_next(deadline).unwrap_or_else(|| panic!("no message within {deadline:?}"))
    }

    /// Returns the next message that satisfies `wanted` and discards those before it.
    ///
    /// # Panics
    /// When none arrives in time.
    pub fn wait_for(
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

    /// Returns all messages until none arrives for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Vec<Message> {
        std::iter::from_fn(|| self.try_next(quiet)).collect()
    }
}

/// With `-d` it prints protocol messages to the same pipe; only the SUBACK line matters.
fn follow(pipe: ChildStdout) -> Receiver<SubscriberEvent> {
    let (events, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let event = if line.starts_with("Subscribed ") {
                SubscriberEvent::Subscribed
            } else if line.starts_with('{') {
                SubscriberEvent::Message(parse(&line))
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
