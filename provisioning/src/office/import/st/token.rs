//! Tokens of IEC 61131-3 declarations.

use std::ops::Range;

/// A token with its text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token<'a> {
    /// A keyword or a name.
    Word(&'a str),
    /// `10`, `16#FF`, `1.5`, `T#1h`.
    Literal(&'a str),
    /// `'text'`, `"text"`.
    Text(&'a str),
    /// `%MW10`, `%M*`.
    Address(&'a str),
    /// `{attribute 'pack_mode' := '1'}`.
    Pragma(&'a str),
    /// `:=` and `=>`.
    Assign,
    /// `..`
    Range,
    /// Any other character.
    Symbol(char),
    End,
}

/// Splits a part of a text into tokens.
#[derive(Clone, Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    end: usize,
    /// Comments since the last call of `take_comments`.
    comments: Vec<Range<usize>>,
}

impl<'a> Lexer<'a> {
    /// Starts at the beginning of `part`.
    pub(super) const fn new(text: &'a str, part: Range<usize>) -> Self {
        Self { text, at: part.start, end: part.end, comments: Vec::new() }
    }

    /// Returns the comments that were passed since the last call.
    pub(super) fn take_comments(&mut self) -> Vec<Range<usize>> {
        std::mem::take(&mut self.comments)
    }

    /// Returns the comment that begins on the rest of the line, and passes it.
    pub(super) fn trailing_comment(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let line = rest.split('\n').next().unwrap_or_default();
        let blank = line.len() - line.trim_start().len();
        let span = comment_span(rest.get(blank..)?)?;
        let start = self.at + blank;
        self.at = start + span;
        self.text.get(start..self.at)
    }

    /// Returns the next token and its position, after spaces and comments.
    pub(super) fn next(&mut self) -> (usize, Token<'a>) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let Some(length) = comment_span(self.rest()) else { break };
            self.comments.push(self.at..self.at + length);
            self.at += length;
        }
        let rest = self.rest();
        let (token, length) = token(rest);
        let at = self.at;
        self.at += length;
        (at, token)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..self.end).unwrap_or_default()
    }
}

/// Returns the length of the comment with which a text begins. Comments in brackets may be nested;
/// one that is not closed ends with the text.
fn comment_span(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let (open, close) = if text.starts_with("(*") {
        ("(*", "*)")
    } else if text.starts_with("/*") {
        ("/*", "*/")
    } else {
        return None;
    };
    let (mut depth, mut at) = (1_usize, 2);
    while depth > 0 {
        let Some(rest) = text.get(at..) else { return Some(text.len()) };
        let Some(star) = rest.find('*') else { return Some(text.len()) };
        let before = rest.get(..star).unwrap_or_default();
        let opens = before.ends_with(open.trim_end_matches('*'));
        let closes = rest.get(star..).is_some_and(|rest| rest.starts_with(close));
        at += star + 1;
        // `(*)` opens a comment and does not close it.
        if opens {
            depth += 1;
        } else if closes {
            depth -= 1;
            at += 1;
        }
    }
    Some(at.min(text.len()))
}

/// Returns the token with which a text begins, and its length.
fn token(text: &str) -> (Token<'_>, usize) {
    let Some(first) = text.chars().next() else { return (Token::End, 0) };
    let part = |length: usize| text.get(..length).unwrap_or(text);
    if first.is_alphabetic() || first == '_' {
        let length = word_length(text);
        if text.get(length..).is_some_and(|rest| rest.starts_with('#')) {
            let length = length + literal_length(text.get(length..).unwrap_or_default());
            return (Token::Literal(part(length)), length);
        }
        return (Token::Word(part(length)), length);
    }
    if first.is_ascii_digit() {
        let length = literal_length(text);
        return (Token::Literal(part(length)), length);
    }
    let length = match first {
        '\'' | '"' => text_length(text, first),
        '%' => {
            let other = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '*' | ':'));
            let length =
                text.get(1..).and_then(|rest| rest.find(other)).map_or(text.len(), |at| at + 1);
            // `%MW10:X3` of an M221 has a colon, `%MW10: INT` ends with one.
            address_length(part(length))
        }
        '{' => pragma_length(text),
        _ if text.starts_with(":=") || text.starts_with("=>") => return (Token::Assign, 2),
        _ if text.starts_with("..") => return (Token::Range, 2),
        _ => return (Token::Symbol(first), first.len_utf8()),
    };
    match first {
        '%' => (Token::Address(part(length)), length),
        '{' => (Token::Pragma(part(length)), length),
        _ => (Token::Text(part(length)), length),
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

/// Returns the length of a number, or of the part of a typed literal from its `#`. `1..5` begins
/// with the number 1.
fn literal_length(text: &str) -> usize {
    let mut length = 0;
    for (at, c) in text.char_indices() {
        let next = text.get(at + 1..).unwrap_or_default();
        let fits = c.is_alphanumeric()
            || matches!(c, '_' | '#')
            || (c == '.' && next.starts_with(|c: char| c.is_ascii_digit()))
            || (matches!(c, '-' | ':')
                && text.contains('#')
                && next.starts_with(|c: char| c.is_ascii_digit()));
        if !fits {
            break;
        }
        length = at + c.len_utf8();
    }
    length
}

/// Returns the length of a text in quotes; `$'` is a quote in it.
fn text_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return at,
            _ if escaped => escaped = false,
            '$' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Returns the length of an address without a colon that belongs to what follows.
fn address_length(text: &str) -> usize {
    match text.find(':') {
        Some(colon) if !text.get(colon + 1..).is_some_and(|rest| rest.starts_with(['X', 'x'])) => {
            colon
        }
        Some(colon) => {
            let digits = text.get(colon + 2..).unwrap_or_default();
            let count = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            if count == 0 { colon } else { colon + 2 + count }
        }
        None => text.len(),
    }
}

/// Returns the length of a pragma, in which a text in quotes may contain a bracket.
fn pragma_length(text: &str) -> usize {
    let mut in_quotes = false;
    for (at, c) in text.char_indices() {
        match c {
            '\'' => in_quotes = !in_quotes,
            '\n' => in_quotes = false,
            '}' if !in_quotes => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        let mut lexer = Lexer::new(text, 0..text.len());
        let next = || Some(lexer.next().1).filter(|token| *token != Token::End);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_declaration_is_split_into_tokens() {
        use Token::{Address, Assign, Literal, Pragma, Symbol, Text, Word};
        let text =
            "{attribute 'x' := 'a}b'} a AT %MW10:INT:=16#FF; (* (* in *) out *) b // c\n:='$'';";
        let expected = [
            Pragma("{attribute 'x' := 'a}b'}"),
            Word("a"),
            Word("AT"),
            Address("%MW10"),
            Symbol(':'),
            Word("INT"),
            Assign,
            Literal("16#FF"),
            Symbol(';'),
            Word("b"),
            Assign,
            Text("'$''"),
            Symbol(';'),
        ];
        assert_eq!(tokens(text), expected);
        assert_eq!(tokens("1..-5"), [Literal("1"), Token::Range, Symbol('-'), Literal("5")]);
        assert_eq!(tokens("T#1h2m DT#2024-02-29-12:34:56;")[1], Literal("DT#2024-02-29-12:34:56"));
        assert_eq!(tokens("%MW10:X3 : BOOL")[0], Address("%MW10:X3"));
        assert_eq!(tokens("%M* : INT")[0], Address("%M*"));
    }

    #[test]
    fn what_is_not_closed_ends_with_the_text() {
        for text in
            ["(* a (* b *)", "'abc", "{attribute", "(*", "/* x", "%", "$", "(*)", "1.", "é#"]
        {
            let mut lexer = Lexer::new(text, 0..text.len());
            let count = (0..10).take_while(|_| lexer.next().1 != Token::End).count();
            assert!(count < 10, "{text}");
        }
    }
}
