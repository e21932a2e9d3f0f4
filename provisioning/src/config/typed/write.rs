//! What the gateway may write to a PLC, and when it publishes because of an event.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Number;
use crate::plc::Location;

/// `plc.tag.write`: what may be written to a tag. All bounds are after scaling. Without any, every
/// value of the type is allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteRule {
    /// Smallest number.
    pub min: Option<Number>,
    /// Largest number.
    pub max: Option<Number>,
    /// The only values, unless empty. For an enumeration they are its names.
    pub values: Vec<WritableValue>,
    /// How often the tag may be written; absent for as often as the limits of the PLC allow.
    pub rate: Option<WriteRate>,
    /// Whether a word of which the value fills only a part is read, changed and written.
    pub whole_word: bool,
}

/// One entry of `values`.
#[derive(Clone, Debug, PartialEq)]
pub enum WritableValue {
    /// For a BOOL.
    Bool(bool),
    /// For a number.
    Number(Number),
    /// For a text, and a name of an enumeration.
    Text(String),
}

/// A number of writes in any period: `"6/min"`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WriteRate {
    /// Number of writes, 1 to 1,000.
    pub count: u16,
    /// One second, one minute or one hour.
    pub period: Duration,
}

/// `plc.publish.on`: an event upon which all tags of the PLC are read and published once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EventTrigger {
    /// Index into `Plc::tags`: a BOOL that becomes true, or a whole number that changes.
    pub tag: u16,
    /// A holding register without a tag, to which the gateway writes that the broker has the
    /// message.
    pub acknowledge: Option<Location>,
}

/// Identifies the program of a PLC. Written as 32 hexadecimal digits.
///
/// ```
/// use provisioning::config::ProgramId;
///
/// let id: ProgramId = "5eed0001000000000000000000000002".parse().unwrap();
/// assert_eq!(id.0, [0x5EED_0001, 0, 0, 2]);
/// assert_eq!(id.to_string(), "5EED0001000000000000000000000002");
/// assert!("5EED".parse::<ProgramId>().is_err());
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProgramId(pub [u32; 4]);

/// The text is not the signature of a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAProgramId;

impl fmt::Display for WritableValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for WriteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period.as_secs() {
            1 => "s",
            60 => "min",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| write!(f, "{part:08X}"))
    }
}

impl FromStr for ProgramId {
    type Err = NotAProgramId;

    fn from_str(text: &str) -> Result<Self, NotAProgramId> {
        if text.len() != 32 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotAProgramId);
        }
        let whole = u128::from_str_radix(text, 16).map_err(|_| NotAProgramId)?;
        let part = |index: u32| u32::try_from(whole >> (32 * (3 - index)) & 0xFFFF_FFFF);
        let parts = [part(0), part(1), part(2), part(3)].map(Result::unwrap_or_default);
        Ok(Self(parts))
    }
}
