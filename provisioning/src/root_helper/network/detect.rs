//! Which service manages the network of this box.

use std::path::Path;

use super::{NetworkFiles, NetworkService};

/// Returns the services that run, or else those that start with the system, the preferred one
/// first. `root` is `/` but for tests.
pub(in crate::root_helper) fn services_here(root: &Path) -> Vec<NetworkService> {
    let having = |has: fn(NetworkService) -> &'static [&'static str]| -> Vec<_> {
        let is_here = |service: &NetworkService| {
            has(*service).iter().any(|path| root.join(path).symlink_metadata().is_ok())
        };
        NetworkService::ALL.into_iter().filter(is_here).collect()
    };
    let running = having(runs_with);
    if running.is_empty() { having(starts_with) } else { running }
}

/// Returns the paths of which one exists while the service runs. Debian makes the directory of
/// networkd on every box; networkd itself writes `state`.
const fn runs_with(service: NetworkService) -> &'static [&'static str] {
    match service {
        NetworkService::NetworkManager => &["run/NetworkManager"],
        NetworkService::Networkd => &["run/systemd/netif/state"],
    }
}

/// Returns the links that `systemctl enable` makes: before the services run, at boot.
const fn starts_with(service: NetworkService) -> &'static [&'static str] {
    match service {
        NetworkService::NetworkManager => {
            &["etc/systemd/system/multi-user.target.wants/NetworkManager.service"]
        }
        NetworkService::Networkd => {
            &["etc/systemd/system/multi-user.target.wants/systemd-networkd.service"]
        }
    }
}

/// Returns whether a service runs. `root` is `/` but for tests.
pub(super) fn is_running(root: &Path, service: NetworkService) -> bool {
    runs_with(service).iter().any(|path| root.join(path).symlink_metadata().is_ok())
}

/// Returns the service that is to read the network of a bundle: the first for which the bundle has
/// files, else the one of before, else the first; none if there is no service.
pub(in crate::root_helper) fn choose_service(
    here: &[NetworkService],
    before: Option<NetworkService>,
    files: &NetworkFiles,
) -> Option<NetworkService> {
    let has_files =
        |service: &&NetworkService| files.keys().any(|name| name.ends_with(service.extension()));
    let before = before.filter(|before| here.contains(before));
    here.iter().find(has_files).copied().or(before).or_else(|| here.first().copied())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_service_that_runs_is_found() {
        let name = format!("edge-services-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let root = std::env::temp_dir().join(name);
        let make = |path: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        fs::create_dir_all(root.join("run/systemd/netif")).unwrap();
        assert_eq!(services_here(&root), []);
        make("etc/systemd/system/multi-user.target.wants/NetworkManager.service");
        assert_eq!(services_here(&root), [NetworkService::NetworkManager], "at boot");
        make("run/systemd/netif/state");
        assert_eq!(services_here(&root), [NetworkService::Networkd]);
        assert!(!is_running(&root, NetworkService::NetworkManager));
        fs::create_dir(root.join("run/NetworkManager")).unwrap();
        assert_eq!(services_here(&root), NetworkService::ALL);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_service_with_files_in_the_bundle_is_preferred() {
        use NetworkService::{NetworkManager, Networkd};
        let files = |name: &str| NetworkFiles::from([(name.to_owned(), Vec::new().into())]);
        let (keyfile, network) = (files("a.nmconnection"), files("a.network"));
        let both = &NetworkService::ALL;
        assert_eq!(choose_service(both, None, &keyfile), Some(NetworkManager));
        assert_eq!(choose_service(both, Some(NetworkManager), &network), Some(Networkd));
        assert_eq!(choose_service(both, Some(Networkd), &NetworkFiles::new()), Some(Networkd));
        assert_eq!(choose_service(both, None, &NetworkFiles::new()), Some(NetworkManager));
        assert_eq!(choose_service(&[Networkd], Some(NetworkManager), &keyfile), Some(Networkd));
        assert_eq!(choose_service(&[], Some(Networkd), &network), None);
    }
}
