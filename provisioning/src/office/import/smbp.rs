//! Projects of Machine Expert - Basic (M221).

use std::collections::BTreeSet;

use roxmltree::Node;

use super::declaration::{
    Declarations, DeclaredAccess, DeclaredVariable, TypeExpression, tidy_comment,
};
use super::source::SourceText;
use super::xml;
use crate::plc::IecType;

/// Reads all objects with an address and a symbol. An object without a symbol has no name that a
/// tag could have, and a project lists every input and output.
pub(super) fn read(root: Node<'_, '_>, source: &SourceText, declarations: &mut Declarations) {
    let mut seen = BTreeSet::new();
    for node in root.descendants().filter(|node| xml::child(*node, "Address").is_some()) {
        let Some(at) = xml::child_text(node, "Address") else { continue };
        let Some(symbol) = xml::child_text(node, "Symbol") else { continue };
        let at = at.to_ascii_uppercase();
        if !at.starts_with('%') || !seen.insert((at.clone(), symbol.to_lowercase())) {
            continue;
        }
        declarations.variables.push(DeclaredVariable {
            scope: None,
            declared: type_at(&at),
            at: Some(at),
            name: symbol,
            comment: xml::child_text(node, "Comment").and_then(|text| tidy_comment(&text)),
            access: DeclaredAccess::Unknown,
            place: source.place(node.range().start),
        });
    }
}

/// Returns the type of an object, which follows from its address: a project has no other.
fn type_at(at: &str) -> TypeExpression {
    let letters: String = at.chars().skip(1).take_while(|c| c.is_ascii_alphabetic()).collect();
    let iec = match letters.as_str() {
        _ if at.contains(":X") => IecType::Bool,
        "M" | "I" | "Q" | "S" | "X" => IecType::Bool,
        "MD" | "KD" => IecType::Dint,
        "MF" | "KF" => IecType::Real,
        "MW" | "KW" | "IW" | "QW" | "SW" | "IWS" | "QWS" => IecType::Int,
        _ => {
            let what = format!("%{letters} is an object of the program, not a value");
            return TypeExpression::Unsupported(what);
        }
    };
    TypeExpression::Elementary(iec)
}
