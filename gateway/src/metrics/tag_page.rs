//! The values of tags in the text exposition format 0.0.4, for `/metrics/tags`.
//!
//! They are not in the registry: 25,000 of them would take 67 MB there, and 100 ms of the only
//! thread for one page. Their owner, the pump, writes them in short pieces straight from what it
//! has, and the page is sent as the pieces come.

use std::fmt::{self, Write};

use tokio::sync::{mpsc, oneshot};

use crate::model::{LatestValue, Quality, UnixTime, Value};

/// Number of pages that can wait for a piece at once, one piece each; more than are served.
const MAX_WAITING: usize = 16;

/// One of the families of the page, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TagFamily {
    /// `edge_tag_value`: the value, where there is one.
    Value,
    /// `edge_tag_good`: 1 if the quality is good, else 0.
    Good,
    /// `edge_tag_timestamp_seconds`: when the tag was read.
    Timestamp,
}

/// Where the next piece begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TagPosition {
    /// The family.
    pub family: TagFamily,
    /// Index of the PLC.
    pub plc: usize,
    /// Index of the scan class.
    pub class: usize,
    /// Number of the tag in the class.
    pub tag: usize,
}

/// A piece of the page.
#[derive(Debug)]
pub struct TagPiece {
    /// Whole lines.
    pub text: String,
    /// Where the next piece begins; `None` at the end of the page.
    pub next: Option<TagPosition>,
}

/// The wish for a piece of the page.
#[derive(Debug)]
pub struct TagRequest {
    /// Where it begins.
    pub position: TagPosition,
    /// Takes it.
    pub reply: oneshot::Sender<TagPiece>,
}

/// Requests pieces of the page from the owner of the values.
#[derive(Clone, Debug)]
pub struct TagPage(mpsc::Sender<TagRequest>);

impl TagPage {
    /// Returns the page and the requests for its pieces, which the owner of the values answers.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<TagRequest>) {
        let (requests, receiver) = mpsc::channel(MAX_WAITING);
        (Self(requests), receiver)
    }

    /// Returns a piece; `None` when the owner of the values has ended.
    pub async fn piece(&self, position: TagPosition) -> Option<TagPiece> {
        let (reply, piece) = oneshot::channel();
        self.0.send(TagRequest { position, reply }).await.ok()?;
        piece.await.ok()
    }
}

impl TagPosition {
    /// The begin of the page.
    pub const START: Self = Self::start_of(TagFamily::Value);

    const fn start_of(family: TagFamily) -> Self {
        Self { family, plc: 0, class: 0, tag: 0 }
    }

    /// Returns whether the family begins here.
    #[must_use]
    pub const fn is_start_of_family(self) -> bool {
        self.plc == 0 && self.class == 0 && self.tag == 0
    }

    /// Returns the begin of the next family, if there is one.
    #[must_use]
    pub const fn next_family(self) -> Option<Self> {
        match self.family {
            TagFamily::Value => Some(Self::start_of(TagFamily::Good)),
            TagFamily::Good => Some(Self::start_of(TagFamily::Timestamp)),
            TagFamily::Timestamp => None,
        }
    }
}

impl TagFamily {
    const fn name(self) -> &'static str {
        match self {
            Self::Value => "edge_tag_value",
            Self::Good => "edge_tag_good",
            Self::Timestamp => "edge_tag_timestamp_seconds",
        }
    }

    /// Writes the lines before the family.
    pub fn write_head(self, text: &mut String) {
        let help = match self {
            Self::Value => "Last value of the tag; absent while there is none.",
            Self::Good => "1 if the last value of the tag is good, else 0.",
            Self::Timestamp => "Unix time at which the tag was read.",
        };
        let name = self.name();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    /// Writes the lines of one tag: one, or one for each element of an array.
    pub fn write_tag(self, text: &mut String, plc: &str, latest: LatestValue<'_>) {
        let LatestValue { tag, value, quality, at } = latest;
        let line = TagLine { name: self.name(), plc, tag: &tag.name };
        match (self, value, at) {
            (Self::Value, Some(Value::List(items)), _) => {
                let first = tag.data_type.bounds.map_or(0, |bounds| i64::from(bounds.first()));
                for (index, item) in (first..).zip(items.iter()) {
                    if let Some(item) = item {
                        line.write(text, Some(index), MetricNumber(item));
                    }
                }
            }
            (Self::Value, Some(value), _) => line.write(text, None, MetricNumber(value)),
            (Self::Good, ..) => line.write(text, None, u8::from(quality == Quality::Good)),
            (Self::Timestamp, _, Some(at)) => line.write(text, None, Seconds(at)),
            (Self::Value, None, _) | (Self::Timestamp, _, None) => {}
        }
    }
}

