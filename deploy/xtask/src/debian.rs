//! A Debian 13 for the containers of the tests, below target/: a directory with the packages that
//! the tests boot, without a kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::run::{command, is_root, run, target_dir};

/// A service manager, the two services that manage the network of a box, and what the package
/// depends on: a container has no way to the network of this machine.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,iproute2,adduser,tzdata,network-manager,init-system-helpers";
/// Packages of a hub, with what they need, in the cache of apt: a test installs them there, as
/// `deploy/hub/install.sh` does on a server.
const PACKAGES_OF_HUB: &str = "chrony mosquitto mosquitto-clients nftables nginx nodejs procps \
                               prometheus prometheus-alertmanager wireguard-go wireguard-tools";
/// Changes whenever the directory has to be made in another way.
const LAYOUT: &str = "layout 2";
const SUITE: &str = "trixie";
const MIRROR: &str = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
                      http://deb.debian.org/debian trixie main";
/// Prepares the new root, which is its first argument. A test turns on the services that it needs;
/// the machine id makes no boot the first one, and the console is a pipe. What a test installs
/// later is installed whole.
const SETTLE: &str = r#"
set -e
chroot "$1" systemctl --quiet disable NetworkManager.service NetworkManager-wait-online.service \
    NetworkManager-dispatcher.service systemd-networkd.service
chroot "$1" systemctl --quiet mask console-getty.service
echo 5c1f0f3a9d5b4c0f8a6e2d7b90314e52 > "$1/etc/machine-id"
rm "$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
"#;

/// Fetches packages into the cache of the new root. The lists go to a place of their own: with
/// them apt would look for what other packages recommend.
fn fetch(packages: &str) -> String {
    format!(
        "export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" && apt-get clean && \
         apt-get install --yes -qq --download-only --no-install-recommends {packages} && \
         mv \"$1/var/lib/apt/lists\" \"$1/var/lib/apt/lists-of-hub\" && \
         mkdir -p \"$1/var/lib/apt/lists/partial\""
    )
}

/// Prepares the directory if needed and returns it. `None` without root's rights, as are the tests
/// that use it.
pub(crate) fn provide() -> Result<Option<PathBuf>> {
    if !is_root()? {
        return Ok(None);
    }
    let dir = target_dir().join("debian-13");
    let stamp = dir.join("holds");
    let wanted = format!("{PACKAGES}; {PACKAGES_OF_HUB}; {LAYOUT}");
    if fs::read_to_string(&stamp).is_ok_and(|held| held == wanted) {
        println!("    it is there");
        return Ok(Some(dir));
    }
    make(&dir)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(Some(dir))
}

/// Takes half a minute and 110 MB from the mirror.
fn make(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let options = ["--mode=root", "--variant=apt", "--format=directory", "--quiet"];
    let mut mmdebstrap = command("mmdebstrap", &options);
    mmdebstrap.arg(format!("--include={PACKAGES}"));
    mmdebstrap.arg("--dpkgopt=force-unsafe-io");
    // Nothing that only a person reads.
    for excluded in ["doc", "man", "locale", "info"] {
        mmdebstrap.arg(format!("--dpkgopt=path-exclude=/usr/share/{excluded}/*"));
    }
    mmdebstrap
        .args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Sandbox::User \"root\""]);
    mmdebstrap.arg(format!("--customize-hook={SETTLE}"));
    mmdebstrap.arg(format!("--customize-hook={}", fetch(PACKAGES_OF_HUB)));
    mmdebstrap.arg("--skip=cleanup/apt");
    mmdebstrap.arg(SUITE).arg(dir.join("root")).arg(MIRROR);
    run(mmdebstrap.stdout(Stdio::null()))
}
