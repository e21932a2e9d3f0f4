//! Format of a value in JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::plc::{IecType, TimeUnit, ValueKind};

/// Format of a tag's value in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum JsonFormat {
    /// The value itself: a number, true or false, text.
    #[default]
    Plain,
    /// `"2024-02-29"`.
    Date(TimeUnit),
    /// `"12:34:56.789"`.
    TimeOfDay(TimeUnit),
    /// `"2024-02-29T12:34:56+01:00"`: the time zone is that of the PLC's clock.
    DateAndTime(TimeUnit, TimeZone),
    /// `"run"` for 1: the name that an enumeration gives to the number.
    Named(EnumNames),
}

/// Names of the numbers of an enumeration; numbers and names are unique.
///
/// ```
/// use provisioning::config::EnumNames;
///
/// let names = |pairs: [(i128, &str); 2]| {
///     EnumNames::new(pairs.map(|(number, name)| (number, name.to_owned())).into())
/// };
/// let states = names([(0, "stop"), (1, "run")]).unwrap();
/// assert_eq!(states.name(1), Some("run"));
/// assert!(names([(0, "stop"), (1, "stop")]).is_none());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EnumNames(Arc<BTreeMap<i128, String>>);

impl EnumNames {
    /// Returns `None` when two numbers have the same name.
    #[must_use]
    pub fn new(names: BTreeMap<i128, String>) -> Option<Self> {
        let distinct: BTreeSet<_> = names.values().collect();
        (distinct.len() == names.len()).then(|| Self(Arc::new(names)))
    }

    /// Returns the name of a number.
    #[must_use]
    pub fn name(&self, number: i128) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// Returns the number with this name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i128> {
        self.0.iter().find(|(_, this)| *this == name).map(|(number, _)| *number)
    }
}

impl JsonFormat {
    /// Returns the format of a type, for a PLC whose clock runs in `zone`.
    #[must_use]
    pub fn for_type(iec: IecType, zone: &TimeZone) -> Self {
        match iec.kind() {
            ValueKind::Bool
            | ValueKind::Unsigned
            | ValueKind::Signed
            | ValueKind::Real
            | ValueKind::Text => Self::Plain,
            ValueKind::Date(tick) => Self::Date(tick),
            ValueKind::TimeOfDay(tick) => Self::TimeOfDay(tick),
            ValueKind::DateAndTime(tick) => Self::DateAndTime(tick, zone.clone()),
        }
    }
}
