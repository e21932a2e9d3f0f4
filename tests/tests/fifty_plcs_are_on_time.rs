//! Scale: 1,000 tags on 50 PLCs with one connection each, without a missed cycle.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use e2e::{Gateway, GatewayConfig, Mosquitto, PlcConfig, Port, RECOVERY_TIMEOUT};
use gateway::simulate::{SimulatedPlc, SimulatorCounts, SimulatorSettings, serve};
use provisioning::plc::PlcModel;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PLCS: usize = 50;
const TAGS: u16 = 20;
/// Messages of each PLC to wait for; its life counter changes in every cycle.
const CYCLES: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tags_on_fifty_plcs_arrive_every_second_over_fifty_connections() {
    let stop = CancellationToken::new();
    let (mut plcs, mut handles) = (JoinSet::new(), Vec::new());
    let mut sections = Vec::new();
    for index in 0..PLCS {
        // An address of its own: a client of another test may still try a port of 127.0.0.1 that
        // was free before, and would be counted.
        let listener = TcpListener::bind("127.50.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let plc = SimulatedPlc::new(SimulatorSettings::new(PlcModel::M251).expect("a Modicon"));
        handles.push(plc.handle());
        plcs.spawn(serve(plc, listener, stop.clone()));
        sections.push(plc_section(index, address, TAGS));
    }

    let run = move || {
        let broker = Mosquitto::start();
        let messages = broker.subscribe("edge/g/data/#");
        let config = GatewayConfig::with_broker("g", broker.url()).plcs(sections);
        let gateway = Gateway::start_ready(config);
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        while seen.len() < PLCS || seen.values().any(|seqs| seqs.len() < CYCLES) {
            let message = messages.next(RECOVERY_TIMEOUT);
            let payload = message.json();
            assert!(
                payload["gateway"].get("quality").is_none(),
                "every quality is good: {payload}"
            );
            let seq = payload["gateway"]["seq"].as_u64().expect("every message has a number");
            seen.entry(message.topic).or_default().push(seq);
        }
        for seqs in seen.values() {
            assert!(seqs.iter().copied().eq(0..seqs.len() as u64), "no hole: {seqs:?}");
        }
        gateway
    };
    let gateway = tokio::task::spawn_blocking(run).await.expect("the gateway does its work");

    for handle in &handles {
        let counts: SimulatorCounts = handle.counts().await.expect("the PLC runs");
        assert_eq!((counts.connects, counts.evicted), (1, 0), "one connection, never closed");
    }
    tokio::task::spawn_blocking(move || drop(gateway)).await.expect("the process ends");
    stop.cancel();
    while plcs.join_next().await.is_some() {}
}

/// The start reads the file more than once, in several threads, and none may keep what it took.
#[test]
fn twenty_five_thousand_tags_take_a_kilobyte_each() {
    let (broker, port) = (Mosquitto::start(), Port::reserve());
    let plcs = (0..PLCS).map(|index| plc_section(index, port.address(), 500));
    let gateway = Gateway::start_ready(GatewayConfig::with_broker("g", broker.url()).plcs(plcs));

    let memory = gateway.anonymous_memory();

    assert!(memory < 28 << 20, "{memory} bytes");
}

fn plc_section(index: usize, address: SocketAddr, tags: u16) -> PlcConfig {
    let plc = PlcConfig::new(&format!("plc{index}"), "M251", address).set("scan", "1s");
    (0..tags).fold(plc, |plc, word| plc.tag(&format!("w{word}"), &format!("%MW{word}"), "WORD"))
}
