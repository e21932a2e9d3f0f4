//! Identity of a device that has no PLC_R: Read Device Identification (function 43/14, Modbus
//! Application Protocol V1.1b3, 6.21). Pure; `poll` sends the request, as a job of its own.
//!
//! The name is of use to people only, so it must not cost values: it is requested once a session,
//! and a server that breaks the connection over it is asked again with growing pauses.

use std::time::{Duration, Instant};

use provisioning::plc::PlcModel;

use super::plc_r;
use super::server::is_gateway_exception;
use super::session::RequestError;
use crate::model::{PlcIdentity, is_hidden};
use crate::schedule::{RetryBackoff, RetryPolicy};

/// Pauses after a server broke the connection over the request, of whichever unit: one minute,
/// doubled up to one hour. That costs 30 connects in the first day and 24 in each further one.
pub(super) const NAME_RETRY: RetryPolicy = RetryPolicy {
    first: Duration::from_secs(60),
    second: Duration::from_secs(120),
    max: Duration::from_secs(3600),
    jitter: 0.0,
};
/// Most characters that are kept of one object.
const MAX_NAME_CHARS: usize = 64;

/// The name of one device.
#[derive(Debug)]
pub(super) struct DeviceName {
    /// Whether it has PLC_R, or does not support the function: it is never asked.
    is_excluded: bool,
    /// Answer of this session.
    identity: Option<PlcIdentity>,
    /// Sessions that broke over the request.
    pub(super) breaks: u32,
}

impl DeviceName {
    pub(super) const fn new(model: PlcModel) -> Self {
        Self { is_excluded: plc_r::has_plc_r(model), identity: None, breaks: 0 }
    }

    pub(super) const fn identity(&self) -> Option<&PlcIdentity> {
        self.identity.as_ref()
    }

    /// Returns whether the device is to be asked.
    pub(super) const fn is_needed(&self) -> bool {
        !self.is_excluded && self.identity.is_none()
    }

    /// Forgets the name: another device may answer now.
    pub(super) fn on_new_session(&mut self) {
        self.identity = None;
    }

    /// Records the answer. A refusal and an answer without a name are final, one by a gateway is
    /// not. After any other error `server_backoff` delays the next request to any device of the
    /// server.
    pub(super) fn on_answer(
        &mut self,
        answer: Result<PlcIdentity, RequestError>,
        server_backoff: &mut RetryBackoff,
        now: Instant,
    ) {
        match answer {
            // A device that leaves out all objects is not asked again.
            Ok(identity) if identity == PlcIdentity::default() => self.is_excluded = true,
            Ok(identity) => self.identity = Some(identity),
            Err(RequestError::Refused(code)) if is_gateway_exception(code) => {}
            Err(RequestError::Refused(_)) => self.is_excluded = true,
            Err(_) => {
                self.breaks = self.breaks.saturating_add(1);
                // Nothing resets this backoff: the pauses bound what the request costs.
                server_backoff.on_failure(now, 0.0);
            }
        }
    }
}

/// Returns the identity from the basic objects of an answer, each its id and bytes. An object that
/// the device leaves out is empty.
pub(super) fn to_identity<'a>(objects: impl Iterator<Item = (u8, &'a [u8])>) -> PlcIdentity {
    let mut identity = PlcIdentity::default();
    for (id, bytes) in objects {
        match id {
            0 => identity.vendor = printable(bytes),
            1 => identity.product = printable(bytes),
            2 => identity.revision = printable(bytes),
            _ => {}
        }
    }
    identity
}

/// Returns the visible characters of a text from a device, at most [`MAX_NAME_CHARS`]: hidden ones
/// could steer the terminal on which the status is read.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let letters = text.chars().filter(|letter| !is_hidden(*letter)).take(MAX_NAME_CHARS);
    letters.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_bounded_and_contain_no_control_characters() {
        let long = [b'x'; 200];
        let objects: [(u8, &[u8]); 4] =
            [(0, b"  Acme\x1b[31m\n"), (1, &long), (2, &[b'V', 0xFF]), (0x80, b"more")];
        let identity = to_identity(objects.into_iter());
        assert_eq!(identity.vendor, "Acme[31m");
        assert_eq!(identity.product.len(), MAX_NAME_CHARS);
        assert_eq!(identity.revision, "V\u{FFFD}");
    }

    #[test]
    fn a_device_without_a_name_is_asked_once() {
        let (mut backoff, now) = (RetryBackoff::new(&NAME_RETRY), Instant::now());
        let mut name = DeviceName::new(PlcModel::Generic);
        assert!(name.is_needed() && !DeviceName::new(PlcModel::M241).is_needed());
        let acme = PlcIdentity { vendor: "Acme".to_owned(), ..PlcIdentity::default() };
        name.on_answer(Ok(acme), &mut backoff, now);
        assert!(!name.is_needed());
        name.on_new_session();
        assert!(name.is_needed(), "another device may answer now");
        name.on_answer(Err(RequestError::Refused(0x0B)), &mut backoff, now);
        assert!(name.is_needed(), "the device itself did not answer");
        name.on_answer(Ok(PlcIdentity::default()), &mut backoff, now);
        name.on_new_session();
        assert!(!name.is_needed() && backoff.is_due(now));
    }

    #[test]
    fn a_device_that_breaks_the_connection_is_asked_again_after_a_minute() {
        let (mut backoff, now) = (RetryBackoff::new(&NAME_RETRY), Instant::now());
        let mut name = DeviceName::new(PlcModel::Generic);
        let timeout = Duration::from_secs(1);
        name.on_answer(Err(RequestError::TimedOut(timeout)), &mut backoff, now);
        assert!(name.is_needed() && name.breaks == 1);
        assert_eq!(backoff.next_try(), Some(now + Duration::from_secs(60)));
    }
}
