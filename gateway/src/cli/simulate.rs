//! `simulate`: a PLC to try things on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use provisioning::plc::Model;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DONE, run, runtime, say};
use crate::simulate::{Settings, SimulatedPlc, serve};

/// `simulate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway simulate --model M251 --listen 127.0.0.1:1502
  mbpoll -m tcp -p 1502 -a 255 -0 -r 10 -c 2 -t 4:float 127.0.0.1   read %MW10 with another client")]
pub(super) struct Options {
    /// PLC family.
    #[arg(long, default_value = "M241", ignore_case = true, value_parser = model())]
    model: Model,
    /// Where its Modbus server listens; port 502 needs root.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1502")]
    listen: SocketAddr,
    /// Period of its MAST task in milliseconds: answers leave at the end of a cycle; 0 at once.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    mast: u64,
    /// PLCs with the same seed show the same values at the same age.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The families that can be simulated.
fn model() -> impl TypedValueParser<Value = Model> {
    let names = [Model::M241, Model::M251].map(Model::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Model>())
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn simulate(options: &Options) -> anyhow::Result<u8> {
    run::log();
    let mut settings = Settings::new(options.model)
        .with_context(|| format!("{} cannot be simulated: choose M241 or M251", options.model))?;
    settings.mast = Duration::from_millis(options.mast);
    settings.seed = options.seed;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        say(format_args!("{} listens on {}, unit 255", options.model, listener.local_addr()?))?;
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        tokio::select! {
            () = serve(SimulatedPlc::new(settings), listener, stop) => {}
            () = signals => {}
        }
        Ok(DONE)
    })
}
