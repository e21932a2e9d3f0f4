//! Promise 6: at most one write per command, one reply, and the reply is the truth.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::process::{Command, Output};
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, Gateway, GatewayConfig, Message, Mosquitto, PlcConfig, Pymodbus,
    RECOVERY_TIMEOUT, Retain, STOP_TIMEOUT, Subscriber, eventually,
};
use provisioning::plc::Table;
use serde_json::{Value, json};
use toml::Table as TomlTable;

const SET: &str = "edge/g/set/p";
const REPLY: &str = "edge/g/reply/p";
const EVENT: &str = "edge/g/event";

/// A PLC, a broker and a gateway that may write to the PLC.
struct Site {
    plc: Pymodbus,
    broker: Mosquitto,
    gateway: Gateway,
    replies: Subscriber,
}

impl Site {
    fn start() -> Self {
        Self::start_with(Mosquitto::start(), |config| config)
    }

    fn start_with(
        broker: Mosquitto,
        configure: impl FnOnce(GatewayConfig) -> GatewayConfig,
    ) -> Self {
        let plc = Pymodbus::start();
        let table = |text: &str| -> TomlTable { text.parse().expect("it is TOML") };
        let section = PlcConfig::new("p", "M241", plc.address())
            .scan(Duration::from_millis(200))
            .tag("level", "%MW10", "INT")
            .tag("setpoint", "%MW20", "REAL")
            .set_tag("write", table("min = 0\nmax = 90"))
            .tag("mode", "%MW22", "INT")
            .set_tag("enum", table("0 = \"stop\"\n1 = \"run\""))
            .set_tag("write", TomlTable::new())
            .tag("counter", "%MW30", "UINT")
            .set_tag("write", table("rate = \"5/min\""));
        let config = GatewayConfig::with_broker("g", broker.url()).plc(section);
        let replies = broker.subscribe(REPLY);
        let gateway = Gateway::start_ready(configure(config));
        gateway.wait_for_metric("edge_mqtt_connected", EVENT_TIMEOUT, |up| up > 0.0);
        gateway.wait_for_metric("edge_plc_up{plc=\"p\"}", EVENT_TIMEOUT, |up| up > 0.0);
        Self { plc, broker, gateway, replies }
    }

    /// Publishes a command and returns the next reply.
    fn send(&self, command: &Value) -> Value {
        self.broker.publish(SET, &command.to_string(), Retain::No);
        self.replies.next(EVENT_TIMEOUT).json()
    }

    /// Returns the next reply to the command of this id.
    fn reply_to(&self, id: &str, timeout: Duration) -> Value {
        let is_to = |reply: &Message| reply.json().get("id").is_some_and(|found| found == id);
        self.replies.wait_for(id, timeout, is_to).json()
    }

    fn words(&mut self, first: u16, count: u16) -> Vec<u16> {
        self.plc.registers(Table::HoldingRegister, first, count)
    }

    fn start_gateway_again(&mut self) {
        self.gateway.start_again();
        self.gateway.wait_until_ready(EVENT_TIMEOUT);
    }

    fn writes(&self, outcome: &str) -> Option<f64> {
        self.gateway.metric(&format!("edge_writes_total{{outcome=\"{outcome}\",plc=\"p\"}}"))
    }
}

/// Returns an expiry in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "an expiry is a time of the wall clock")]
fn hours_from_now(hours: i64) -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let millis = i64::try_from(now.expect("the clock is set").as_millis()).expect("it fits");
    millis + hours * 3_600_000
}

#[test]
fn a_write_is_told_with_both_values_and_leaves_a_trail() {
    let mut site = Site::start();
    let events = site.broker.subscribe(EVENT);

    let reply = site.send(&json!({"id": "a1", "by": "line 3", "write": {"setpoint": 21.5}}));

    assert_eq!((&reply["id"], &reply["state"]), (&json!("a1"), &json!("done")), "{reply}");
    assert_eq!(reply["tags"], json!({"setpoint": {"wrote": 21.5, "read": 21.5}}));
    assert_eq!(reply["gateway"]["id"], "g");
    assert_eq!(site.words(20, 2), [0, 0x41AC]);
    let intent = events.next(EVENT_TIMEOUT).json();
    assert_eq!((&intent["event"], &intent["step"]), (&json!("write"), &json!("intent")));
    assert_eq!((&intent["by"], &intent["write"]), (&json!("line 3"), &json!({"setpoint": 21.5})));
    let outcome = events.next(EVENT_TIMEOUT).json();
    assert_eq!((&outcome["step"], &outcome["state"]), (&json!("outcome"), &json!("done")));
    // The simple form, with a name of an enumeration.
    let reply = site.send(&json!({"mode": "run"}));
    assert_eq!((&reply["state"], site.words(22, 1)), (&json!("done"), vec![1]), "{reply}");
    // The same id again writes nothing.
    site.plc.set_registers(Table::HoldingRegister, 20, &[0, 0]);
    let reply = site.send(&json!({"id": "a1", "write": {"setpoint": 21.5}}));
    assert_eq!((&reply["state"], &reply["first"]), (&json!("duplicate"), &json!("done")));
    assert_eq!(site.words(20, 2), [0, 0]);
    assert_eq!((site.writes("done"), site.writes("duplicate")), (Some(2.0), Some(1.0)));
}

