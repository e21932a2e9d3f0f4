//! Fetches the packages of a version, for `edge-gateway-box` to install: root verifies and installs,
//! and has no network; the gateway has the network, and no rights.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Response, header};
use provisioning::bundle::{MAX_PACKAGE_BYTES, PackageDigest, PackageName};
use provisioning::regular_file;
use provisioning::update_notice::{UPDATE_NOTICE, UpdateNotice, UpdateState};
use ring::digest::{Context, SHA256};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::active::ActiveBundle;
use super::fetch::{PullError, WebFile, exchange};
use crate::uplink::Uplink;

/// Directory of the packages in `state_dir`, and beside the bundles at the web server.
const PACKAGES_DIR: &str = "packages";
/// Longest notice of `edge-gateway-box`.
const MAX_NOTICE_BYTES: u64 = 16 * 1024;
/// A download without a byte for this long has failed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 128 * 1024;
/// Pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_mins(5);

/// How far the version of the bundle on trial is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum VersionState {
    /// It runs, or nothing on this box decides about the version.
    Reached,
    /// `edge-gateway-box` wants these packages.
    Wanted(Vec<PackageName>),
    /// `edge-gateway-box` is at work, or has not seen the bundle yet.
    Waiting,
    /// It does not run on this box.
    Failed(String),
}

/// Returns what `edge-gateway-box` says about the version of a bundle. Without that program the
/// version is not decided here: a container has the version of its image.
pub(super) async fn version_state(box_run_dir: &Path, active: &ActiveBundle) -> VersionState {
    if active.version.is_none() {
        return VersionState::Reached;
    }
    let (run_dir, counter) = (box_run_dir.to_owned(), active.counter);
    let read = spawn_blocking(move || {
        if !run_dir.is_dir() {
            return VersionState::Reached;
        }
        let text = regular_file::read(&run_dir.join(UPDATE_NOTICE), MAX_NOTICE_BYTES);
        let text = text.ok().and_then(|text| String::from_utf8(text).ok());
        match text.and_then(|text| text.parse::<UpdateNotice>().ok()) {
            Some(notice) if notice.bundle == counter => state_of(notice.state),
            _ => VersionState::Waiting,
        }
    });
    read.await.unwrap_or(VersionState::Waiting)
}

fn state_of(state: UpdateState) -> VersionState {
    match state {
        UpdateState::Unmanaged | UpdateState::Installed => VersionState::Reached,
        UpdateState::Fetching(packages) => VersionState::Wanted(packages),
        UpdateState::Pending | UpdateState::Installing => VersionState::Waiting,
        UpdateState::Failed(reason) => VersionState::Failed(reason),
    }
}

