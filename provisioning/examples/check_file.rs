//! Loads a `gateway.toml` and prints all problems, or the notes and the plan of requests.
//!
//! ```text
//! cargo run -p provisioning --example check_file -- /etc/edge-gateway/gateway.toml
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its result")]

use std::path::Path;
use std::process::ExitCode;

use provisioning::{config, plan};

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check_file FILE");
        return ExitCode::from(2);
    };
    match check(Path::new(&path)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the notes and the plan of each PLC, or all problems of the file.
pub(crate) fn check(path: &Path) -> Result<String, String> {
    let loaded = config::load(path).map_err(|rejected| rejected.to_string())?;
    let notes = loaded.notes.lines().map(|note| format!("note: {note}"));
    let plans = loaded.config.plcs.iter().map(|plc| plan::report(plc, &plan::plan(plc)));
    Ok(notes.chain(plans).collect::<Vec<_>>().join("\n"))
}
