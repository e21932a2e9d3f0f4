//! `status`: which site runs which bundle.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::broker_options::{BrokerOptions, MissingBroker};
use super::build::selected;
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of};
use crate::office::broker::read_capture;
use crate::office::fleet::{Fleet, Site};
use crate::office::site_report::{SiteReports, SiteState, SiteVerdict, StateReason};

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision status                          all sites, from the brokers at the hubs
  edge-provision status amsterdam-01 --json
  edge-provision status --broker 127.0.0.1:1883  through `ssh -L 1883:10.77.0.1:1883 hub-a`
  mosquitto_sub -h 10.77.0.1 -t 'edge/+/status' -F '%t %p' -W 5 > statuses.txt
  edge-provision status --capture statuses.txt

Shows one line for each site: its state, the bundle that it runs, the last one that was built, since
when, and why. The states:

  current     it runs the last bundle, confirmed
  behind      it runs an older bundle, or none
  ahead       it runs a bundle that the files of this fleet do not know
  trying      a bundle is on trial
  reverted    it rolled back the last bundle to the previous one
  refused     it did not take the last bundle
  offline     the broker has lost the connection to it
  silent      its last status is older than 3 minutes, or more than 3 minutes in the future
  never seen  the broker has no status of it

Exit code 1 if any site is not current. Revoked sites are left out.")]
pub(super) struct StatusOptions {
    /// Sites to show; all by default.
    #[arg(value_name = "SITE", value_parser = super::label)]
    sites: Vec<String>,
    #[command(flatten)]
    fleet: FleetOption,
    #[command(flatten)]
    brokers: BrokerOptions,
    /// Read the statuses from a file instead of a broker: a topic, a space and a payload in each
    /// line, as `mosquitto_sub -F '%t %p'` and `mosquitto_sub -v` write them. Ages count from the
    /// time when the file was last written.
    #[arg(long, value_name = "FILE", conflicts_with = "brokers")]
    capture: Option<PathBuf>,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub(super) fn status(options: &StatusOptions) -> anyhow::Result<u8> {
    let Some(fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    let mut sites = selected(&fleet, &options.sites)?;
    if options.sites.is_empty() {
        sites.retain(|site| !site.is_revoked);
    }
    let (reports, now) = reports(options, &fleet)?;
    let verdict = |site: &Site| reports.verdict(&site.id, site.counter, now);
    let verdicts: Vec<_> = sites.into_iter().map(|site| (site, verdict(site))).collect();
    let mut output = io::BufWriter::new(io::stdout().lock());
    if options.json {
        for (site, verdict) in &verdicts {
            let line = json_line(site, verdict);
            writeln!(output, "{}", serde_json::to_string(&line).context("a site as JSON")?)?;
        }
    } else {
        write_table(&mut output, &verdicts)?;
    }
    output.flush()?;
    let is_current = |(_, verdict): &(_, SiteVerdict)| verdict.state == SiteState::Current;
    Ok(if verdicts.iter().all(is_current) { EXIT_OK } else { EXIT_NEGATIVE })
}

/// Returns the statuses, and the time for which they hold.
fn reports(options: &StatusOptions, fleet: &Fleet) -> anyhow::Result<(SiteReports, Timestamp)> {
    let Some(path) = &options.capture else {
        let dir = &options.fleet.dir;
        let (_, reports) = options.brokers.connect(fleet, dir, MissingBroker::Warned)?;
        return Ok((reports, Timestamp::now()));
    };
    let mut reports = SiteReports::default();
    let written = read_capture(path, |site, payload| reports.on_message(0, site, payload, None));
    Ok((reports, written.with_context(|| path.display().to_string())?))
}

fn write_table(output: &mut impl Write, verdicts: &[(&Site, SiteVerdict)]) -> io::Result<()> {
    let widest = verdicts.iter().map(|(site, _)| site.id.len()).max().unwrap_or_default();
    let mut counts = BTreeMap::<SiteState, usize>::new();
    for (site, verdict) in verdicts {
        *counts.entry(verdict.state).or_default() += 1;
        let runs = verdict.runs.map_or_else(|| "-".to_owned(), |counter| counter.to_string());
        let since = verdict.since.map(|since| since.strftime("%Y-%m-%dT%H:%MZ").to_string());
        let since = since.unwrap_or_else(|| "-".to_owned());
        let reason = verdict.reason.as_ref().map(ToString::to_string).unwrap_or_default();
        let line = format!(
            "{:widest$}  {:10}  runs {runs:>4}  built {:>4}  since {since:17}  {reason}",
            site.id, verdict.state, site.counter
        );
        writeln!(output, "{}", line.trim_end())?;
    }
    let counts: Vec<_> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(output, "{}: {}", count_of(verdicts.len(), "site"), counts.join(", "))
}

fn json_line(site: &Site, verdict: &SiteVerdict) -> serde_json::Value {
    let detail = match &verdict.reason {
        Some(StateReason::Gateway { detail, .. }) => detail.clone(),
        _ => None,
    };
    json!({
        "id": site.id,
        "state": verdict.state.as_str(),
        "runs": verdict.runs,
        "built": site.counter,
        "since": verdict.since.map(|since| since.to_string()),
        "sentence": verdict.reason.as_ref().map(ToString::to_string),
        "sentence_detail": detail,
    })
}
