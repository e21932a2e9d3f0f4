//! Checks of type names: a name is defined once in a crate, and a name that is gone stays gone.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::run::workspace;
use crate::sizes::sources;

/// Crates and where their sources lie. Unit tests belong to their crate.
const CRATES: [(&str, &str); 8] = [
    ("gateway", "gateway/src"),
    ("provisioning", "provisioning/src"),
    ("tunnel", "tunnel/src"),
    ("e2e", "tests/src"),
    ("fuzz", "tests/fuzz/src"),
    ("test-settings", "tests/settings/src"),
    ("virtual-time", "tests/virtual-time/src"),
    ("xtask", "deploy/xtask/src"),
];

/// Names that were given up for plainer ones: lines of `crate name`.
const GONE: &str = include_str!("gone_types.txt");

/// Fails with every name that is defined twice in a crate, or is gone and came back.
pub(crate) fn check() -> Result<()> {
    let mut problems = Vec::new();
    for (name, dir) in CRATES {
        let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for path in sources(&workspace().join(dir))? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let path = path.strip_prefix(workspace()).unwrap_or(&path).display().to_string();
            for (line, found) in definitions(&text) {
                defined.entry(found).or_default().push(format!("{path}:{line}"));
            }
        }
        problems.extend(judge(name, &defined, GONE));
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn judge(name: &str, defined: &BTreeMap<String, Vec<String>>, gone: &str) -> Vec<String> {
    let twice = defined.iter().filter(|(_, places)| places.len() > 1).map(|(found, places)| {
        format!("{name}: `{found}` is defined more than once: {}", places.join(", "))
    });
    let gone = gone.lines().filter_map(|line| line.split_once(' '));
    let gone = gone.filter(|(owner, _)| *owner == name);
    let back = gone.filter_map(|(_, old)| {
        let place = defined.get(old)?.first()?;
        Some(format!("{place}: `{old}` was given up in {name}, see gone_types.txt"))
    });
    twice.chain(back).collect()
}

/// What the braces belong to that are open at a place of the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Block {
    /// Of an `impl` or a trait: a `type` in it is an associated one.
    Associated,
    /// Of anything else.
    Other,
}

/// Returns the types that a text defines, each with its line, counted from 1: `struct`, `enum`,
/// `union`, `trait` and `type`, but not associated types.
fn definitions(text: &str) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut blocks = Vec::new();
    // What the item that begins here opens, as soon as its first word is known.
    let mut item: Option<Block> = None;
    let mut at = 0;
    while let Some((line, token)) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "{" => blocks.push(item.take().unwrap_or(Block::Other)),
            "}" => {
                blocks.pop();
                item = None;
            }
            ";" => item = None,
            // Attributes and visibility stand before an item and are no part of it.
            "#" if item.is_none() => at = after_group(&tokens, at),
            "pub" if item.is_none() && next_is(&tokens, at, "(") => at = after_group(&tokens, at),
            "pub" | "unsafe" if item.is_none() => {}
            word => {
                let next = tokens.get(at).map(|(_, next)| next.as_str()).unwrap_or_default();
                let associated = word == "type" && blocks.last() == Some(&Block::Associated);
                if is_definition(word) && is_identifier(next) && !associated {
                    found.push((*line, next.to_owned()));
                }
                let block = match word {
                    "impl" | "trait" => Block::Associated,
                    _ => Block::Other,
                };
                item = item.or(Some(block));
            }
        }
    }
    found
}

fn is_definition(word: &str) -> bool {
    matches!(word, "struct" | "enum" | "union" | "trait" | "type")
}

/// Returns whether a token is the name of a type. The capital letter distinguishes the keyword
/// `union` from a variable of this name.
fn is_identifier(token: &str) -> bool {
    token.starts_with(|first: char| first.is_uppercase())
}

fn next_is(tokens: &[(usize, String)], at: usize, expected: &str) -> bool {
    tokens.get(at).is_some_and(|(_, token)| token == expected)
}

/// Returns the place behind the brackets that open at `at` or one token later (`#![..]`).
fn after_group(tokens: &[(usize, String)], mut at: usize) -> usize {
    let mut depth = 0_u32;
    while let Some((_, token)) = tokens.get(at) {
        at += 1;
        match token.as_str() {
            "(" | "[" => depth += 1,
            ")" | "]" if depth <= 1 => break,
            ")" | "]" => depth -= 1,
            _ => {}
        }
    }
    at
}

/// Splits a text into words and single signs, without comments, strings and characters.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line = text.len() - rest.len();
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            '\'' => character(rest),
            'r' | 'b' | 'c' if raw_string(rest).is_some() => raw_string(rest).unwrap_or(1),
            _ if is_word(first) => rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if is_word(first) && raw_string(token).is_none() || is_sign(first, token) {
            tokens.push((line, token.to_owned()));
        }
        rest = after;
    }
    number_lines(text, tokens)
}

