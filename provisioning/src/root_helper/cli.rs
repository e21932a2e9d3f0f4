//! The command line of `edge-gateway-box`; the only module of the helper that prints.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use super::apply::Reconciler;
use super::box_dir::BoxFiles;
use super::dpkg::{Dpkg, PackageManager as _};
use super::gateway_state::{GatewayState as _, StateFiles};
use super::led::Led;
use super::load::Loader;
use super::mount::MountedStick;
use super::network::{
    CommandReloader, NetworkReloader, NetworkService, SystemReloader, services_here,
};
use super::open_dir::{FileOwner, OpenDir};
use super::run_dir::RunDir;
use super::sentence::{HelperError, Refusal};
use super::stick::{StickReport, load_newest, write_files};
use super::updater::{UpdateProgress, Updater, announce};
use super::wipe::{plan, wipe};
use crate::bundle::{BundleError, MAX_BUNDLE_BYTES};
use crate::cli_files::{CompletionsOptions, ManOptions, completions_examples};
use crate::enrolment::Enrolment;

/// Exit code: success.
const EXIT_OK: u8 = 0;
/// Exit code: something was refused, or the command could not do its work.
const EXIT_NEGATIVE: u8 = 1;

/// Runs of `apply` in one call: the gateway's user may change the record for ever.
const MAX_APPLY_RUNS: usize = 8;
/// Time between two looks at what the gateway does with a bundle.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Directory in that of the box where a stick is mounted.
const MOUNT_POINT: &str = "stick";

const EXAMPLES: &str = "\
Examples:
  sudo edge-gateway-box enrolment                          print what the office needs to know
  sudo edge-gateway-box load edge-bundle-amsterdam-01.tar  give this box a bundle
  sudo edge-gateway-box stick /media/stick                 do what plugging in a stick does
  sudo edge-gateway-box apply                              put the gateway's bundle to use
  sudo edge-gateway-box update                             install the version of the bundle on trial
  sudo edge-gateway-box led                                show the state with the light of the box
  sudo edge-gateway-box wipe --yes                         forget everything, for disposal

Exit codes: 0 success, 1 refused or failed, 2 usage error.";

const UPDATE_HELP: &str = "\
The gateway fetches the packages, and this program installs only those whose SHA-256 the signed
bundle names. It waits for them, and for the trial of the bundle. A power cut may come at any time:
the next run finishes what was begun. On a box without dpkg it does nothing.";

const LED_HELP: &str = "\
The light is on while all is well. Otherwise it blinks, and pauses:
  1  the gateway does not run, or is starting
  2  no connection to the broker: cable, line to the internet, hub, broker
  3  a PLC does not answer or gives no good values: its cable, power, program
  4  anything else: storage, clock, a certificate, a bundle on trial

`edge-gateway status` says what it is. `ls /sys/class/leds` lists the lights of a machine.";

/// Does on a box what needs root: sticks, the network, keys and secrets of bundles.
#[derive(Debug, Parser)]
#[command(name = "edge-gateway-box", version, after_help = EXAMPLES, max_term_width = 100)]
struct BoxCli {
    #[command(subcommand)]
    command: BoxCommand,
}

#[derive(Debug, Subcommand)]
enum BoxCommand {
    /// Give this box a bundle; the first one decides which site it is and which keys it trusts.
    Load(BoxLoadOptions),
    /// Load the newest bundle of a stick, and write status and enrolment onto it.
    Stick(StickOptions),
    /// Put the secrets and the network of the gateway's bundle to use, after verifying it.
    Apply(ApplyOptions),
    /// Install the version of edge-gateway that the bundle on trial names, and go back to the one
    /// before if the bundle is not confirmed. Ends when nothing is left to do.
    #[command(after_help = UPDATE_HELP)]
    Update(UpdateOptions),
    /// Print the public keys of this box, for the office.
    Enrolment(EnrolmentOptions),
    /// Show the state of the gateway with a light, until it is stopped.
    #[command(after_help = LED_HELP)]
    Led(LedOptions),
    /// Remove keys, bundles, secrets and state, before the box is disposed of.
    Wipe(WipeOptions),
    /// Print the completion script for a shell.
    #[command(after_help = completions_examples("edge-gateway-box"))]
    Completions(CompletionsOptions),
    /// Write the manual pages into a directory.
    Man(ManOptions),
}

/// The directories of a box.
#[derive(Args, Debug)]
struct BoxDirs {
    /// Directory of the gateway, its `state_dir`.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway")]
    state_dir: PathBuf,
    /// Directory of this program, for root only.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway-box")]
    box_dir: PathBuf,
    /// Directory in memory for the secrets in clear.
    #[arg(long, value_name = "DIR", default_value = "/run/edge-gateway-box")]
    run_dir: PathBuf,
}

