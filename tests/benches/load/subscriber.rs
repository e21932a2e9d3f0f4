//! The other end: counts values, and tells how old each DINT is when it arrives.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

/// What arrived in the measured window.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    pub(crate) messages: u64,
    pub(crate) values: u64,
    /// Ages in 100 µs, unsorted.
    pub(crate) ages: Vec<u32>,
}

impl Arrived {
    /// The age in milliseconds below which this share of the values lies.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        self.ages.sort_unstable();
        let index = ((self.ages.len() as f64 * share) as usize).min(self.ages.len().max(1) - 1);
        self.ages.get(index).map_or(f64::NAN, |&age| f64::from(age) / 10.0)
    }
}

/// A subscription to everything.
#[derive(Debug)]
pub(crate) struct Subscriber {
    messages: mpsc::Receiver<(u64, Vec<u8>)>,
}

impl Subscriber {
    /// Subscribes, and returns when the broker has confirmed it.
    pub(crate) fn start(port: u16) -> Self {
        let mut options = MqttOptions::new("load-subscriber", "127.0.0.1", port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 10);
        client.subscribe("edge/+/data/#", QoS::AtMostOnce).expect("the queue has room");
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
                        let arrived = (super::now_micros(), publish.payload.to_vec());
                        if sender.send(arrived).is_err() {
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

    /// Waits for the first message.
    pub(crate) fn first(&self, limit: Duration) -> Option<Instant> {
        self.messages.recv_timeout(limit).ok().map(|_| Instant::now())
    }

    /// Counts what arrives within `window`.
    pub(crate) fn measure(&self, window: Duration) -> Arrived {
        while self.messages.try_recv().is_ok() {}
        let end = Instant::now() + window;
        let mut arrived = Arrived::default();
        while let Ok((at, payload)) =
            self.messages.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            arrived.messages += 1;
            count(&payload, at, &mut arrived);
        }
        arrived
    }
}

/// Finds `tN_KIND":VALUE` in the text of any gateway's JSON.
fn count(payload: &[u8], at: u64, arrived: &mut Arrived) {
    let Ok(text) = std::str::from_utf8(payload) else { return };
    for kind in ["_i16\":", "_u16\":", "_f32\":", "_i32\":"] {
        for (found, _) in text.match_indices(kind) {
            let value = &text[found + kind.len()..];
            let end = value.find([',', '}']).unwrap_or(value.len());
            let Ok(number) = value[..end].parse::<f64>() else { continue };
            arrived.values += 1;
            if kind == "_i32\":" {
                let now = super::stamp(at);
                arrived.ages.push(now.wrapping_sub(number as u32) & 0x7fff_ffff);
            }
        }
    }
}
