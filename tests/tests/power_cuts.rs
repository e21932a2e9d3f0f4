//! Promise 3: the power is cut at any moment, the start included. The gateway starts every time, and
//! what its durability promises arrives: the receiver decides.
#![expect(
    clippy::expect_used,
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
/// How often the gateway is asked.
const PAUSE: Duration = Duration::from_millis(50);

#[test]
fn in_a_guest_strict_keeps_what_it_made_durable_and_all_that_it_sent() {
    let lives = live("strict", Duration::ZERO, 8);
    for life in lives.iter().filter(|life| !life.received.is_empty()) {
        // What was sent was on the disk before, so that the next life knows about it.
        assert!(life.known > life.received.last().copied(), "{life:?}");
    }
}

#[test]
fn in_a_guest_balanced_keeps_what_it_made_durable() {
    live("balanced", Duration::ZERO, 8);
}

#[test]
fn in_a_guest_low_wear_keeps_what_it_made_durable_and_had_waited_for_five_seconds() {
    live("low-wear", Duration::from_secs(5), 4);
}

/// The negative control: the others would notice.
#[test]
fn in_a_guest_a_disk_that_is_never_flushed_loses_what_was_made_durable() {
    let mut world = World::new("balanced", Barriers::Ignored);
    world.broker.stop();
    world.start();
    let mut asked = Asked::new(Duration::ZERO);
    eventually("something is durable", SLOW_TIMEOUT, || {
        asked.ask(&world).filter(|()| asked.durable() > 0)
    });
    let left = world.power.cut_losing_all();
    world.broker.start_again();

    let capture = capture(&world.finish());

    let epoch = epoch(&left.console).expect("it had begun");
    assert_eq!(capture.numbers(TOPIC, &epoch), BTreeSet::new(), "it survived without a flush");
}

/// One life of the machine, as it looks in the end.
#[derive(Debug)]
struct Life {
    /// So many samples were taken when the gateway was last asked. Every sample is a message.
    taken: u64,
    /// So many of them were durable by then.
    durable: u64,
    /// The numbers that the receiver got.
    received: BTreeSet<u64>,
    /// The first number of which the next life knew nothing.
    known: Option<u64>,
}

/// Lets a machine live and die so often (`E2E_CUTS` makes it more), every other life without a
/// broker, and checks what must hold for every durability: what was written is safe when it had
/// waited for `settling` and was then made durable.
fn live(durability: &str, settling: Duration, usual: u64) -> Vec<Life> {
    let mut world = World::new(durability, Barriers::Kept);
    let mut random = fastrand::Rng::with_seed(usual);
    let mut ends = Vec::new();
    for cut in 0..test_settings::CUTS.get().unwrap_or(usual) {
        let is_outage = cut % 2 == 0;
        if is_outage {
            world.broker.stop();
        }
        world.start();
        let mut asked = Asked::new(settling);
        // Outages end when there is something to lose; others in the start, or some time behind it.
        if is_outage {
            eventually("something is durable", SLOW_TIMEOUT, || {
                asked.ask(&world).filter(|()| asked.durable() > 0)
            });
        } else if cut % 4 == 1 {
            eventually("it answers", SLOW_TIMEOUT, || asked.ask(&world));
        }
        // From there any moment is as good as any other.
        let end = Instant::now() + Duration::from_millis(random.u64(..2_000));
        while Instant::now() < end {
            thread::sleep(PAUSE);
            asked.ask(&world);
        }
        let CutOutcome { console, flushes, lost_sectors, filesystem } = world.power.cut();
        assert_eq!(filesystem, FilesystemState::Sound);
        println!("cut {cut}: {flushes} flushes, {lost_sectors} sectors lost");
        ends.push((epoch(&console), asked));
        if is_outage {
            world.broker.start_again();
        }
    }
    let messages = world.finish();
    let lives: Vec<Life> = ends.iter().map(|(epoch, asked)| asked.life(epoch, &messages)).collect();
    let (is_clean, report) = capture(&messages).audit();
    assert!(is_clean, "{report}");
    for life in &lives {
        println!("{} taken, {} durable, {} here", life.taken, life.durable, life.received.len());
        let lost = (0..life.durable).find(|number| !life.received.contains(number));
        assert_eq!(lost, None, "it was durable: {life:?}");
    }
    lives
}

/// A gateway in a machine whose power is cut; its PLC, its broker and the receiver outside.
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

    /// A last life with a broker and a clean end; gives everything that ever arrived.
    fn finish(mut self) -> Vec<Message> {
        self.start();
        // Many lives leave much behind, and the processor is emulated: as long as it becomes less, that
        // may take.
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

    /// How many samples wait, with a broker.
    fn waiting(&self) -> Option<u64> {
        let metrics = self.metrics()?;
        metrics("edge_mqtt_connected").filter(|connected| *connected > 0)?;
        metrics("edge_samples_stored")
    }

    /// One scrape, so that the figures belong together; nothing while nobody answers.
    fn metrics(&self) -> Option<impl Fn(&str) -> Option<u64> + use<>> {
        let text = http_get(self.metrics.address(), "/metrics").ok()?.body;
        Some(move |series: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
            value.parse().ok()
        })
    }
}

/// What the gateway told of itself in one life.
struct Asked {
    settling: Duration,
    answers: Vec<Answer>,
}

struct Answer {
    at: Instant,
    taken: u64,
    syncs: u64,
}

impl Asked {
    const fn new(settling: Duration) -> Self {
        Self { settling, answers: Vec::new() }
    }

    fn ask(&mut self, world: &World) -> Option<()> {
        let at = Instant::now();
        let metrics = world.metrics()?;
        let taken = metrics("edge_samples_produced_total")?;
        let syncs = metrics("edge_queue_sync_seconds_count")?;
        self.answers.push(Answer { at, taken, syncs });
        Some(())
    }

    /// How many samples must be safe: syncs follow one another, so when there were two more, the last
    /// one began after the first answer and took everything along that was written by then.
    fn durable(&self) -> u64 {
        let last = self.answers.last().map_or(0, |answer| answer.syncs);
        let mut answers = self.answers.iter().rev();
        let Some(synced) = answers.find(|answer| answer.syncs + 2 <= last) else { return 0 };
        let settled = |answer: &&Answer| answer.at + self.settling <= synced.at;
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

/// Under which epoch a gateway began, by its log.
fn epoch(console: &Log) -> Option<String> {
    let text = console.text();
    let opened = text.lines().find(|line| line.contains("queue opened"))?;
    // Colours stand between the words.
    let (_, rest) = opened.split_once("epoch")?;
    Some(rest.split('"').nth(1)?.to_owned())
}