#[test]
fn what_is_not_allowed_is_refused_and_nothing_is_written() {
    let mut site = Site::start();
    let before = site.words(0, 100);
    for (command, reason) in [
        (json!({"setpoint": 90.5}), "out of range"),
        (json!({"setpoint": "hot"}), "another kind"),
        (json!({"level": 7}), "read-only"),
        (json!({"levle": 7}), "no tag"),
        (json!({"mode": "sprint"}), "out of range"),
        (json!({"expires": hours_from_now(-1), "write": {"setpoint": 1}}), "expired"),
        (json!([1]), "object"),
    ] {
        let reply = site.send(&command);
        let text = reply["reason"].as_str().expect("a refusal has a reason");
        assert!(text.contains(reason), "{command}: {reply}");
        assert_ne!(reply["state"], "done");
    }
    site.broker.publish(SET, "{\"setpoint\":1,\"setpoint\":2}", Retain::No);
    assert!(site.replies.next(EVENT_TIMEOUT).payload.contains("twice"));
    assert_eq!(site.words(0, 100), before);
}

#[test]
fn a_flood_of_commands_writes_no_more_than_the_rate_and_stops_no_poll() {
    const COMMANDS: u32 = 5000;
    // Mosquitto would drop what waits beyond 1,000 messages.
    let broker = Mosquitto::builder().line("max_queued_messages 0").start();
    let mut site = Site::start_with(broker, |config| config);
    let polled = "edge_plc_requests_total{outcome=\"ok\",plc=\"p\"}";
    let before = site.gateway.metric(polled).expect("it is there");

    // As fast as the broker takes them: several thousand a second.
    let flood: Vec<_> =
        (0..COMMANDS).map(|number| json!({"counter": number}).to_string()).collect();
    site.broker.publish_lines(SET, &flood);

    // Each is counted. Of those that are refused at once, at most 300 in 15 s are answered.
    let done = || site.writes("done").unwrap_or_default();
    eventually("each command has ended", RECOVERY_TIMEOUT, || {
        let ended = done() + site.writes("rejected").unwrap_or_default();
        (ended >= f64::from(COMMANDS)).then_some(())
    });
    // Five at once, and five more in each minute that the flood has taken.
    let done = done();
    assert!((5.0..=10.0).contains(&done), "{done}");
    assert!(site.words(30, 1) >= vec![4]);
    site.gateway.wait_for_metric(polled, EVENT_TIMEOUT, |now| now > before + 10.0);
    // Each write is told: what is left out are refusals.
    let is_done = |reply: &Message| reply.json().get("state").is_some_and(|state| state == "done");
    for _ in 0..5 {
        site.replies.wait_for("the reply to a write", RECOVERY_TIMEOUT, is_done);
    }
}

#[test]
fn a_command_that_waited_at_the_broker_is_obeyed_by_its_expiry_only() {
    let mut site = Site::start_with(Mosquitto::builder().persistent().start(), |config| config);
    site.broker.publish(SET, &json!({"setpoint": 5}).to_string(), Retain::Yes);
    // The broker sends a retained command to an existing subscription as a new one.
    assert_eq!(site.replies.next(EVENT_TIMEOUT).json()["state"], "done");
    site.gateway.terminate(STOP_TIMEOUT);
    site.plc.set_registers(Table::HoldingRegister, 20, &[0, 0, 0]);
    for command in [
        json!({"setpoint": 1}),
        json!({"id": "old", "write": {"setpoint": 2}}),
        json!({"id": "over", "expires": hours_from_now(-1), "write": {"setpoint": 3}}),
        json!({"id": "valid", "expires": hours_from_now(1), "write": {"mode": "run"}}),
    ] {
        site.broker.publish(SET, &command.to_string(), Retain::No);
    }

    site.start_gateway_again();

    let mut states = Vec::new();
    while states.len() < 4 {
        let reply = site.replies.next(RECOVERY_TIMEOUT).json();
        let is_retained = reply["reason"].as_str().is_some_and(|why| why.contains("retained"));
        if !is_retained {
            states.push((reply["id"].clone(), reply["state"].clone()));
        }
    }
    states.sort_by_key(|(id, _)| id.to_string());
    let expected = [("old", "rejected"), ("over", "expired"), ("valid", "done")];
    let expected: Vec<_> =
        expected.into_iter().map(|(id, state)| (json!(id), json!(state))).collect();
    assert_eq!(states[..3], expected[..]);
    assert_eq!(states[3], (Value::Null, json!("rejected")));
    assert_eq!(site.words(20, 3), [0, 0, 1]);
}

