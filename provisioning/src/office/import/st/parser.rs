//! Lists of variables and types.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a parser looks for a few tokens, and treats all others alike"
)]

use std::ops::Range;

use super::token::Token;
use super::types::{SyntaxError, TypeParser, is_end_keyword};
use crate::office::import::declaration::{
    Declarations, DeclaredAccess, DeclaredVariable, StructureBody, TypeBody, TypeDefinition,
    TypeExpression, Unreadable,
};
use crate::office::import::skip::SkipReason;
use crate::office::import::source::SourceText;

/// Reads one part of a file.
pub(super) struct Parser<'a> {
    source: &'a SourceText,
    types: TypeParser<'a>,
    scope: Option<String>,
    /// What the variables at hand belong to.
    owner: DeclarationOwner,
    declarations: &'a mut Declarations,
}

/// What a list of variables belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DeclarationOwner {
    /// A variable list or a program: there is one of each variable.
    Single,
    /// A function block or a function: each instance has variables of its own.
    Instances,
}

/// Which variables a keyword declares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ListKind {
    Variables,
    Constants,
    /// Variables that are declared elsewhere too, or exist only in instances.
    Ignored,
}

impl<'a> Parser<'a> {
    pub(super) fn new(
        source: &'a SourceText,
        part: Range<usize>,
        scope: Option<&str>,
        declarations: &'a mut Declarations,
    ) -> Self {
        let types = TypeParser::new(&source.text, part);
        let scope = scope.map(ToOwned::to_owned);
        Self { source, types, scope, owner: DeclarationOwner::Single, declarations }
    }

    /// Reads all lists; passes everything between them.
    pub(super) fn parse_file(&mut self) {
        loop {
            let Token::Word(word) = self.types.token else {
                if self.types.token == Token::End {
                    return;
                }
                self.types.advance();
                continue;
            };
            let at = self.types.at;
            self.types.advance();
            match word.to_ascii_uppercase().as_str() {
                "TYPE" => self.parse_types(),
                "PROGRAM" => self.enter(DeclarationOwner::Single),
                "FUNCTION_BLOCK" | "FUNCTION" | "INTERFACE" | "METHOD" | "PROPERTY" => {
                    self.enter(DeclarationOwner::Instances);
                }
                keyword if keyword == "VAR" || keyword.starts_with("VAR_") => {
                    self.parse_list(keyword, at);
                }
                _ => {}
            }
        }
    }

    /// Begins a program, function block or function.
    fn enter(&mut self, owner: DeclarationOwner) {
        for modifier in ["PUBLIC", "PRIVATE", "PROTECTED", "INTERNAL", "FINAL", "ABSTRACT"] {
            self.types.take_word(modifier);
        }
        let Ok(name) = self.types.name() else { return };
        if owner == DeclarationOwner::Instances {
            let body = TypeBody::Alias(TypeExpression::Unsupported(format!(
                "{name} is a function block, whose layout is not documented"
            )));
            let definition = TypeDefinition { name: name.clone(), body, stated_size: None };
            self.declarations.add_type(&name, definition);
        }
        self.scope = Some(name);
        self.owner = owner;
    }

    /// Reads a list up to its END_VAR.
    fn parse_list(&mut self, keyword: &str, start: usize) {
        let mut kind = match (keyword, self.owner) {
            ("VAR_EXTERNAL" | "VAR_TEMP" | "VAR_IN_OUT" | "VAR_INST", _) => ListKind::Ignored,
            ("VAR_GLOBAL" | "VAR_CONFIG", _) | (_, DeclarationOwner::Single) => ListKind::Variables,
            (_, DeclarationOwner::Instances) => ListKind::Ignored,
        };
        let qualifiers = ["CONSTANT", "RETAIN", "PERSISTENT", "NON_RETAIN", "INTERNAL", "PUBLIC"];
        while let Some(qualifier) = qualifiers.iter().find(|word| self.types.is_word(word)) {
            if *qualifier == "CONSTANT" {
                kind = ListKind::Constants;
            }
            self.types.advance();
        }
        loop {
            self.types.pragmas();
            match self.types.token {
                Token::End => return self.report(start, "END_VAR for this list"),
                Token::Symbol(';') => self.types.advance(),
                Token::Word(word) if word.eq_ignore_ascii_case("END_VAR") => {
                    return self.types.advance();
                }
                // The list was not closed: another one begins.
                Token::Word(word) if is_list_keyword(word) => {
                    return self.report(start, "END_VAR for this list");
                }
                _ => {
                    if let Err(error) = self.parse_variable(kind) {
                        self.report(error.at, error.expected);
                        self.recover();
                    }
                }
            }
        }
    }

