//! Promise 3: the power is cut at any moment, the start included. The gateway starts every time,
//! and the receiver gets everything that its durability promises.
#![expect(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code may stop on the spot, and prints what it has measured"
)]

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Barriers, Capture, CutOutcome, FilesystemState, Gateway, GatewayConfig, Guest, Log, Message,
    Mosquitto, Port, PowerCut, Simulator, Subscriber, eventually, http_get,
};

const SLOW_TIMEOUT: Duration = Duration::from_secs(100);
const TOPIC: &str = "edge/boxed/data/p0";
const SCAN: Duration = Duration::from_millis(20);
/// Interval between scrapes of the gateway.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);

#[test]
fn in_a_guest_strict_keeps_what_it_made_durable_and_all_that_it_sent() {
    let lives = live("strict", Duration::ZERO, 4);
    for life in lives.iter().filter(|life| !life.received.is_empty()) {
        // With `strict`, a message is on the disk before it is sent, so the next run knows its
        // number.
        assert!(life.known > life.received.last().copied(), "{life:?}");
    }
}

#[test]
fn in_a_guest_balanced_keeps_what_it_made_durable() {
    live("balanced", Duration::ZERO, 6);
}

#[test]
fn in_a_guest_low_wear_keeps_what_it_made_durable_and_had_waited_for_five_seconds() {
    live("low-wear", Duration::from_secs(5), 4);
}

/// The negative control: proves that the other tests would notice a loss.
#[test]
fn in_a_guest_a_disk_that_is_never_flushed_loses_what_was_made_durable() {
    let mut world = World::new("balanced", Barriers::Ignored);
    world.broker.stop();
    world.start();
    let mut scrapes = Scrapes::new(Duration::ZERO);
    eventually("something is durable", SLOW_TIMEOUT, || {
        scrapes.ask(&world).filter(|()| scrapes.durable() > 0)
    });
    let left = world.power.cut_losing_all();
    world.broker.start_again();

    let capture = capture(&world.finish());

    let epoch = epoch(&left.console).expect("it had begun");
    assert_eq!(capture.numbers(TOPIC, &epoch), BTreeSet::new(), "it survived without a flush");
}

/// Result of one run of the machine, from boot to power cut.
#[derive(Debug)]
struct Life {
    /// Samples read by the last scrape. Every sample is a message.
    taken: u64,
    /// Samples that were durable by then.
    durable: u64,
    /// Numbers that the receiver got.
    received: BTreeSet<u64>,
    /// First number that the next run did not know.
    known: Option<u64>,
}

/// Boots a machine and cuts its power, `usual` times or `E2E_CUTS` times, every other time without
/// a broker. Checks the promise of every durability: samples that had waited for `settling` and
/// were then synced are not lost.
fn live(durability: &str, settling: Duration, usual: u64) -> Vec<Life> {
    let mut world = World::new(durability, Barriers::Kept);
    let mut random = fastrand::Rng::with_seed(usual);
    let mut ends = Vec::new();
    for cut in 0..test_settings::CUTS.number_or(usual) {
        let is_outage = cut % 2 == 0;
        if is_outage {
            world.broker.stop();
        }
        world.start();
        let mut scrapes = Scrapes::new(settling);
        // Runs without a broker end when something is durable; the others during the start or
        // later.
        if is_outage {
            eventually("something is durable", SLOW_TIMEOUT, || {
                scrapes.ask(&world).filter(|()| scrapes.durable() > 0)
            });
        } else if cut % 4 == 1 {
            eventually("it answers", SLOW_TIMEOUT, || scrapes.ask(&world));
        }
        // A random moment from here on.
        let end = Instant::now() + Duration::from_millis(random.u64(..2_000));
        while Instant::now() < end {
            thread::sleep(SCRAPE_INTERVAL);
            scrapes.ask(&world);
        }
        let CutOutcome { console, flushes, lost_sectors, filesystem } = world.power.cut();
        assert_eq!(filesystem, FilesystemState::Sound);
        println!("cut {cut}: {flushes} flushes, {lost_sectors} sectors lost");
        ends.push((epoch(&console), scrapes));
        if is_outage {
            world.broker.start_again();
        }
    }
    let messages = world.finish();
    let lives: Vec<Life> =
        ends.iter().map(|(epoch, scrapes)| scrapes.life(epoch, &messages)).collect();
    let (is_clean, report) = capture(&messages).audit();
    assert!(is_clean, "{report}");
    for life in &lives {
        println!("{} taken, {} durable, {} here", life.taken, life.durable, life.received.len());
        let lost = (0..life.durable).find(|number| !life.received.contains(number));
        assert_eq!(lost, None, "it was durable: {life:?}");
    }
    lives
}

/// A gateway in a machine whose power is cut; PLC, broker and receiver are outside.
struct World {
    power: PowerCut,
    broker: Mosquitto,
    consumer: Subscriber,
    metrics: Port,
    _plc: Simulator,
}