/// Name and labels of a line.
struct TagLine<'a> {
    name: &'static str,
    plc: &'a str,
    tag: &'a str,
}

impl TagLine<'_> {
    fn write(&self, text: &mut String, index: Option<i64>, value: impl fmt::Display) {
        let Self { name, plc, tag } = self;
        // Writing to a String cannot fail.
        let _ = write!(text, "{name}{{plc=\"{}\",tag=\"{}\"", LabelValue(plc), LabelValue(tag));
        if let Some(index) = index {
            let _ = write!(text, ",index=\"{index}\"");
        }
        let _ = writeln!(text, "}} {value}");
    }
}

/// A label with `\`, `"` and line breaks escaped, as the format requires.
struct LabelValue<'a>(&'a str);

impl fmt::Display for LabelValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['\\', '"', '\n']) {
            let (plain, special) = rest.split_at(at);
            f.write_str(plain)?;
            let mut letters = special.chars();
            f.write_str(match letters.next() {
                Some('\n') => "\\n",
                Some('"') => "\\\"",
                Some(_) | None => "\\\\",
            })?;
            rest = letters.as_str();
        }
        f.write_str(rest)
    }
}

/// A value as a number. Texts, and arrays in arrays, do not come here.
struct MetricNumber<'a>(&'a Value);

impl fmt::Display for MetricNumber<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Bool(value) => write!(f, "{}", u8::from(*value)),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}"),
            // The shortest decimal, with an exponent where it is shorter.
            Value::Real(value) => write!(f, "{value:?}"),
            Value::Lreal(value) => write!(f, "{value:?}"),
            Value::Text(_) | Value::List(_) => f.write_str("NaN"),
        }
    }
}

/// A time in seconds with milliseconds.
struct Seconds(UnixTime);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        write!(f, "{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use provisioning::plc::{ArrayBounds, DataType, IecType};

    use super::*;
    use crate::testing;

    #[test]
    fn each_kind_of_value_is_a_number_and_names_are_escaped() {
        let mut tag = testing::config(1).plcs[0].tags[0].clone();
        tag.name = "a\\b \"c\"\nd".to_owned();
        let at = Some(UnixTime::from_micros(1_592_992_904_250_999));
        let line = |value: &Value| {
            let mut text = String::new();
            let value = LatestValue { tag: &tag, value: Some(value), quality: Quality::Good, at };
            TagFamily::Value.write_tag(&mut text, "pump6", value);
            text
        };
        assert_eq!(
            line(&Value::Bool(true)),
            "edge_tag_value{plc=\"pump6\",tag=\"a\\\\b \\\"c\\\"\\nd\"} 1\n"
        );
        let number = |value| line(&value).rsplit_once(' ').unwrap().1.trim().to_owned();
        assert_eq!(number(Value::Bool(false)), "0");
        assert_eq!(number(Value::Int(i64::MIN)), "-9223372036854775808");
        assert_eq!(number(Value::Uint(u64::MAX)), "18446744073709551615");
        assert_eq!(number(Value::Real(0.1)), "0.1");
        assert_eq!(number(Value::Real(f32::MAX)), "3.4028235e38");
        assert_eq!(number(Value::Lreal(-0.0)), "-0.0");
    }

    #[test]
    fn an_array_has_a_line_for_each_element_with_a_value() {
        let mut tag = testing::config(1).plcs[0].tags[0].clone();
        tag.name = "t".to_owned();
        tag.data_type = DataType { element: IecType::Int, bounds: ArrayBounds::new(-1, 1) };
        let items = Value::List(Arc::new(vec![Some(Value::Int(7)), None, Some(Value::Int(9))]));
        let latest =
            LatestValue { tag: &tag, value: Some(&items), quality: Quality::Invalid, at: None };
        let mut text = String::new();
        for family in [TagFamily::Value, TagFamily::Good, TagFamily::Timestamp] {
            family.write_tag(&mut text, "p", latest);
        }
        assert_eq!(
            text,
            "edge_tag_value{plc=\"p\",tag=\"t\",index=\"-1\"} 7\n\
             edge_tag_value{plc=\"p\",tag=\"t\",index=\"1\"} 9\n\
             edge_tag_good{plc=\"p\",tag=\"t\"} 0\n"
        );
    }
}
