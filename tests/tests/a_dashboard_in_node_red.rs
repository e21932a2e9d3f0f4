//! The flow of deploy/node-red in real Node-RED, in a real browser.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::{
    BrowserPage, EVENT_TIMEOUT, Gateway, GatewayConfig, Mosquitto, NodeRed, PlcConfig, Process,
    Pymodbus,
};
use provisioning::plc::Table;
use test_settings::DASHBOARD_SECONDS;

const TEMPERATURE: &str = ".edge-temperature";
const SETPOINT: &str = ".edge-setpoint";
const REPLY: &str = ".edge-reply-text";
const INPUT: &str = ".edge-input input";

#[test]
fn a_value_is_seen_a_setpoint_is_typed_and_the_reply_is_shown() {
    let (broker, node_red) = (Mosquitto::start(), NodeRed::with_dashboard());
    let consumer = broker.subscribe("edge/amsterdam-01/reply/#");
    let demo = ["demo", "--broker", &broker.url()];
    let _demo = Process::start(Command::new(Gateway::program()).args(demo));
    let _flow = node_red.start(&broker);
    let mut page = BrowserPage::open(&node_red.page("dashboard/pump6"));
    page.see(TEMPERATURE, r"\d+(\.\d+)? °C");
    page.see(".edge-quality", "good");
    page.see(".edge-broker-state", "connected");

    // Number("  ") is 0, which the PLC would take.
    page.enter(INPUT, "  ");
    page.see(REPLY, "Type a number.");
    page.enter(INPUT, "21.5");
    page.see(REPLY, "done, the PLC holds 21.5 °C");
    page.see(SETPOINT, "21.5 °C");
    let reply = consumer.next(EVENT_TIMEOUT).json();
    assert_eq!(
        (&reply["state"], &reply["tags"]["setpoint"]["read"]),
        (&"done".into(), &21.5.into())
    );

    page.enter(INPUT, "500");
    page.see(REPLY, "rejected: .*90");
    page.see(SETPOINT, "21.5 °C");
    if let Some(path) = test_settings::PICTURE.path() {
        page.picture(&path);
    }
}

/// While the broker is restarted and the PLC is away, the page says so.
#[test]
fn the_flow_shows_that_the_broker_or_the_plc_is_away_and_goes_on() {
    let (mut broker, node_red, mut plc) =
        (Mosquitto::start(), NodeRed::with_dashboard(), Pymodbus::start());
    plc.set_registers(Table::HoldingRegister, 10, &[0, 0x41AC]);
    let pump = PlcConfig::new("pump6", "M241", plc.address())
        .tag("temperature", "%MW10", "REAL")
        .tag("pressure", "%MW12", "REAL")
        .tag("setpoint", "%MW20", "REAL");
    let _gateway =
        Gateway::start_ready(GatewayConfig::with_broker("amsterdam-01", broker.url()).plc(pump));
    let _flow = node_red.start(&broker);
    let mut page = BrowserPage::open(&node_red.page("dashboard/pump6"));
    page.see(TEMPERATURE, "21.5 °C");
    let end = Instant::now() + Duration::from_secs(DASHBOARD_SECONDS.number());

    broker.kill();
    page.see(".edge-broker-state", "no connection to the broker");
    plc.set_registers(Table::HoldingRegister, 10, &[0, 0x429B]);
    broker.start_again();
    page.see(".edge-broker-state", "^ *Broker *connected");
    page.see(TEMPERATURE, "77.5 °C");
    while Instant::now() < end {
        page.see(".edge-quality", "good");
        std::thread::sleep(Duration::from_secs(1));
    }

    drop(plc);
    page.see(TEMPERATURE, "no value");
    page.see(".edge-quality", "temperature: unreachable");
    page.see(".edge-sentence", "Modbus server");
}
