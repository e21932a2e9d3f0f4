//! Why a variable does not become a tag.

use std::fmt;

/// Why a variable, or a part of it, was skipped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SkipReason {
    /// It has no address.
    NotLocated,
    /// Its address is `%M*`, which the PLC chooses.
    IncompleteAddress(String),
    /// It begins at an odd byte, and its type needs an even one.
    Misaligned {
        /// The address.
        at: String,
        /// The type.
        data_type: String,
    },
    /// Modbus cannot read it there.
    OutOfReach {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// The export does not declare its type.
    UnknownType(String),
    /// The type is an address in the PLC's memory: a pointer or a reference.
    Pointer(&'static str),
    /// The type has no value or no known layout.
    UnsupportedType(String),
    /// The types contain each other, or are nested too deeply.
    NestedTypes(String),
    /// The layout of the type cannot be computed.
    UnknownLayout {
        /// Name of the type.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// The computed size of the type is not the one that the export states.
    LayoutMismatch {
        /// Name of the type.
        name: String,
        /// Size by the rules of the PLC, in bytes.
        computed: u64,
        /// Size in the export, in bytes.
        stated: u64,
    },
    /// A bound or a length is not a number.
    UnknownConstant(String),
    /// It is larger than the memory that Modbus gives access to.
    TooLarge(u64),
    /// The name is a key that the gateway adds to the payload.
    ReservedName(String),
    /// The name cannot be the name of a tag.
    InvalidName(String),
    /// The name is that of another variable.
    NameTaken {
        /// The name.
        name: String,
        /// Line of the first declaration.
        line: usize,
    },
    /// There are more tags than a PLC may have.
    TooManyTags(usize),
    /// The declaration could not be read.
    Unreadable(String),
}

impl SkipReason {
    /// Returns the stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotLocated => "not-located",
            Self::IncompleteAddress(_) => "incomplete-address",
            Self::Misaligned { .. } => "misaligned",
            Self::OutOfReach { .. } => "out-of-reach",
            Self::UnknownType(_) => "unknown-type",
            Self::Pointer(_) => "pointer",
            Self::UnsupportedType(_) => "unsupported-type",
            Self::NestedTypes(_) => "nested-types",
            Self::UnknownLayout { .. } => "unknown-layout",
            Self::LayoutMismatch { .. } => "layout-mismatch",
            Self::UnknownConstant(_) => "unknown-constant",
            Self::TooLarge(_) => "too-large",
            Self::ReservedName(_) => "reserved-name",
            Self::InvalidName(_) => "invalid-name",
            Self::NameTaken { .. } => "name-taken",
            Self::TooManyTags(_) => "too-many-tags",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLocated => f.write_str("not located: declare it AT %MW.. to read it"),
            Self::IncompleteAddress(at) => {
                write!(f, "{at} is not an address yet: write a number, for example AT %MW100")
            }
            Self::Misaligned { at, data_type } => {
                write!(f, "misaligned: {at} is an odd byte, and {data_type} begins at an even one")
            }
            Self::OutOfReach { message, help } => write!(f, "{message}; {help}"),
            Self::UnknownType(name) => {
                write!(f, "the type {name} is not in the export: import its file too")
            }
            Self::Pointer(what) => write!(f, "a {what} has no value outside the PLC"),
            Self::UnsupportedType(what) => write!(f, "{what}"),
            Self::NestedTypes(name) => {
                write!(f, "the type {name} contains itself, or is nested too deeply")
            }
            Self::UnknownLayout { name, why } => {
                write!(f, "the layout of {name} is not known: {why}")
            }
            Self::LayoutMismatch { name, computed, stated } => write!(
                f,
                "the layout of {name} is not known: its members take {computed} bytes, the export \
                 says {stated}"
            ),
            Self::UnknownConstant(text) => {
                write!(f, "{text} is not a known number: import the file that declares it too")
            }
            Self::TooLarge(bytes) => {
                write!(f, "its {bytes} bytes are more than the memory that Modbus can read")
            }
            Self::ReservedName(name) => write!(
                f,
                "`{name}` is a key that the gateway adds to the payload: add the tag by hand, \
                 under another name"
            ),
            Self::InvalidName(why) => f.write_str(why),
            Self::NameTaken { name, line } => {
                write!(f, "`{name}` is declared twice, first in line {line}, and differs")
            }
            Self::TooManyTags(limit) => {
                write!(f, "a PLC has at most {limit} tags: export fewer variables")
            }
            Self::Unreadable(why) => f.write_str(why),
        }
    }
}
