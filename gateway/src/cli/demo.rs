//! `demo`: runs the whole chain on this machine.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use provisioning::config;
use tokio_util::sync::CancellationToken;

use super::{EXIT_NEGATIVE, EXIT_OK, block_on, print_line, run};
use crate::demo::{self, ArrivedMessage, DemoResult};

/// `demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway demo --for 20s
  edge-gateway demo --json --for 20s | jq .payload.temperature
  edge-gateway demo --json --for 20s | edge-gateway audit --capture -

Exit code 0 only if messages arrived and their values are those of the PLCs.")]
pub(super) struct DemoOptions {
    /// Stop after this time, like 20s or 1m, with a summary.
    #[arg(long = "for", value_name = "TIME", value_parser = config::parse_duration)]
    duration: Option<Duration>,
    /// Print one message per line: {"topic":..,"payload":{..}}.
    #[arg(long)]
    json: bool,
}

const INTRODUCTION: &str = "\
Two simulated PLCs, an M241 (pump6) and an M251 (pump7), are read over Modbus TCP. The messages
below have arrived at the broker. Ctrl-C stops the demo with a summary.";

/// Runs the chain and prints the messages that arrive at the broker.
pub(super) fn demo(options: &DemoOptions) -> anyhow::Result<u8> {
    let for_people = !options.json || io::stderr().is_terminal();
    if for_people {
        writeln!(io::stderr(), "{INTRODUCTION}")?;
    }
    let verdict = block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let print = |arrival: &ArrivedMessage| print_line(format_arrival(arrival, options.json));
        tokio::select! {
            verdict = demo::run(options.duration, stop, print) => verdict,
            () = signals => Ok(DemoResult::default()),
        }
    })?;
    if for_people {
        writeln!(io::stderr(), "{verdict}")?;
    }
    Ok(if verdict.is_correct() { EXIT_OK } else { EXIT_NEGATIVE })
}

fn format_arrival(arrival: &ArrivedMessage, as_json: bool) -> String {
    let ArrivedMessage { topic, payload } = arrival;
    if as_json {
        serde_json::json!({ "topic": topic, "payload": payload }).to_string()
    } else {
        format!("{topic} {payload}")
    }
}
