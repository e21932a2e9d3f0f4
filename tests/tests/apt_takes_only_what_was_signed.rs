//! `cargo xtask repo` makes a repository that apt of a box takes packages from: each version that
//! was published, and nothing that was altered, signed by another key, or older than what the box
//! has seen.
#![expect(clippy::expect_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::{TempDir, temp_dir, workspace_program};

const IN_RELEASE: &str = "dists/stable/InRelease";
const INDEX: &str = "dists/stable/main/binary-amd64/Packages.gz";

/// A repository, and the key that signs it.
struct Repository {
    dir: TempDir,
    key: PathBuf,
}

impl Repository {
    fn new() -> Self {
        let dir = temp_dir();
        let key = secret_key(dir.path(), "key");
        Self { dir, key }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Publishes a package whose only file has this content.
    fn publish(&self, version: &str, content: &str) -> Output {
        let packages = temp_dir();
        package(packages.path(), version, content);
        let mut xtask = Command::new(workspace_program("xtask", test_settings::XTASK));
        xtask.arg("repo").arg(self.root()).arg("--key").arg(&self.key);
        xtask.arg("--packages").arg(packages.path()).output().expect("it can be started")
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.root().join(file)).expect("it was published")
    }

    fn write(&self, file: &str, content: &[u8]) {
        fs::write(self.root().join(file), content).expect("its own directory is writable");
    }
}

/// apt of a box, with directories of its own.
struct BoxApt<'a> {
    dir: TempDir,
    repository: &'a Repository,
}

