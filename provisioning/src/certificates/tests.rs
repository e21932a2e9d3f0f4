//! Files as openssl writes them lie in `tests/certificates`; they are valid for a hundred years.

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

use super::*;

fn sample(name: &str) -> PathBuf {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates"));
    dir.join(name)
}

/// A directory that goes away with the test.
struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("edge-certificates-{}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn identity(cert: &str, key: &str) -> Result<ClientIdentity, CertificateFault> {
    read_pair(sample(cert), sample(key))
}

fn read_pair(cert_file: PathBuf, key_file: PathBuf) -> Result<ClientIdentity, CertificateFault> {
    ClientIdentity::read(&ClientCertificate { cert_file, key_file })
}

/// Returns the code of a fault as the status shows it.
fn code(fault: &CertificateFault) -> String {
    serde_json::to_value(fault).unwrap()["code"].as_str().unwrap().to_owned()
}

#[test]
fn every_form_of_a_plain_key_is_read() {
    for (cert, key) in [
        ("ec.pem", "ec-sec1.key"),
        ("ec.pem", "ec-pkcs8.key"),
        ("rsa.pem", "rsa-pkcs1.key"),
        ("rsa.pem", "rsa-pkcs8.key"),
    ] {
        let identity = identity(cert, key).unwrap_or_else(|fault| panic!("{key}: {fault}"));
        assert!(identity.is_ordered());
    }
}

#[test]
fn other_forms_are_named_with_the_command_that_converts_them() {
    let conversions = [
        ("ec.der", "openssl x509 -inform der -in "),
        ("identity.p12", "openssl pkcs12 -in "),
        ("bundle.p7b", "openssl pkcs7 -print_certs -in "),
        ("bundle-der.p7b", "openssl pkcs7 -inform der -print_certs -in "),
        ("trusted.pem", "openssl x509 -in "),
    ];
    for (file, command) in conversions {
        let fault = read_authorities(&sample(file)).unwrap_err();
        assert_eq!(code(&fault), "not_pem", "{file}");
        assert!(fault.help().contains(command), "{fault}");
    }
    for (key, command) in
        [("ec-key.der", "openssl pkey -inform der -in "), ("identity.p12", "openssl pkcs12 -in ")]
    {
        let fault = identity("ec.pem", key).unwrap_err();
        assert!(fault.help().contains(command), "{fault}");
    }
}

#[test]
fn every_other_fault_of_the_files_has_its_own_code() {
    let of_pair = |cert: &str, key: &str| code(&identity(cert, key).unwrap_err());
    assert_eq!(of_pair("ec.pem", "encrypted-pkcs8.key"), "encrypted_key");
    assert_eq!(of_pair("rsa.pem", "encrypted-pkcs1.key"), "encrypted_key");
    assert_eq!(of_pair("ec.pem", "rsa-pkcs8.key"), "key_mismatch");
    assert_eq!(of_pair("ec.pem", "ec.pem"), "certificate_instead_of_key");
    assert_eq!(of_pair("ec-sec1.key", "ec-sec1.key"), "key_instead_of_certificate");
    assert_eq!(of_pair("request.csr", "ec-sec1.key"), "certificate_request");
    assert_eq!(of_pair("ec.pem", "request.csr"), "no_key");
    assert_eq!(of_pair("ec.pem", "missing"), "certificate_file");
    assert_eq!(of_pair("weak.pem", "weak.key"), "unsupported_key");
    assert_eq!(of_pair("p521.pem", "p521.key"), "unsupported_key");
}

#[test]
fn every_fault_of_a_text_has_its_own_code() {
    let dir = TestDir::new();
    let of_text = |text: &[u8]| code(&read_certificates(&dir.write("x", text)).unwrap_err());
    let pem = fs::read(sample("ec.pem")).unwrap();
    let wide: Vec<u8> = [0xFF, 0xFE].into_iter().chain(pem.iter().flat_map(|b| [*b, 0])).collect();
    assert_eq!(of_text(&wide), "utf16");
    assert_eq!(of_text(b""), "no_certificate");
    assert_eq!(of_text(b"nothing"), "no_certificate");
    assert_eq!(of_text(&pem[..pem.len() / 2]), "damaged_pem");
    let text = "-----BEGIN CERTIFICATE-----\nMTIzNA==\n-----END CERTIFICATE-----\n";
    assert_eq!(of_text(text.as_bytes()), "damaged_certificate");
}

