//! Shows the Modbus registers of an address for each PLC model, or why it has none.
//!
//! ```text
//! cargo run -p provisioning --example locate_addresses -- %MD5 REAL
//! ```
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "an example prints its result")]

use std::process::ExitCode;

use provisioning::plc::{DataType, PlcModel};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [at, data] = arguments.as_slice() else {
        eprintln!("usage: locate_addresses ADDRESS TYPE");
        return ExitCode::from(2);
    };
    match locate(at, data) {
        Ok(lines) => {
            println!("{}", lines.join("\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns a line for each model, or an error for an unknown type.
pub(crate) fn locate(at: &str, data: &str) -> Result<Vec<String>, String> {
    let data: DataType = data.parse().map_err(|error| format!("{error}"))?;
    Ok(PlcModel::ALL.into_iter().map(|model| line(model, at, data)).collect())
}

fn line(model: PlcModel, at: &str, data: DataType) -> String {
    match model.locate(at, data) {
        Ok(location) => {
            let (table, first, count) = (location.table.keyword(), location.first, location.count);
            format!("{model}: {table}:{first}, count {count}, {}", model.default_byte_order())
        }
        Err(error) => {
            let help = error.help.map(|help| format!("; {help}")).unwrap_or_default();
            format!("{model}: {}{help}", error.message)
        }
    }
}
