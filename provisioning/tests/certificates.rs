//! What `check` says about the contents of the files with certificates.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use provisioning::config::{self, FileCheck};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

struct Site {
    dir: PathBuf,
}

impl Site {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("edge-check-tls-{}", fastrand::u64(..)));
        fs::create_dir(&dir).unwrap();
        Self { dir }
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Copies a file of `tests/certificates`.
    fn copy(&self, name: &str) {
        let samples = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates"));
        self.write(name, &fs::read(samples.join(name)).unwrap());
    }

    /// Returns the problems or the notes for these keys of `[mqtt]`.
    #[expect(clippy::unwrap_in_result, reason = "a test that cannot write its files stops")]
    fn check(&self, keys: &str) -> Result<String, String> {
        let text = format!(
            "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtts://b\"]\n{keys}\n\
             [[plc]]\nname = \"p\"\nmodel = \"M241\"\naddress = \"192.168.1.1\"\n\
             [[plc.tag]]\nname = \"t\"\nat = \"%MW1\"\ntype = \"INT\"\n"
        );
        let file = self.dir.join("gateway.toml");
        fs::write(&file, text).unwrap();
        let checked = config::inspect(&file, FileCheck::Open(None));
        // It runs all the same: the files are read again with each attempt to connect.
        assert_eq!(config::load(&file).is_ok(), config::inspect(&file, FileCheck::Skip).is_ok());
        match checked {
            Ok(inspected) => Ok(inspected.notes.to_string()),
            Err(rejected) => Err(rejected.to_string()),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn good_files_of_every_kind_have_neither_problems_nor_notes() {
    let site = Site::new();
    for name in ["ec.pem", "ec-sec1.key", "rsa.pem", "rsa-pkcs1.key"] {
        site.copy(name);
    }
    for (cert, key) in [("ec.pem", "ec-sec1.key"), ("rsa.pem", "rsa-pkcs1.key")] {
        let keys = format!(
            "ca_file = \"ec.pem\"\ncert_file = \"{cert}\"\nkey_file = \"{key}\"\nalpn = [\"mqtt\"]"
        );
        assert_eq!(site.check(&keys), Ok(String::new()));
    }
}

#[test]
fn each_fault_of_a_file_is_reported_at_its_key() {
    let site = Site::new();
    for name in ["ec.pem", "ec.der", "ec-sec1.key", "encrypted-pkcs8.key", "rsa-pkcs8.key"] {
        site.copy(name);
    }
    for (keys, line, words) in [
        ("ca_file = \"ec.der\"", "5:11", "is not in PEM form"),
        (
            "cert_file = \"ec.pem\"\nkey_file = \"encrypted-pkcs8.key\"",
            "6:12",
            "encrypted-pkcs8.key is encrypted",
        ),
        (
            "cert_file = \"ec.pem\"\nkey_file = \"rsa-pkcs8.key\"",
            "6:12",
            "rsa-pkcs8.key is not that of the certificate in",
        ),
        (
            "cert_file = \"ec-sec1.key\"\nkey_file = \"ec.pem\"",
            "5:13",
            "contains a private key and no certificate",
        ),
    ] {
        let text = site.check(keys).unwrap_err();
        assert!(text.contains(words), "{text}");
        assert!(text.contains(&format!("gateway.toml:{line}")), "{text}");
    }
}

#[test]
fn certificates_out_of_date_are_problems_and_those_that_end_soon_get_a_note() {
    let site = Site::new();
    let key = KeyPair::generate().unwrap();
    site.write("own.key", key.serialize_pem().as_bytes());
    let keys = "cert_file = \"own.pem\"\nkey_file = \"own.key\"";
    let certificate = |change: &dyn Fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["g".to_owned()]).unwrap();
        change(&mut params);
        params.self_signed(&key).unwrap().pem()
    };
    let past = certificate(&|params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = certificate(&|params| params.not_before = date_time_ymd(2200, 1, 1));
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(240);
    let soon = soon.strftime("%Y-%m-%d").to_string();
    let [year, month, day] = soon.split('-').collect::<Vec<_>>().try_into().unwrap();
    let ending = certificate(&|params| {
        let (month, day) = (month.parse().unwrap(), day.parse().unwrap());
        params.not_after = date_time_ymd(year.parse().unwrap(), month, day);
    });

    site.write("own.pem", past.as_bytes());
    let text = site.check(keys).unwrap_err();
    assert!(text.contains("expired on 2020-01-01 00:00 UTC"), "{text}");
    site.write("own.pem", future.as_bytes());
    let text = site.check(keys).unwrap_err();
    assert!(text.contains("is valid from 2200-01-01 00:00 UTC on"), "{text}");
    site.write("own.pem", ending.as_bytes());
    let notes = site.check(keys).unwrap();
    assert!(notes.contains("expires on"), "{notes}");

    // In a bundle of authorities one may have ended.
    let lasting = certificate(&|_| {});
    site.write("ca.pem", format!("{past}{lasting}").as_bytes());
    let notes = site.check("ca_file = \"ca.pem\"").unwrap();
    assert!(notes.contains("expired on 2020-01-01"), "{notes}");
    site.write("ca.pem", past.as_bytes());
    assert!(site.check("ca_file = \"ca.pem\"").is_err());
}

#[test]
fn names_of_protocols_are_checked() {
    let site = Site::new();
    let long = "x".repeat(256);
    for bad in ["alpn = [\"\"]", "alpn = [\"a b\"]", &format!("alpn = [\"{long}\"]")] {
        assert!(site.check(bad).unwrap_err().contains("not the name of a protocol"));
    }
    assert!(site.check("alpn = [\"mqtt\", \"mqtt\"]").unwrap_err().contains("twice"));
    assert_eq!(site.check("alpn = [\"mqtt\", \"x-amzn-mqtt-ca\"]"), Ok(String::new()));
}
