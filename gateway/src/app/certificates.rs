//! When certificates expire, for whoever watches the metrics.

use std::path::Path;
use std::time::Duration;

use prometheus::GaugeVec;
use provisioning::config::Tls;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

/// A renewed file is noticed within this.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Keeps `edge_certificate_not_after_timestamp_seconds` true until `stop` fires.
pub(super) async fn watch(tls: Tls, expiries: GaugeVec, stop: CancellationToken) {
    let files = tls.ca_file.iter().chain(tls.client.iter().map(|own| &own.cert_file));
    let files: Vec<_> = files.collect();
    let mut looks = interval(LOOK_EVERY);
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        for file in &files {
            let label = file.display().to_string();
            match first_expiry(file) {
                Some(seconds) => expiries.with_label_values(&[label.as_str()]).set(seconds),
                None => tracing::warn!(file = label, "no certificate can be read from this file"),
            }
        }
    }
}

/// When the first of the certificates in a file expires, in seconds since 1970.
fn first_expiry(file: &Path) -> Option<f64> {
    let certificates = CertificateDer::pem_file_iter(file).ok()?;
    let expiry = |certificate: CertificateDer<'_>| {
        let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
        Some(parsed.validity().not_after.timestamp())
    };
    let seconds = certificates.flatten().filter_map(expiry).min()?;
    #[expect(clippy::cast_precision_loss, reason = "a date")]
    Some(seconds as f64)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn the_first_certificate_that_expires_counts() {
        let name = format!("edge-gateway-expiry-{}.pem", fastrand::u64(..));
        let file = std::env::temp_dir().join(name);
        let pem = |year| {
            let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
        };
        std::fs::write(&file, format!("{}{}", pem(2035), pem(2031))).unwrap();
        assert_eq!(first_expiry(&file), Some(1_924_992_000.0));
        std::fs::write(&file, "nothing").unwrap();
        assert_eq!(first_expiry(&file), None);
        std::fs::remove_file(&file).unwrap();
    }
}
