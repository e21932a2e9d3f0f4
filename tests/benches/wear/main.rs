//! Wear of an SD card by the queue: bytes written to the device per byte of payload, compared with
//! SQLite and redb. Every store has its own ext4 on a loop device. All run at the same time and in real
//! time, because the file system commits at fixed intervals. Needs root.
//!
//! The load is 50 records of 300 bytes per second; the broker acknowledges each within a second.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement stops on the spot and prints"
)]

mod contender;

use std::path::Path;
use std::thread;
use std::time::Duration;

use contender::Contender;
use e2e::LoopDisk;

const PER_SECOND: u32 = 50;
const RECORD: u16 = 300;
/// Size of each file system.
const BYTES: u64 = 512 << 20;

fn main() {
    let mut arguments = std::env::args();
    if !arguments.any(|argument| argument == "--bench") {
        println!("wear: run by `cargo xtask bench wear`, as root");
        return;
    }
    let seconds = std::env::args().skip_while(|argument| argument != "--seconds").nth(1);
    let seconds = seconds.map_or(120, |seconds| seconds.parse().expect("--seconds N"));
    let running = Contender::ALL
        .map(|contender| (contender, thread::spawn(move || measure(contender, seconds))));
    println!("{PER_SECOND} records of {RECORD} bytes a second for {seconds} s\n");
    println!("| store | bytes at the device per byte of payload |\n|---|---|");
    for (contender, measured) in running {
        println!("| {} | {:.3} |", contender.name(), measured.join().expect("it measures"));
    }
}

fn measure(contender: Contender, seconds: u32) -> f64 {
    let disk = LoopDisk::new(BYTES);
    let store = contender.open(disk.path());
    disk.sync();
    let before = disk.bytes_written();
    store.run(disk.path(), seconds);
    disk.sync();
    let payload = f64::from(seconds * PER_SECOND) * f64::from(RECORD);
    (disk.bytes_written() - before) / payload
}

/// Waits for the next record.
fn tick() {
    thread::sleep(Duration::from_secs(1) / PER_SECOND);
}

fn database(directory: &Path) -> std::path::PathBuf {
    directory.join("database")
}
