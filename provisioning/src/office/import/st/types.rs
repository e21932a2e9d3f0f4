//! Types and constant expressions.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a parser looks for a few tokens, and treats all others alike"
)]

use std::ops::Range;

use super::token::{Lexer, Token};
use crate::office::import::declaration::{
    EnumerationBody, MemberDeclaration, StructureBody, TextWidth, TypeBody, TypeExpression,
    tidy_comment,
};
use crate::office::import::expression::{Expression, Operator, parse_number};
use crate::plc::{CodePage, IecType};

/// Deepest nesting of types and brackets in a declaration.
const MAX_DEPTH: usize = 16;
/// Most operators in one expression.
const MAX_OPERATORS: usize = 64;

/// What was expected instead of the token at `at`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

/// Reads types and expressions, with one token of look-ahead.
#[derive(Debug)]
pub(super) struct TypeParser<'a> {
    lexer: Lexer<'a>,
    pub(super) at: usize,
    pub(super) token: Token<'a>,
    text: &'a str,
    depth: usize,
    operators: usize,
}

impl<'a> TypeParser<'a> {
    pub(super) fn new(text: &'a str, part: Range<usize>) -> Self {
        let mut lexer = Lexer::new(text, part);
        let (at, token) = lexer.next();
        Self { lexer, at, token, text, depth: 0, operators: 0 }
    }

    /// Passes the current token.
    pub(super) fn advance(&mut self) {
        (self.at, self.token) = self.lexer.next();
    }

    pub(super) fn error(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { at: self.at, expected }
    }

