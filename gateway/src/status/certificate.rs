//! When the certificates of the connection to the broker end.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{Detail, UnixTime};

/// A certificate of the connection to the broker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CertificateStatus {
    /// Path of its file, or `mqtts://host:port` for that of a broker.
    pub file: String,
    /// When it ends: for `ca_file` the last of its certificates, for `cert_file` that of the
    /// gateway; absent when the file cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<UnixTime>,
    /// Whether something is to be done soon: two weeks before the end.
    pub urgent: bool,
    /// How long it is valid, or why that is not known, and what to do.
    pub sentence: String,
    /// Code and arguments of `sentence`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence_detail: Option<Detail>,
}

/// How long a certificate is valid.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "code", content = "arguments", rename_all = "snake_case")]
pub enum CertificateSentence {
    /// For more than 30 days, or the clock does not tell.
    Valid {
        /// File, or address of the broker.
        file: String,
        /// When it ends.
        not_after: UnixTime,
    },
    /// For 30 days at most.
    EndsSoon {
        /// File, or address of the broker.
        file: String,
        /// When it ends.
        not_after: UnixTime,
        /// Whole days until then.
        days: i64,
    },
    /// No longer.
    Ended {
        /// File, or address of the broker.
        file: String,
        /// When it ended.
        not_after: UnixTime,
    },
}

impl CertificateSentence {
    /// From this number of days before the end on, a certificate ends soon.
    const SOON_DAYS: i64 = 30;
    /// From this number of days before the end on, the headline names it.
    const URGENT_DAYS: i64 = 14;

    /// Returns the sentence for a certificate that ends at `not_after`, in this number of whole
    /// days; `None` when the clock does not tell.
    #[must_use]
    pub fn of_end(file: String, not_after: UnixTime, days: Option<i64>) -> Self {
        match days {
            Some(..0) => Self::Ended { file, not_after },
            Some(days @ 0..=Self::SOON_DAYS) => Self::EndsSoon { file, not_after, days },
            Some(_) | None => Self::Valid { file, not_after },
        }
    }

    /// Returns whether something is to be done within two weeks.
    #[must_use]
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::Valid { .. } => false,
            Self::EndsSoon { days, .. } => *days < Self::URGENT_DAYS,
            Self::Ended { .. } => true,
        }
    }
}

impl fmt::Display for CertificateSentence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid { file, not_after } => {
                write!(f, "The certificate {file} is valid until {not_after}.")
            }
            Self::EndsSoon { file, not_after, days } => write!(
                f,
                "The certificate {file} expires at {not_after}, in {days} {}: renew it.",
                if *days == 1 { "day" } else { "days" }
            ),
            Self::Ended { file, not_after } => {
                write!(f, "The certificate {file} expired at {not_after}: renew it.")
            }
        }
    }
}
