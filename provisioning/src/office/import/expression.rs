//! Constant expressions in array bounds, lengths of texts and values of enumerations.

use std::collections::BTreeMap;

/// A constant expression.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Expression {
    Number(i64),
    /// A constant, or a value of an enumeration; may be qualified: `GVL.MAX_PUMPS`.
    Name(String),
    Negative(Box<Self>),
    Operation(Box<Self>, Operator, Box<Self>),
}

/// An operator between two numbers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

/// Values of the constants of a project, by name in lower case, with and without their list.
#[derive(Debug, Default)]
pub(super) struct ConstantValues(BTreeMap<String, i64>);

/// Number of passes over the constants: the longest chain of constants in descending order.
const MAX_PASSES: usize = 32;

impl ConstantValues {
    /// Evaluates all constants. One that is not a whole number, or refers to itself, has no value.
    pub(super) fn new(declared: &BTreeMap<String, Expression>) -> Self {
        let mut values = Self::default();
        for _ in 0..MAX_PASSES {
            let before = values.0.len();
            for (name, expression) in declared {
                if values.0.contains_key(name) {
                    continue;
                }
                if let Some(value) = expression.value(&|name| values.get(name)) {
                    values.0.insert(name.clone(), value);
                }
            }
            if values.0.len() == before {
                break;
            }
        }
        values
    }

    /// Returns the value of a constant. A qualifier that is not known is ignored, because a text
    /// that was pasted does not say what its list is called.
    pub(super) fn get(&self, name: &str) -> Option<i64> {
        let name = name.to_lowercase();
        let last = name.rsplit('.').next().unwrap_or_default();
        self.0.get(&name).or_else(|| self.0.get(last)).copied()
    }
}

impl Expression {
    /// Returns the value; `None` when a name has none, or after an overflow.
    pub(super) fn value(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Name(name) => lookup(name),
            Self::Negative(inner) => inner.value(lookup)?.checked_neg(),
            Self::Operation(left, operator, right) => {
                let (left, right) = (left.value(lookup)?, right.value(lookup)?);
                match operator {
                    Operator::Add => left.checked_add(right),
                    Operator::Subtract => left.checked_sub(right),
                    Operator::Multiply => left.checked_mul(right),
                    Operator::Divide => left.checked_div(right),
                    Operator::Modulo => left.checked_rem(right),
                }
            }
        }
    }
}

/// Parses a number of IEC 61131-3: `10`, `1_000`, `16#FF`, `INT#5`, `UINT#16#FF`.
pub(super) fn parse_number(text: &str) -> Option<i64> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    match digits.rsplit_once('#') {
        None => digits.parse().ok(),
        Some((prefix, digits)) => {
            let base = prefix.rsplit('#').next().unwrap_or_default();
            match base {
                "2" => i64::from_str_radix(digits, 2).ok(),
                "8" => i64::from_str_radix(digits, 8).ok(),
                "16" => i64::from_str_radix(digits, 16).ok(),
                // The name of a type.
                word if word.starts_with(|c: char| c.is_alphabetic()) => digits.parse().ok(),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> Expression {
        Expression::Name(name.to_owned())
    }

    #[test]
    fn numbers_are_parsed_in_every_base() {
        let known = [("10", 10), ("1_000", 1000), ("16#fF", 255), ("2#1010_0001", 161)];
        for (text, value) in known.into_iter().chain([("INT#5", 5), ("UINT#16#10", 16)]) {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
        for text in ["1.5", "7#10", "16#", "T#1h", "", "9223372036854775808"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }

    #[test]
    fn constants_may_use_each_other_in_any_order_and_not_themselves() {
        let sum = Expression::Operation(
            Box::new(name("GVL.B")),
            Operator::Add,
            Box::new(Expression::Number(1)),
        );
        let declared = [
            ("a".to_owned(), sum),
            ("b".to_owned(), Expression::Number(7)),
            ("loop".to_owned(), name("loop")),
            ("zero".to_owned(), Expression::Negative(Box::new(name("none")))),
        ];
        let values = ConstantValues::new(&declared.into());
        assert_eq!([values.get("A"), values.get("x.b")], [Some(8), Some(7)]);
        assert_eq!([values.get("loop"), values.get("zero")], [None, None]);
    }
}
