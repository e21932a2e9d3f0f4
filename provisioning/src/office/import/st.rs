//! Structured Text declarations: variable lists, programs and types, as text or as files of a
//! project of Machine Expert.

mod parser;
mod token;
mod types;

use std::ops::Range;

use parser::Parser;

use super::declaration::Declarations;
use super::declaration::TypeExpression;
use super::expression::Expression;
use super::source::SourceText;

/// Words that only declarations contain.
const KEYWORDS: [&str; 4] = ["VAR_GLOBAL", "VAR_CONFIG", "END_VAR", "END_TYPE"];

/// Returns whether a text contains lists of variables or types.
pub(super) fn has_lists(text: &str) -> bool {
    let mut words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.any(|word| KEYWORDS.iter().any(|known| known.eq_ignore_ascii_case(word)))
}

/// Returns whether a text is the inside of a list: lines that were copied without VAR_GLOBAL and
/// END_VAR.
pub(super) fn is_inside_of_list(text: &str) -> bool {
    let Some((declaration, _)) = text.split_once(';') else { return false };
    let words: Vec<_> = declaration.split_whitespace().collect();
    words.windows(2).any(|pair| {
        matches!(pair, [at, address] if at.eq_ignore_ascii_case("AT") && address.starts_with('%'))
    })
}

/// Reads all declarations of a file. What cannot be read is recorded and skipped.
pub(super) fn read(source: &SourceText, declarations: &mut Declarations) {
    for part in parts(&source.text) {
        let scope = source.has_extension("gvl").then(|| source.stem()).flatten();
        Parser::new(source, part, scope, declarations).parse_file();
    }
}

/// Reads the text of a variable list in another file, at `part` of it.
pub(super) fn read_list(
    source: &SourceText,
    part: Range<usize>,
    scope: Option<&str>,
    declarations: &mut Declarations,
) {
    Parser::new(source, part, scope, declarations).parse_file();
}

/// Parses a type such as `ARRAY[0..MAX] OF INT`; `None` when there is anything else.
pub(super) fn parse_type(text: &str) -> Option<TypeExpression> {
    types::TypeParser::new(text, 0..text.len()).parse_all_type()
}

/// Parses a constant expression; `None` when there is anything else.
pub(super) fn parse_expression(text: &str) -> Option<Expression> {
    types::TypeParser::new(text, 0..text.len()).parse_all_expression()
}

/// Returns the parts of a file that hold declarations. A file of a project has `__METADATA__`, then
/// `__DECLARATION__`, and for a program `__IMPLEMENTATION__`.
fn parts(text: &str) -> Vec<Range<usize>> {
    const DECLARATION: &str = "__DECLARATION__";
    let mut parts = Vec::new();
    let (mut at, mut start) = (0, None);
    for line in text.split_inclusive('\n') {
        match line.trim() {
            DECLARATION => start = Some(at + line.len()),
            "__METADATA__" | "__IMPLEMENTATION__" => {
                parts.extend(start.take().map(|start| start..at));
            }
            _ => {}
        }
        at += line.len();
    }
    parts.extend(start.map(|start| start..at));
    if parts.is_empty() {
        parts.push(0..text.len());
    }
    parts
}
