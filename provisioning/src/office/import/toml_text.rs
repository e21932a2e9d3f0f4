//! Tags as text for gateway.toml.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Import;
use super::expand::ImportedTag;
use crate::config::{EnumNames, whole_numbers};

impl Import {
    /// Returns a `[[plc.tag]]` section for each tag, to be placed below a `[[plc]]`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for (number, tag) in self.tags.iter().enumerate() {
            if number > 0 {
                text.push('\n');
            }
            write_tag(&mut text, tag);
        }
        text
    }
}

fn write_tag(text: &mut String, tag: &ImportedTag) {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    // Writing to a String cannot fail.
    if let Some(comment) = &tag.comment {
        let _ = writeln!(text, "# {comment}");
    }
    let (name, at, data_type) =
        (quoted(&tag.name), quoted(&tag.at), quoted(&tag.data_type.to_string()));
    let _ = writeln!(text, "[[plc.tag]]\nname = {name}\nat = {at}\ntype = {data_type}");
    if let Some(names) = tag.enum_names() {
        let names: Vec<_> =
            names.iter().map(|(number, name)| format!("{number} = {}", quoted(name))).collect();
        let _ = writeln!(text, "enum = {{ {} }}", names.join(", "));
    }
}

impl ImportedTag {
    /// Returns the names of an enumeration if the key `enum` can hold them.
    pub(super) fn enum_names(&self) -> Option<&BTreeMap<i64, String>> {
        let names = self.names.as_deref()?;
        let range = whole_numbers(self.data_type.element)?;
        let wide: BTreeMap<i128, String> =
            names.iter().map(|(number, name)| (i128::from(*number), name.clone())).collect();
        let fits = wide.keys().all(|number| range.contains(number)) && !wide.is_empty();
        (fits && EnumNames::new(wide).is_some()).then_some(names)
    }
}
