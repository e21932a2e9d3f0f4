//! `rollout`: offers the last bundles to their sites, wave by wave.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use jiff::Timestamp;

use super::broker_options::{BrokerOptions, MissingBroker, record, unusable};
use super::build::{BuildRequest, build_sites, selected};
use super::key_options::{AuthorityKeyOption, SigningKeyOptions};
use super::{EXIT_NEGATIVE, EXIT_OK, FleetOption, count_of, print_line};
use crate::bundle::BundleOffer;
use crate::config::{ArgumentError, parse_duration};
use crate::office::broker::{BrokerEvent, Brokers};
use crate::office::build::BUNDLES_DIR;
use crate::office::fleet::{Fleet, Site, in_parallel};
use crate::office::fleet_signing::SigningLists;
use crate::office::rollout::{
    OfferError, RolloutEnd, RolloutFailure, RolloutPlan, RolloutStep, RolloutTarget, WaveSizes,
    offer_of_site,
};
use crate::office::site_report::{SiteReports, SiteState};

/// `rollout`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-provision rollout --canary 2                     all sites, 2 of them first
  edge-provision rollout amsterdam-01 --canary 1        one site
  edge-provision rollout --canary 2 --wave 50 --timeout 1h
  edge-provision rollout --canary 2 --dry-run           who would be offered what, and when
  edge-provision rollout --canary 2 --again             after an outage of the hub

First put the bundles of `build` onto the web server of every hub: a box fetches from there what
it is offered. Each wave waits until every site of it runs its bundle and has confirmed it. The
first site that rolls back, refuses, is ahead or does not confirm in time ends the roll-out, and
the offers of its wave that were not taken are removed. Sites that run their bundle already are
skipped. Unreachable sites get their offers after all others, and accept them when they are back.

A bundle with secrets in clear is never offered: bring it to its box from secrets/bundles.

The command may be stopped and started again at any time: it goes on where the sites are.

Exit code 1 if a site has failed, or no site was reachable.")]
pub(super) struct RolloutOptions {
    /// Sites to offer bundles to; all by default.
    #[arg(value_name = "SITE", value_parser = super::label)]
    sites: Vec<String>,
    #[command(flatten)]
    fleet: FleetOption,
    #[command(flatten)]
    brokers: BrokerOptions,
    /// Sites of the first wave.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    canary: u32,
    /// Sites of each later wave; by default a tenth of the sites that are not current, but no
    /// fewer than the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    wave: Option<u32>,
    /// Time for each wave. Longer than `[bundle] confirm`, so that a site can say why it rolled
    /// back.
    #[arg(long, value_name = "TIME", value_parser = timeout, default_value = "30m")]
    timeout: Duration,
    /// Directory with the bundles; out/bundles of the fleet by default.
    #[arg(long, value_name = "DIR")]
    bundles: Option<PathBuf>,
    /// First build the same content with a new counter for the sites that rolled back: a box never
    /// takes the same counter twice. Only if the web servers serve the directory of the bundles
    /// itself; otherwise `build --again SITE`, copy, and roll out.
    #[arg(long)]
    again: bool,
    /// Show the waves, and offer nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    key: SigningKeyOptions,
    #[command(flatten)]
    authority: AuthorityKeyOption,
}

/// Time between two looks at the ages of all statuses.
const JUDGE_INTERVAL: Duration = Duration::from_secs(10);
/// Time for the acknowledgements of the last offers.
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
/// Problems that are shown.
const MAX_SHOWN: usize = 20;

fn timeout(text: &str) -> Result<Duration, ArgumentError> {
    parse_duration(text)
}

pub(super) fn rollout(options: &RolloutOptions) -> anyhow::Result<u8> {
    let Some(mut fleet) = options.fleet.load()? else { return Ok(EXIT_NEGATIVE) };
    // A wrong name is reported before anything is connected.
    selected(&fleet, &options.sites)?;
    let dir = options.fleet.path("");
    let (brokers, reports) = options.brokers.connect(&fleet, &dir, MissingBroker::Refused)?;
    if options.again {
        let Some(renewed) = renew(options, &reports)? else { return Ok(EXIT_NEGATIVE) };
        fleet = renewed;
    }
    let sites = selected(&fleet, &options.sites)?;
    let Some(run) = RolloutRun::prepare(options, &sites, brokers, reports)? else {
        return Ok(EXIT_NEGATIVE);
    };
    if options.dry_run { run.show() } else { run.finish() }
}

