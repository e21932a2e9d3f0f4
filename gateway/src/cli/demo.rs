//! `demo`: runs the whole chain on this machine.

use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use provisioning::config::{self, Broker};
use tokio_util::sync::CancellationToken;

use super::{EXIT_NEGATIVE, EXIT_OK, block_on, print_line, run};
use crate::demo::{self, ArrivedMessage, DemoEvent, DemoResult};

/// `demo`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway demo --for 20s
  edge-gateway demo --json --for 20s | jq .payload.temperature
  edge-gateway demo --json --for 20s | edge-gateway audit --capture -
  edge-gateway demo --broker mqtt://127.0.0.1:1883
  edge-gateway demo --node-red

Exit code 0 only if messages arrived and their values are those of the PLCs.")]
pub(super) struct DemoOptions {
    /// Stop after this time, like 20s or 1m, with a summary.
    #[arg(long = "for", value_name = "TIME", value_parser = config::parse_duration)]
    duration: Option<Duration>,
    /// Print one message per line: {"topic":..,"payload":{..}}.
    #[arg(long)]
    json: bool,
    /// Print how to import the dashboard for Node-RED, and end.
    #[arg(long)]
    node_red: bool,
    /// Publish to this broker, like mqtt://127.0.0.1:1883, and take commands from it, instead of
    /// the demo's own broker behind a tunnel.
    #[arg(long, value_name = "URL")]
    broker: Option<Broker>,
}

const NODE_RED: &str = "\
A dashboard for the demo, with a broker and Node-RED on this machine:

  1. Start the demo:         edge-gateway demo --broker mqtt://127.0.0.1:1883
  2. Install the dashboard:  in Node-RED, Menu > Manage palette > Install,
                             @flowfuse/node-red-dashboard
  3. Import the flow:        Menu > Import > select a file to import, Import, Deploy:
                             /usr/share/doc/edge-gateway/node-red/flows.json
                             (in the repository: deploy/node-red/flows.json)
  4. Open the dashboard:     http://127.0.0.1:1880/dashboard/pump6

For another broker, change the node \"broker\"; for another gateway or PLC, the topics of the MQTT
nodes.";

const INTRODUCTION: &str = "\
Two simulated PLCs, an M241 (pump6) and an M251 (pump7), are read over Modbus TCP. The messages
below have arrived at the broker. Ctrl-C stops the demo with a summary.";

/// Runs the chain and prints the messages that arrive at the broker.
pub(super) fn demo(options: &DemoOptions) -> anyhow::Result<u8> {
    if options.node_red {
        print_line(NODE_RED)?;
        return Ok(EXIT_OK);
    }
    let for_people = !options.json || io::stderr().is_terminal();
    if for_people {
        writeln!(io::stderr(), "{INTRODUCTION}")?;
    }
    let verdict = block_on(async {
        let stop = CancellationToken::new();
        let signals = run::stop_on_signal(stop.clone())?;
        let show = |event: DemoEvent| match event {
            DemoEvent::Started { broker } if for_people => {
                Ok(writeln!(io::stderr(), "{}", advice(broker, options.broker.as_ref()))?)
            }
            DemoEvent::Started { .. } => Ok(()),
            DemoEvent::Arrived(arrival) => print_line(format_arrival(&arrival, options.json)),
        };
        let DemoOptions { duration, broker, .. } = options.clone();
        tokio::select! {
            verdict = demo::run(demo::DemoSetup { duration, broker }, stop, show) => verdict,
            () = signals => Ok(DemoResult::default()),
        }
    })?;
    if for_people {
        writeln!(io::stderr(), "{verdict}")?;
    }
    Ok(if verdict.is_correct() { EXIT_OK } else { EXIT_NEGATIVE })
}

/// Returns how to send a command.
fn advice(own: Option<SocketAddr>, other: Option<&Broker>) -> String {
    let (host, port) = match (own, other) {
        (Some(own), _) => (own.ip().to_string(), own.port()),
        (None, Some(other)) => (other.address.host.clone(), other.address.port),
        (None, None) => return String::new(),
    };
    format!(
        "To write to a PLC, publish a command with any MQTT client; the answer is on the topic \
         edge/amsterdam-01/reply/pump6:\n  mosquitto_pub -h {host} -p {port} -q 1 \
         -t edge/amsterdam-01/set/pump6 -m '{{\"setpoint\":21.5}}'"
    )
}

fn format_arrival(arrival: &ArrivedMessage, as_json: bool) -> String {
    let ArrivedMessage { topic, payload } = arrival;
    if as_json {
        serde_json::json!({ "topic": topic, "payload": payload }).to_string()
    } else {
        format!("{topic} {payload}")
    }
}
