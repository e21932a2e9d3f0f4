//! Enrolment: the keys that a box makes for itself, and the file with their public halves.
//!
//! The file names neither the box nor its site: what a box is called, and which peer it is, the
//! office decides. So a hostile box cannot obtain the certificate of another.

mod box_keys;
mod sealed;
#[cfg(test)]
mod tests;

pub use box_keys::{BoxKeys, BoxKeysError, CERTIFICATE_SECRET, TUNNEL_SECRET};
pub use sealed::{SealError, UnsealedFiles, seal_secrets, unseal_secrets};

use std::fmt;

use thiserror::Error;
use toml::{Table, Value};
use tunnel::PublicKey;

/// Number of the format that this program reads and writes.
const FORMAT: i64 = 1;

/// Maximum size of an enrolment file.
pub const MAX_ENROLMENT_BYTES: usize = 16 * 1024;

const HEADER: &str = "\
# Enrolment of an edge-gateway. It contains no secret: send this file to the office.
";

/// The public halves of a box's keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolment {
    /// Key of its tunnel.
    pub tunnel_public_key: PublicKey,
    /// Recipient of age to which secrets for the box are encrypted.
    pub age_recipient: String,
    /// Certificate request in PEM (RFC 2986), which has an empty subject.
    pub certificate_request: String,
    /// Signature of the text before it by the key of the request, in base64: it shows that all
    /// parts are of one box.
    proof: String,
}

/// Why a file is not an enrolment.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum EnrolmentError {
    /// It is too long, or no text.
    #[error("this is not an enrolment file: a box writes it as edge-enrol-ID.txt on its stick")]
    Foreign,
    /// It is of a later format.
    #[error(
        "the enrolment is of format {format}, and this program knows format {FORMAT}: update \
             edge-provision"
    )]
    LaterFormat {
        /// Number of its format.
        format: i64,
    },
    /// The box has given itself a name.
    #[error(
        "the enrolment has a key `{key}`: a box states its public keys and nothing else, so \
             this file was edited or is hostile; take it from the box's stick again"
    )]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A part is missing or malformed.
    #[error(
        "`{key}` in the enrolment is missing or damaged; take the file from the box's stick \
             again"
    )]
    Malformed {
        /// The key.
        key: &'static str,
    },
}

impl Enrolment {
    /// Reads the text of a file, which has the one form that [`Display`](fmt::Display) writes, but
    /// for the ends of its lines. Does not check the proof.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Self, EnrolmentError> {
        if text.len() > MAX_ENROLMENT_BYTES {
            return Err(EnrolmentError::Foreign);
        }
        // Mail and editors of Windows change the line ends.
        let text = text.replace("\r\n", "\n");
        if text.contains('\r') {
            return Err(EnrolmentError::Foreign);
        }
        let mut table: Table = text.parse().map_err(|_| EnrolmentError::Foreign)?;
        match table.remove("format") {
            Some(Value::Integer(FORMAT)) => {}
            Some(Value::Integer(format)) if format > FORMAT => {
                return Err(EnrolmentError::LaterFormat { format });
            }
            _ => return Err(EnrolmentError::Foreign),
        }
        let mut take = |key: &'static str| match table.remove(key) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(EnrolmentError::Malformed { key }),
        };
        let tunnel_public_key = take("tunnel_public_key")?
            .parse()
            .map_err(|_| EnrolmentError::Malformed { key: "tunnel_public_key" })?;
        let enrolment = Self {
            tunnel_public_key,
            age_recipient: take("age_recipient")?,
            certificate_request: take("certificate_request")?,
            proof: take("proof")?,
        };
        if let Some(key) = table.keys().next() {
            let key = key.chars().filter(|c| !c.is_control()).take(32).collect();
            return Err(EnrolmentError::UnknownKey { key });
        }
        // What is stored is rendered: text in another form, such as a request with quotes around it
        // or a file without the header, would not come back when it is read again.
        let rendered = enrolment.to_string();
        if rendered.len() > MAX_ENROLMENT_BYTES || rendered.trim_end() != text.trim_end() {
            return Err(EnrolmentError::Foreign);
        }
        Ok(enrolment)
    }

    /// Returns the name of the file: `edge-enrol-`, the first four bytes of the tunnel's public key
    /// in hexadecimal, `.txt`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("edge-enrol-{}.txt", self.short_id())
    }

    /// Returns eight characters by which people tell boxes apart before they have a name.
    #[must_use]
    pub fn short_id(&self) -> String {
        let id = self.tunnel_public_key.as_bytes().iter().take(4);
        id.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the signature that shows that all parts are of one box, in base64.
    #[cfg(feature = "office")]
    pub(crate) fn proof(&self) -> &str {
        &self.proof
    }

    /// Returns the text that the proof covers.
    pub(crate) fn proven_text(&self) -> String {
        format!(
            "{HEADER}format = {FORMAT}\ntunnel_public_key = \"{}\"\nage_recipient = \"{}\"\n\
             certificate_request = \"\"\"\n{}\"\"\"\n",
            self.tunnel_public_key, self.age_recipient, self.certificate_request,
        )
    }
}

impl fmt::Display for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}proof = \"{}\"", self.proven_text(), self.proof)
    }
}
