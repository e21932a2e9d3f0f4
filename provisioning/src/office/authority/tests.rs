use std::fs;
use std::process::Command;

use rcgen::CustomExtension;

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 1));

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn start() -> Timestamp {
    at("2026-12-01T12:00:00Z")
}

fn authority() -> Authority {
    let made = Authority::create(start()).unwrap();
    Authority::open(&made.certificate, &made.key).unwrap()
}

fn request_with(change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    change(&mut parameters);
    let key = KeyPair::generate().unwrap();
    parameters.serialize_request(&key).unwrap().pem().unwrap()
}

fn request() -> String {
    request_with(|_| ())
}

/// Lets OpenSSL judge a certificate at a time, as a broker would.
fn verify_with_openssl(
    authority: &Authority,
    certificate: &str,
    purpose: &str,
    now: Timestamp,
) -> bool {
    let name = format!("edge-authority-{}-{:08x}", std::process::id(), fastrand::u32(..));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("ca.pem"), authority.certificate()).unwrap();
    fs::write(dir.join("leaf.pem"), certificate).unwrap();
    let output = Command::new("openssl")
        .current_dir(&dir)
        .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "-attime"])
        .args([now.as_second().to_string(), "leaf.pem".to_owned()])
        .output()
        .expect("the Debian package openssl is installed");
    fs::remove_dir_all(&dir).unwrap();
    output.status.success()
}

#[test]
fn two_renewals_are_lived_through() {
    let (authority, request) = (authority(), request());
    let mut certificate = authority.issue_gateway("amsterdam-01", &request, start()).unwrap();
    let mut issued = vec![certificate.clone()];
    // Once a week for five years, as the office builds.
    for week in 0..260 {
        let now = days_after(start(), week * 7).unwrap();
        if needs_renewal(&certificate, now).unwrap() {
            // The box that has not got the new one is still let in.
            assert!(verify_with_openssl(&authority, &certificate, "sslclient", now), "{now}");
            certificate = authority.issue_gateway("amsterdam-01", &request, now).unwrap();
            issued.push(certificate.clone());
        }
        assert!(end(&certificate).unwrap() > days_after(now, RENEWAL_DAYS).unwrap(), "{now}");
    }
    assert_eq!(issued.len(), 3);
    let serials: std::collections::BTreeSet<_> = issued
        .iter()
        .map(|pem| with_certificate(pem, |certificate| certificate.raw_serial().to_vec()).unwrap())
        .collect();
    assert_eq!(serials.len(), issued.len(), "each certificate has its own serial number");
    let last = days_after(start(), 259 * 7).unwrap();
    assert!(verify_with_openssl(&authority, &certificate, "sslclient", last));
    assert!(!verify_with_openssl(&authority, &certificate, "sslserver", last));
    assert!(!verify_with_openssl(&authority, &issued[0], "sslclient", last));
}

#[test]
fn a_gateway_is_called_what_the_office_calls_it() {
    let authority = authority();
    let certificate = authority.issue_gateway("amsterdam-01", &request(), start()).unwrap();
    let subject =
        with_certificate(&certificate, |certificate| certificate.subject().to_string()).unwrap();
    assert_eq!(subject, "CN=amsterdam-01");

    let hub = authority.issue_hub("hub-a", ADDRESS, start()).unwrap();
    assert!(verify_with_openssl(&authority, &hub.certificate, "sslserver", start()));
    assert!(!verify_with_openssl(&authority, &hub.certificate, "sslclient", start()));
    let shown = format!("{hub:?} {authority:?}");
    assert!(!shown.contains("PRIVATE KEY"), "{shown}");
    assert!(hub.key.contains("PRIVATE KEY"));
}

#[test]
fn a_request_that_asks_for_anything_is_refused() {
    let authority = authority();
    let refused = |request: &str| authority.issue_gateway("g", request, start()).unwrap_err();
    let named = request_with(|parameters| {
        parameters.distinguished_name.push(DnType::CommonName, "rotterdam-02");
    });
    assert_eq!(refused(&named), AuthorityError::RequestNames);
    let asks: [fn(&mut CertificateParams); 4] = [
        |parameters| parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |parameters| {
            parameters.subject_alt_names = vec![SanType::DnsName("hub-a".try_into().unwrap())];
        },
        |parameters| parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign],
        |parameters| {
            let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            parameters.custom_extensions = vec![extension];
        },
    ];
    for ask in asks {
        assert_eq!(refused(&request_with(ask)), AuthorityError::RequestAsks);
    }
    let good = request();
    for at in 0..good.len() {
        let mut altered = good.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        // Some bytes mean nothing: the text around, and tags that the parser does not look at.
        let taken = request_key(&altered);
        assert!(taken.is_err() || taken == request_key(&good), "byte {at}: {altered}");
        assert!(check_request(&good[..at]).is_err() || good[at..].trim().is_empty(), "{at}");
    }
    assert_eq!(refused(&(good.clone() + &good)), AuthorityError::MalformedRequest);
}

#[test]
fn the_authority_does_not_outlive_itself_and_has_one_key() {
    let (made, other) = (Authority::create(start()).unwrap(), Authority::create(start()).unwrap());
    let refused = Authority::open(&made.certificate, &other.key).unwrap_err();
    assert_eq!(refused, AuthorityError::WrongKey);
    assert_eq!(Authority::open("", &other.key).unwrap_err(), AuthorityError::NoCertificate);
    let authority = Authority::open(&made.certificate, &made.key).unwrap();
    let late = at("2055-06-01T00:00:00Z");
    let refused = authority.issue_gateway("g", &request(), late).unwrap_err();
    assert!(refused.to_string().contains("2056-11-"), "{refused}");
}