/// `load`.
#[derive(Args, Debug)]
struct BoxLoadOptions {
    /// The bundle, which the office made.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    #[command(flatten)]
    dirs: BoxDirs,
}

/// `stick`.
#[derive(Args, Debug)]
struct StickOptions {
    /// Directory where the stick is mounted.
    #[arg(value_name = "DIR", required_unless_present = "device", conflicts_with = "device")]
    dir: Option<PathBuf>,
    /// Mount this device with FAT or exFAT, and unmount it at the end; programs and devices on it
    /// do nothing.
    #[arg(long, value_name = "DEV")]
    device: Option<PathBuf>,
    /// Seconds to wait for what the gateway does with the bundle.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    wait: u64,
    #[command(flatten)]
    dirs: BoxDirs,
}

/// `apply`.
#[derive(Args, Debug)]
struct ApplyOptions {
    #[command(flatten)]
    dirs: BoxDirs,
    /// What manages the network; found out if it is not given.
    #[arg(long, value_name = "NAME")]
    manager: Option<ManagerChoice>,
    /// Directory for the files of the network, instead of the one of the manager.
    #[arg(long, value_name = "DIR")]
    network_dir: Option<PathBuf>,
    /// Program that makes the manager read its files; it gets the name of the manager.
    #[arg(long, value_name = "PROGRAM")]
    reload_command: Option<PathBuf>,
}

/// `update`.
#[derive(Args, Debug)]
struct UpdateOptions {
    #[command(flatten)]
    dirs: BoxDirs,
    /// Seconds in which a new version has to answer on its status socket. Its start may wait 2 min
    /// for the disk.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    answer_within: u64,
}

/// `enrolment`.
#[derive(Args, Debug)]
struct EnrolmentOptions {
    /// Write it as edge-enrol-ID.txt into this directory.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Directory of this program, for root only.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway-box")]
    box_dir: PathBuf,
}

/// `led`.
#[derive(Args, Debug)]
struct LedOptions {
    /// The light, as the kernel shows it.
    #[arg(long, value_name = "DIR", default_value = "/sys/class/leds/ACT")]
    led: PathBuf,
    /// Directory of the gateway, its `state_dir`.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/edge-gateway")]
    state_dir: PathBuf,
}

/// `wipe`.
#[derive(Args, Debug)]
struct WipeOptions {
    /// Remove it; without this, only list it.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    dirs: BoxDirs,
    /// Directory of the files of the network, instead of the one of the manager.
    #[arg(long, value_name = "DIR")]
    network_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ManagerChoice {
    /// NetworkManager.
    #[value(name = "NetworkManager")]
    NetworkManager,
    /// systemd-networkd.
    Networkd,
    /// The network is left alone.
    None,
}

/// Parses the command line and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let done = match BoxCli::parse().command {
        BoxCommand::Load(options) => load(&options),
        BoxCommand::Stick(options) => stick(&options),
        BoxCommand::Apply(options) => apply(&options),
        BoxCommand::Update(options) => update(&options),
        BoxCommand::Enrolment(options) => enrolment(&options),
        BoxCommand::Led(options) => led(&options),
        BoxCommand::Wipe(options) => wipe_box(&options),
        BoxCommand::Completions(options) => completions(&options),
        BoxCommand::Man(options) => man(&options),
    };
    ExitCode::from(done.unwrap_or_else(|error| {
        // Nothing can be done about a closed standard error.
        let _ = writeln!(io::stderr(), "edge-gateway-box: {error}");
        EXIT_NEGATIVE
    }))
}

fn say(text: &str) {
    // A closed pipe must not stop the work.
    let _ = writeln!(io::stdout(), "{text}");
}

fn completions(options: &CompletionsOptions) -> Result<u8, HelperError> {
    let printed = options.print(BoxCli::command());
    printed.map_err(HelperError::io("write", "standard output"))?;
    Ok(EXIT_OK)
}

fn man(options: &ManOptions) -> Result<u8, HelperError> {
    let written = options.write(BoxCli::command());
    written.map_err(HelperError::io("write", options.dir().display()))?;
    Ok(EXIT_OK)
}

fn led(options: &LedOptions) -> Result<u8, HelperError> {
    let unusable = |error| HelperError::io("use", options.led.display())(error);
    let led = Led::open(&options.led).map_err(unusable)?;
    Err(unusable(led.show(&options.state_dir)))
}

fn open_state(dirs: &BoxDirs) -> Result<StateFiles, HelperError> {
    StateFiles::open(&dirs.state_dir).map_err(HelperError::io("use", dirs.state_dir.display()))
}

