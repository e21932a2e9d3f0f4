//! The contents of the files with certificates. They are checked for `edge-gateway check` only: a
//! gateway starts with wrong ones, reads PLCs, and reads the files again with each attempt to
//! connect.

use crate::certificates::{
    self, Certificate, CertificateFault, ClientIdentity, WRITTEN_AT, shown_date,
};
use crate::config::context::{KeyLocation, Purpose, ReadContext};
use crate::config::raw::RawMqtt;
use crate::config::{ClientCertificate, Tls};

/// A certificate that ends within this many seconds gets a note.
const SOON: i64 = 30 * 86_400;

/// Reports what is wrong with the files of `tls`, as far as they were opened.
pub(super) fn check_contents(raw: &RawMqtt, tls: &Tls, context: &mut ReadContext<'_>) {
    if !matches!(context.purpose, Purpose::Check(_)) {
        return;
    }
    if let Some(path) = tls.ca_file.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        let location = &raw.ca_file.key;
        match certificates::read_authorities(path) {
            Ok(all) => check_dates(location, &path.display().to_string(), &all, context),
            Err(fault) => reject(location, &fault, context),
        }
    }
    if let Some(own) = &tls.client {
        check_client(raw, own, context);
    }
}

fn check_client(raw: &RawMqtt, own: &ClientCertificate, context: &mut ReadContext<'_>) {
    let (cert, path) = (&raw.cert_file.key, own.cert_file.display().to_string());
    let all = match certificates::read_certificates(&own.cert_file) {
        Ok(all) => all,
        Err(fault) => return reject(cert, &fault, context),
    };
    check_dates(cert, &path, all.get(..1).unwrap_or_default(), context);
    if let Some(fault) = all.first().and_then(|first| first.facts.purpose_fault(&path)) {
        reject(cert, &fault, context);
    }
    // A credential that only systemd has was not opened.
    if own.key_file.as_os_str().is_empty() {
        return;
    }
    match ClientIdentity::read(own) {
        Ok(identity) if identity.is_ordered() => {}
        Ok(_) => {
            let fault = CertificateFault::ChainOrder { path };
            context.add_note(cert, fault.message(), fault.help(), None);
        }
        Err(fault @ CertificateFault::ChainOrder { .. }) => reject(cert, &fault, context),
        Err(fault) => reject(&raw.key_file.key, &fault, context),
    }
}

/// Reports certificates that are not valid now, and the end of those that end soon.
fn check_dates(
    location: &KeyLocation,
    path: &str,
    certificates: &[Certificate],
    context: &mut ReadContext<'_>,
) {
    let now = context.now;
    if now < WRITTEN_AT {
        let message = format!(
            "the clock of this machine shows {}, so the dates of certificates were not checked",
            shown_date(now)
        );
        let help = "set it, or give it access to a time server (NTP)";
        return context.add_note(location, message, help.to_owned(), None);
    }
    let faults = certificates.iter().map(|one| one.facts.time_fault(path, now));
    let faults: Vec<_> = faults.flatten().collect();
    let Some(fault) = faults.first() else {
        return note_end(location, path, certificates, context);
    };
    // A bundle of authorities may hold some that have ended.
    if faults.len() == certificates.len() {
        reject(location, fault, context);
    } else {
        context.add_note(location, fault.message(), fault.help(), None);
    }
}

fn note_end(
    location: &KeyLocation,
    path: &str,
    certificates: &[Certificate],
    context: &mut ReadContext<'_>,
) {
    let first_end = certificates.iter().map(|one| one.facts.not_after).min();
    if let Some(end) = first_end.filter(|end| end - context.now < SOON) {
        let message = format!("the certificate in {path} expires on {}", shown_date(end));
        let help = "put a renewed one there; the gateway uses it without a restart";
        context.add_note(location, message, help.to_owned(), None);
    }
}

fn reject(location: &KeyLocation, fault: &CertificateFault, context: &mut ReadContext<'_>) {
    context.reject(location, fault.message(), Some(fault.help()));
}
