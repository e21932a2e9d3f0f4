//! Compares the tunnel with wireguard-go: throughput, and processor time per gigabyte.
//!
//! Two network namespaces connected by a veth. The hub is always wireguard-go, the site is each program
//! in turn. Turns are interleaved because the speed of the machine varies; only ratios within one run
//! are meaningful. Needs root; `cargo xtask bench tunnel` prepares everything.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench may stop on the spot, and prints its result"
)]

mod report;
mod site;
mod stream;
mod world;

use std::path::PathBuf;

use report::{Row, Table};
use site::Contender;
use world::World;

/// Options of the bench.
struct Options {
    turns: u32,
    seconds: u32,
    wireguard_go: PathBuf,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // The program starts itself in other namespaces for the other parts of a measurement.
    if let Some(part) = arguments.iter().position(|word| word == "--part") {
        let words: Vec<&str> = arguments.iter().skip(part + 1).map(String::as_str).collect();
        return stream::part(&words);
    }
    let options = Options {
        turns: number(&arguments, "--turns").unwrap_or(3),
        seconds: number(&arguments, "--seconds").unwrap_or(5),
        wireguard_go: value(&arguments, "--wireguard-go").expect("--wireguard-go PATH").into(),
    };
    let mut table = Table::default();
    for turn in 1..=options.turns {
        for mtu in [1420, 1280] {
            for contender in Contender::ALL {
                let row = measure(contender, mtu, turn == 1, &options);
                println!("turn {turn}: {row}");
                table.add(row);
            }
        }
    }
    println!("\n{table}");
}

fn measure(contender: Contender, mtu: u16, with_idle: bool, options: &Options) -> Row {
    let world = World::new(mtu, &options.wireguard_go);
    contender.run(&world, options.seconds, with_idle)
}

fn value<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    let at = arguments.iter().position(|word| word == name)?;
    arguments.get(at + 1).map(String::as_str)
}

fn number(arguments: &[String], name: &str) -> Option<u32> {
    value(arguments, name)?.parse().ok()
}
