//! A time in the form that the user asked for.

use std::fmt;

use jiff::tz::TimeZone;
use provisioning::config::Datetime;
use serde::{Serialize, Serializer};

use crate::model::UnixTime;

/// One time as it stands in a payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Date<'a> {
    pub(super) at: UnixTime,
    pub(super) form: Datetime,
    pub(super) timezone: &'a TimeZone,
}

impl Serialize for Date<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.form {
            Datetime::Rfc3339 => self.at.serialize(serializer),
            Datetime::Plain => serializer.collect_str(&Plain(self)),
            Datetime::UnixMs => serializer.serialize_i64(self.at.as_millis()),
        }
    }
}

/// `2020-06-24 12:01:44`.
struct Plain<'a>(&'a Date<'a>);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.0.timezone.to_datetime(self.0.at.timestamp());
        let (date, time) = (local.date(), local.time());
        write!(f, "{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
    }
}
