//! Syntax of addresses. What an address means for a model is decided in `locate`.

use super::Table;

/// An address as written, not yet checked against a model or a type.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum ParsedAddress {
    /// `%MW10.3`, `%MW10:X3`: letters in upper case, index, bit.
    Iec { letters: String, index: u32, bit: Option<u32> },
    /// `holding:10.3`.
    Table { table: Table, index: u32, bit: Option<u32> },
    /// A number without a table, such as 40001.
    Number(u32),
}

/// Parses an address. Returns `None` when it has none of the forms.
pub(super) fn parse_address(text: &str) -> Option<ParsedAddress> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix('%') {
        let digits = rest.find(|c: char| c.is_ascii_digit())?;
        let (letters, numbers) = rest.split_at_checked(digits)?;
        if letters.is_empty() || !letters.chars().all(|c| c.is_ascii_alphabetic()) {
            return None;
        }
        let (index, bit) = index_and_bit(numbers)?;
        return Some(ParsedAddress::Iec { letters: letters.to_ascii_uppercase(), index, bit });
    }
    if let Some((word, numbers)) = text.split_once(':') {
        let table = Table::ALL.into_iter().find(|t| t.keyword().eq_ignore_ascii_case(word))?;
        let (index, bit) = index_and_bit(numbers)?;
        return Some(ParsedAddress::Table { table, index, bit });
    }
    number(text).map(ParsedAddress::Number)
}

fn index_and_bit(text: &str) -> Option<(u32, Option<u32>)> {
    let parts = text.split_once('.').or_else(|| text.split_once(":X"));
    match parts.or_else(|| text.split_once(":x")) {
        Some((index, bit)) => Some((number(index)?, Some(number(bit)?))),
        None => Some((number(text)?, None)),
    }
}

/// Parses digits only: `u32::from_str` would accept `+10`.
fn number(text: &str) -> Option<u32> {
    text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iec(letters: &str, index: u32, bit: Option<u32>) -> Option<ParsedAddress> {
        Some(ParsedAddress::Iec { letters: letters.to_owned(), index, bit })
    }

    #[test]
    fn all_forms_are_parsed_in_upper_and_lower_case() {
        assert_eq!(parse_address("%MW10"), iec("MW", 10, None));
        assert_eq!(parse_address(" %mx20.3 "), iec("MX", 20, Some(3)));
        assert_eq!(parse_address("%MW10:X3"), iec("MW", 10, Some(3)));
        assert_eq!(parse_address("%mw10:x15"), iec("MW", 10, Some(15)));
        let holding =
            Some(ParsedAddress::Table { table: Table::HoldingRegister, index: 10, bit: Some(15) });
        assert_eq!(parse_address("Holding:10.15"), holding);
        assert_eq!(parse_address("40001"), Some(ParsedAddress::Number(40_001)));
    }

    #[test]
    fn other_text_is_not_an_address() {
        let invalid =
            ["", "%", "%MW", "%10", "%M W10", "MW10", "%MW-1", "%MW+1", "%MW1.", "%MW1.2.3"];
        for text in
            invalid.into_iter().chain(["holding:", "holding:a", "register:1", "%MW4294967296"])
        {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
