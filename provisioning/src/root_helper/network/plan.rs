//! What is to be written and removed so that the files of a bundle are installed: pure.

use super::{NetworkFiles, NetworkService};

/// A step towards the files of a bundle. Each is atomic, and may be repeated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::root_helper) enum NetworkChange {
    /// Write this file.
    Write(String),
    /// Remove this file.
    Remove(String),
}

/// Returns the files of a bundle for one service, by the names under which they are installed.
/// `files` are by their names in the bundle, without `network/`.
///
/// # Errors
/// With a name under which two files would be installed.
pub(in crate::root_helper) fn installed_files(
    service: NetworkService,
    files: &NetworkFiles,
) -> Result<NetworkFiles, String> {
    let mut installed = NetworkFiles::new();
    for (name, content) in files.iter().filter(|(name, _)| name.ends_with(service.extension())) {
        let prefix = service.prefix();
        let name = if name.starts_with(prefix) { name.clone() } else { format!("{prefix}{name}") };
        if installed.insert(name.clone(), content.clone()).is_some() {
            return Err(name);
        }
    }
    Ok(installed)
}

/// Returns the steps from what is installed to what is desired: new files before others go.
pub(in crate::root_helper) fn changes_between(
    installed: &NetworkFiles,
    desired: &NetworkFiles,
) -> Vec<NetworkChange> {
    let is_other = |name: &&String| installed.get(*name) != desired.get(*name);
    let written = desired.keys().filter(is_other).cloned().map(NetworkChange::Write);
    let removed = installed.keys().filter(|name| !desired.contains_key(*name));
    written.chain(removed.cloned().map(NetworkChange::Remove)).collect()
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    fn files(files: &[(&str, &str)]) -> NetworkFiles {
        let file = |(name, text): &(&str, &str)| {
            ((*name).to_owned(), Zeroizing::new(text.as_bytes().to_vec()))
        };
        files.iter().map(file).collect()
    }

    #[test]
    fn files_are_installed_under_names_of_their_own() {
        let bundle = files(&[
            ("10-edge-machine.network", "a"),
            ("edge-machine.nmconnection", "b"),
            ("wifi.nmconnection", "c"),
        ]);
        let of = |service| installed_files(service, &bundle).unwrap();
        let expected = files(&[("05-edge-10-edge-machine.network", "a")]);
        assert_eq!(of(NetworkService::Networkd), expected);
        let expected =
            files(&[("edge-machine.nmconnection", "b"), ("edge-wifi.nmconnection", "c")]);
        assert_eq!(of(NetworkService::NetworkManager), expected);
        let twice = files(&[("edge-a.nmconnection", ""), ("a.nmconnection", "")]);
        let refused = installed_files(NetworkService::NetworkManager, &twice);
        assert_eq!(refused, Err("edge-a.nmconnection".to_owned()));
    }

    #[test]
    fn only_what_differs_is_written_or_removed() {
        let installed = files(&[("same", "1"), ("other", "1"), ("gone", "1")]);
        let desired = files(&[("same", "1"), ("other", "2"), ("new", "2")]);
        let changes = changes_between(&installed, &desired);
        let expected = [
            NetworkChange::Write("new".to_owned()),
            NetworkChange::Write("other".to_owned()),
            NetworkChange::Remove("gone".to_owned()),
        ];
        assert_eq!(changes, expected);
        assert_eq!(changes_between(&desired, &desired), []);
    }
}