impl World {
    fn new(durability: &str, barriers: Barriers) -> Self {
        let (plc, metrics) = (Simulator::start(), Port::reserve());
        let broker = Mosquitto::builder().persistent().start();
        let consumer = broker.subscribe_persistent("consumer", "edge/boxed/#");
        let config = GatewayConfig::with_broker("boxed", broker.url())
            .set("gateway.state_dir", "/data")
            .set("metrics.listen", vec!["0.0.0.0:9464"])
            .set("queue.durability", durability)
            .set("queue.max_size", "16MiB")
            .set("queue.min_free", "1MiB")
            .plcs(plc.plc_sections(1, SCAN));
        let machine = Guest::builder()
            .program(Gateway::program())
            .forward_tcp(metrics.number(), 9464)
            .file("/gateway.toml", config.for_guest());
        Self { power: PowerCut::new(machine, barriers, 1), broker, consumer, metrics, _plc: plc }
    }

    fn start(&mut self) -> &Guest {
        let guest = self.power.power_on();
        guest.send("RUST_LOG=gateway::queue=debug edge-gateway run /gateway.toml &");
        guest
    }

    /// Runs once more with a broker and a clean stop; returns all messages of all runs.
    fn finish(mut self) -> Vec<Message> {
        self.start();
        // Many runs leave a large backlog, and the processor is emulated: wait as long as it
        // shrinks.
        let mut least = u64::MAX;
        while least >= 10 {
            least = eventually("less waits", SLOW_TIMEOUT, || {
                self.waiting().filter(|left| *left < least)
            });
        }
        let guest = self.power.guest();
        guest.run("kill -TERM $! && wait $!");
        self.consumer.drain(Duration::from_secs(2))
    }

    /// Returns the number of stored samples, if the broker is connected.
    fn waiting(&self) -> Option<u64> {
        let metrics = self.metrics()?;
        metrics("edge_mqtt_connected").filter(|connected| *connected > 0)?;
        metrics("edge_samples_stored")
    }

    /// Scrapes once, so that the values are consistent; `None` while the gateway does not answer.
    fn metrics(&self) -> Option<impl Fn(&str) -> Option<u64> + use<>> {
        let text = http_get(self.metrics.address(), "/metrics").ok()?.body;
        Some(move |series: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
            value.parse().ok()
        })
    }
}

/// Scrapes of the gateway in one run.
struct Scrapes {
    settling: Duration,
    answers: Vec<Scrape>,
}

struct Scrape {
    at: Instant,
    taken: u64,
    syncs: u64,
}

impl Scrapes {
    const fn new(settling: Duration) -> Self {
        Self { settling, answers: Vec::new() }
    }

    fn ask(&mut self, world: &World) -> Option<()> {
        let at = Instant::now();
        let metrics = world.metrics()?;
        let taken = metrics("edge_samples_produced_total")?;
        let syncs = metrics("edge_queue_sync_seconds_count")?;
        self.answers.push(Scrape { at, taken, syncs });
        Some(())
    }

    /// Returns the number of samples that must be safe. Syncs run one after the other: when two
    /// more have ended since a scrape, the second began after it and covers everything written by
    /// then.
    fn durable(&self) -> u64 {
        let last = self.answers.last().map_or(0, |answer| answer.syncs);
        let mut answers = self.answers.iter().rev();
        let Some(synced) = answers.find(|answer| answer.syncs + 2 <= last) else { return 0 };
        let settled = |answer: &&Scrape| answer.at + self.settling <= synced.at;
        self.answers.iter().rev().find(settled).map_or(0, |answer| answer.taken)
    }

    fn life(&self, epoch: &Option<String>, messages: &[Message]) -> Life {
        let epoch = epoch.as_deref().unwrap_or_default();
        let mut bodies = messages.iter().map(Message::json);
        let start = bodies.find(|body| body["event"] == "unclean_start" && body["epoch"] == epoch);
        Life {
            taken: self.answers.last().map_or(0, |answer| answer.taken),
            durable: self.durable(),
            received: capture(messages).numbers(TOPIC, epoch),
            known: start.and_then(|body| body["next_seq"][TOPIC].as_u64()),
        }
    }
}

fn capture(messages: &[Message]) -> Capture {
    let mut capture = Capture::default();
    let stamped = messages.iter().filter(|message| !message.topic.ends_with("/status"));
    stamped.for_each(|message| capture.add(message));
    capture
}

/// Returns the epoch of a gateway, from its log.
fn epoch(console: &Log) -> Option<String> {
    let text = console.text();
    let opened = text.lines().find(|line| line.contains("queue opened"))?;
    // Colour codes separate the words.
    let (_, rest) = opened.split_once("epoch")?;
    Some(rest.split('"').nth(1)?.to_owned())
}