fn load(options: &BoxLoadOptions) -> Result<u8, HelperError> {
    let state = open_state(&options.dirs)?;
    RunDir::open(&options.dirs.run_dir)?;
    let limit = MAX_BUNDLE_BYTES as u64;
    // The person names the file, so a link is followed; it is opened once and read once.
    let bytes = crate::regular_file::read(&options.bundle, limit)
        .map_err(HelperError::io("read", options.bundle.display()))?;
    let mut files = BoxFiles::open(&options.dirs.box_dir, None)?;
    let keys = files.keys()?;
    let loader = Loader::new(&mut files, &keys)?;
    match loader.verify(&bytes) {
        Ok(contents) => {
            loader.put(&bytes, &contents, &state)?;
            let (gateway, counter) = (&contents.gateway, contents.counter);
            say(&format!("bundle {counter} of {gateway} was loaded: the gateway tries it now"));
            Ok(EXIT_OK)
        }
        Err(refusal @ Refusal::Bundle(BundleError::SameCounter { .. })) => {
            say(&refusal.to_string());
            Ok(EXIT_OK)
        }
        Err(refusal) => {
            let _ = writeln!(io::stderr(), "edge-gateway-box: {refusal}");
            Ok(EXIT_NEGATIVE)
        }
    }
}

fn stick(options: &StickOptions) -> Result<u8, HelperError> {
    let dirs = &options.dirs;
    let mounted = match &options.device {
        Some(device) => {
            let path = dirs.box_dir.join(MOUNT_POINT);
            Some((MountedStick::mount(device, &path)?, path))
        }
        None => None,
    };
    let mounted_at = mounted.as_ref().map(|(_, path)| path);
    // The command line has either.
    let Some(path) = mounted_at.or(options.dir.as_ref()) else { return Ok(EXIT_NEGATIVE) };
    let run_dir = RunDir::open(&dirs.run_dir)?;
    let (report, enrolment) = serve_stick(options, path)?;
    report.lines.iter().for_each(|line| say(line));
    if let Some((mounted, _)) = &mounted {
        mounted.make_writable()?;
    }
    let status = run_dir.status();
    let stick = OpenDir::open(path).map_err(HelperError::io("use", path.display()))?;
    write_files(&stick, &enrolment, &report, status.as_deref())?;
    // Closed first: an open directory keeps the stick busy.
    drop(stick);
    if let Some((mounted, _)) = mounted {
        mounted.unmount()?;
    }
    Ok(if report.is_refused { EXIT_NEGATIVE } else { EXIT_OK })
}

/// Loads from a stick, and waits for what the gateway does with it. The directory of the box is
/// free meanwhile, for `apply`.
fn serve_stick(
    options: &StickOptions,
    path: &Path,
) -> Result<(StickReport, Enrolment), HelperError> {
    let (mut report, enrolment, state) = {
        let stick = OpenDir::open(path).map_err(HelperError::io("use", path.display()))?;
        let mut files = BoxFiles::open(&options.dirs.box_dir, None)?;
        let keys = files.keys()?;
        let loaded = open_state(&options.dirs).and_then(|state| {
            let loader = Loader::new(&mut files, &keys)?;
            let installed = system_packages().installed().ok().flatten();
            let installed = installed.map(|installed| installed.name);
            Ok((load_newest(&stick, loader, &state, installed.as_ref())?, state))
        });
        // The person with the stick reads nothing but the stick.
        match loaded {
            Ok((report, state)) => (report, keys.enrolment()?, Some(state)),
            Err(error) => (StickReport::failed(&error), keys.enrolment()?, None),
        }
    };
    if let Some(state) = state.filter(|_| report.loaded.is_some()) {
        wait_for_gateway(&state, Duration::from_secs(options.wait), &mut report);
    }
    Ok((report, enrolment))
}

/// Waits until the gateway has taken a bundle, and reports what it says.
fn wait_for_gateway(state: &StateFiles, limit: Duration, report: &mut StickReport) {
    let until = Instant::now() + limit;
    while state.has_inbox() && Instant::now() < until {
        std::thread::sleep(POLL_INTERVAL);
    }
    if state.has_inbox() {
        let line = "the gateway has not taken the bundle yet: does edge-gateway.service run?";
        report.lines.push(line.to_owned());
    } else if let Some(refused) = state.inbox_refused() {
        let refused = refused.chars().filter(|c| !c.is_control()).collect::<String>();
        let line = format!("the gateway says: {refused}");
        // A stick that is read twice, before `apply` has seen what the gateway took at first.
        let had_already = report.loaded.map(|counter| BundleError::SameCounter { counter });
        if had_already.is_some_and(|same| same.to_string() == refused) {
            report.lines.push(line);
        } else {
            report.refuse(line);
        }
    }
}

