//! The commands of the page about containers, typed as they stand there: podman loads the image
//! from its archive, and a container publishes and stops well.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use e2e::{
    EVENT_TIMEOUT, GatewayConfig, Linkage, Mosquitto, PackageSet, Simulator, TempDir,
    commands_of_page, temp_dir,
};

/// The user in the image.
const USER: u32 = 65532;

/// podman with images, volumes and containers of its own.
struct Podman(TempDir);

impl Podman {
    fn new() -> Self {
        let dir = temp_dir();
        let place = dir.path().display();
        // A file system in a file system needs plain copies, and this machine may not allow more
        // open files. The programs of the tests use the libraries of this machine.
        let shared = Linkage::Dynamic.shared().iter().filter(|path| Path::new(path).exists());
        let volumes: Vec<_> = shared.map(|path| format!("\"{path}:{path}:ro\"")).collect();
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             volumes = [{}]\n[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
             runtime = \"runc\"\ntmp_dir = \"{place}/tmp\"\nvolume_path = \"{place}/volumes\"\n",
            volumes.join(", ")
        );
        dir.write("containers.conf", &containers);
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{place}/root\"\nrunroot = \"{place}/run\"\n"
        );
        dir.write("storage.conf", &storage);
        Self(dir)
    }

    fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Runs commands in its directory.
    fn try_sh(&self, commands: &str) -> Output {
        let mut sh = Command::new("sh");
        sh.args(["-ec", commands]).current_dir(self.dir());
        sh.env("CONTAINERS_CONF", self.dir().join("containers.conf"));
        sh.env("CONTAINERS_STORAGE_CONF", self.dir().join("storage.conf"));
        sh.output().expect("sh can be started")
    }

    fn sh(&self, commands: &str) -> String {
        let done = self.try_sh(commands);
        assert!(done.status.success(), "{commands}\n{done:?}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.try_sh("podman rm --force --all --time 0");
    }
}

#[test]
fn as_root_the_commands_of_the_page_start_a_container_that_publishes() {
    let (podman, plc, broker) = (Podman::new(), Simulator::start(), Mosquitto::start());
    let packages = PackageSet::of_format("oci");
    let image = packages.path("-oci.tar");
    let name = image.file_name().expect("it has a name");
    fs::copy(&image, podman.dir().join(name)).expect("it can be copied");
    let etc = podman.dir().join("etc");
    fs::create_dir(&etc).expect("its own directory is writable");
    let config = GatewayConfig::with_broker("g", broker.url())
        .plcs(plc.plc_sections(1, Duration::from_millis(100)));
    fs::write(etc.join("gateway.toml"), config.to_string()).expect("it is writable");
    for path in [etc.join("gateway.toml"), etc.clone()] {
        chown(path, Some(USER), Some(USER)).expect("this is root");
    }
    let consumer = broker.subscribe("edge/g/data/#");

    let commands = commands_of_page("docs/site/other-boxes.md", "container").join("\n");
    let place = etc.display().to_string();
    let log = podman.sh(&commands.replace("sudo ", "").replace("/srv/gateway/etc", &place));

    let message = consumer.try_next(EVENT_TIMEOUT);
    let said = podman.try_sh("podman logs edge-gateway");
    let is_value = message.is_some_and(|message| message.json()["life"].is_number());
    assert!(is_value, "{log}\n{said:?}");
    let volume = podman.sh("podman volume inspect --format '{{.Mountpoint}}' edge-queue");
    let queue = fs::metadata(Path::new(&volume).join("queue")).expect("the queue is on the volume");
    assert_eq!((queue.uid(), queue.gid()), (USER, USER));
    podman.sh("podman stop edge-gateway");
    let ended = podman.sh("podman inspect --format '{{.State.ExitCode}}' edge-gateway");
    assert_eq!(ended, "0", "{:?}", podman.try_sh("podman logs edge-gateway"));
}
