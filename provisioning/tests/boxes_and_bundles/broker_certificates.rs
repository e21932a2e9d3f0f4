//! The certificate of the broker at a hub.

use std::fs;
use std::net::IpAddr;

use jiff::Timestamp;
use provisioning::office::authority::{is_for_hub, is_issued_by};
use provisioning::office::certificates::Certificates;
use provisioning::office::secrets::Secrets;

use crate::office::Office;

const HUB: &str = "hub-a";

/// Returns the certificate that `hub` renders for this address.
fn certificate(office: &Office, address: &str) -> String {
    let certificates = Certificates::open(&office.dir.0, None, Timestamp::now()).unwrap();
    let secrets = Secrets::of_fleet(&office.dir.0);
    certificates.of_hub(&secrets, HUB, address.parse().unwrap()).unwrap()
}

#[test]
fn a_certificate_that_does_not_fit_is_replaced_at_once() {
    let office = Office::empty();
    let first = certificate(&office, "10.77.0.1");
    assert_eq!(certificate(&office, "10.77.0.1"), first, "it fits");

    // The hub got another address.
    let moved = certificate(&office, "10.77.0.9");
    let address: IpAddr = "10.77.0.9".parse().unwrap();
    assert!(
        is_for_hub(&moved, HUB, address).unwrap() && !is_for_hub(&first, HUB, address).unwrap()
    );
    // The certificate was taken from git, and the key from an older copy of secrets/.
    let path = office.path("secrets/hubs/hub-a/broker.key");
    let key = fs::read_to_string(&path).unwrap();
    let other = certificate(&office, "10.77.0.1");
    fs::write(&path, key).unwrap();
    let fitting = certificate(&office, "10.77.0.1");
    assert_ne!(fitting, other);
    assert_eq!(certificate(&office, "10.77.0.1"), fitting);
    // It is damaged.
    fs::write(office.path("authority/hubs/hub-a.pem"), "nonsense").unwrap();
    assert_ne!(certificate(&office, "10.77.0.1"), "nonsense");

    let old = certificate(&office, "10.77.0.1");
    let old_authority = fs::read_to_string(office.path("authority/ca.pem")).unwrap();
    fs::remove_file(office.path("authority/ca.pem")).unwrap();
    Certificates::ensure(&office.dir.0, Timestamp::now()).unwrap();
    let authority = fs::read_to_string(office.path("authority/ca.pem")).unwrap();
    let new = certificate(&office, "10.77.0.1");
    assert!(
        is_issued_by(&new, &authority).unwrap() && !is_issued_by(&new, &old_authority).unwrap()
    );
    assert!(is_issued_by(&old, &old_authority).unwrap());
}
