//! How a value is written in JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::plc::{IecType, Kind, Tick};

/// What a tag's value looks like in JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Form {
    /// As it is: a number, true or false, text.
    #[default]
    Plain,
    /// `"2024-02-29"`.
    Date(Tick),
    /// `"12:34:56.789"`.
    TimeOfDay(Tick),
    /// `"2024-02-29T12:34:56+01:00"`: the zone is that of the PLC's clock.
    DateAndTime(Tick, TimeZone),
    /// `"run"` for 1: the name of the number in an enumeration.
    Named(Names),
}

/// The names of an enumeration's numbers: no number twice, no name twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Names(Arc<BTreeMap<i128, String>>);

impl Names {
    /// Absent when two numbers have the same name.
    #[must_use]
    pub fn new(names: BTreeMap<i128, String>) -> Option<Self> {
        let distinct: BTreeSet<_> = names.values().collect();
        (distinct.len() == names.len()).then(|| Self(Arc::new(names)))
    }

    /// The name of a number.
    #[must_use]
    pub fn name(&self, number: i128) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// The number that has a name.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i128> {
        self.0.iter().find(|(_, this)| *this == name).map(|(number, _)| *number)
    }
}

impl Form {
    /// The form of a type, for a PLC whose clock runs in `zone`.
    #[must_use]
    pub fn of(iec: IecType, zone: &TimeZone) -> Self {
        match iec.kind() {
            Kind::Bool | Kind::Unsigned | Kind::Signed | Kind::Real | Kind::Text => Self::Plain,
            Kind::Date(tick) => Self::Date(tick),
            Kind::TimeOfDay(tick) => Self::TimeOfDay(tick),
            Kind::DateAndTime(tick) => Self::DateAndTime(tick, zone.clone()),
        }
    }
}
