//! The values of all tags of fifty PLCs are scraped while the PLCs are read every second: polls stay
//! on time, and the page takes neither long nor much memory.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test code may stop on the spot, and the long run keeps what it measured"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use e2e::{Gateway, GatewayConfig, Message, Mosquitto, PlcConfig, RECOVERY_TIMEOUT, eventually};
use gateway::simulate::{SimulatedPlc, SimulatorSettings, serve};
use provisioning::plc::PlcModel;
use test_settings::SCRAPED_TAGS;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PLCS: u64 = 50;
const SCRAPES: u32 = 10;
/// Bounds that hold with optimisation, at the full number of tags.
const MAX_SCRAPE: Duration = Duration::from_millis(300);
const MAX_AGE_MILLIS: i64 = 10;
const MAX_GROWTH: u64 = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn every_tag_is_on_the_page_and_no_cycle_is_missed() {
    let tags = SCRAPED_TAGS.number();
    let stop = CancellationToken::new();
    let (mut plcs, mut sections) = (JoinSet::new(), Vec::new());
    for index in 0..PLCS {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut settings = SimulatorSettings::new(PlcModel::M251).expect("a Modicon");
        // It answers at once: the age is the gateway's alone.
        settings.mast = Duration::ZERO;
        let plc = SimulatedPlc::new(settings);
        plcs.spawn(serve(plc, listener, stop.clone()));
        sections.push(plc_section(index, tags, address));
    }
    let scraping = tokio::task::spawn_blocking(move || scrape(sections, tags));
    scraping.await.expect("the gateway does its work");
    stop.cancel();
    while plcs.join_next().await.is_some() {}
}

fn scrape(sections: Vec<PlcConfig>, tags: u64) {
    // Without it Mosquitto holds the second of two messages back for up to 40 ms.
    let broker = Mosquitto::builder().line("set_tcp_nodelay true").start();
    let messages = broker.subscribe("edge/g/data/#");
    let config = GatewayConfig::with_broker("g", broker.url()).plcs(sections);
    let mut gateway = Gateway::start_with(&config, &[("EDGE_METRICS__TAGS", "true")]);
    gateway.wait_until_ready(RECOVERY_TIMEOUT);
    let good = |page: &str| page.lines().filter(|line| line.ends_with("} 1")).count() as u64;
    let page = |gateway: &Gateway| gateway.get("/metrics/tags").body;
    eventually("every tag is good", RECOVERY_TIMEOUT, || {
        let goods = page(&gateway);
        let goods = goods.lines().filter(|line| line.starts_with("edge_tag_good"));
        let goods: Vec<_> = goods.collect();
        (good(&goods.join("\n")) == PLCS * tags).then_some(())
    });
    // At the start all PLCs are read at once; from the second cycle on they are spread.
    for _ in 0..PLCS {
        messages.next(RECOVERY_TIMEOUT);
    }
    messages.drain(Duration::ZERO);
    let (missed, memory) = (missed_cycles(&gateway), gateway.peak_memory());

    let (mut longest, mut ages) = (Duration::ZERO, Vec::new());
    for _ in 0..SCRAPES {
        let start = Instant::now();
        let lines = page(&gateway).lines().count() as u64;
        longest = longest.max(start.elapsed());
        // Three families, each with two lines before it.
        assert_eq!(lines, 3 * (PLCS * tags + 2));
        // A fifth of a second: each PLC has one message a second.
        ages.extend((0..PLCS / 5).map(|_| age(&messages.next(RECOVERY_TIMEOUT))));
    }

    ages.sort_unstable();
    let p99 = *ages.get(ages.len() * 99 / 100).expect("messages have arrived");
    let (growth, new_missed) = (gateway.peak_memory() - memory, missed_cycles(&gateway) - missed);
    println!(
        "{} tags: longest scrape {longest:?}, p99 of the age {p99} ms, {growth} bytes more, \
         {new_missed} cycles missed",
        PLCS * tags
    );
    if !cfg!(debug_assertions) {
        assert!(longest <= MAX_SCRAPE && p99 <= MAX_AGE_MILLIS && growth <= MAX_GROWTH);
        assert_eq!(new_missed, 0);
    }
}

/// Returns the milliseconds between the read of a message and its arrival at the consumer.
fn age(message: &Message) -> i64 {
    let json = message.json();
    let read = json.get("datetime").and_then(serde_json::Value::as_str).expect("a date");
    let read = read.parse::<jiff::Timestamp>();
    // The text ends with a zone twice.
    let arrived = message.arrived.trim_end_matches("+0000").parse::<jiff::Timestamp>();
    arrived.expect("a date").as_millisecond() - read.expect("a date").as_millisecond()
}

fn missed_cycles(gateway: &Gateway) -> u64 {
    let text = gateway.get("/metrics").body;
    let series = text.lines().filter(|line| line.starts_with("edge_plc_cycles_missed_total"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn plc_section(index: u64, tags: u64, address: SocketAddr) -> PlcConfig {
    let plc = PlcConfig::new(&format!("plc{index}"), "M251", address).set("scan", "1s");
    (0..tags).fold(plc, |plc, word| plc.tag(&format!("w{word}"), &format!("%MW{word}"), "WORD"))
}