/// Removes what was fetched for an earlier bundle.
pub(super) fn remove_packages(state_dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(state_dir.join(PACKAGES_DIR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How far a download is.
#[derive(Clone, Debug, Default)]
pub(super) struct DownloadProgress {
    /// Bytes that were received since it began, of all packages.
    pub(super) received: u64,
    /// What is fetched, or why it is not.
    pub(super) sentence: String,
}

/// Why a package is not there yet.
#[derive(Debug, Error)]
enum PackageError {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error("the server sent nothing for 60 s: check the line and the hub")]
    Idle,
    #[error("it is not the file whose SHA-256 the bundle names: copy `packages` to the hub again")]
    OtherFile,
    #[error("it cannot be stored ({0}): make room on the disk")]
    Storage(#[from] io::Error),
}

/// Fetches packages until they are all there.
#[derive(Debug)]
pub(super) struct PackageDownload {
    wanted: Vec<PackageName>,
    progress: watch::Receiver<DownloadProgress>,
    /// Ends with this.
    _task: JoinSet<()>,
}

impl PackageDownload {
    /// Begins to fetch what `edge-gateway-box` wants. `bundle` is the place of the bundle at the
    /// web server: the packages are below it.
    pub(super) fn begin(
        wanted: Vec<PackageName>,
        active: &ActiveBundle,
        state_dir: &Path,
        uplink: &Uplink,
        bundle: &WebFile,
    ) -> Self {
        let (to_owner, progress) = watch::channel(DownloadProgress::default());
        let listed = |name: &PackageName| Some((name.clone(), *active.packages.get(name)?));
        let work = DownloadTask {
            packages: wanted.iter().filter_map(listed).collect(),
            dir: state_dir.join(PACKAGES_DIR),
            uplink: uplink.clone(),
            bundle: bundle.clone(),
            progress: to_owner,
        };
        let mut task = JoinSet::new();
        task.spawn(work.run());
        Self { wanted, progress, _task: task }
    }

    /// Returns whether this download has all of these packages.
    pub(super) fn has_all(&self, wanted: &[PackageName]) -> bool {
        wanted.iter().all(|name| self.wanted.contains(name))
    }

    pub(super) fn progress(&self) -> DownloadProgress {
        self.progress.borrow().clone()
    }
}

struct DownloadTask {
    packages: Vec<(PackageName, PackageDigest)>,
    dir: PathBuf,
    uplink: Uplink,
    bundle: WebFile,
    progress: watch::Sender<DownloadProgress>,
}

impl DownloadTask {
    async fn run(self) {
        for (name, digest) in &self.packages {
            let mut pause = FIRST_PAUSE;
            self.show(format!("{name} is being fetched"));
            while let Err(error) = self.fetch(name, *digest).await {
                self.show(format!("{name} is not fetched yet: {error}"));
                tracing::warn!(target: super::LOG_TARGET, "{name} is not fetched yet: {error}");
                sleep(pause).await;
                pause = (2 * pause).min(MAX_PAUSE);
            }
        }
        self.show("edge-gateway-box verifies the packages".to_owned());
    }

    fn show(&self, sentence: String) {
        self.progress.send_modify(|progress| progress.sentence = sentence);
    }

    /// Fetches a package, or what is missing of it.
    async fn fetch(&self, name: &PackageName, digest: PackageDigest) -> Result<(), PackageError> {
        let path = self.dir.join(name.to_string());
        let part = PartialFile { path: path.with_extension("part"), length: 0 };
        let part = blocking(move || part.open()).await?;
        let url = self.bundle.sibling(&format!("{PACKAGES_DIR}/{name}"));
        let stream = url.connect(&self.uplink).await?;
        let from = (part.length > 0).then_some(part.length);
        let read = async |response| Ok(self.receive(response, part, &url).await);
        // A server that has no more of it than is here is asked for the whole file.
        match exchange(stream, &url, from, read).await {
            Err(PullError::Status { code: 416, .. }) => {}
            done => done??,
        }
        let is_same = blocking(move || finish(&path, digest)).await?;
        if is_same { Ok(()) } else { Err(PackageError::OtherFile) }
    }

    /// Writes what the server sends to the end of the file.
    async fn receive(
        &self,
        response: Response<Incoming>,
        mut part: PartialFile,
        url: &WebFile,
    ) -> Result<(), PackageError> {
        if !continues_at(&response, part.length) {
            part.length = 0;
        }
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        loop {
            let frame = timeout(IDLE_TIMEOUT, body.frame()).await;
            let frame = frame.map_err(|_| PackageError::Idle)?;
            let is_end = frame.is_none();
            let frame = frame.transpose().map_err(|_| url.not_http());
            let data = frame.as_ref().ok().and_then(|frame| frame.as_ref()?.data_ref());
            if let Some(data) = data {
                bytes.extend_from_slice(data);
                let count = u64::try_from(data.len()).unwrap_or_default();
                self.progress.send_modify(|progress| progress.received += count);
            }
            // What came before an error is kept: the next attempt goes on there.
            if bytes.len() >= WRITE_BYTES || is_end || frame.is_err() {
                let full = std::mem::take(&mut bytes);
                part = blocking(move || part.append(&full)).await?;
                if part.length > MAX_PACKAGE_BYTES as u64 {
                    return Err(PackageError::OtherFile);
                }
            }
            frame?;
            if is_end {
                return Ok(());
            }
        }
    }
}

/// Returns whether an answer continues a file after so many bytes (RFC 9110, 14.4).
fn continues_at(response: &Response<Incoming>, length: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let expected = format!("bytes {length}-");
    response.status() == 206 && range.is_some_and(|range| range.starts_with(&expected))
}

/// A file that is not complete.
#[derive(Debug)]
struct PartialFile {
    path: PathBuf,
    /// What is there.
    length: u64,
}

impl PartialFile {
    fn open(self) -> io::Result<Self> {
        let dir = self.path.parent().unwrap_or(&self.path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let length = self.path.symlink_metadata().map_or(0, |metadata| metadata.len());
        // More than that is no package, so it is not continued.
        Ok(Self { length: if length > MAX_PACKAGE_BYTES as u64 { 0 } else { length }, ..self })
    }

    /// Writes at `length`, and forgets what is behind it.
    fn append(mut self, bytes: &[u8]) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.set_len(self.length)?;
        file.write_all(bytes)?;
        self.length += u64::try_from(bytes.len()).unwrap_or_default();
        Ok(self)
    }
}

/// Gives a package its name if it is the one of this SHA-256, and removes it otherwise.
fn finish(path: &Path, digest: PackageDigest) -> io::Result<bool> {
    let part = path.with_extension("part");
    let mut file = File::open(&part)?;
    let (mut context, mut bytes) = (Context::new(&SHA256), vec![0; WRITE_BYTES]);
    loop {
        match file.read(&mut bytes)? {
            0 => break,
            count => context.update(bytes.get(..count).unwrap_or_default()),
        }
    }
    if context.finish().as_ref() != digest.0.as_slice() {
        fs::remove_file(&part)?;
        return Ok(false);
    }
    fs::rename(&part, path)?;
    Ok(true)
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(job).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests;
