//! `simulate`: runs a simulated PLC.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use provisioning::plc::PlcModel;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{EXIT_OK, print_line, run, runtime};
use crate::logging::Logging;
use crate::simulate::{Fault, FaultInjector, SimulatedPlc, SimulatorSettings, VARIABLES, serve};

/// `simulate`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway simulate --model M251 --listen 127.0.0.1:1502
  edge-gateway simulate --list                        the variables that can be read
  mbpoll -m tcp -p 1502 -a 255 -0 -r 10 -c 2 -t 4:float 127.0.0.1   read %MW10 with another client
  edge-gateway simulate --faults late,split --rate 0.1 --seed 7     one answer in ten is faulty
  edge-gateway simulate --faults all --rate 0.02                    behave like a bad network")]
pub(super) struct SimulateOptions {
    /// PLC family to simulate.
    #[arg(long, default_value = "M241", ignore_case = true, value_parser = model_parser())]
    model: PlcModel,
    /// Address of its Modbus server; port 502 needs root.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1502")]
    listen: SocketAddr,
    /// Period of its MAST task in milliseconds: answers are sent at the end of a period. 0 sends
    /// them at once.
    #[arg(long, value_name = "MS", default_value_t = 10)]
    mast: u64,
    /// Number that determines values and faults: PLCs with the same seed have the same values at
    /// the same time after their start, and the same faults.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Inject these faults into answers, separated by commas.
    #[arg(long, alias = "mischief", value_name = "FAULTS")]
    #[arg(value_delimiter = ',', value_parser = fault_parser())]
    faults: Vec<FaultList>,
    /// Share of the answers that are faulty, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = parse_share)]
    #[arg(requires = "faults")]
    rate: f64,
    /// List the variables of the simulated program and exit.
    #[arg(long)]
    list: bool,
}

/// The faults that one word of `--faults` stands for.
type FaultList = &'static [Fault];

fn fault_parser() -> impl TypedValueParser<Value = FaultList> {
    let every = PossibleValue::new("all").help("any of the faults above, chosen at random");
    let each = Fault::ALL.iter().map(|fault| PossibleValue::new(fault.name()).help(fault.help()));
    PossibleValuesParser::new(each.chain([every])).map(|name| {
        let all: FaultList = &Fault::ALL;
        all.iter().position(|t| t.name() == name).and_then(|at| all.get(at..=at)).unwrap_or(all)
    })
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1, like 0.1".to_owned())
}

/// Accepts the families that can be simulated.
fn model_parser() -> impl TypedValueParser<Value = PlcModel> {
    let names = [PlcModel::M241, PlcModel::M251].map(PlcModel::name);
    PossibleValuesParser::new(names).try_map(|name| name.parse::<PlcModel>())
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn simulate(options: &SimulateOptions) -> anyhow::Result<u8> {
    if options.list {
        return list();
    }
    let _log = Logging::start()?;
    let mut settings = SimulatorSettings::new(options.model)
        .with_context(|| format!("{} cannot be simulated: choose M241 or M251", options.model))?;
    settings.mast = Duration::from_millis(options.mast);
    settings.seed = options.seed;
    let faults = options.faults.concat();
    settings.faults =
        (!faults.is_empty()).then(|| FaultInjector::random(&faults, options.rate, options.seed));
    runtime()?.block_on(async {
        let listener = TcpListener::bind(options.listen)
            .await
            .with_context(|| format!("cannot listen on {}", options.listen))?;
        print_line(format_args!(
            "{} listens on {}, unit 255",
            options.model,
            listener.local_addr()?
        ))?;
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        tokio::select! {
            () = serve(SimulatedPlc::new(settings), listener, stop) => {}
            () = signals => {}
        }
        Ok(EXIT_OK)
    })
}

/// Prints each variable as it is declared in Machine Expert.
fn list() -> anyhow::Result<u8> {
    for variable in VARIABLES {
        let declaration = format!("{} AT {} : {};", variable.name, variable.at, variable.iec_type);
        print_line(format_args!("{declaration:34}  {}", variable.meaning))?;
    }
    Ok(EXIT_OK)
}
