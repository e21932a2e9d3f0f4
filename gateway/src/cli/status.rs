//! `status`: how the running gateway is doing.

use anyhow::Context;
use clap::Args;

use super::{DONE, File, NO, configuration, runtime, say};
use crate::app;
use crate::status::{State, Status};
use crate::web::{Target, fetch};

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
It asks the gateway that runs with the same configuration, on its socket in state_dir, which only
its user and root may open. Exit code 1 when no gateway answers, or when the broker or a PLC does not.")]
pub(super) struct Options {
    #[command(flatten)]
    file: File,
    /// Print the status as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the status of the gateway that runs with this configuration.
pub(super) fn status(options: &Options) -> anyhow::Result<u8> {
    let Some(loaded) = configuration::load(&options.file.path)? else { return Ok(NO) };
    let target = Target::Unix(app::socket_path(&loaded.config.gateway.state_dir));
    let answer = runtime()?.block_on(fetch(&target, "/status"))?;
    let status: Status = serde_json::from_slice(&answer.body)
        .context("the gateway that answers is of another version")?;
    if options.json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        say(format_args!("{status}"))?;
    }
    let states = status.plcs.iter().map(|plc| plc.state).chain([status.broker.state]);
    let is_well = states.into_iter().all(|state| state == State::Connected);
    Ok(if is_well { DONE } else { NO })
}
