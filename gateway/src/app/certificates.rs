//! The certificates of the connection to the broker: when they end, as metric, status and event,
//! and an orderly new connection when a certificate of the gateway that is about to end was
//! replaced on disk.

mod expiry;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use prometheus::GaugeVec;
use provisioning::certificates::{self, Certificate, CertificateFault, ClientIdentity};
use provisioning::config::Tls;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use self::expiry::is_renewal_due;
pub(super) use self::expiry::{ExpiryNotice, ExpiryNotices, days_left};
use crate::clock;
use crate::uplink::{CertificatesInUse, Uplink};

/// How often the files are looked at: a renewed certificate shows within this time. The look is a
/// stat(2) of each; only a file that has changed is read.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// When each certificate ends, by its file, or by the address of the broker that sent it.
pub(super) type CertificateEnds = BTreeMap<String, CertificateEnd>;

/// When a certificate ends, in seconds since 1970, or why that is not known. Of the authorities in
/// `ca_file` it is the last end, because one that is valid is enough; in `cert_file` it is the end
/// of the gateway's own certificate.
pub(super) type CertificateEnd = Result<i64, CertificateFault>;

/// The files of `[mqtt]` with certificates, as they were when they changed last.
#[derive(Debug)]
struct CertificateFiles {
    tls: Tls,
    stamps: Vec<Option<CertificateStamp>>,
    ends: CertificateEnds,
    /// The certificate of the gateway, if it fits its key.
    client: Option<Certificate>,
}

/// What changes when a file is replaced or rewritten, or gets another owner or mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct CertificateStamp {
    inode: u64,
    len: u64,
    changed: (i64, i64),
}

/// Keeps the ends of all certificates up to date until `stop` fires: in
/// `edge_certificate_not_after_timestamp_seconds`, where an unreadable file is 0, and in `ends`.
/// Requests a new connection when one is due.
pub(super) async fn watch(
    tls: Tls,
    uplink: Uplink,
    expiries: GaugeVec,
    ends: watch::Sender<CertificateEnds>,
    stop: CancellationToken,
) {
    let mut files = Box::new(CertificateFiles::new(tls));
    let mut in_use = uplink.certificates_in_use();
    // Requested once: each attempt to connect reads the files anyway.
    let mut requested: Option<Certificate> = None;
    let mut checks = interval(CHECK_INTERVAL);
    loop {
        let woken = async {
            tokio::select! {
                _ = checks.tick() => {}
                Ok(()) = in_use.changed() => {}
            }
        };
        if stop.run_until_cancelled(woken).await.is_none() {
            return;
        }
        // On a thread of its own: an SD card may take seconds, and PLCs, broker and tunnel share
        // this one.
        let updated = spawn_blocking(move || {
            files.update();
            files
        });
        let Ok(updated) = updated.await else { return };
        files = updated;
        let used = in_use.borrow_and_update().clone();
        report(&files, &used, &expiries, &ends);
        let now = clock::now().as_whole_seconds();
        if let (Some(used), Some(on_disk)) = (&used.client, &files.client)
            && is_renewal_due(used, on_disk, now)
            && requested.as_ref() != Some(on_disk)
        {
            requested = Some(on_disk.clone());
            tracing::info!("the certificate of this gateway was renewed: connecting with it");
            uplink.request_renewal();
        }
    }
}

/// Publishes the ends of all certificates. A file that cannot be read is logged once.
fn report(
    files: &CertificateFiles,
    in_use: &CertificatesInUse,
    expiries: &GaugeVec,
    published: &watch::Sender<CertificateEnds>,
) {
    let mut ends = files.ends.clone();
    ends.extend(in_use.brokers.iter().map(|(broker, end)| (broker.clone(), Ok(*end))));
    for (file, end) in &ends {
        #[expect(clippy::cast_precision_loss, reason = "a date")]
        let seconds = end.as_ref().map_or(0.0, |seconds| *seconds as f64);
        expiries.with_label_values(&[file.as_str()]).set(seconds);
        let before = published.borrow().get(file).cloned();
        match (before, end) {
            (Some(Err(_)), Ok(_)) => tracing::info!(file, "this certificate can be read again"),
            (before, Err(fault)) if before.as_ref() != Some(end) => {
                tracing::warn!(file, "{fault}");
            }
            (_, Ok(_) | Err(_)) => {}
        }
    }
    published.send_if_modified(|published| {
        let is_changed = *published != ends;
        *published = ends;
        is_changed
    });
}

impl CertificateFiles {
    fn new(tls: Tls) -> Self {
        let (stamps, ends) = (Vec::new(), CertificateEnds::new());
        Self { tls, stamps, ends, client: None }
    }

    /// Reads the files again if one of them has changed.
    fn update(&mut self) {
        let own = self.tls.client.iter().flat_map(|own| [&own.cert_file, &own.key_file]);
        let files = self.tls.ca_file.iter().chain(own);
        let stamps: Vec<_> = files.map(|file| CertificateStamp::read(file).ok()).collect();
        if stamps == self.stamps && !self.ends.values().any(Result::is_err) {
            return;
        }
        self.stamps = stamps;
        self.ends.clear();
        self.client = None;
        if let Some(file) = &self.tls.ca_file {
            self.ends.insert(file.display().to_string(), last_end(file));
        }
        if let Some(own) = &self.tls.client {
            // With the key: a certificate without its key is of no use to a connection.
            let identity = ClientIdentity::read(own);
            let certificate = identity.map(|identity| identity.certificate().clone());
            let end = certificate.as_ref().map(|one| one.facts.not_after).map_err(Clone::clone);
            self.ends.insert(own.cert_file.display().to_string(), end);
            self.client = certificate.ok();
        }
    }
}

impl CertificateStamp {
    fn read(file: &Path) -> std::io::Result<Self> {
        let metadata = fs::metadata(file)?;
        Ok(Self {
            inode: metadata.ino(),
            len: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Returns when the last of the authorities in a file ends. One unreadable certificate makes the
/// whole file invalid, as it does for a connection.
fn last_end(file: &Path) -> CertificateEnd {
    let all = certificates::read_certificates(file)?;
    Ok(all.iter().map(|one| one.facts.not_after).max().unwrap_or_default())
}

#[cfg(test)]
mod tests;
