//! `status`: shows how the running gateway is doing.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::Args;
use provisioning::regular_file;

use super::{ConfigFile, EXIT_NEGATIVE, EXIT_OK, WAITING_FILE, configuration, print_line, runtime};
use crate::app;
use crate::model::Escaped;
use crate::status::{Headline, Status};
use crate::web::{FetchError, HttpTarget, fetch};

/// A reason has four lines at most.
const MAX_REASON_BYTES: u64 = 16 << 10;

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sudo edge-gateway status                      a table; its first line matters most
  sudo edge-gateway status gateway.toml --json  for a program

Connects to the gateway that runs with the same configuration, over the socket in its state_dir.
Only that gateway's user and root may open the socket. No secret is read. Exit code 0 only if all
is well; 1 if no gateway answers, or if the first line of the table says anything else. A gateway
that waits after a failed start does not answer; the reason is then shown.")]
pub(super) struct StatusOptions {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the status as JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the status of the gateway that runs with this configuration.
pub(super) fn status(options: &StatusOptions) -> anyhow::Result<u8> {
    let inspected = configuration::inspect_running(&options.file.path)?;
    let Some(inspected) = inspected else { return Ok(EXIT_NEGATIVE) };
    let status = fetch_status(&inspected.gateway.state_dir)?;
    if options.json {
        print_line(serde_json::to_string_pretty(&status)?)?;
    } else {
        print_line(format_args!("{status}"))?;
    }
    let is_well = matches!(status.headline(), Headline::AllWell { .. });
    Ok(if is_well { EXIT_OK } else { EXIT_NEGATIVE })
}

/// Returns the error with what to do, where its kind suggests a remedy.
pub(super) fn explain_error(error: FetchError, state_dir: &Path) -> anyhow::Error {
    let FetchError::Unreachable { source, .. } = &error else { return error.into() };
    let kind = source.kind();
    if kind == ErrorKind::PermissionDenied {
        return anyhow!(
            "only root and the gateway's own user may connect to the gateway in {}; use sudo",
            state_dir.display()
        );
    }
    let waiting = regular_file::read(&state_dir.join(WAITING_FILE), MAX_REASON_BYTES);
    let state_dir = state_dir.display();
    if let Ok(reason) = waiting {
        let reason = String::from_utf8_lossy(&reason);
        return anyhow!(
            "No gateway answers in {state_dir}. Its last start failed: {}. `systemctl status \
             edge-gateway` shows whether it tries again.",
            Escaped(reason.trim().trim_end_matches('.'))
        );
    }
    if matches!(kind, ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
        return anyhow!(
            "No gateway answers in {state_dir}. Either none is running (systemctl status \
             edge-gateway shows why), or it cannot use that directory: then set state_dir to one \
             that its user can write. If it runs with another file, give that file."
        );
    }
    error.into()
}

/// Fetches the status from the gateway that runs with this `state_dir`.
pub(super) fn fetch_status(state_dir: &Path) -> anyhow::Result<Status> {
    let target = HttpTarget::Unix(app::socket_path(state_dir));
    let answer = runtime()?
        .block_on(fetch(&target, "/status"))
        .map_err(|error| explain_error(error, state_dir))?;
    serde_json::from_slice(&answer.body).context("the gateway that answers has another version")
}
