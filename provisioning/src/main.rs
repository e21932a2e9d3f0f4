//! `edge-provision`: turns one fleet in files into everything that each box and the hubs need.

use std::process::ExitCode;

fn main() -> ExitCode {
    provisioning::office::cli::main()
}
