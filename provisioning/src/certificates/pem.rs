//! Files in PEM form (RFC 7468), and what people put in their place.

use std::io::ErrorKind;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{Certificate, CertificateFacts, CertificateFault};
use crate::regular_file::{self, MAX_CERTIFICATE_BYTES};

/// Marks that Windows programs put before a text.
const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";
const UTF16_MARKS: [&[u8]; 2] = [b"\xFF\xFE", b"\xFE\xFF"];
/// First byte of DER: the tag of a SEQUENCE (X.690, 8.9).
const DER_SEQUENCE: u8 = 0x30;
/// Version 3 of PKCS#12, the first element of its SEQUENCE (RFC 7292, 4), before another SEQUENCE.
const PKCS12_VERSION: &[u8] = &[0x02, 0x01, 0x03, DER_SEQUENCE];
/// Identifier of the signed data of PKCS#7 (RFC 2315, 14).
const PKCS7_SIGNED_DATA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x02";
/// Length of the head of a SEQUENCE with two bytes for its length, as every file here has one.
const MAX_HEAD: usize = 6;

/// What a PEM file is read for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PemContent {
    Certificate,
    Key,
}

/// Reads all certificates of a file, at least one.
pub(super) fn read_certificates(path: &Path) -> Result<Vec<Certificate>, CertificateFault> {
    let text = read_text(path, PemContent::Certificate)?;
    let path = path.display().to_string();
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|_| CertificateFault::DamagedPem { path: path.clone() })?;
    if all.is_empty() {
        return Err(no_certificate(&text, path));
    }
    let certificate = |(number, der): (usize, CertificateDer<'static>)| {
        let facts = CertificateFacts::parse(&der)
            .ok_or_else(|| CertificateFault::DamagedCertificate { path: path.clone(), number })?;
        Ok(Certificate { der, facts })
    };
    (1..).zip(all).map(certificate).collect()
}

/// Reads the first private key of a file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFault> {
    let text = read_text(path, PemContent::Key)?;
    let path = path.display().to_string();
    if has(&text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(&text, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(CertificateFault::EncryptedKey { path });
    }
    match PrivateKeyDer::pem_slice_iter(&text).next() {
        Some(Ok(key)) => Ok(key),
        Some(Err(_)) => Err(CertificateFault::DamagedPem { path }),
        None if has(&text, b"-----BEGIN CERTIFICATE-----") => {
            Err(CertificateFault::CertificateInsteadOfKey { path })
        }
        None => Err(CertificateFault::NoKey { path }),
    }
}

/// Reads a text file, without byte order marks and without blanks at the ends of lines.
fn read_text(path: &Path, content: PemContent) -> Result<Zeroizing<Vec<u8>>, CertificateFault> {
    let bytes = regular_file::read(path, MAX_CERTIFICATE_BYTES).map(Zeroizing::new);
    let path = path.display().to_string();
    let bytes = bytes.map_err(|error| {
        let cause = if error.kind() == ErrorKind::NotFound {
            "does not exist".to_owned()
        } else if error.kind() == ErrorKind::PermissionDenied {
            "cannot be read by this user".to_owned()
        } else {
            format!("cannot be read ({error})")
        };
        CertificateFault::CertificateFile { path: path.clone(), cause }
    })?;
    if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) {
        return Err(CertificateFault::Utf16 { path });
    }
    if let Some(command) = conversion(&bytes, content, &path) {
        return Err(CertificateFault::NotPem { path, command });
    }
    Ok(normalised(&bytes))
}

/// Returns the bytes with every line trimmed: files that were joined or pasted have byte order
/// marks in the middle, and blanks before and after lines.
fn normalised(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut text = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
    for line in bytes.split(|byte| [b'\n', b'\r'].contains(byte)) {
        let line = line.trim_ascii();
        text.extend_from_slice(line.strip_prefix(UTF8_MARK).unwrap_or(line).trim_ascii());
        text.push(b'\n');
    }
    text
}

/// Returns the command that converts a file of another form to PEM; `None` for PEM.
fn conversion(bytes: &[u8], content: PemContent, path: &str) -> Option<String> {
    let head = bytes.get(..bytes.len().min(MAX_HEAD + PKCS7_SIGNED_DATA.len()))?;
    if has(bytes, b"-----BEGIN PKCS7-----") {
        return Some(format!("openssl pkcs7 -print_certs -in {path} -out certificates.pem"));
    }
    if has(bytes, b"-----BEGIN TRUSTED CERTIFICATE-----") {
        return Some(format!("openssl x509 -in {path} -out certificate.pem"));
    }
    if bytes.first() != Some(&DER_SEQUENCE) {
        return None;
    }
    Some(if has(head, PKCS12_VERSION) {
        format!("openssl pkcs12 -in {path} -nodes -out certificate-and-key.pem")
    } else if has(head, PKCS7_SIGNED_DATA) {
        format!("openssl pkcs7 -inform der -print_certs -in {path} -out certificates.pem")
    } else if content == PemContent::Key {
        format!("openssl pkey -inform der -in {path} -out private.key")
    } else {
        format!("openssl x509 -inform der -in {path} -out certificate.pem")
    })
}

/// Returns why a file has no certificate.
fn no_certificate(text: &[u8], path: String) -> CertificateFault {
    if has(text, b"CERTIFICATE REQUEST-----") {
        CertificateFault::CertificateRequest { path }
    } else if has(text, b"PRIVATE KEY-----") {
        CertificateFault::KeyInsteadOfCertificate { path }
    } else {
        CertificateFault::NoCertificate { path }
    }
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