/// Builds bundles with new counters for the sites that rolled back. Returns the fleet as it is then;
/// `None` after printing problems.
fn renew(options: &RolloutOptions, reports: &SiteReports) -> anyhow::Result<Option<Fleet>> {
    let _lock = options.fleet.lock()?;
    let Some(fleet) = options.fleet.load()? else { return Ok(None) };
    let now = Timestamp::now();
    let is_back = |site: &&Site| {
        !site.is_revoked
            && reports.verdict(&site.id, site.counter, now).state == SiteState::Reverted
    };
    let sites: Vec<&Site> = selected(&fleet, &options.sites)?.into_iter().filter(is_back).collect();
    if sites.is_empty() {
        print_line("no site rolled back its last bundle: nothing is built again")?;
        return Ok(Some(fleet));
    }
    if options.dry_run {
        for site in &sites {
            print_line(format_args!("{}: would get bundle {}", site.id, site.counter + 1))?;
        }
        return Ok(Some(fleet));
    }
    let request = BuildRequest {
        fleet: &options.fleet,
        key: Some(&options.key),
        authority: &options.authority,
        out: options.bundles.as_deref(),
    };
    let again: BTreeSet<String> = sites.iter().map(|site| site.id.clone()).collect();
    if build_sites(&fleet, &sites, &again, &request)? == EXIT_NEGATIVE {
        return Ok(None);
    }
    options.fleet.load()
}

/// The sites of a roll-out, each with its offer; none for a site that runs its bundle already.
type OfferedTargets = (Vec<RolloutTarget>, Vec<Option<BundleOffer>>);

