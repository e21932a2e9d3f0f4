use provisioning::certificates::CertificateFacts;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;

const DAY: i64 = 86_400;
const END: i64 = 2_000 * DAY;

#[test]
fn a_notice_is_due_once_at_30_14_and_3_days_and_again_for_a_new_certificate() {
    let mut notices = ExpiryNotices::default();
    let mut days = |end, left| notices.on_checked("f", end, end - left * DAY).map(|one| one.days);
    let noticed: Vec<_> = (-2..=40).rev().filter_map(|left| days(END, left)).collect();
    assert_eq!(noticed, [30, 14, 3]);
    // Replaced by one that ends soon, and found after a start in its last days.
    assert_eq!(days(END + 1, 20), Some(20));
    assert_eq!(days(END + 2, -1), Some(-1));
    assert_eq!(days(END + 2, -2), None);
}

#[test]
fn a_connection_is_renewed_when_its_certificate_is_about_to_end_and_a_later_one_is_there() {
    let certificate = |not_before, not_after| {
        let certificate = CertificateParams::default();
        let certificate = certificate.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let facts = CertificateFacts::parse(certificate.der()).unwrap();
        let facts = CertificateFacts { not_before, not_after, ..facts };
        Certificate { der: certificate.der().clone(), facts }
    };
    let used = certificate(0, END);
    let later = certificate(0, END + DAY);
    let early = END - 3 * DAY;
    assert!(!is_renewal_due(&used, &later, early - 1));
    assert!(is_renewal_due(&used, &later, early));
    assert!(is_renewal_due(&used, &later, END));
    assert!(!is_renewal_due(&used, &used, END));
    assert!(!is_renewal_due(&later, &used, END), "the older one is no renewal");
    assert!(!is_renewal_due(&used, &certificate(END + 1, 2 * END), END), "not valid yet");
    // One of a day is renewed in its last eight hours.
    let (short, next) = (certificate(END - DAY, END), certificate(END - DAY / 2, END + DAY / 2));
    assert!(!is_renewal_due(&short, &next, END - DAY / 3 - 1));
    assert!(is_renewal_due(&short, &next, END - DAY / 3));
}

#[test]
fn files_are_read_again_when_they_change() {
    let name = format!("edge-gateway-expiry-{}.pem", fastrand::u64(..));
    let file = std::env::temp_dir().join(name);
    let label = file.display().to_string();
    let pem = |year| {
        let mut params = CertificateParams::new(vec!["broker".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    let mut files = CertificateFiles::new(Tls { ca_file: Some(file.clone()), ..Tls::default() });
    let mut end = |content: Option<String>| {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        files.update();
        files.ends[&label].clone()
    };
    // One authority that is valid is enough.
    assert_eq!(end(Some(format!("{}{}", pem(2031), pem(2020)))), Ok(1_924_992_000));
    assert_eq!(end(None), Ok(1_924_992_000));
    let path = label.clone();
    assert_eq!(end(Some("nothing".to_owned())), Err(CertificateFault::NoCertificate { path }));
    let cut: String = pem(2035).chars().take(200).collect();
    assert!(end(Some(format!("{}{cut}", pem(2031)))).is_err());
    assert!(end(Some(pem(2035))).is_ok());
    fs::remove_file(&file).unwrap();
    assert!(end(None).is_err());
}
