//! The network of a box: files for the service that manages it.
//!
//! A bundle holds files for each service; those of the service that runs here are installed under
//! names of their own, and what a later bundle lacks is removed. What lay under such names before
//! the first bundle is kept, and comes back with a bundle that has no network.

mod detect;
mod plan;
mod reload;

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

pub(super) use detect::{choose_service, services_here};
pub(super) use plan::{NetworkChange, changes_between, installed_files};
pub(super) use reload::{CommandReloader, NetworkReloader, ReloadError, SystemReloader};

/// Files by their names, without a directory.
pub(super) type NetworkFiles = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// A service that manages the network of a box.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum NetworkService {
    /// NetworkManager, with keyfiles.
    NetworkManager,
    /// systemd-networkd.
    Networkd,
}

impl NetworkService {
    /// All services, the preferred one first.
    pub(super) const ALL: [Self; 2] = [Self::NetworkManager, Self::Networkd];

    /// Returns the service of a name that [`fmt::Display`] writes.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }

    /// Returns its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::NetworkManager => "NetworkManager",
            Self::Networkd => "networkd",
        }
    }

    /// Returns the directory of its files.
    pub(super) const fn dir(self) -> &'static str {
        match self {
            Self::NetworkManager => "/etc/NetworkManager/system-connections",
            Self::Networkd => "/etc/systemd/network",
        }
    }

    /// Returns what the names of its files from bundles begin with. networkd uses the first file
    /// that matches an interface, so they come before those of netplan, `10-netplan-`.
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::NetworkManager => "edge-",
            Self::Networkd => "05-edge-",
        }
    }

    /// Returns the extension of its files.
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::NetworkManager => ".nmconnection",
            Self::Networkd => ".network",
        }
    }

    /// Returns the mode of its files. NetworkManager refuses those that others can read; networkd
    /// reads as a user of its own.
    pub(super) const fn mode(self) -> u32 {
        match self {
            Self::NetworkManager => 0o600,
            Self::Networkd => 0o644,
        }
    }

    /// Returns whether a file in its directory is from a bundle.
    pub(super) fn owns(self, name: &str) -> bool {
        name.starts_with(self.prefix()) && name.ends_with(self.extension())
    }
}

impl fmt::Display for NetworkService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
