//! What the helper says: why a bundle is refused, and what is in use.

use std::fmt;
use std::io;

use thiserror::Error;

use super::box_record::{BoxRecordError, NetworkInUse};
use super::dpkg::PackageError;
use super::network::{NetworkService, ReloadError};
use crate::bundle::{BundleError, SigningKeysError};
use crate::enrolment::{BoxKeysError, SealError};

/// Why a bundle is not put to use. Nothing is changed then.
#[derive(Debug, Error)]
pub(super) enum Refusal {
    /// No bundle was loaded by a person.
    #[error(
        "no person has loaded a bundle on this box yet: bring the first one on a stick, or with \
         `edge-gateway-box load`"
    )]
    NoTrust,
    /// The gateway's copy cannot be read.
    #[error("bundle/{name} in the directory of the gateway cannot be read: {source}")]
    Unreadable {
        /// Name of the file.
        name: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The bundle itself is refused.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// It is neither in use nor newer.
    #[error(
        "bundle {counter} is neither in use nor newer than {last}, the last that this box has \
         accepted: ask the office for a new one"
    )]
    Older {
        /// Its counter.
        counter: u64,
        /// Largest counter that was accepted.
        last: u64,
    },
    /// The record and the bundle contradict each other.
    #[error("the gateway says that its bundle is {claimed}, and it is {actual}")]
    OtherCounter {
        /// Counter in the record of the gateway.
        claimed: u64,
        /// Counter of the bundle.
        actual: u64,
    },
    /// Its secrets cannot be decrypted.
    #[error(transparent)]
    Secrets(#[from] SealError),
    /// The bundle brings another key of the tunnel than it names.
    #[error("secrets/tunnel.key is not the key that the bundle names: tell the office")]
    OtherTunnelKey,
    /// Two files of the network get one name.
    #[error("two files of the network would be installed as {0}: tell the office")]
    NetworkNameTwice(String),
    /// The helper's own copy is gone.
    #[error("the copy of bundle {0} on this box is missing or damaged: load a newer one")]
    NoCopy(u64),
}

/// The helper cannot do its work.
#[derive(Debug, Error)]
pub(super) enum HelperError {
    /// A file or directory of the helper cannot be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// A verb: "read", "write".
        action: &'static str,
        /// The file or directory.
        path: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file of the network cannot be used.
    #[error("cannot {action} the files of {service}: {source}")]
    Network {
        /// A verb: "read", "write", "keep".
        action: &'static str,
        /// The service that reads them.
        service: NetworkService,
        /// What the operating system says.
        source: io::Error,
    },
    /// The record is damaged.
    #[error(transparent)]
    Record(#[from] BoxRecordError),
    /// The trusted keys are damaged.
    #[error("the file `trusted` of this box is damaged: run `edge-gateway-box wipe`")]
    Trusted(#[from] SigningKeysError),
    /// dpkg does not answer.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The keys of the box cannot be used.
    #[error(transparent)]
    Keys(#[from] BoxKeysError),
}

/// What became of the network.
#[derive(Debug)]
pub(super) enum NetworkOutcome {
    /// No bundle has brought a network.
    NotManaged,
    /// A bundle has one, but no service that this program knows manages the network.
    NoService,
    /// The bundle has no files for the service that runs here.
    NoFiles(NetworkService),
    /// The files of a bundle are in use.
    InUse {
        /// Its counter.
        bundle: u64,
        /// The service.
        service: NetworkService,
    },
    /// The files are in use, and a connection has not started yet, as without its cable.
    NotStarted {
        /// The service.
        service: NetworkService,
        /// Why.
        error: ReloadError,
    },
    /// A file cannot be read or written. The next run goes on.
    NotInstalled(Box<HelperError>),
    /// The files are installed, and the service did not read them. It is asked again next time.
    NotLoaded {
        /// The service.
        service: NetworkService,
        /// Why.
        error: ReloadError,
    },
}

impl NetworkOutcome {
    /// Returns what to say about a network that is in use.
    pub(super) const fn of(network: NetworkInUse) -> Self {
        Self::InUse { bundle: network.bundle, service: network.service }
    }
}

impl fmt::Display for NetworkOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotManaged => f.write_str("not managed: no bundle has brought one"),
            Self::NoService => f.write_str(
                "not managed: neither NetworkManager nor systemd-networkd runs here; set it up by \
                 hand, or name one with --manager",
            ),
            Self::NoFiles(service) => {
                write!(
                    f,
                    "restored to the state before the first bundle: this one has no file for \
                     {service}"
                )
            }
            Self::InUse { bundle, service } => {
                write!(f, "of bundle {bundle}, by {service}")
            }
            Self::NotStarted { service, error } => write!(
                f,
                "in use, but a connection is not up yet; {service} keeps trying: {error}; check \
                 its cable or SIM card"
            ),
            Self::NotInstalled(error) => write!(f, "not installed: {error}"),
            Self::NotLoaded { service, error } => {
                write!(f, "installed, but {service} has not read it: {error}")
            }
        }
    }
}

impl HelperError {
    /// Returns a function that makes the error for a file.
    pub(super) fn io(action: &'static str, path: impl fmt::Display) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_string(), source }
    }
}
