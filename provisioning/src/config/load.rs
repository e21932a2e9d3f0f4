//! Loads a configuration from file and environment.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use toml::de::DeTable;

use super::check::CheckedConfig;
use super::context::{EffectiveSetting, Purpose, ReadContext};
use super::layers::{EnvVariables, Layers};
use super::raw::RawConfig;
use super::read::{RawTable, ReadSection};
use super::redact::redacted;
use super::settings_hash::SettingsHash;
use super::toml_split::{self, SplitDocument};
use super::{Config, Gateway, Metrics, Plc, ServiceUser, check, syntax};
use crate::diagnostics::{Notes, Problem, RejectedFile, SourceSpan};
use crate::regular_file;

/// Maximum size of a file: 16 MiB. A configuration of 1,000 PLCs is well below.
pub(super) const MAX_FILE_BYTES: u64 = 16 << 20;

/// A configuration to run.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The settings.
    pub config: Config,
    /// Twelve hexadecimal digits that change with any effective setting. The contents of password
    /// files are not part of it.
    pub hash: String,
    /// Valid settings that are probably a mistake.
    pub notes: Notes,
}

/// A configuration to look at: what is in it apart from its secrets.
pub struct InspectedConfig {
    /// Identity of the gateway and its state directory.
    pub gateway: Gateway,
    /// The PLCs, in the order of the file.
    pub plcs: Vec<Plc>,
    /// Where metrics are served.
    pub metrics: Metrics,
    /// Topic of the configured will; none if the will is the default.
    pub will_topic: Option<String>,
    /// Networks that the machine routes into the tunnel, if that has a network interface.
    pub tunnel_routes: Vec<IpNet>,
    /// Valid settings that are probably a mistake, and credentials that only systemd can give.
    pub notes: Notes,
    file: PathBuf,
    text: String,
}

/// How [`inspect()`] treats the files that a configuration names.
#[derive(Clone, Copy, Debug)]
pub enum FileCheck<'a> {
    /// Opens none of them.
    Skip,
    /// Opens all except credentials that only systemd can give. With a user, that user has to be
    /// able to read them too, and the configuration itself.
    Open(Option<&'a ServiceUser>),
}

/// One effective setting.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The key: `plc[0].tag[3].at`.
    pub path: String,
    /// The value as written in TOML. Never a secret: the settings only name files with secrets.
    pub value: String,
    /// Where it was set: `gateway.toml:12`, `environment EDGE_MQTT__CLIENT_ID`, `default`.
    pub source: String,
}

/// Reads the file, the `EDGE_*` variables of the environment and the files with secrets.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has an invalid setting. The error holds all
/// problems at once.
///
/// ```
/// use provisioning::config;
///
/// let loaded = config::load("tests/good/shortest.toml".as_ref())?;
/// assert_eq!(loaded.config.plcs[0].name, "pump6");
///
/// let rejected = config::load("tests/broken/type_misspelt.toml".as_ref()).unwrap_err();
/// assert_eq!(rejected.problems[0].path, "plc[0].tag[0].type");
/// # Ok::<(), provisioning::diagnostics::RejectedFile>(())
/// ```
pub fn load(path: &Path) -> Result<LoadedConfig, RejectedFile> {
    let text = read_config_text(path)?;
    let CheckedFile { config, hash, notes, .. } = read_text(path, &text, Purpose::Run, None)?;
    // To run, every secret was read or is a problem, so the configuration is complete.
    let config =
        config.into_config().ok_or_else(|| RejectedFile::new(path, redacted(&text), vec![]))?;
    let notes = Notes::new(path, || redacted(&text), notes);
    Ok(LoadedConfig { config, hash, notes })
}

/// Reads the file and the `EDGE_*` variables of the environment, without keeping a secret.
///
/// # Errors
/// As [`load()`].
pub fn inspect(path: &Path, files: FileCheck<'_>) -> Result<InspectedConfig, RejectedFile> {
    let text = read_config_text(path)?;
    let purpose = match files {
        FileCheck::Skip => Purpose::Look,
        FileCheck::Open(user) => Purpose::Check(user),
    };
    inspect_text(path, text, purpose, EnvVariables::read(RawConfig::KEYS))
}

/// Reads a text that was rendered for another machine. The environment and the files of this
/// machine do not matter.
///
/// # Errors
/// When it is not TOML, or has an invalid setting.
#[cfg(feature = "office")]
pub(crate) fn inspect_rendered(path: &Path, text: String) -> Result<InspectedConfig, RejectedFile> {
    inspect_text(path, text, Purpose::Look, EnvVariables::default())
}

fn inspect_text(
    path: &Path,
    text: String,
    purpose: Purpose<'_>,
    variables: EnvVariables,
) -> Result<InspectedConfig, RejectedFile> {
    let split = SplitDocument::split(&text);
    let CheckedFile { config, notes, .. } =
        read_split(split.as_ref(), path, &text, purpose, variables, None)?;
    drop(split);
    let notes = Notes::new(path, || redacted(&text), notes);
    let tunnel_routes = config.tunnel_routes();
    let CheckedConfig { gateway, plcs, metrics, mqtt, .. } = config;
    let will_topic = mqtt.will.map(|will| will.topic);
    let file = path.to_owned();
    Ok(InspectedConfig { gateway, plcs, metrics, will_topic, tunnel_routes, notes, file, text })
}