#[test]
fn line_ends_and_byte_order_marks_of_windows_do_not_matter() {
    let dir = TestDir::new();
    let text = fs::read_to_string(sample("ec.pem")).unwrap();
    let expected = read_certificates(&sample("ec.pem")).unwrap();
    let twice = format!("\u{feff}{text}\u{feff}{text}");
    for (variant, copies) in [
        (text.replace('\n', "\r\n"), 1),
        (text.replace('\n', "\r"), 1),
        (text.replace('\n', "  \n"), 1),
        (text.lines().map(|line| format!("  {line}\n")).collect(), 1),
        (format!("subject=/CN=ec\n\n{text}\n\n"), 1),
        (text.trim_end().to_owned(), 1),
        (twice.replace('\n', "\r\n"), 2),
    ] {
        let read = read_certificates(&dir.write("x.pem", &variant)).unwrap();
        assert_eq!(read.len(), copies);
        assert_eq!(read[0], expected[0]);
    }
    let key = fs::read_to_string(sample("ec-sec1.key")).unwrap().replace('\n', "\r\n");
    let key = dir.write("x.key", format!("\u{feff}{key}"));
    assert!(read_pair(sample("ec.pem"), key).is_ok());
}

#[test]
fn the_own_certificate_is_the_first_and_its_issuer_follows() {
    let dir = TestDir::new();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let root =
        CertifiedIssuer::self_signed(authority("root"), KeyPair::generate().unwrap()).unwrap();
    let middle =
        CertifiedIssuer::signed_by(authority("middle"), KeyPair::generate().unwrap(), &root)
            .unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["gateway".to_owned()]).unwrap();
    let own = own.signed_by(&key, &middle).unwrap();
    let key = dir.write("own.key", key.serialize_pem());
    let read = |parts: &[String]| read_pair(dir.write("own.pem", parts.concat()), key.clone());
    let (own, middle, root) = (own.pem(), middle.pem(), root.pem());

    assert!(read(&[own.clone(), middle.clone(), root.clone()]).unwrap().is_ordered());
    assert!(!read(&[own.clone(), root.clone(), middle.clone()]).unwrap().is_ordered());
    let fault = read(&[middle.clone(), own.clone()]).unwrap_err();
    assert_eq!(code(&fault), "chain_order");
    assert_eq!(code(&read(&[middle, root]).unwrap_err()), "key_mismatch");

    // A leaf is no authority, except for itself.
    let leaf = dir.write("leaf.pem", own);
    assert_eq!(code(&read_authorities(&leaf).unwrap_err()), "no_authority");
    assert!(read_authorities(&sample("ec.pem")).is_ok());
}

#[test]
fn a_certificate_has_an_end_a_start_and_a_purpose() {
    let facts = |change: fn(&mut CertificateParams)| {
        let mut params =
            CertificateParams::new(vec!["a".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2030, 1, 1);
        params.not_after = date_time_ymd(2031, 1, 1);
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateFacts::parse(certificate.der()).unwrap()
    };
    let (start, end) = (1_893_456_000, 1_924_992_000);
    let plain = facts(|_| {});
    assert_eq!((plain.not_before, plain.not_after), (start, end));
    assert_eq!(plain.dns_names, ["a"]);
    assert_eq!(plain.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(plain.time_fault("f", start), None);
    assert_eq!(plain.time_fault("f", end), None);
    let text = |now| plain.time_fault("f", now).unwrap().to_string();
    assert_eq!(
        text(end + 1),
        "The certificate in f expired on 2031-01-01 00:00 UTC: put a renewed one there."
    );
    assert_eq!(
        text(start - 60),
        "The certificate in f is valid from 2030-01-01 00:00 UTC on, and the clock of this machine \
         shows 2029-12-31 23:59 UTC: set the clock, or give it access to a time server (NTP)."
    );
    assert_eq!(plain.purpose_fault("f"), None);
    let server = facts(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(code(&server.purpose_fault("f").unwrap()), "not_for_clients");
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        start in 0usize..500, cut in 0usize..600, byte: u8, noise in prop::collection::vec(any::<u8>(), 0..40)
    ) {
        let dir = TestDir::new();
        for name in ["ec.pem", "ec.der", "identity.p12", "ec-sec1.key"] {
            let mut bytes = fs::read(sample(name)).unwrap();
            bytes.truncate(cut);
            if let Some(at) = bytes.get_mut(start) { *at = byte; }
            bytes.extend_from_slice(&noise);
            let path = dir.write("x", &bytes);
            let faults = [read_certificates(&path).err(), read_pair(path.clone(), path.clone()).err()];
            for fault in faults.into_iter().flatten() {
                prop_assert!(!fault.message().is_empty() && !fault.help().is_empty());
            }
            let _ = CertificateFacts::parse(&bytes);
        }
    }
}
