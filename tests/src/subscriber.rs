//! `mosquitto_sub` as the consumer, or a program that tells what it gets in the same form.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Log, Process};

/// It writes its SUBACK line with the next message only, unless its output is line buffered.
pub(crate) const SUBSCRIBE_COMMAND: [&str; 3] = ["stdbuf", "-oL", "mosquitto_sub"];

/// A consumer that is subscribed. It comes back by itself when the broker does. Dropping it kills
/// it.
#[derive(Debug)]
pub struct Subscriber {
    process: Process,
    events: Receiver<SubscriberEvent>,
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
enum SubscriberEvent {
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
        /// A cluster that has just lost a node is silent for up to 20 s.
        const SUBACK_TIMEOUT: Duration = Duration::from_secs(40);
        let mut subscriber = Self::launch(client.args(["-q", "2", "-d", "-F", "%j", "-t", filter]));
        let log = subscriber.process.log().clone();
        loop {
            match subscriber.events.recv_timeout(SUBACK_TIMEOUT) {
                Ok(SubscriberEvent::Subscribed) => return subscriber,
                Ok(SubscriberEvent::Message(message)) => {
                    subscriber.waiting.get_mut().push_back(message)
                }
                Err(error) => panic!("not subscribed: {error}; {}", log.text()),
            }
        }
    }

    /// [`Self::start`] at a broker of 127.0.0.1 that speaks MQTT 3.1.1, with a session that
    /// outlives the connection.
    pub(crate) fn start_persistent_v4(port: u16, client_id: &str, filter: &str) -> Self {
        let mut client = Command::new(SUBSCRIBE_COMMAND[0]);
        client.args(&SUBSCRIBE_COMMAND[1..]).args(["-V", "mqttv311", "-h", "127.0.0.1"]);
        client.args(["-p", &port.to_string(), "-i", client_id, "-c"]);
        Self::start(client, filter)
    }

    /// Starts any program that writes what it gets as `mosquitto_sub -F %j` does. Nothing is known
    /// about its subscription.
    pub(crate) fn launch(program: &mut Command) -> Self {
        let mut process = Process::start(program);
        let events = follow(process.stdout());
        Self { process, events, waiting: RefCell::default() }
    }

    /// Asks it to stop (SIGTERM), so that it says goodbye to the broker, waits for its end, and
    /// gives what came until then and nobody has looked at: the broker will not send it again.
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

    /// What it writes to standard error.
    #[must_use]
    pub const fn log(&self) -> &Log {
        self.process.log()
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
                Ok(SubscriberEvent::Message(message)) => return Some(message),
                Ok(SubscriberEvent::Subscribed) => {}
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the consumer has ended: {}", self.process.log().text())
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

    /// Everything that arrives until nothing has come for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Vec<Message> {
        std::iter::from_fn(|| self.try_next(quiet)).collect()
    }
}

/// With `-d` it tells about the protocol on the same pipe; only its SUBACK line matters.
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
