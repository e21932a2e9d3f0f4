//! Expiry dates of the configured certificates, as a metric.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prometheus::GaugeVec;
use provisioning::config::Tls;
use provisioning::regular_file::{self, MAX_CERTIFICATE_BYTES};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use tokio::task::spawn_blocking;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

/// How often the files are read: a renewed certificate shows within this time.
const CHECK_INTERVAL: Duration = Duration::from_secs(3600);

/// Updates `edge_certificate_not_after_timestamp_seconds` until `stop` fires. A file that cannot be
/// read counts as expired (0) and is logged once.
pub(super) async fn watch(tls: Tls, expiries: GaugeVec, stop: CancellationToken) {
    let files = tls.ca_file.iter().chain(tls.client.iter().map(|own| &own.cert_file));
    let files: Vec<PathBuf> = files.cloned().collect();
    let mut unreadable = BTreeSet::new();
    let mut checks = interval(CHECK_INTERVAL);
    while stop.run_until_cancelled(checks.tick()).await.is_some() {
        for file in &files {
            let label = file.display().to_string();
            match read_first_expiry(file.clone()).await {
                Ok(seconds) => {
                    expiries.with_label_values(&[label.as_str()]).set(seconds);
                    if unreadable.remove(file) {
                        tracing::info!(file = label, "this certificate can be read again");
                    }
                }
                Err(why) => {
                    expiries.with_label_values(&[label.as_str()]).set(0.0);
                    if !unreadable.insert(file.clone()) {
                        continue;
                    }
                    tracing::warn!(
                        file = label,
                        why,
                        "cannot read when this certificate expires: \
                         put a PEM file there that the user edge-gateway may read"
                    );
                }
            }
        }
    }
}

/// Reads the file on a thread of its own: an SD card may take seconds, and PLCs, broker and tunnel
/// share this one.
async fn read_first_expiry(file: PathBuf) -> Result<f64, String> {
    let read = spawn_blocking(move || first_expiry(&file)).await;
    read.unwrap_or_else(|panicked| Err(panicked.to_string()))
}

/// Returns when the first of the certificates in a file expires, in seconds since 1970, or why that
/// is not known. One unreadable certificate makes the whole file invalid, as it does for rustls.
fn first_expiry(file: &Path) -> Result<f64, String> {
    let pem = regular_file::read(file, MAX_CERTIFICATE_BYTES).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&pem);
    let expiry = |certificate: Result<CertificateDer<'_>, pem::Error>| {
        let certificate = certificate.map_err(|error| error.to_string())?;
        let parsed = parse_x509_certificate(&certificate).map_err(|error| error.to_string())?;
        Ok::<_, String>(parsed.1.validity().not_after.timestamp())
    };
    let expiries: Vec<_> = certificates.map(expiry).collect::<Result<_, _>>()?;
    let seconds = expiries.into_iter().min().ok_or("no certificate is in it")?;
    #[expect(clippy::cast_precision_loss, reason = "a date")]
    Ok(seconds as f64)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_earliest_expiry_in_a_file_counts() {
        let name = format!("edge-gateway-expiry-{}.pem", fastrand::u64(..));
        let file = std::env::temp_dir().join(name);
        let pem = |year| {
            let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        std::fs::write(&file, format!("{}{}", pem(2035), pem(2031))).unwrap();
        assert_eq!(first_expiry(&file), Ok(1_924_992_000.0));
        std::fs::write(&file, "nothing").unwrap();
        assert_eq!(first_expiry(&file), Err("no certificate is in it".to_owned()));
        let cut: String = pem(2035).chars().take(200).collect();
        std::fs::write(&file, format!("{}{cut}", pem(2031))).unwrap();
        assert!(first_expiry(&file).is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