#[test]
fn a_killed_gateway_writes_nothing_twice_and_tells_what_it_knows() {
    let mut site = Site::start();
    let done = json!({"id": "done", "expires": hours_from_now(1), "write": {"setpoint": 21.5}});
    assert_eq!(site.send(&done)["state"], "done");
    // The PLC takes this one, and the gateway never sees the answer.
    site.plc.set_answer_delay(Duration::from_millis(600));
    let cut = json!({"id": "cut", "expires": hours_from_now(1), "write": {"mode": "run"}});
    site.broker.publish(SET, &cut.to_string(), Retain::No);
    eventually("the PLC has the value", EVENT_TIMEOUT, || {
        (site.plc.registers(Table::HoldingRegister, 22, 1) == [1]).then_some(())
    });
    site.gateway.kill();
    site.plc.set_answer_delay(Duration::ZERO);

    site.plc.set_registers(Table::HoldingRegister, 20, &[0, 0]);
    site.start_gateway_again();

    // It tells the outcome of what was cut short by itself. Either reply may come twice: the
    // process ended before it stored that the broker has the first, and the broker sends the
    // command again that was not acknowledged.
    let reply = site.reply_to("cut", RECOVERY_TIMEOUT);
    assert_eq!(reply["state"], "unknown", "{reply}");
    assert_eq!(reply["tags"]["mode"]["read"], "run");
    site.broker.publish(SET, &done.to_string(), Retain::No);
    assert_eq!(site.reply_to("done", EVENT_TIMEOUT)["state"], "done");
    assert_eq!(site.words(20, 3), [0, 0, 1]);
}

/// Runs `edge-gateway write`.
fn write(gateway: &Gateway, arguments: &[&str]) -> Output {
    let file = gateway.config_path();
    let arguments =
        arguments.iter().map(|argument| argument.replace("FILE", &file.to_string_lossy()));
    Command::new(Gateway::program())
        .arg("write")
        .args(arguments)
        .env("EDGE_GATEWAY__STATE_DIR", gateway.state_dir())
        .output()
        .expect("the program starts")
}

#[test]
fn a_command_on_the_box_is_a_command_like_any_other() {
    let mut site = Site::start();
    let events = site.broker.subscribe(EVENT);
    let output = write(&site.gateway, &["p", "setpoint", "12.5", "FILE", "--yes"]);
    let reply: Value = serde_json::from_slice(&output.stdout).expect("it prints the reply");
    assert_eq!((output.status.code(), &reply["state"]), (Some(0), &json!("done")), "{output:?}");
    assert_eq!(site.words(20, 2), [0, 0x4148]);
    assert_eq!(events.next(EVENT_TIMEOUT).json()["by"], "local");
    let refused = write(&site.gateway, &["p", "setpoint", "500", "FILE", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    for (arguments, code, shown) in [
        (&["p", "level", "1", "FILE", "--yes"][..], 1, "read-only"),
        (&["p", "nothing", "1", "FILE", "--yes"], 1, "no tag"),
        (&["q", "setpoint", "1", "FILE", "--yes"], 1, "no PLC"),
        // Without an answer to the question nothing is written.
        (&["p", "setpoint", "1", "FILE"], 1, "Nothing was written"),
        (&["p", "setpoint"], 2, "VALUE"),
    ] {
        let output = write(&site.gateway, arguments);
        let text = [output.stdout.clone(), output.stderr.clone()].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text.contains(shown), "{text}");
    }
    assert_eq!(site.words(20, 2), [0, 0x4148]);
    // No other listener takes a command.
    assert_eq!(site.gateway.get("/write/p").status, 404);
}
