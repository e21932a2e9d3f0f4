//! A time in the form that the user asked for.

use std::fmt;

use jiff::tz::TimeZone;
use provisioning::config::DatetimeFormat;
use serde::{Serialize, Serializer};

use crate::model::UnixTime;

/// One time as it stands in a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct FormattedTime<'a> {
    pub(super) at: UnixTime,
    pub(super) form: DatetimeFormat,
    pub(super) timezone: &'a TimeZone,
}

impl Serialize for FormattedTime<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form {
            DatetimeFormat::Rfc3339 => self.at.serialize(serializer),
            DatetimeFormat::Plain => serializer.collect_str(&PlainTime(self)),
            DatetimeFormat::UnixMs => serializer.serialize_i64(self.at.as_millis()),
        }
    }
}

/// `2020-06-24 12:01:44`.
struct PlainTime<'a>(&'a FormattedTime<'a>);

impl fmt::Display for PlainTime<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.0.timezone.to_datetime(self.0.at.timestamp());
        let (date, time) = (local.date(), local.time());
        write!(f, "{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    }
}
