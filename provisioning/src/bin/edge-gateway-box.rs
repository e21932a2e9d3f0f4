//! `edge-gateway-box`: what a box does as root for its gateway.

use std::process::ExitCode;

fn main() -> ExitCode {
    provisioning::root_helper::main()
}
