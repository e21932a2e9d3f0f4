//! `demo`: the whole chain on this machine.

use std::io::{self, IsTerminal};
use std::time::Duration;

use clap::Args;
use provisioning::config;
use tokio_util::sync::CancellationToken;

use super::{DONE, NO, run, runtime, say};
use crate::demo::{self, Arrival, Verdict};

/// `demo`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// End after this time, as 20s or 1m, with a summary.
    #[arg(long = "for", value_name = "TIME", value_parser = config::duration)]
    duration: Option<Duration>,
    /// One message per line: {"topic":..,"payload":{..}}.
    #[arg(long)]
    json: bool,
}

/// Runs the chain and prints what arrives at its end.
pub(super) fn demo(options: &Options) -> anyhow::Result<u8> {
    let verdict = runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let print = |arrival: &Arrival| say(line(arrival, options.json));
        tokio::select! {
            verdict = demo::run(options.duration, stop, print) => verdict,
            () = signals => Ok(Verdict::default()),
        }
    })?;
    if !options.json || io::stderr().is_terminal() {
        io::Write::write_fmt(&mut io::stderr(), format_args!("{verdict}\n"))?;
    }
    Ok(if verdict.is_right() { DONE } else { NO })
}

fn line(arrival: &Arrival, as_json: bool) -> String {
    let Arrival { topic, payload } = arrival;
    if as_json {
        serde_json::json!({ "topic": topic, "payload": payload }).to_string()
    } else {
        format!("{topic} {payload}")
    }
}
