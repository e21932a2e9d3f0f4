//! Promise 10: the demo runs on a machine without a PLC or a broker, as any user.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use e2e::Gateway;
use serde_json::Value;

#[test]
fn it_ends_after_the_given_time_with_a_summary_and_correct_values() {
    let demo = Command::new(Gateway::program())
        .args(["demo", "--for", "4s"])
        .output()
        .expect("the program is built");

    let (out, err) = (String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    assert!(demo.status.success(), "{out}{err}");
    assert!(out.contains("edge/amsterdam-01/data/pump6 {"), "{out}");
    assert!(err.contains("nothing is missing"), "{err}");
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