    /// Reads `a, b AT %MW10 : INT := 5;`.
    fn parse_variable(&mut self, kind: ListKind) -> Result<(), SyntaxError> {
        let above = self.comments_above();
        let start = self.types.at;
        let mut names = vec![self.types.name()?];
        while self.types.take(',') {
            names.push(self.types.name()?);
        }
        let at = self.parse_address()?;
        self.types.expect(':', "AT or : after the name")?;
        let declared = self.types.parse_type()?;
        if kind == ListKind::Constants && self.types.token == Token::Assign {
            self.types.advance();
            // A constant that is no whole number bounds no array.
            if let Ok(value) = self.types.parse_expression() {
                for name in &names {
                    self.declarations.add_constant(self.scope.as_deref(), name, &value);
                }
            }
        }
        self.types.skip_initial_value()?;
        let comment = self.types.finish_declaration(&above);
        let is_wanted = match kind {
            ListKind::Variables => true,
            ListKind::Constants => at.is_some(),
            ListKind::Ignored => false,
        };
        if is_wanted {
            let place = self.source.place(start);
            let variable = |name| DeclaredVariable {
                scope: self.scope.clone(),
                name,
                at: at.clone(),
                declared: declared.clone(),
                comment: comment.clone(),
                access: DeclaredAccess::Unknown,
                place,
            };
            self.declarations.variables.extend(names.into_iter().map(variable));
        }
        Ok(())
    }

    fn parse_address(&mut self) -> Result<Option<String>, SyntaxError> {
        if !self.types.take_word("AT") {
            return Ok(None);
        }
        let Token::Address(at) = self.types.token else {
            return Err(self.types.error("an address such as %MW100 after AT"));
        };
        self.types.advance();
        Ok(Some(at.to_ascii_uppercase()))
    }

    /// Returns the comments on the lines directly above the current token.
    fn comments_above(&mut self) -> Vec<Range<usize>> {
        let comments = self.types.take_comments();
        let mut line = self.source.place(self.types.at).line;
        let mut above = Vec::new();
        for comment in comments.into_iter().rev() {
            let last = self.source.place(comment.end.saturating_sub(1)).line;
            if last != line && last + 1 != line {
                break;
            }
            line = self.source.place(comment.start).line;
            above.push(comment);
        }
        above.reverse();
        above
    }

    /// Reads the types up to END_TYPE.
    fn parse_types(&mut self) {
        let start = self.types.at;
        loop {
            let pragmas = self.types.pragmas();
            match self.types.token {
                Token::End => return self.report(start, "END_TYPE for this list"),
                Token::Symbol(';') => self.types.advance(),
                Token::Word(word) if word.eq_ignore_ascii_case("END_TYPE") => {
                    return self.types.advance();
                }
                Token::Word(word) if is_list_keyword(word) => {
                    return self.report(start, "END_TYPE for this list");
                }
                _ => {
                    if let Err(error) = self.parse_type_definition(&pragmas) {
                        self.report(error.at, error.expected);
                        self.recover();
                    }
                }
            }
        }
    }

    /// Reads `PUMP EXTENDS DEVICE : STRUCT .. END_STRUCT`.
    fn parse_type_definition(&mut self, pragmas: &[&str]) -> Result<(), SyntaxError> {
        let name = self.types.name()?;
        let extends = if self.types.take_word("EXTENDS") { Some(self.types.name()?) } else { None };
        self.types.expect(':', ": after the name of the type")?;
        let inner = self.types.pragmas();
        let pragmas = [pragmas, &inner].concat();
        let body = if self.types.is_word("STRUCT") || self.types.is_word("UNION") {
            self.types.parse_members(&pragmas)?
        } else {
            self.types.parse_type()?.into_body()
        };
        let body = match body {
            TypeBody::Structure(body) => TypeBody::Structure(StructureBody { extends, ..body }),
            body => body,
        };
        // An initial value, or the `;` that some tools leave out after END_STRUCT.
        if self.types.token == Token::Assign {
            self.types.skip_initial_value()?;
        }
        self.types.take(';');
        let definition = TypeDefinition { name: name.clone(), body, stated_size: None };
        self.declarations.add_type(&name, definition);
        Ok(())
    }

    /// Passes the rest of a declaration that could not be read.
    fn recover(&mut self) {
        loop {
            match self.types.token {
                Token::End => return,
                Token::Symbol(';') => return self.types.advance(),
                Token::Word(word) if is_end_keyword(word) || is_list_keyword(word) => {
                    if word.eq_ignore_ascii_case("END_VAR")
                        || word.eq_ignore_ascii_case("END_TYPE")
                        || is_list_keyword(word)
                    {
                        return;
                    }
                    self.types.advance();
                }
                _ => self.types.advance(),
            }
        }
    }

    fn report(&mut self, at: usize, expected: &str) {
        let found = self.source.text.get(at..).unwrap_or_default().split_whitespace().next();
        let found: String = found.unwrap_or("the end of the file").chars().take(40).collect();
        let reason = SkipReason::Unreadable(format!("expected {expected}, found {found}"));
        let place = self.source.place(at);
        let variable = self.scope.clone().unwrap_or_default();
        self.declarations.unreadable.push(Unreadable { variable, reason, place });
    }
}

/// Returns whether a list of variables begins with this word.
fn is_list_keyword(word: &str) -> bool {
    let upper = word.to_ascii_uppercase();
    matches!(
        upper.as_str(),
        "VAR"
            | "TYPE"
            | "VAR_GLOBAL"
            | "VAR_INPUT"
            | "VAR_OUTPUT"
            | "VAR_IN_OUT"
            | "VAR_TEMP"
            | "VAR_EXTERNAL"
            | "VAR_STAT"
            | "VAR_CONFIG"
            | "VAR_INST"
    )
}