fn apply(options: &ApplyOptions) -> Result<u8, HelperError> {
    let root = PathBuf::from("/");
    match &options.reload_command {
        Some(program) => apply_with(options, &mut CommandReloader { program: program.clone() }),
        None => apply_with(options, &mut SystemReloader { root }),
    }
}

fn apply_with(
    options: &ApplyOptions,
    reloader: &mut impl NetworkReloader,
) -> Result<u8, HelperError> {
    let dirs = &options.dirs;
    let state = open_state(dirs)?;
    let mut storage = BoxFiles::open(&dirs.box_dir, options.network_dir.as_deref())?;
    let run_dir = RunDir::open(&dirs.run_dir)?;
    let keys = storage.keys()?;
    let services = match options.manager {
        None => services_here(Path::new("/")),
        Some(ManagerChoice::NetworkManager) => vec![NetworkService::NetworkManager],
        Some(ManagerChoice::Networkd) => vec![NetworkService::Networkd],
        Some(ManagerChoice::None) => Vec::new(),
    };
    let mut code = EXIT_OK;
    let mut text = String::new();
    for _ in 0..MAX_APPLY_RUNS {
        let before = state.record().ok();
        let services = services.as_slice();
        let mut reconciler = Reconciler { storage: &mut storage, reloader, keys: &keys, services };
        let applied = reconciler.apply(&state)?;
        let owner = state.owner().map(FileOwner::only_group);
        owner
            .and_then(|owner| run_dir.hand_over(&applied, owner))
            .map_err(HelperError::io("write", dirs.run_dir.display()))?;
        announce(&storage, &applied.record, &run_dir, system_packages().manages_package())?;
        text = applied.to_string();
        code = if applied.is_refused() { EXIT_NEGATIVE } else { EXIT_OK };
        // systemd reports no change that is made while this runs.
        if state.record().ok() == before {
            break;
        }
    }
    say(text.trim_end());
    Ok(code)
}

fn system_packages() -> Dpkg {
    Dpkg { root: PathBuf::from("/") }
}

fn update(options: &UpdateOptions) -> Result<u8, HelperError> {
    let UpdateOptions { dirs, answer_within } = options;
    let run_dir = RunDir::open(&dirs.run_dir)?;
    // First: what `apply` says from now on starts this again.
    run_dir.set_update_due(false)?;
    let packages = system_packages();
    let max_silence = Duration::from_secs(*answer_within);
    let mut updater = Updater::new(&dirs.box_dir, &dirs.state_dir, &run_dir, packages, max_silence);
    loop {
        let progress = updater.step()?;
        if let Some(said) = updater.take_said() {
            say(&said);
        }
        match progress {
            UpdateProgress::After(pause) => std::thread::sleep(pause),
            UpdateProgress::Ended => return Ok(EXIT_OK),
        }
    }
}

fn enrolment(options: &EnrolmentOptions) -> Result<u8, HelperError> {
    let keys = BoxFiles::open(&options.box_dir, None)?.keys()?;
    let enrolment = keys.enrolment()?;
    match &options.output {
        None => say(enrolment.to_string().trim_end()),
        Some(dir) => {
            let path = dir.join(enrolment.file_name());
            OpenDir::open(dir)
                .and_then(|open| {
                    let text = enrolment.to_string();
                    open.replace(&enrolment.file_name(), text.as_bytes(), 0o644, None)
                })
                .map_err(HelperError::io("write", path.display()))?;
            say(&path.display().to_string());
        }
    }
    Ok(EXIT_OK)
}

fn wipe_box(options: &WipeOptions) -> Result<u8, HelperError> {
    let WipeOptions { yes, dirs, network_dir } = options;
    let files = BoxFiles::open(&dirs.box_dir, network_dir.as_deref())?;
    let plan = plan(&files, &dirs.box_dir, &dirs.run_dir, &dirs.state_dir)?;
    if *yes {
        wipe(&plan)?;
    }
    let verb = if *yes { "removed" } else { "would remove" };
    for wiped in &plan {
        say(&format!("{verb} {}: {}", wiped.path.display(), wiped.what));
    }
    if *yes {
        say(
            "Flash memory may still hold what was removed: destroy the card of a box with secrets.",
        );
        Ok(EXIT_OK)
    } else {
        say("Stop the gateway first: systemctl disable --now edge-gateway. Then add --yes.");
        Ok(EXIT_NEGATIVE)
    }
}
