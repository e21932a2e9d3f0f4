//! `edge-gateway`: the gateway, and the commands around it.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateway::cli::main()
}
