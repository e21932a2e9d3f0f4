//! The container image, run by runc. Needs root.
//!
//! Containers have the network of this machine, and no limits: cgroups of two versions at once,
//! which runc does not take, are usual where tests run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::{Process, TempDir, system_program, temp_dir};

/// What a program needs besides itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Linkage {
    /// Nothing.
    Static,
    /// The C library and the time zones of this machine, as a program has that was built for tests.
    Dynamic,
}

impl Linkage {
    /// Returns the directories of this machine that a program needs; /lib64 is on x86-64 only.
    #[must_use]
    pub const fn shared(self) -> &'static [&'static str] {
        match self {
            Self::Static => &[],
            Self::Dynamic => &["/lib", "/lib64", "/usr/share/zoneinfo"],
        }
    }
}

/// An image, unpacked for this machine. Its containers share one root, which they cannot write.
#[derive(Debug)]
pub struct ContainerImage {
    /// Configuration of runc (OCI Runtime Specification 1.0, config.json).
    config: Value,
    dir: TempDir,
}

/// A container. Dropping it ends every process in it.
#[derive(Debug)]
pub struct Container {
    process: Process,
    id: String,
    dir: TempDir,
}

impl ContainerImage {
    /// Unpacks the tar with the image.
    ///
    /// # Panics
    /// When umoci or runc cannot read it.
    #[must_use]
    pub fn unpack(image: &Path, linkage: Linkage) -> Self {
        let dir = temp_dir();
        let layout = dir.path().join("layout");
        fs::create_dir(&layout).expect("its own directory is writable");
        succeed(Command::new("tar").arg("-xf").arg(image).arg("-C").arg(&layout));
        let (tagged, bundle) = (choose_platform(&layout), dir.path().join("bundle"));
        succeed(Command::new("umoci").args(["unpack", "--image", &tagged]).arg(&bundle));
        let text = fs::read(bundle.join("config.json")).expect("umoci writes it");
        let mut config: Value = serde_json::from_slice(&text).expect("umoci writes JSON");
        restrict(&mut config);
        let mut image = Self { config, dir };
        for path in linkage.shared().iter().filter(|path| Path::new(path).exists()) {
            image = image.mount(Path::new(path), path, "ro");
        }
        image
    }

    /// Mounts a file or a directory of this machine into each container, `ro` or `rw`.
    ///
    /// # Panics
    /// When the image has no list of mounts.
    #[must_use]
    pub fn mount(mut self, source: &Path, destination: &str, access: &str) -> Self {
        let mounts = self.config["mounts"].as_array_mut().expect("umoci writes a list");
        // umoci plans an empty tmpfs for each volume of the image.
        mounts.retain(|mount| mount["destination"] != destination);
        mounts.push(json!({
            "destination": destination,
            "type": "bind",
            "source": source,
            "options": ["bind", access],
        }));
        self
    }

    /// Returns the user and the group that the image names for the program.
    #[must_use]
    pub fn user(&self) -> (u64, u64) {
        let user = &self.config["process"]["user"];
        let number = |key: &str| user[key].as_u64().expect("umoci writes a number");
        (number("uid"), number("gid"))
    }

    /// Starts the program of the image with these arguments; without any, with those of the image.
    ///
    /// # Panics
    /// When the files of the container cannot be written.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Container {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut config = self.config.clone();
        config["root"]["path"] = json!(self.root());
        if !arguments.is_empty() {
            let words = config["process"]["args"].as_array_mut().expect("umoci writes a list");
            words.truncate(1);
            words.extend(arguments.iter().map(|argument| json!(argument)));
        }
        let dir = temp_dir();
        dir.write("config.json", &config.to_string());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("edge-{}-{number}", std::process::id());
        let mut run = runc(dir.path());
        run.args(["run", "--bundle"]).arg(dir.path()).arg(&id);
        Container { process: Process::start(&mut run), id, dir }
    }

    /// Returns the root of the containers.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("bundle/rootfs")
    }
}

impl Container {
    /// Returns the process of runc. It passes signals on to the program, and ends with the program
    /// and its exit code.
    #[must_use]
    pub const fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Of a container that has ended, nothing is left.
        let _ = runc(self.dir.path()).args(["delete", "--force", &self.id]).output();
    }
}

/// Takes away what hardened machines do not give: a writable root and capabilities.
fn restrict(config: &mut Value) {
    config["root"]["readonly"] = json!(true);
    let process = &mut config["process"];
    process["terminal"] = json!(false);
    process["noNewPrivileges"] = json!(true);
    for key in ["capabilities", "rlimits"] {
        process.as_object_mut().expect("umoci writes an object").remove(key);
    }
    let linux = config["linux"].as_object_mut().expect("umoci writes an object");
    linux.remove("resources");
    linux.remove("cgroupsPath");
    let namespaces = linux["namespaces"].as_array_mut().expect("umoci writes a list");
    namespaces.retain(|namespace| namespace["type"] != "network" && namespace["type"] != "cgroup");
    let mounts = config["mounts"].as_array_mut().expect("umoci writes a list");
    mounts.retain(|mount| mount["type"] != "cgroup");
}

/// Gives the manifest for this machine a name, as umoci takes it: it cannot choose one of several.
fn choose_platform(layout: &Path) -> String {
    let read = |path: &str| -> Value {
        let text = fs::read(layout.join(path)).expect("an index names its files");
        serde_json::from_slice(&text).expect("it is JSON")
    };
    let index = read("index.json");
    let digest = index["manifests"][0]["digest"].as_str().expect("an image has a digest");
    let index = read(&format!("blobs/{}", digest.replace(':', "/")));
    let here = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut manifests = index["manifests"].as_array().expect("an index has a list").iter();
    let chosen = manifests.find(|manifest| manifest["platform"]["architecture"] == here);
    let mut chosen = chosen.expect("there is an image for this machine").clone();
    chosen["annotations"] = json!({ "org.opencontainers.image.ref.name": "here" });
    let index = json!({ "schemaVersion": 2, "manifests": [chosen] });
    fs::write(layout.join("index.json"), index.to_string()).expect("it is own");
    format!("{}:here", layout.display())
}

/// Returns runc with its state in this directory.
fn runc(dir: &Path) -> Command {
    // Debian installs it in /usr/sbin, which may not be in PATH.
    let mut runc = Command::new(system_program(Path::new("runc")));
    runc.arg("--root").arg(dir.join("runc"));
    runc
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} (as root?): {output:?}");
}
