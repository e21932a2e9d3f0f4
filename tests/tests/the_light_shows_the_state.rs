//! The light of a box shows what the first line of the status says: a person on site sees where to
//! look. In place of a light there is a pipe, so that no blink is missed.
#![expect(clippy::expect_used, clippy::panic, reason = "test code may stop on the spot")]

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{
    Gateway, GatewayConfig, Mosquitto, Office, Process, RECOVERY_TIMEOUT, Simulator, TempDir,
    temp_dir,
};

/// What a person sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Signal {
    Steady,
    Blinks(u8),
}

/// A light, and the program that drives it.
struct Light {
    dir: TempDir,
    signals: Receiver<Signal>,
    program: Process,
}

impl Light {
    /// Starts to show the state of the gateway with this directory.
    fn show(state_dir: &str) -> Self {
        let dir = temp_dir();
        dir.write("max_brightness", "1\n");
        dir.write("trigger", "[mmc0] none\n");
        let pipe = dir.path().join("brightness");
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is installed");
        assert!(made.success());
        // Opened for writing too, so that it never ends.
        let mut written = OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
        let (sender, signals) = channel();
        thread::spawn(move || {
            // Each series begins with the light off, so a series ends with 0 twice.
            let (mut before, mut count) = (b'0', 0);
            let mut byte = [0];
            while written.read_exact(&mut byte).is_ok() {
                let signal = match (before, byte) {
                    (b'1', [b'1']) => Some(Signal::Steady),
                    (b'0', [b'0']) => Some(Signal::Blinks(std::mem::take(&mut count))),
                    (_, [b'1']) => {
                        count += 1;
                        None
                    }
                    _ => None,
                };
                [before] = byte;
                if signal.is_some_and(|signal| sender.send(signal).is_err()) {
                    return;
                }
            }
        });
        let mut program = Command::new(Office::program().with_file_name("edge-gateway-box"));
        program.arg("led").arg("--led").arg(dir.path()).args(["--state-dir", state_dir]);
        let program = Process::start(&mut program);
        Self { dir, signals, program }
    }

    fn wait_for(&mut self, wanted: Signal) {
        let deadline = Instant::now() + RECOVERY_TIMEOUT;
        let mut seen = Vec::new();
        while seen.last() != Some(&wanted) {
            let left = deadline.saturating_duration_since(Instant::now());
            let signal = self.signals.recv_timeout(left);
            seen.push(signal.unwrap_or_else(|_| {
                panic!("{seen:?} in place of {wanted:?}: {}", self.program.log().text())
            }));
        }
    }
}

#[test]
fn it_is_on_while_all_is_well_and_blinks_for_the_uplink_the_machine_and_the_gateway() {
    let (plc, mut broker) = (Simulator::start(), Mosquitto::start());
    let config = GatewayConfig::with_broker("g", broker.url())
        .plcs(plc.plc_sections(1, Duration::from_millis(100)));
    let mut gateway = Gateway::start_ready(config);
    let state_dir = gateway.state_dir().display().to_string();
    let mut light = Light::show(&state_dir);

    light.wait_for(Signal::Steady);
    broker.stop();
    light.wait_for(Signal::Blinks(2));
    broker.start_again();
    light.wait_for(Signal::Steady);
    drop(plc);
    light.wait_for(Signal::Blinks(3));
    gateway.kill();
    light.wait_for(Signal::Blinks(1));
    assert_eq!(fs::read_to_string(light.dir.path().join("trigger")).expect("it is there"), "none");
}

#[test]
fn a_light_that_is_missing_is_named() {
    let dir = temp_dir();
    let missing = dir.path().join("led");
    let mut program = Command::new(Office::program().with_file_name("edge-gateway-box"));
    let done = program.arg("led").arg("--led").arg(&missing).output().expect("it is built");
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains(&missing.display().to_string()), "{said}");
}