/// Makes the offers of all sites that have a bundle. Returns `None` after printing why some cannot
/// be made.
fn make_offers(
    options: &RolloutOptions,
    sites: &[&Site],
    reports: &SiteReports,
) -> anyhow::Result<Option<OfferedTargets>> {
    let dir = options.fleet.path("");
    let bundles = options.bundles.clone().unwrap_or_else(|| options.fleet.path(BUNDLES_DIR));
    let lists = SigningLists::load(&options.fleet.dir)?;
    let (keys, now) = (lists.first()?, Timestamp::now());
    let make = |site: &&Site| -> Result<_, OfferError> {
        let verdict = reports.verdict(&site.id, site.counter, now);
        if verdict.state == SiteState::Current && !site.is_revoked {
            return Ok((verdict, None));
        }
        let offer = offer_of_site(site, &dir, &bundles, keys)?;
        Ok((verdict, Some(offer)))
    };
    let made = in_parallel(sites, |_, part| part.iter().map(make).collect());
    let (mut targets, mut offers, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (site, made) in sites.iter().zip(made) {
        match made {
            Ok((verdict, offer)) => {
                targets.push(RolloutTarget::new(site.id.clone(), site.counter, verdict));
                offers.push(offer);
            }
            // A line for each box that was never enrolled would hide the others.
            Err(OfferError::Revoked { .. } | OfferError::NotBuilt { .. })
                if options.sites.is_empty() => {}
            Err(error) if error.is_skipped() => print_line(format_args!("skipped: {error}"))?,
            Err(error) => problems.push(error),
        }
    }
    for error in problems.iter().take(MAX_SHOWN) {
        writeln!(io::stderr(), "{error}")?;
    }
    if !problems.is_empty() {
        let count = count_of(problems.len(), "bundle");
        writeln!(io::stderr(), "{count} cannot be offered: nothing was offered")?;
        return Ok(None);
    }
    if targets.is_empty() {
        bail!("there is no bundle to offer");
    }
    Ok(Some((targets, offers)))
}

/// A roll-out with its connections.
struct RolloutRun {
    brokers: Brokers,
    reports: SiteReports,
    plan: RolloutPlan,
    /// In the order of the plan.
    offers: Vec<Option<BundleOffer>>,
    /// Position of each site in the plan.
    positions: BTreeMap<String, usize>,
    last_judged: Instant,
    has_offered: bool,
}

impl RolloutRun {
    /// Makes the offers. Returns `None` after printing why some cannot be made.
    fn prepare(
        options: &RolloutOptions,
        sites: &[&Site],
        brokers: Brokers,
        reports: SiteReports,
    ) -> anyhow::Result<Option<Self>> {
        let Some((targets, offers)) = make_offers(options, sites, &reports)? else {
            return Ok(None);
        };
        let positions = targets.iter().enumerate();
        let positions = positions.map(|(at, target)| (target.site.clone(), at)).collect();
        let size = |sites: u32| usize::try_from(sites).unwrap_or(usize::MAX);
        let sizes = WaveSizes { canary: size(options.canary), wave: options.wave.map(size) };
        let plan = RolloutPlan::new(targets, sizes, options.timeout);
        let (last_judged, has_offered) = (Instant::now(), false);
        Ok(Some(Self { brokers, reports, plan, offers, positions, last_judged, has_offered }))
    }

    /// Prints what a roll-out would do.
    fn show(&self) -> anyhow::Result<u8> {
        let (waves, unreachable) = self.plan.preview(Instant::now());
        let name = |at: &usize| match self.plan.targets().get(*at) {
            Some(target) => format!("{} ({})", target.site, target.counter),
            None => String::new(),
        };
        let names = |sites: &[usize]| sites.iter().map(name).collect::<Vec<_>>().join(", ");
        for (number, wave) in waves.iter().enumerate() {
            print_line(format_args!("wave {}: {}", number + 1, names(wave)))?;
        }
        if !unreachable.is_empty() {
            print_line(format_args!(
                "unreachable, offered after the others: {}",
                names(&unreachable)
            ))?;
        }
        let is_failed = |state: SiteState| {
            matches!(state, SiteState::Reverted | SiteState::Refused | SiteState::Ahead)
        };
        let targets = self.plan.targets().iter();
        let failed: Vec<_> = targets.filter(|target| is_failed(target.verdict.state)).collect();
        for target in &failed {
            print_line(format_args!("{}: {}, so that nothing begins", target.site, shown(target)))?;
        }
        print_line("nothing was offered (--dry-run)")?;
        Ok(if failed.is_empty() { EXIT_OK } else { EXIT_NEGATIVE })
    }

    /// Runs until the roll-out ends. Returns the exit code.
    fn finish(mut self) -> anyhow::Result<u8> {
        let current = self.plan.targets().iter();
        let current = current.filter(|target| target.verdict.state == SiteState::Current).count();
        if current > 0 {
            let verb = if current == 1 { "runs its bundle" } else { "run their bundles" };
            print_line(format_args!("{} {verb} already", count_of(current, "site")))?;
        }
        self.plan.start(Instant::now());
        let end = loop {
            if let Some(end) = self.carry_out()? {
                break end;
            }
            self.wait()?;
        };
        let waiting = self.brokers.flush(FLUSH_LIMIT);
        if let Some(address) = waiting.first() {
            bail!("the broker at {address} has not acknowledged the last offers: run this again");
        }
        self.report(end)
    }

    /// Does what the plan says. Returns how it ends, if it does.
    fn carry_out(&mut self) -> anyhow::Result<Option<RolloutEnd>> {
        while let Some(step) = self.plan.poll_step() {
            match step {
                RolloutStep::Wave { number, sites } => {
                    print_line(format_args!("wave {number}: {}", count_of(sites, "site")))?;
                }
                RolloutStep::Offer(at) => self.offer(at, "offered")?,
                RolloutStep::OfferUnreachable(at) => {
                    self.offer(at, "offered, accepted when it is back")?;
                }
                RolloutStep::Clear(at) => {
                    let Some(target) = self.plan.targets().get(at) else { continue };
                    self.brokers.retain(&offer_topic(&target.site), b"")?;
                    print_line(format_args!("{}: offer removed", target.site))?;
                }
                RolloutStep::Changed(at) => {
                    let Some(target) = self.plan.targets().get(at) else { continue };
                    print_line(format_args!("{}: {}", target.site, shown(target)))?;
                }
                RolloutStep::End(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    fn offer(&mut self, at: usize, how: &str) -> anyhow::Result<()> {
        let target = self.plan.targets().get(at);
        let offer = self.offers.get(at).and_then(Option::as_ref);
        let Some((target, offer)) = target.zip(offer) else { return Ok(()) };
        let payload = serde_json::to_vec(offer).context("an offer as JSON")?;
        self.brokers.retain(&offer_topic(&target.site), &payload)?;
        self.has_offered = true;
        let state = target.verdict.state;
        let state = if state.is_reachable() { String::new() } else { format!("{state}, ") };
        print_line(format_args!("{}: {state}bundle {} {how}", target.site, target.counter))
    }

    /// Waits for a status or the next deadline.
    fn wait(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        let judge = self.last_judged + JUDGE_INTERVAL;
        let until = self.plan.next_deadline().map_or(judge, |deadline| deadline.min(judge));
        match self.brokers.next(until.saturating_duration_since(now)) {
            Some(BrokerEvent::Lost { broker, error }) => {
                let address = self.brokers.address(broker).map(|address| address.to_string());
                let text = unusable(&address.unwrap_or_default(), &error);
                writeln!(io::stderr(), "{text}; it is tried again")?;
            }
            Some(BrokerEvent::Reconnected(broker)) => {
                let address = self.brokers.address(broker).map(|address| address.to_string());
                let address = address.unwrap_or_default();
                writeln!(io::stderr(), "the broker at {address}: connected again")?;
            }
            Some(event) => {
                let site = match &event {
                    BrokerEvent::Status { site, .. } => self.positions.get(site).copied(),
                    BrokerEvent::Reconnected(_) | BrokerEvent::Lost { .. } => None,
                };
                record(&mut self.reports, event);
                if let Some(at) = site {
                    self.judge(at, Timestamp::now());
                }
            }
            None => {}
        }
        if self.last_judged.elapsed() >= JUDGE_INTERVAL {
            self.last_judged = Instant::now();
            let now = Timestamp::now();
            (0..self.plan.targets().len()).for_each(|at| self.judge(at, now));
        }
        self.plan.handle_timeout(Instant::now());
        Ok(())
    }

    fn judge(&mut self, at: usize, now: Timestamp) {
        let Some(target) = self.plan.targets().get(at) else { return };
        let verdict = self.reports.verdict(&target.site, target.counter, now);
        self.plan.on_verdict(at, verdict, Instant::now());
    }

    fn report(&self, end: RolloutEnd) -> anyhow::Result<u8> {
        let targets = self.plan.targets();
        let current = targets.iter().filter(|target| target.verdict.state == SiteState::Current);
        let (current, all) = (current.count(), count_of(targets.len(), "site"));
        match end {
            RolloutEnd::Done => {
                print_line(format_args!("done: {current} of {all} run their bundles"))?;
                return Ok(EXIT_OK);
            }
            RolloutEnd::NoSiteReachable => print_line(
                "no site is reachable, so nothing shows whether the bundles work: run this again \
                 when the sites above have confirmed theirs",
            )?,
            RolloutEnd::Failed { target, failure } => {
                let Some(target) = targets.get(target) else { return Ok(EXIT_NEGATIVE) };
                print_line(format_args!(
                    "stopped: {} {failure} ({}): {}",
                    target.site,
                    target.counter,
                    shown(target)
                ))?;
                if !self.has_offered {
                    print_line(match failure {
                        RolloutFailure::Ahead => "nothing was offered",
                        RolloutFailure::Reverted
                        | RolloutFailure::Refused
                        | RolloutFailure::TimedOut => {
                            "nothing was offered: another site would do the same"
                        }
                    })?;
                }
                if failure == RolloutFailure::Reverted {
                    print_line(
                        "if the hub was down during the trial: `rollout --again`; otherwise change \
                         the cause, and build",
                    )?;
                }
                print_line(format_args!("{current} of {all} run their bundles"))?;
            }
        }
        Ok(EXIT_NEGATIVE)
    }
}

fn offer_topic(site: &str) -> String {
    format!("edge/{site}/offer")
}

/// Returns the state of a site with its reason.
fn shown(target: &RolloutTarget) -> String {
    match &target.verdict.reason {
        Some(reason) => format!("{}, {reason}", target.verdict.state),
        None => target.verdict.state.to_string(),
    }
}
