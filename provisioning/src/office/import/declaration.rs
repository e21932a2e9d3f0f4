//! Declarations as all formats give them: variables, types and constants.

use std::collections::BTreeMap;

use super::SourcePlace;
use super::expression::Expression;
use super::skip::SkipReason;
use crate::plc::IecType;

/// Everything that the files of one import declare.
#[derive(Debug, Default)]
pub(super) struct Declarations {
    pub(super) variables: Vec<DeclaredVariable>,
    /// By name in lower case: IEC names are not case-sensitive.
    pub(super) types: BTreeMap<String, TypeDefinition>,
    /// By name in lower case, with and without the list.
    pub(super) constants: BTreeMap<String, Expression>,
    /// Declarations that could not be read.
    pub(super) unreadable: Vec<Unreadable>,
}

/// A part of a file that could not be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) variable: String,
    pub(super) reason: SkipReason,
    pub(super) place: SourcePlace,
}

/// A variable as declared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DeclaredVariable {
    /// Name of the variable list or program.
    pub(super) scope: Option<String>,
    pub(super) name: String,
    /// Address, if it has one.
    pub(super) at: Option<String>,
    pub(super) declared: TypeExpression,
    pub(super) comment: Option<String>,
    pub(super) access: DeclaredAccess,
    pub(super) place: SourcePlace,
}

/// What the export allows a client to do with a variable.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DeclaredAccess {
    /// The format does not say.
    #[default]
    Unknown,
    /// Read only.
    Read,
    /// Read and write, or write only.
    Write,
}

/// A type as written at a variable, a member or an alias.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TypeExpression {
    Elementary(IecType),
    /// One bit in a structure, or at a `%MX` address.
    Bit,
    /// STRING or WSTRING whose length is an expression.
    Text(TextWidth, Expression),
    /// A type with a name.
    Named(String),
    Array(Vec<[Expression; 2]>, Box<Self>),
    /// A type that is declared on the spot.
    Inline(Box<TypeBody>),
    /// An address in the PLC's memory, which has a size but no value for others.
    Pointer(&'static str),
    /// A type without a known layout.
    Unsupported(String),
}

/// Width of the characters of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TextWidth {
    Byte,
    Word,
}

/// A type with a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct TypeDefinition {
    /// Name for messages.
    pub(super) name: String,
    pub(super) body: TypeBody,
    /// Size in the PLC's memory as the export states it, in bytes.
    pub(super) stated_size: Option<u64>,
}

/// What a type consists of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TypeBody {
    Alias(TypeExpression),
    Structure(StructureBody),
    Union(Vec<MemberDeclaration>),
    Enumeration(EnumerationBody),
}

/// The members of a structure in the order of the declaration.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct StructureBody {
    pub(super) members: Vec<MemberDeclaration>,
    /// Type whose members come first.
    pub(super) extends: Option<String>,
    /// `{attribute 'pack_mode' := '1'}`: the largest alignment, in bytes.
    pub(super) pack_mode: Option<u64>,
    /// Why the layout cannot be computed, if so.
    pub(super) unknown_layout: Option<&'static str>,
}

/// A member of a structure or union.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct MemberDeclaration {
    pub(super) name: String,
    pub(super) declared: TypeExpression,
    pub(super) comment: Option<String>,
}

/// The values of an enumeration in the order of the declaration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct EnumerationBody {
    pub(super) base: IecType,
    /// A value without a number is one more than the one before, the first is 0.
    pub(super) values: Vec<(String, Option<Expression>)>,
}

impl TypeExpression {
    /// Returns the body of a type that is declared as this.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are an alias")]
    pub(super) fn into_body(self) -> TypeBody {
        match self {
            Self::Inline(body) => *body,
            declared => TypeBody::Alias(declared),
        }
    }
}

impl Declarations {
    /// Adds a type; the first one with a name stays.
    pub(super) fn add_type(&mut self, key: &str, definition: TypeDefinition) {
        self.types.entry(key.to_lowercase()).or_insert(definition);
    }

    /// Adds a constant under its name, and under that with its list.
    pub(super) fn add_constant(&mut self, scope: Option<&str>, name: &str, value: &Expression) {
        let name = name.to_lowercase();
        if let Some(scope) = scope {
            let qualified = format!("{}.{name}", scope.to_lowercase());
            self.constants.entry(qualified).or_insert_with(|| value.clone());
        }
        self.constants.entry(name).or_insert_with(|| value.clone());
    }
}

/// Most characters of a comment that are kept.
const MAX_COMMENT_CHARS: usize = 200;

/// Returns a comment as one line without control characters; `None` when nothing is left.
pub(super) fn tidy_comment(text: &str) -> Option<String> {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = line.chars().filter(|c| !c.is_control()).take(MAX_COMMENT_CHARS);
    let plain: String = plain.collect();
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}