    pub(super) fn is_word(&self, keyword: &str) -> bool {
        matches!(self.token, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    /// Passes a keyword if it is next.
    pub(super) fn take_word(&mut self, keyword: &str) -> bool {
        let is_next = self.is_word(keyword);
        if is_next {
            self.advance();
        }
        is_next
    }

    /// Passes a character if it is next.
    pub(super) fn take(&mut self, symbol: char) -> bool {
        let is_next = self.token == Token::Symbol(symbol);
        if is_next {
            self.advance();
        }
        is_next
    }

    pub(super) fn expect(
        &mut self,
        symbol: char,
        expected: &'static str,
    ) -> Result<(), SyntaxError> {
        if self.take(symbol) { Ok(()) } else { Err(self.error(expected)) }
    }

    /// Passes a name, which may be qualified: `GVL.name`.
    pub(super) fn name(&mut self) -> Result<String, SyntaxError> {
        let Token::Word(word) = self.token else { return Err(self.error("a name")) };
        let mut name = word.to_owned();
        self.advance();
        while self.take('.') {
            let Token::Word(word) = self.token else { return Err(self.error("a name")) };
            name.push('.');
            name.push_str(word);
            self.advance();
        }
        Ok(name)
    }

    /// Returns the comments passed since the last call, of which the last ones belong to what
    /// follows them.
    pub(super) fn take_comments(&mut self) -> Vec<Range<usize>> {
        self.lexer.take_comments()
    }

    /// Returns the comment of a declaration that ends with the current token, and passes the token:
    /// the comment behind it on its line, else one within it, else those directly above it.
    pub(super) fn finish_declaration(&mut self, above: &[Range<usize>]) -> Option<String> {
        let within = self.lexer.take_comments();
        let trailing = self.lexer.trailing_comment().and_then(comment_text);
        self.advance();
        let text = |span: &Range<usize>| self.text.get(span.clone()).and_then(comment_text);
        let above = || {
            let above: Vec<_> = above.iter().filter_map(text).collect();
            tidy_comment(&above.join(" "))
        };
        trailing.or_else(|| within.last().and_then(text)).or_else(above)
    }

    /// Parses the whole text as a type.
    pub(super) fn parse_all_type(mut self) -> Option<TypeExpression> {
        let declared = self.parse_type().ok()?;
        (self.token == Token::End).then_some(declared)
    }

    /// Parses the whole text as an expression.
    pub(super) fn parse_all_expression(mut self) -> Option<Expression> {
        let expression = self.parse_expression().ok()?;
        (self.token == Token::End).then_some(expression)
    }

    /// Passes all pragmas, and returns them.
    pub(super) fn pragmas(&mut self) -> Vec<&'a str> {
        let mut pragmas = Vec::new();
        while let Token::Pragma(pragma) = self.token {
            pragmas.push(pragma);
            self.advance();
        }
        pragmas
    }

    /// Parses a type.
    pub(super) fn parse_type(&mut self) -> Result<TypeExpression, SyntaxError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("fewer nested types"));
        }
        self.depth += 1;
        let declared = self.parse_nested_type();
        self.depth -= 1;
        declared
    }

    fn parse_nested_type(&mut self) -> Result<TypeExpression, SyntaxError> {
        if self.token == Token::Symbol('(') {
            return self.parse_enumeration().map(inline);
        }
        if self.take_word("ARRAY") {
            return self.parse_array();
        }
        for (keyword, kind) in
            [("POINTER", "pointer"), ("REFERENCE", "reference"), ("REF_TO", "reference")]
        {
            if self.take_word(keyword) {
                if keyword != "REF_TO" && !self.take_word("TO") {
                    return Err(self.error("TO"));
                }
                self.parse_type()?;
                return Ok(TypeExpression::Pointer(kind));
            }
        }
        if self.is_word("STRUCT") || self.is_word("UNION") {
            return self.parse_members(&[]).map(inline);
        }
        for (keyword, width) in [("STRING", TextWidth::Byte), ("WSTRING", TextWidth::Word)] {
            if self.take_word(keyword) {
                return self.parse_text(width);
            }
        }
        let name = self.name()?;
        let declared = named_type(&name);
        // The range of a subrange, or the arguments of a function block.
        if self.token == Token::Symbol('(') {
            self.skip_brackets()?;
        }
        Ok(declared)
    }

    fn parse_array(&mut self) -> Result<TypeExpression, SyntaxError> {
        self.expect('[', "[")?;
        let mut bounds = Vec::new();
        let mut is_variable = false;
        loop {
            if self.take('*') {
                is_variable = true;
            } else {
                let first = self.parse_expression()?;
                if self.token != Token::Range {
                    return Err(self.error(".. between the bounds"));
                }
                self.advance();
                bounds.push([first, self.parse_expression()?]);
            }
            if !self.take(',') {
                break;
            }
        }
        self.expect(']', "] after the bounds")?;
        if !self.take_word("OF") {
            return Err(self.error("OF"));
        }
        let element = self.parse_type()?;
        if is_variable {
            let what = "an array of variable length has no size of its own".to_owned();
            return Ok(TypeExpression::Unsupported(what));
        }
        Ok(TypeExpression::Array(bounds, Box::new(element)))
    }

    fn parse_text(&mut self, width: TextWidth) -> Result<TypeExpression, SyntaxError> {
        let close = match self.token {
            Token::Symbol('(') => ')',
            Token::Symbol('[') => ']',
            _ => return Ok(default_text(width)),
        };
        self.advance();
        let length = self.parse_expression()?;
        self.expect(close, "a bracket after the length")?;
        Ok(TypeExpression::Text(width, length))
    }

    /// Parses `(stop, run := 5) UINT`.
    pub(super) fn parse_enumeration(&mut self) -> Result<TypeBody, SyntaxError> {
        self.expect('(', "(")?;
        let mut values = Vec::new();
        loop {
            self.pragmas();
            if self.take(')') {
                break;
            }
            let name = self.name()?;
            let number = if self.token == Token::Assign {
                self.advance();
                Some(self.parse_expression()?)
            } else {
                None
            };
            values.push((name, number));
            self.pragmas();
            if !self.take(',') {
                self.expect(')', ", or ) after a value")?;
                break;
            }
        }
        let base = match self.token {
            Token::Word(word) => word.parse::<IecType>().ok(),
            _ => None,
        };
        if base.is_some() {
            self.advance();
        }
        Ok(TypeBody::Enumeration(EnumerationBody { base: base.unwrap_or(IecType::Int), values }))
    }

    /// Parses `STRUCT .. END_STRUCT` or `UNION .. END_UNION`.
    pub(super) fn parse_members(&mut self, pragmas: &[&str]) -> Result<TypeBody, SyntaxError> {
        let is_union = self.is_word("UNION");
        let end = if is_union { "END_UNION" } else { "END_STRUCT" };
        self.advance();
        let mut body = StructureBody::default();
        body.read_attributes(pragmas);
        while !self.take_word(end) {
            let pragmas = self.pragmas();
            body.read_attributes(&pragmas);
            if self.take(';') || !pragmas.is_empty() {
                continue;
            }
            let members = self.parse_member()?;
            body.members.extend(members);
        }
        Ok(if is_union { TypeBody::Union(body.members) } else { TypeBody::Structure(body) })
    }

    /// Parses `a, b : INT := 5;`.
    fn parse_member(&mut self) -> Result<Vec<MemberDeclaration>, SyntaxError> {
        let above = self.take_comments();
        let mut names = vec![self.name()?];
        while self.take(',') {
            names.push(self.name()?);
        }
        // An address in a structure has no meaning of its own.
        if self.take_word("AT") {
            self.advance();
        }
        self.expect(':', ": after the name")?;
        let declared = self.parse_type()?;
        self.skip_initial_value()?;
        let comment = self.finish_declaration(&above);
        let member =
            |name| MemberDeclaration { name, declared: declared.clone(), comment: comment.clone() };
        Ok(names.into_iter().map(member).collect())
    }

    /// Passes everything before the `;` of a declaration.
    pub(super) fn skip_initial_value(&mut self) -> Result<(), SyntaxError> {
        loop {
            match self.token {
                Token::Symbol(';') => return Ok(()),
                Token::End => return Err(self.error("; at the end of the declaration")),
                Token::Word(word) if word.len() > 4 && is_end_keyword(word) => {
                    return Err(self.error("; at the end of the declaration"));
                }
                _ => self.advance(),
            }
        }
    }

    fn skip_brackets(&mut self) -> Result<(), SyntaxError> {
        let mut depth = 0_usize;
        loop {
            match self.token {
                Token::Symbol('(') => depth += 1,
                Token::Symbol(')') => depth -= 1,
                Token::End | Token::Symbol(';') => return Err(self.error(")")),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Parses a constant expression.
    pub(super) fn parse_expression(&mut self) -> Result<Expression, SyntaxError> {
        self.operators = 0;
        self.parse_sum()
    }

    fn parse_sum(&mut self) -> Result<Expression, SyntaxError> {
        let mut left = self.parse_product()?;
        loop {
            let operator = match self.token {
                Token::Symbol('+') => Operator::Add,
                Token::Symbol('-') => Operator::Subtract,
                _ => return Ok(left),
            };
            self.count_operator()?;
            let right = self.parse_product()?;
            left = Expression::Operation(Box::new(left), operator, Box::new(right));
        }
    }

    fn parse_product(&mut self) -> Result<Expression, SyntaxError> {
        let mut left = self.parse_operand()?;
        loop {
            let operator = match self.token {
                Token::Symbol('*') => Operator::Multiply,
                Token::Symbol('/') => Operator::Divide,
                Token::Word(word) if word.eq_ignore_ascii_case("MOD") => Operator::Modulo,
                _ => return Ok(left),
            };
            self.count_operator()?;
            let right = self.parse_operand()?;
            left = Expression::Operation(Box::new(left), operator, Box::new(right));
        }
    }

    fn parse_operand(&mut self) -> Result<Expression, SyntaxError> {
        match self.token {
            Token::Symbol('-') => {
                self.count_operator()?;
                Ok(Expression::Negative(Box::new(self.parse_operand()?)))
            }
            Token::Symbol('+') => {
                self.count_operator()?;
                self.parse_operand()
            }
            Token::Symbol('(') => {
                self.count_operator()?;
                let inner = self.parse_sum()?;
                self.expect(')', ")")?;
                Ok(inner)
            }
            Token::Literal(literal) => {
                let number = parse_number(literal).ok_or_else(|| self.error("a whole number"))?;
                self.advance();
                Ok(Expression::Number(number))
            }
            _ => self.name().map(Expression::Name),
        }
    }

    /// Passes an operator or bracket. Their number bounds the depth of the expression.
    fn count_operator(&mut self) -> Result<(), SyntaxError> {
        self.operators += 1;
        if self.operators > MAX_OPERATORS {
            return Err(self.error("a shorter expression"));
        }
        self.advance();
        Ok(())
    }
}

impl StructureBody {
    /// Notes the attributes that change the layout.
    fn read_attributes(&mut self, pragmas: &[&str]) {
        for pragma in pragmas {
            let Some((name, value)) = attribute(pragma) else { continue };
            if name.eq_ignore_ascii_case("pack_mode") {
                self.set_pack_mode(&value);
            } else if name.eq_ignore_ascii_case("relative_offset") {
                self.unknown_layout = Some("its members have offsets of their own");
            }
        }
    }

    /// Notes the value of the attribute `pack_mode`: 0 and 1 mean no gaps.
    pub(in crate::office::import) fn set_pack_mode(&mut self, value: &str) {
        match value.trim().parse::<u64>() {
            Ok(mode @ (0 | 1 | 2 | 4 | 8)) => self.pack_mode = Some(mode.max(1)),
            _ => self.unknown_layout = Some("its pack_mode is not 0, 1, 2, 4 or 8"),
        }
    }
}

fn inline(body: TypeBody) -> TypeExpression {
    TypeExpression::Inline(Box::new(body))
}

/// Returns the type with a name: an elementary one, or one that is declared elsewhere.
fn named_type(name: &str) -> TypeExpression {
    if let Ok(iec) = name.parse::<IecType>() {
        return TypeExpression::Elementary(iec);
    }
    // The types of the platform: all these controllers have 32 bits.
    match name.to_ascii_uppercase().as_str() {
        "BIT" => TypeExpression::Bit,
        "__XINT" => TypeExpression::Elementary(IecType::Dint),
        "__UXINT" => TypeExpression::Elementary(IecType::Udint),
        "__XWORD" => TypeExpression::Elementary(IecType::Dword),
        _ => TypeExpression::Named(name.to_owned()),
    }
}

fn default_text(width: TextWidth) -> TypeExpression {
    let letters = IecType::DEFAULT_TEXT_LEN;
    TypeExpression::Elementary(match width {
        TextWidth::Byte => IecType::String(letters, CodePage::Latin1),
        TextWidth::Word => IecType::Wstring(letters),
    })
}

/// Returns name and value of `{attribute 'name' := 'value'}`.
fn attribute(pragma: &str) -> Option<(String, String)> {
    let inner = pragma.strip_prefix('{')?.trim_end_matches('}').trim();
    let rest = inner.get(..9).filter(|word| word.eq_ignore_ascii_case("attribute"));
    let rest = inner.get(rest?.len()..)?;
    let mut quoted = rest.split('\'').skip(1).step_by(2);
    Some((quoted.next()?.trim().to_owned(), quoted.next().unwrap_or_default().to_owned()))
}

pub(super) fn is_end_keyword(word: &str) -> bool {
    word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("END_"))
}

/// Returns the text of a comment without its marks.
fn comment_text(comment: &str) -> Option<String> {
    let inner = comment.trim_start_matches(['/', '(', '*']).trim_end_matches(['/', ')', '*']);
    tidy_comment(if comment.starts_with("//") { comment.trim_start_matches('/') } else { inner })
}