/// Turns offsets of tokens into numbers of lines.
fn number_lines(text: &str, tokens: Vec<(usize, String)>) -> Vec<(usize, String)> {
    let (mut line, mut seen) = (1, 0);
    let number = |(offset, token): (usize, String)| {
        line += text.get(seen..offset).unwrap_or_default().matches('\n').count();
        seen = offset;
        (line, token)
    };
    tokens.into_iter().map(number).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_sign(first: char, token: &str) -> bool {
    token.len() == first.len_utf8() && !first.is_whitespace()
}

/// Returns the length of a comment, in which others may lie.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_u32, 0);
    loop {
        let here = rest.get(at..).unwrap_or_default();
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            match here.chars().next() {
                Some(next) => at += next.len_utf8(),
                None => return rest.len(),
            }
        }
    }
}

/// Returns the length of a string with escapes, which begins at its quote.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Returns the length of `'x'` or `'\n'`; of a lifetime, only that of its quote.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((after, _))) => {
            let closing = rest.get(after + 1..).and_then(|tail| tail.find('\''));
            closing.map_or(rest.len(), |closing| after + 1 + closing + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

/// Returns the length of `r"..."`, `br#"..."#`, `b"..."` and their like, if it is one.
fn raw_string(rest: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r", "b", "c"].into_iter().find(|prefix| {
        rest.strip_prefix(prefix).is_some_and(|tail| tail.trim_start_matches('#').starts_with('"'))
    })?;
    let tail = rest.strip_prefix(prefix)?;
    let hashes = tail.len() - tail.trim_start_matches('#').len();
    if !prefix.contains('r') {
        return (hashes == 0).then(|| prefix.len() + string(tail));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let content = tail.get(hashes + 1..)?;
    let closing = content.find(&end).map_or(content.len(), |closing| closing + end.len());
    Some(prefix.len() + hashes + 1 + closing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        definitions(text).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn every_kind_of_type_is_found_with_its_line() {
        let text = "pub struct A;\n#[derive(Debug)]\npub(crate) enum B { X }\nunion C { a: u8 }\n\
                    pub unsafe trait D {}\ntype E<'a> = &'a str;\nmod inner { struct F(u8); }\n\
                    fn f() { struct G { type_: u8 } }\n";
        let expected = [(1, "A"), (3, "B"), (4, "C"), (5, "D"), (6, "E"), (7, "F"), (8, "G")];
        assert_eq!(definitions(text), expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn associated_types_are_none() {
        let text = "impl<T: Iterator<Item = u8>> Iterator for X<T> {\n type Item = u8;\n\
                    fn f() -> impl Fn() { struct Inner; type Local = u8; || {} } }\n\
                    trait T { type Out; fn g() {} type Other: Clone; }\n\
                    #[cfg(x)]\nunsafe impl Y { type Z = u8; }\n\
                    fn h(x: impl Fn()) { type Found = u8; }";
        assert_eq!(names(text), ["Inner", "Local", "T", "Found"]);
    }

    #[test]
    fn comments_strings_and_characters_are_skipped() {
        let text = "// struct A;\n/* struct B; /* enum C */ struct D; */\nconst S: &str = \"struct E\\\" \
                    struct F\";\nconst R: &str = r#\"struct \"G\"\"#; const B: &[u8] = b\"enum H\";\n\
                    const Q: [char; 3] = ['\"', '\\'', '{']; fn f<'a>(x: &'a str) {}\n\
                    macro_rules! m { ($n:ident) => { struct $n; } }\nstruct Last;";
        assert_eq!(names(text), ["Last"]);
    }

    #[test]
    fn a_name_twice_in_a_crate_is_refused() {
        let defined = BTreeMap::from([
            ("One".to_owned(), vec!["a.rs:1".to_owned()]),
            ("Two".to_owned(), vec!["a.rs:2".to_owned(), "b.rs:3".to_owned()]),
        ]);
        let told = judge("gateway", &defined, "");
        assert_eq!(told, ["gateway: `Two` is defined more than once: a.rs:2, b.rs:3"]);
    }

    #[test]
    fn a_name_that_is_gone_may_not_come_back_in_its_own_crate() {
        let defined = BTreeMap::from([("Ring".to_owned(), vec!["a.rs:1".to_owned()])]);
        let gone = "gateway Ring\ntunnel Long\n";
        assert_eq!(judge("gateway", &defined, gone).len(), 1);
        assert!(judge("tunnel", &defined, gone).is_empty());
    }

    #[test]
    fn the_list_of_gone_names_is_sorted_and_names_known_crates() {
        let lines: Vec<&str> = GONE.lines().collect();
        assert!(lines.is_sorted_by(|a, b| a < b), "sort gone_types.txt and remove duplicates");
        for line in lines {
            let (owner, name) = line.split_once(' ').unwrap();
            assert!(CRATES.iter().any(|(known, _)| *known == owner), "{line}");
            assert!(is_identifier(name), "{line}");
        }
    }
}