/// Omits the text of the file: a comment may contain a secret.
impl fmt::Debug for InspectedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gateway, plcs, metrics, will_topic, tunnel_routes, notes, file, text: _ } = self;
        f.debug_struct("InspectedConfig")
            .field("gateway", gateway)
            .field("plcs", plcs)
            .field("metrics", metrics)
            .field("will_topic", will_topic)
            .field("tunnel_routes", tunnel_routes)
            .field("notes", notes)
            .field("file", file)
            .finish_non_exhaustive()
    }
}

impl InspectedConfig {
    /// Returns every setting with its value and source, in the order of the reference.
    ///
    /// Reads the configuration again: only `print-config` needs the settings.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let settings = read_text(&self.file, &self.text, Purpose::Look, Some(Vec::new()))
            .map(|read| read.settings);
        let lines: Vec<_> = self.text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let setting = |setting: EffectiveSetting| Setting {
            path: setting.key.path(),
            source: self.source(&setting, &lines),
            value: setting.value,
        };
        settings.unwrap_or_default().into_iter().map(setting).collect()
    }

    fn source(&self, setting: &EffectiveSetting, lines: &[usize]) -> String {
        match &setting.key.span {
            _ if !setting.is_set => "default".to_owned(),
            SourceSpan::Environment(variable) => format!("environment {}", variable.name),
            SourceSpan::File(span) => {
                let line = lines.partition_point(|start| *start <= span.start) + 1;
                format!("{}:{line}", self.file.display())
            }
            SourceSpan::WholeFile => self.file.display().to_string(),
        }
    }
}

fn read_config_text(path: &Path) -> Result<String, RejectedFile> {
    let bytes =
        regular_file::read(path, MAX_FILE_BYTES).map_err(|error| read_error(path, &error))?;
    String::from_utf8(bytes).map_err(|error| syntax::not_utf8(path, &error))
}

struct CheckedFile {
    config: CheckedConfig,
    hash: String,
    settings: Vec<EffectiveSetting>,
    notes: Vec<Problem>,
}

/// Reads and checks a text. With `settings`, the effective settings are collected.
fn read_text(
    path: &Path,
    text: &str,
    purpose: Purpose<'_>,
    settings: Option<Vec<EffectiveSetting>>,
) -> Result<CheckedFile, RejectedFile> {
    let variables = EnvVariables::read(RawConfig::KEYS);
    read_split(SplitDocument::split(text).as_ref(), path, text, purpose, variables, settings)
}

fn read_split(
    split: Option<&SplitDocument<'_>>,
    path: &Path,
    text: &str,
    purpose: Purpose<'_>,
    variables: EnvVariables,
    settings: Option<Vec<EffectiveSetting>>,
) -> Result<CheckedFile, RejectedFile> {
    let rest = split.map_or(text, |split| &split.rest);
    let tables = DeTable::parse(rest).map_err(|_| syntax::not_toml(path, text))?;
    let split_list = split.map(|_| toml_split::PLC_LIST);
    let layers = Layers::new(path, tables.as_ref(), split_list, variables);
    let mut context = ReadContext {
        purpose,
        now: seconds_since_1970(),
        layers: &layers,
        text,
        split,
        part_start: 0,
        problems: Vec::new(),
        notes: Vec::new(),
        effective: settings,
        hash: SettingsHash::new(),
        suggested: BTreeSet::new(),
        first_write: None,
    };
    let root = RawTable::root(&layers.merged, tables.as_ref());
    let config = check::check_config(&root, path, &mut context);
    if let Purpose::Check(Some(user)) = purpose
        && !user.may_read(path)
    {
        context.problems.push(not_readable_by_the_service(path));
    }
    let ReadContext { problems, notes, effective: settings, hash, .. } = context;
    match config {
        Some(config) if problems.is_empty() => {
            let settings = settings.unwrap_or_default();
            Ok(CheckedFile { config, hash: hash.to_string(), settings, notes })
        }
        _ => Err(RejectedFile::new(path, redacted(text), problems)),
    }
}

/// Returns the time of this machine, against which the validity of certificates is checked.
#[expect(clippy::disallowed_methods, reason = "a check runs where no gateway may run")]
fn seconds_since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn not_readable_by_the_service(path: &Path) -> Problem {
    let (user, path) = (ServiceUser::NAME, path.display());
    let message = format!("the service runs as {user}, which may not read this file");
    Problem::new(SourceSpan::WholeFile, message, format!("chgrp {user} {path} && chmod 640 {path}"))
}

fn read_error(path: &Path, error: &io::Error) -> RejectedFile {
    let kind = error.kind();
    let (message, help) = if kind == ErrorKind::NotFound {
        (
            "there is no such configuration file".to_owned(),
            "give the path of your gateway.toml; docs/configuration.md describes its keys",
        )
    } else if kind == ErrorKind::PermissionDenied {
        (
            "this user may not read the configuration file".to_owned(),
            "use sudo; the service runs as the user edge-gateway, which needs read access",
        )
    } else if kind == ErrorKind::IsADirectory {
        (
            "this is a directory, not a configuration file".to_owned(),
            "give the path of the file in it, for example gateway.toml",
        )
    } else if kind == ErrorKind::FileTooLarge {
        (
            "this file is larger than 16 MiB, so it is not a configuration file".to_owned(),
            "give the path of your gateway.toml",
        )
    } else if kind == ErrorKind::InvalidInput {
        (
            "this is a pipe, a device or a socket, not a configuration file".to_owned(),
            "write the configuration into a file, and give its path",
        )
    } else {
        (format!("the configuration file cannot be read: {error}"), "check path and disk")
    };
    let problem = Problem::new(SourceSpan::WholeFile, message, help);
    RejectedFile::new(path, String::new(), vec![problem])
}

#[cfg(test)]
mod tests;
