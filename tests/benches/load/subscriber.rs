//! The consumer: counts values and measures the age of each DINT on arrival.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, Publish, QoS};

/// Suffixes of tag names.
const KINDS: [&str; 4] = ["i16", "u16", "i32", "f32"];
/// Highest plausible age of a value: ten minutes, in units of 100 µs.
const OLDEST: u32 = 6_000_000;

/// Values that arrived in the measured window.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) messages: u64,
    pub(crate) values: u64,
    /// Payload bytes of messages with values.
    pub(crate) bytes: u64,
    /// Values that must be wrong.
    pub(crate) wrong: u64,
    /// Ages in units of 100 µs, unsorted.
    pub(crate) ages: Vec<u32>,
}

impl Arrived {
    /// Returns a percentile of the ages, in milliseconds.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        self.ages.sort_unstable();
        let index = ((self.ages.len() as f64 * share) as usize).min(self.ages.len().max(1) - 1);
        self.ages.get(index).map_or(f64::NAN, |&age| f64::from(age) / 10.0)
    }
}

/// A subscription to all topics.
#[derive(Debug)]
pub(crate) struct Subscriber {
    messages: mpsc::Receiver<(u64, Publish)>,
}

impl Subscriber {
    /// Subscribes and waits for the SUBACK.
    pub(crate) fn start(port: u16) -> Self {
        let mut options = MqttOptions::new("load-subscriber", "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 10);
        client.subscribe("#", QoS::AtMostOnce).expect("the queue has room");
        let (sender, messages) = mpsc::sync_channel(100_000);
        let (confirmed, wait) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let _client = client;
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _ = confirmed.try_send(());
                    }
                    Ok(Event::Incoming(Packet::Publish(publish))) => {
                        if sender.send((super::clock::now_micros(), publish)).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        wait.recv().expect("the broker confirms");
        Self { messages }
    }

    /// Waits for the first value.
    pub(crate) fn first(&self, limit: Duration) -> Option<Instant> {
        let end = Instant::now() + limit;
        let mut arrived = Arrived::default();
        while arrived.values == 0 {
            let left = end.saturating_duration_since(Instant::now());
            let (at, publish) = self.next(left)?;
            arrived.count(&publish.topic, &publish.payload, at);
        }
        Some(Instant::now())
    }

    /// Returns the next message and its time of arrival, in microseconds since 1970.
    pub(crate) fn next(&self, limit: Duration) -> Option<(u64, Publish)> {
        self.messages.recv_timeout(limit).ok()
    }

    /// Counts the values that arrive within `window`.
    pub(crate) fn measure(&self, window: Duration) -> Arrived {
        while self.messages.try_recv().is_ok() {}
        let end = Instant::now() + window;
        let last = super::clock::now_micros() + window.as_micros() as u64;
        let mut arrived = Arrived::default();
        while let Some((at, publish)) = self.next(end.saturating_duration_since(Instant::now())) {
            // Messages in the channel may have arrived before the end or after it.
            if at > last {
                break;
            }
            arrived.count(&publish.topic, &publish.payload, at);
        }
        arrived
    }
}

impl Arrived {
    /// Counts the values of a message: `tN_KIND":VALUE` in the JSON of any gateway, or a plain value on a
    /// topic that ends in `tN_KIND`.
    pub(crate) fn count(&mut self, topic: &str, payload: &[u8], at: u64) {
        let Ok(text) = std::str::from_utf8(payload) else { return };
        let before = self.values;
        match topic.rsplit_once('_') {
            Some((_, kind)) if KINDS.contains(&kind) => self.take(kind, text, at),
            _ => {
                for (found, _) in text.match_indices('_') {
                    let rest = &text[found + 1..];
                    let (Some(kind), Some(value)) = (rest.get(..3), rest.get(3..)) else {
                        continue;
                    };
                    if let Some(value) = value.strip_prefix("\":")
                        && KINDS.contains(&kind)
                    {
                        self.take(kind, value, at);
                    }
                }
            }
        }
        if self.values > before {
            self.messages += 1;
            self.bytes += payload.len() as u64;
        }
    }

    /// Counts the number at the start of `text`.
    fn take(&mut self, kind: &str, text: &str, at: u64) {
        let text = text.trim_start();
        if !text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return;
        }
        self.values += 1;
        if kind == "i32" {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let age = text[..end].parse().map(|then| super::clock::stamp(at).wrapping_sub(then));
            // A time in the future or long ago shows a wrong word order.
            match age.map(|age| age & 0x7fff_ffff) {
                Ok(age) if age < OLDEST => self.ages.push(age),
                Ok(_) | Err(_) => self.wrong += 1,
            }
        }
    }
}