impl<'a> BoxApt<'a> {
    fn new(repository: &'a Repository) -> Self {
        let dir = temp_dir();
        for name in ["lists/partial", "cache/archives/partial", "etc"] {
            fs::create_dir_all(dir.path().join(name)).expect("its own directory is writable");
        }
        dir.write("status", "");
        let root = repository.root();
        let line = format!(
            "deb [arch=amd64 signed-by={0}/edge-gateway-archive.asc] file:{0} stable main\n",
            root.display()
        );
        dir.write("etc/sources.list", &line);
        Self { dir, repository }
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Output {
        let mut apt = Command::new(program);
        let own =
            |option: &str, name: &str| format!("{option}={}", self.dir.path().join(name).display());
        for option in [
            own("Dir::State", ""),
            own("Dir::State::Lists", "lists"),
            own("Dir::State::status", "status"),
            own("Dir::Cache", "cache"),
            own("Dir::Etc", "etc"),
            own("Dir::Etc::SourceList", "etc/sources.list"),
            "Dir::Etc::SourceParts=-".to_owned(),
            // Debian's defaults, which the machine of the tests may have changed.
            "Acquire::Check-Date=true".to_owned(),
            "Acquire::Check-Valid-Until=true".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt.args(arguments).current_dir(self.dir.path()).output().expect("apt is installed")
    }

    /// Reads the index, and returns whether apt accepted it and what it said.
    fn update(&self) -> (bool, String) {
        let updated = self.apt("apt-get", &["update"]);
        let said = [updated.stdout, updated.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        // apt keeps the index of before, and calls that a success with a warning.
        (updated.status.success() && !said.contains("W: "), said)
    }

    fn versions(&self) -> Vec<String> {
        let listed = self.apt("apt-cache", &["madison", "edge-gateway"]).stdout;
        let version = |line: &str| line.split('|').nth(1).map(|version| version.trim().to_owned());
        String::from_utf8_lossy(&listed).lines().filter_map(version).collect()
    }

    /// Downloads a version, and returns whether it is the published one.
    fn downloads(&self, version: &str) -> bool {
        let wanted = format!("edge-gateway={version}");
        let done = self.apt("apt-get", &["download", &wanted]);
        let name = format!("edge-gateway_{version}_amd64.deb");
        done.status.success()
            && fs::read(self.dir.path().join(&name)).expect("it was downloaded")
                == self.repository.read(&format!("pool/{name}"))
    }
}

/// Writes a new secret key and returns its path.
fn secret_key(dir: &Path, name: &str) -> PathBuf {
    // Short, because of the socket of gpg's agent.
    let home = temp_dir();
    let gpg = |arguments: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(home.path()).args(["--batch", "--quiet", "--passphrase", ""]);
        let done = gpg.args(arguments).output().expect("gpg is installed");
        assert!(done.status.success(), "{done:?}");
        done.stdout
    };
    gpg(&["--quick-generate-key", "releases@example.net", "ed25519", "sign", "never"]);
    let path = dir.join(name);
    fs::write(&path, gpg(&["--armor", "--export-secret-keys"])).expect("it is writable");
    let mut end_agent = Command::new("gpgconf");
    end_agent.arg("--homedir").arg(home.path()).args(["--kill", "all"]);
    assert!(end_agent.status().expect("it comes with gpg").success());
    path
}

/// Makes a package of edge-gateway.
fn package(dir: &Path, version: &str, content: &str) {
    let root = temp_dir();
    fs::create_dir_all(root.path().join("DEBIAN")).expect("its own directory is writable");
    let control = format!(
        "Package: edge-gateway\nVersion: {version}\nArchitecture: amd64\n\
         Maintainer: Test <test@example.net>\nDescription: stands for the package\n"
    );
    root.write("DEBIAN/control", &control);
    root.write("content", content);
    let mut build = Command::new("dpkg-deb");
    // The same content gives the same bytes.
    build.env("SOURCE_DATE_EPOCH", "1");
    build.args(["--root-owner-group", "--build"]).arg(root.path()).arg(dir.join("made.deb"));
    let built = build.output().expect("dpkg-deb is installed");
    assert!(built.status.success(), "{built:?}");
}

#[test]
fn every_published_version_can_be_taken_and_none_is_ever_replaced() {
    let repository = Repository::new();
    for version in ["0.1.0", "0.2.0"] {
        let published = repository.publish(version, version);
        assert!(published.status.success(), "{published:?}");
    }
    let apt = BoxApt::new(&repository);
    let (accepted, said) = apt.update();
    assert!(accepted, "{said}");
    assert_eq!(apt.versions(), ["0.2.0", "0.1.0"]);
    assert!(apt.downloads("0.1.0") && apt.downloads("0.2.0"), "also the way back");

    let other = repository.publish("0.2.0", "other bytes under the same version");
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && said.contains("give it another version"), "{said}");
    assert!(apt.update().0 && apt.downloads("0.2.0"), "nothing was changed");
}

#[test]
fn what_was_altered_or_signed_by_another_key_is_refused() {
    let repository = Repository::new();
    assert!(repository.publish("0.1.0", "the first").status.success());
    let (signed, index) = (repository.read(IN_RELEASE), repository.read(INDEX));
    let text = String::from_utf8(signed.clone()).expect("it is text");

    let renamed = text.replace("Suite: stable", "Suite: stables");
    let unsigned = text.lines().take_while(|line| !line.starts_with("-----BEGIN PGP SIG"));
    let unsigned: String = unsigned.map(|line| format!("{line}\n")).collect();
    for altered in [renamed, unsigned, String::new()] {
        repository.write(IN_RELEASE, altered.as_bytes());
        let apt = BoxApt::new(&repository);
        let (accepted, said) = apt.update();
        assert!(!accepted && apt.versions().is_empty(), "{altered}\n{said}");
    }

    // The index is only as good as its checksum in InRelease.
    repository.write(IN_RELEASE, &signed);
    let by_hash = repository.root().join("dists/stable/main/binary-amd64/by-hash");
    fs::remove_dir_all(by_hash).expect("indexes are there under their hashes too");
    repository.write(INDEX, &index[..index.len() - 1]);
    fs::remove_file(repository.root().join(INDEX.trim_end_matches(".gz"))).expect("it is there");
    let apt = BoxApt::new(&repository);
    let (accepted, said) = apt.update();
    assert!(!accepted && apt.versions().is_empty(), "{said}");

    let stranger = Repository::new();
    assert!(stranger.publish("0.9.0", "of a stranger").status.success());
    for file in [IN_RELEASE, INDEX, INDEX.trim_end_matches(".gz")] {
        repository.write(file, &stranger.read(file));
    }
    let apt = BoxApt::new(&repository);
    let (accepted, said) = apt.update();
    assert!(!accepted && apt.versions().is_empty(), "{said}");
}

#[test]
fn a_box_that_has_seen_a_version_is_not_taken_back_by_an_old_index() {
    let repository = Repository::new();
    assert!(repository.publish("0.1.0", "the first").status.success());
    let old = [IN_RELEASE, INDEX].map(|file| repository.read(file));
    let old_date = date_of(&old[0]);
    // The date in it has whole seconds.
    while {
        assert!(repository.publish("0.2.0", "the second").status.success());
        date_of(&repository.read(IN_RELEASE)) == old_date
    } {}
    let apt = BoxApt::new(&repository);
    assert!(apt.update().0);

    for (file, content) in [IN_RELEASE, INDEX].into_iter().zip(&old) {
        repository.write(file, content);
    }
    apt.update();

    assert_eq!(apt.versions(), ["0.2.0", "0.1.0"], "it keeps the newer index");
}

fn date_of(release: &[u8]) -> String {
    let text = String::from_utf8_lossy(release);
    text.lines().find_map(|line| line.strip_prefix("Date: ")).expect("it has a date").to_owned()
}
