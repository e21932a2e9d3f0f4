//! Promise 10: the demo runs on a machine without a PLC or a broker, as any user.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use e2e::{EVENT_TIMEOUT, Gateway, Mosquitto};
use serde_json::Value;

#[test]
fn it_ends_after_the_given_time_with_a_summary_and_correct_values() {
    // Its files lie in memory, as on a machine whose /tmp does, and that needs no warning.
    let demo = Command::new(Gateway::program())
        .args(["demo", "--for", "4s"])
        .env("TMPDIR", "/dev/shm")
        .output()
        .expect("the program is built");

    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{out}{err}");
    assert!(out.contains("edge/amsterdam-01/data/pump6 {"), "{out}");
    assert!(err.contains("nothing is missing"), "{err}");
    assert!(!err.contains("in memory"), "{err}");
}

#[test]
fn its_json_lines_are_a_capture_that_the_audit_accepts() {
    let mut demo = Command::new(Gateway::program())
        .args(["demo", "--json", "--for", "3s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program is built");
    let output = demo.stdout.take().expect("it is piped");
    let lines: Vec<String> =
        BufReader::new(output).lines().map(|line| line.expect("text")).collect();
    assert!(demo.wait().expect("the process ends").success());

    for line in &lines {
        let message: Value = serde_json::from_str(line).expect("one JSON object per line");
        assert!(message["topic"].is_string() && message["payload"].is_object(), "{line}");
    }
    let dir = e2e::temp_dir();
    let capture = dir.write("capture", &lines.join("\n"));
    let audit = Command::new(Gateway::program())
        .args(["audit", "--capture"])
        .arg(capture)
        .output()
        .expect("the program is built");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// Any MQTT client sees the messages where the demo says, and with a broker of the user there.
#[test]
fn other_clients_see_the_messages_at_the_demos_broker_and_at_one_of_the_user() {
    let mut demo = Command::new(Gateway::program())
        .args(["demo", "--for", "20s"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program is built");
    let notes = BufReader::new(demo.stderr.take().expect("it is piped"));
    let advice = notes
        .lines()
        .map(|line| line.expect("text"))
        .find(|line| line.contains("mosquitto_pub"))
        .expect("it says how to send a command");
    let port = advice.split_once("-p ").and_then(|(_, rest)| rest.split(' ').next());
    let seen = Command::new("mosquitto_sub")
        .args(["-h", "127.0.0.1", "-p", port.expect("a port"), "-W", "20", "-C", "1"])
        .args(["-t", "edge/amsterdam-01/data/pump6"])
        .output()
        .expect("mosquitto_sub is installed");
    demo.kill().expect("it runs");
    demo.wait().expect("it was killed");
    let message: Value = serde_json::from_slice(&seen.stdout).expect("a message in time");
    assert!(message["setpoint"].is_number(), "{message}");

    let broker = Mosquitto::start();
    let subscriber = broker.subscribe("edge/amsterdam-01/data/#");
    let demo = Command::new(Gateway::program())
        .args(["demo", "--for", "4s", "--broker", &broker.url()])
        .output()
        .expect("the program is built");
    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{out}{err}");
    assert!(err.contains(&format!("-p {} ", broker.port())), "{err}");
    assert!(err.contains("nothing is missing"), "{err}");
    assert!(subscriber.next(EVENT_TIMEOUT).json()["setpoint"].is_number());
}
