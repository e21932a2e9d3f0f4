//! `simulate`: a PLC to try things on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use provisioning::plc::Model;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{DONE, run, runtime, say};
use crate::simulate::{Mischief, Settings, SimulatedPlc, Trick, serve};

/// `simulate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway simulate --model M251 --listen 127.0.0.1:1502
  mbpoll -m tcp -p 1502 -a 255 -0 -r 10 -c 2 -t 4:float 127.0.0.1   read %MW10 with another client
  edge-gateway simulate --mischief late,split --rate 0.1 --seed 7   spoil every tenth answer
  edge-gateway simulate --mischief all --rate 0.02                  see what a bad network does")]
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
    /// PLCs with the same seed show the same values at the same age, and spoil the same answers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Spoil answers in these ways, separated by commas; each says how the answer comes.
    #[arg(long, value_name = "TRICKS", value_delimiter = ',', value_parser = tricks())]
    mischief: Vec<Tricks>,
    /// Share of the answers that are spoiled, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    #[arg(requires = "mischief")]
    rate: f64,
}

/// One word of `--mischief`.
type Tricks = &'static [Trick];

fn tricks() -> impl TypedValueParser<Value = Tricks> {
    let every = PossibleValue::new("all").help("any of them");
    let each = Trick::ALL.iter().map(|trick| PossibleValue::new(trick.name()).help(trick.help()));
    PossibleValuesParser::new(each.chain([every])).map(|name| {
        let all: Tricks = &Trick::ALL;
        all.iter().position(|t| t.name() == name).and_then(|at| all.get(at..=at)).unwrap_or(all)
    })
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1, like 0.1".to_owned())
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
    let tricks = options.mischief.concat();
    settings.mischief =
        (!tricks.is_empty()).then(|| Mischief::mixture(&tricks, options.rate, options.seed));
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
