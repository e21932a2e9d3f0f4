//! The names of an enumeration.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{Schema, json_schema};

use super::{RawValue, Scalar, ValueError, toml_quoted};

/// Numbers with their names; numbers and names are unique.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::config) struct Enumeration(pub(in crate::config) BTreeMap<i128, String>);

impl Scalar for Enumeration {
    /// Reads a table of numbers and names from a file; the environment cannot give one.
    fn read(raw: &RawValue<'_>) -> Result<Self, ValueError> {
        let key = raw.key;
        let example = format!("write {key} = {{ 0 = \"stop\", 1 = \"run\" }}");
        let Some(dict) = raw.value.as_dict().filter(|_| !raw.is_from_environment) else {
            return Err(raw.type_error("a table of numbers and their names", example));
        };
        let mut names = BTreeMap::new();
        let mut taken = BTreeSet::new();
        for (number, name) in dict {
            let (Ok(number), Some(name)) = (number.parse::<i128>(), name.as_str()) else {
                let message = format!("`{key}`: `{number}` must be a whole number, its name text");
                return Err(ValueError::new(message, example));
            };
            if !taken.insert(name) || names.contains_key(&number) {
                let message = format!("`{key}` contains {number} or \"{name}\" twice");
                return Err(ValueError::new(message, "give each number its own name"));
            }
            names.insert(number, name.to_owned());
        }
        if names.is_empty() {
            return Err(ValueError::new(format!("`{key}` is empty"), example));
        }
        Ok(Self(names))
    }

    fn to_toml(&self) -> String {
        let name = |(number, name): (&i128, &String)| format!("{number} = {}", toml_quoted(name));
        format!("{{ {} }}", self.0.iter().map(name).collect::<Vec<_>>().join(", "))
    }

    fn schema() -> Schema {
        json_schema!({
            "type": "object",
            "additionalProperties": { "type": "string" },
            "x-type": "table of numbers and their names",
        })
    }
}
