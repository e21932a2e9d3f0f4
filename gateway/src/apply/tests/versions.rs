//! The version that a bundle names.

use provisioning::bundle::{PackageDigest, PackageName};
use ring::digest::{SHA256, digest};

use super::fetches::{WebServer, ok, serve_with};
use super::task::{ALL, HOUR, LIMIT, TestTask};
use super::*;

fn name(version: &str) -> PackageName {
    PackageName::new(version, "arm64").unwrap()
}

/// Returns bundle 4; the content of each package is its name.
fn bundle_with_version() -> Vec<u8> {
    let package = |version| {
        let name = name(version);
        let digest = digest(&SHA256, name.to_string().as_bytes());
        (name, PackageDigest(digest.as_ref().try_into().unwrap()))
    };
    let manifest = Manifest {
        gateway: "amsterdam-01".to_owned(),
        counter: 4,
        version: Some("0.2.0".to_owned()),
        packages: ["0.1.0", "0.2.0"].map(package).into(),
        ..Manifest::default()
    };
    bundle_with(manifest, &[("gateway.toml", GATEWAY_TOML)])
}

/// Serves the bundle and its packages.
async fn serve_all() -> WebServer {
    let bundle = bundle_with_version();
    serve_with(move |request| {
        let path = request.split(' ').nth(1).unwrap();
        match path.strip_prefix("/bundles/packages/") {
            Some(name) => ok(name.as_bytes()),
            None => ok(&bundle),
        }
    })
    .await
}

fn box_with_version_on_trial() -> StateDir {
    let dir = StateDir::with_confirmed(3);
    dir.load(&bundle_with_version());
    dir
}

#[tokio::test]
async fn packages_are_fetched_and_the_bundle_is_confirmed_when_they_are_installed() {
    let dir = box_with_version_on_trial();
    let wanted = vec![name("0.1.0"), name("0.2.0")];
    dir.tell(UpdateState::Fetching(wanted.clone()));
    let mut task = TestTask::start(&dir, Some(serve_all().await), HOUR);
    task.report("trying").await;
    assert!(!dir.0.join("packages").exists(), "the broker was not reached yet");
    task.session.send_replace(ALL);
    let fetched = loop {
        let text = task.report("trying").await.sentence.text;
        if text.contains("verifies the packages") {
            break text;
        }
    };
    assert!(fetched.contains("MiB received"), "{fetched}");
    for name in &wanted {
        let content = fs::read(dir.0.join("packages").join(name.to_string())).unwrap();
        assert_eq!(content, name.to_string().as_bytes());
    }
    dir.tell(UpdateState::Installing);
    let text = task.report("trying").await.sentence.text;
    assert!(text.contains("edge-gateway-box installs its version"), "{text}");
    dir.tell(UpdateState::Installed);
    assert_eq!(task.report("confirmed").await.counter, Some(4));
    task.end().await;
    assert!(!dir.0.join("packages").exists());
}

#[tokio::test]
async fn a_version_that_does_not_run_rolls_its_bundle_back() {
    let dir = box_with_version_on_trial();
    dir.tell(UpdateState::Failed("apt-get has failed: no space".to_owned()));
    let mut task = TestTask::start(&dir, Some(serve_all().await), HOUR);
    let text = task.report("reverted").await.sentence.text;
    assert!(text.contains("its version does not run here: apt-get has failed"), "{text}");
    timeout(LIMIT, task.restart.cancelled()).await.unwrap();
    task.end().await;
    assert_eq!(dir.open().active.unwrap().counter, 3);
}

/// A container has the version of its image, and another machine that of its package manager.
#[tokio::test]
async fn a_box_that_does_not_decide_about_its_version_confirms_the_rest() {
    for state in [None, Some(UpdateState::Unmanaged)] {
        let dir = box_with_version_on_trial();
        if let Some(state) = state {
            dir.tell(state);
        }
        let mut task = TestTask::start(&dir, Some(serve_all().await), HOUR);
        task.session.send_replace(ALL);
        assert_eq!(task.report("confirmed").await.counter, Some(4));
        task.end().await;
    }
}

#[tokio::test]
async fn a_notice_about_another_bundle_or_none_confirms_nothing() {
    for notice in ["", "bundle = 3\nstate = \"installed\"\n", "bundle = 4\nstate = \"done\"\n"] {
        let dir = box_with_version_on_trial();
        fs::create_dir(dir.box_run_dir()).unwrap();
        fs::write(dir.box_run_dir().join("update"), notice).unwrap();
        let mut task = TestTask::start(&dir, Some(serve_all().await), HOUR);
        task.session.send_replace(ALL);
        loop {
            let text = task.report("trying").await.sentence.text;
            if text.contains("edge-gateway-box installs its version") {
                break;
            }
        }
        task.end().await;
        assert!(dir.open().trial().is_some(), "{notice}");
    }
}

#[tokio::test]
async fn without_a_web_server_a_person_is_told_what_is_missing() {
    let dir = box_with_version_on_trial();
    dir.tell(UpdateState::Fetching(vec![name("0.2.0")]));
    let mut task = TestTask::start(&dir, None, HOUR);
    task.session.send_replace(ALL);
    loop {
        let text = task.report("trying").await.sentence.text;
        if text.contains("`[bundle] url` names no web server") {
            break;
        }
    }
    task.end().await;
}
