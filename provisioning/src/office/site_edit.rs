//! Changes of `[site]` in `sites/ID.toml`: one value is replaced, and every other byte stays, with
//! comments and order.

use toml::de::{DeTable, DeValue};

/// A value that `edge-provision` writes into `[site]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SiteValue {
    /// A text without characters that TOML escapes.
    Text(String),
    /// A number.
    Number(u64),
    /// A boolean.
    Boolean(bool),
    /// Texts without characters that TOML escapes.
    Texts(Vec<String>),
}

/// Returns the text of a site's file with `key` in `[site]` set to a value; `None` if the text is
/// not TOML with a section `[site]`.
///
/// ```
/// use provisioning::office::site_edit::{SiteValue, set};
///
/// let text = "[site]\naddress = \"10.77.0.12\"\ncounter = 4 # of the last bundle\n";
/// let counted = set(text, "counter", &SiteValue::Number(5)).unwrap();
/// assert_eq!(counted, text.replace('4', "5"));
/// let revoked = set(text, "revoked", &SiteValue::Boolean(true)).unwrap();
/// assert_eq!(revoked, text.replacen("]\n", "]\nrevoked = true\n", 1));
/// ```
#[must_use]
pub fn set(text: &str, key: &str, value: &SiteValue) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let site = root.get_ref().get("site")?;
    let DeValue::Table(table) = site.get_ref() else { return None };
    let rendered = value.to_string();
    if let Some(old) = table.get(key) {
        return Some(splice(text, old.span(), &rendered));
    }
    let header = header_end(text, site.span().start)?;
    Some(splice(text, header..header, &format!("{key} = {rendered}\n")))
}

/// Returns the text without `key` in `[site]`; `None` as with [`set`].
#[must_use]
pub fn remove(text: &str, key: &str) -> Option<String> {
    let root = DeTable::parse(text).ok()?;
    let DeValue::Table(table) = root.get_ref().get("site")?.get_ref() else { return None };
    let Some((name, value)) = table.get_key_value(key) else { return Some(text.to_owned()) };
    let start = text.get(..name.span().start)?.rfind('\n').map_or(0, |at| at + 1);
    let end =
        text.get(value.span().end..)?.find('\n').map_or(text.len(), |at| value.span().end + at + 1);
    Some(splice(text, start..end, ""))
}

/// Returns the position after the line with the header `[site]`.
fn header_end(text: &str, start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    rest.starts_with('[').then_some(())?;
    rest.find('\n').map(|at| start + at + 1)
}

fn splice(text: &str, range: std::ops::Range<usize>, with: &str) -> String {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    [before.unwrap_or_default(), with, after.unwrap_or_default()].concat()
}

impl std::fmt::Display for SiteValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Number(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|text| format!("\"{text}\"")).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Amsterdam, pump station\n[network.machine]\naddress = \"192.168.1.2/24\"\n\
                        [site] # the office's\naddress = \"10.77.0.12\" # never changes\n\
                        counter = 4\n\n[[plc]]\nname = \"counter\"\n";

    #[test]
    fn one_value_changes_and_every_other_byte_stays() {
        let number = |number| SiteValue::Number(number);
        assert_eq!(set(FILE, "counter", &number(5)).unwrap(), FILE.replace("= 4", "= 5"));
        let key = SiteValue::Text("xTIB=".to_owned());
        let with_key = set(FILE, "public_key", &key).unwrap();
        let line = "# the office's\npublic_key = \"xTIB=\"\n";
        assert_eq!(with_key, FILE.replace("# the office's\n", line));
        assert_eq!(set(&with_key, "public_key", &key).unwrap(), with_key);
        assert_eq!(remove(&with_key, "public_key").unwrap(), FILE);
        assert_eq!(remove(FILE, "public_key").unwrap(), FILE);
        assert_eq!(set("[network]\n", "counter", &number(1)), None);
        assert_eq!(set("[site", "counter", &number(1)), None);
        assert_eq!(
            set("site = { counter = 1 }\n", "counter", &number(2)).unwrap(),
            "site = { counter = 2 }\n"
        );
        assert_eq!(set("site = {}\n", "counter", &number(2)), None);
        let versions = SiteValue::Texts(["0.2.0", "0.1.0"].map(str::to_owned).to_vec());
        let with_versions = set(FILE, "packages", &versions).unwrap();
        let line = "# the office's\npackages = [\"0.2.0\", \"0.1.0\"]\n";
        assert_eq!(with_versions, FILE.replace("# the office's\n", line));
        assert_eq!(set(&with_versions, "packages", &versions).unwrap(), with_versions);
    }
}
