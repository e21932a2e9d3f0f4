//! The symbol configuration of CODESYS and Machine Expert.
//!
//! `byteoffset` and `size` describe the layout of the client, in which a BIT takes a byte. The
//! layout in the PLC is computed, and its size has to be `nativesize`.

use std::collections::HashMap;

use roxmltree::Node;

use super::declaration::{
    Declarations, DeclaredAccess, DeclaredVariable, EnumerationBody, MemberDeclaration,
    StructureBody, TypeBody, TypeDefinition, TypeExpression,
};
use super::expression::Expression;
use super::source::SourceText;
use super::st;
use super::xml;
use crate::plc::{CodePage, IecType};

/// Deepest nesting of nodes: applications, namespaces, lists, variables.
const MAX_DEPTH: usize = 32;

/// Sizes of the types by name, in bytes: the larger one of the client's and the PLC's.
struct TypeSizes<'a>(HashMap<&'a str, u64>);

/// Reads types and variables.
pub(super) fn read(root: Node<'_, '_>, source: &SourceText, declarations: &mut Declarations) {
    let types = || xml::children(root, "TypeList").flat_map(|list| list.children());
    let named = || types().filter_map(|node| Some((node.attribute("name")?, node)));
    let size = |node| {
        let sizes = ["size", "nativesize"].map(|name| xml::number(node, name));
        sizes.into_iter().flatten().max()
    };
    let sizes = named().filter_map(|(name, node)| Some((name, size(node)?)));
    let sizes = TypeSizes(sizes.collect());
    for (name, node) in named() {
        declarations.add_type(name, type_definition(node, name, &sizes));
    }
    for list in xml::children(root, "NodeList") {
        // The outermost nodes are applications, whose names say nothing.
        for application in xml::children(list, "Node") {
            if application.has_attribute("type") {
                read_node(application, &mut Vec::new(), source, declarations);
            }
            for node in xml::children(application, "Node") {
                read_node(node, &mut Vec::new(), source, declarations);
            }
        }
    }
}

/// Reads a variable, or the variables below a node.
fn read_node<'a>(
    node: Node<'a, '_>,
    path: &mut Vec<&'a str>,
    source: &SourceText,
    declarations: &mut Declarations,
) {
    let name = node.attribute("name").unwrap_or_default();
    let at = node.attribute("directaddress").map(|at| at.trim().to_ascii_uppercase());
    let has_nodes = xml::child(node, "Node").is_some();
    if let Some(declared) = node.attribute("type")
        && (at.is_some() || !has_nodes)
    {
        let scope = (!path.is_empty()).then(|| path.join("."));
        declarations.variables.push(DeclaredVariable {
            scope,
            name: name.to_owned(),
            at: at.filter(|at| !at.is_empty()),
            declared: TypeExpression::Named(declared.to_owned()),
            comment: xml::comment(node, "Comment"),
            access: access(node),
            place: source.place(node.range().start),
        });
        return;
    }
    if path.len() < MAX_DEPTH {
        path.push(name);
        for inner in xml::children(node, "Node") {
            read_node(inner, path, source, declarations);
        }
        path.pop();
    }
}

fn access(node: Node<'_, '_>) -> DeclaredAccess {
    match node.attribute("access") {
        Some("Read") => DeclaredAccess::Read,
        Some("Write" | "ReadWrite") => DeclaredAccess::Write,
        _ => DeclaredAccess::Unknown,
    }
}

fn type_definition(node: Node<'_, '_>, key: &str, sizes: &TypeSizes<'_>) -> TypeDefinition {
    let name = node.attribute("iecname").filter(|name| !name.is_empty()).unwrap_or(key);
    let class = node.attribute("typeclass").unwrap_or_default().to_ascii_lowercase();
    let element = node.tag_name().name();
    let body = match element {
        _ if class == "enum" || element == "TypeEnum" => enumeration(node),
        "TypeSimple" => TypeBody::Alias(simple_type(node, &class, name)),
        "TypeArray" => TypeBody::Alias(array_type(node)),
        "TypeUserDef" => user_type(node, name, sizes),
        _ => TypeBody::Alias(pointer_or_unknown(&class, name)),
    };
    // Without `nativesize` the compiler is an old one, whose client has the layout of the PLC.
    let stated_size = xml::number(node, "nativesize").or_else(|| xml::number(node, "size"));
    let is_pointer = matches!(body, TypeBody::Alias(TypeExpression::Pointer(_)));
    TypeDefinition { name: name.to_owned(), body, stated_size: stated_size.filter(|_| !is_pointer) }
}

/// Returns an elementary type. The length of a text follows from its size, because its name may
/// contain a constant.
fn simple_type(node: Node<'_, '_>, class: &str, name: &str) -> TypeExpression {
    let size = xml::number(node, "size").and_then(|size| u16::try_from(size).ok());
    let letters = |bytes: u16| {
        let letters = size.map(|size| (size / bytes).saturating_sub(1));
        letters.filter(|letters| (1..=IecType::MAX_TEXT_LEN).contains(letters))
    };
    let iec = match class {
        "bit" => return TypeExpression::Bit,
        "string" => letters(1).map(|letters| IecType::String(letters, CodePage::Latin1)),
        "wstring" => letters(2).map(IecType::Wstring),
        "dateandtime" => Some(IecType::Dt),
        "timeofday" => Some(IecType::Tod),
        "ldateandtime" => Some(IecType::Ldt),
        "ltimeofday" => Some(IecType::Ltod),
        class => class.parse().ok(),
    };
    if let Some(iec) = iec {
        return TypeExpression::Elementary(iec);
    }
    match st::parse_type(name) {
        Some(TypeExpression::Named(_)) | None => pointer_or_unknown(class, name),
        Some(declared) => declared,
    }
}

fn pointer_or_unknown(class: &str, name: &str) -> TypeExpression {
    match class {
        "pointer" => TypeExpression::Pointer("pointer"),
        "reference" => TypeExpression::Pointer("reference"),
        "interface" => TypeExpression::Pointer("reference to an interface"),
        _ => TypeExpression::Unsupported(format!("the type {name} has no value for Modbus")),
    }
}

fn array_type(node: Node<'_, '_>) -> TypeExpression {
    let bound = |node: Node<'_, '_>, name: &str| {
        node.attribute(name).and_then(|text| text.trim().parse().ok()).map(Expression::Number)
    };
    let dims: Option<Vec<_>> = xml::children(node, "ArrayDim")
        .map(|dim| Some([bound(dim, "minrange")?, bound(dim, "maxrange")?]))
        .collect();
    match (dims, node.attribute("basetype")) {
        (Some(dims), Some(base)) if !dims.is_empty() => {
            TypeExpression::Array(dims, Box::new(TypeExpression::Named(base.to_owned())))
        }
        _ => TypeExpression::Unsupported("the export does not state the bounds of it".to_owned()),
    }
}

fn user_type(node: Node<'_, '_>, name: &str, sizes: &TypeSizes<'_>) -> TypeBody {
    let pou_class = node.attribute("pouclass").unwrap_or("STRUCTURE").to_ascii_uppercase();
    let elements: Vec<_> = xml::children(node, "UserDefElement").collect();
    let members = elements.iter().map(|element| MemberDeclaration {
        name: element.attribute("iecname").unwrap_or_default().to_owned(),
        declared: TypeExpression::Named(element.attribute("type").unwrap_or_default().to_owned()),
        comment: xml::comment(*element, "Comment"),
    });
    match pou_class.as_str() {
        "UNION" => TypeBody::Union(members.collect()),
        "ENUM" | "ENUMERATION" => enumeration(node),
        "STRUCTURE" | "STRUCT" => TypeBody::Structure(StructureBody {
            members: members.collect(),
            unknown_layout: unlisted_members(&elements, sizes),
            ..StructureBody::default()
        }),
        _ => TypeBody::Alias(TypeExpression::Unsupported(format!(
            "{name} is a function block, whose layout is not documented"
        ))),
    }
}

/// Returns why the members that are listed cannot be all members in their order. A member that is
/// not ticked in Machine Expert leaves a gap in the client's layout that no alignment explains; the
/// sizes may agree all the same, because such a gap can hide in padding.
fn unlisted_members(elements: &[Node<'_, '_>], sizes: &TypeSizes<'_>) -> Option<&'static str> {
    let (mut previous, mut end) = (0_u64, 0_u64);
    for element in elements {
        let offset = xml::number(*element, "byteoffset")?;
        let size = *sizes.0.get(element.attribute("type")?)?;
        // The largest alignment of a type of this size: 8, 4, 2 or 1.
        let alignment = [8, 4, 2].into_iter().find(|step| size % step == 0).unwrap_or(1);
        if offset >= end.saturating_add(alignment) {
            return Some("the export leaves out some of its members");
        }
        if offset < previous {
            return Some("its members are not in the order of their offsets");
        }
        previous = offset;
        end = offset.saturating_add(size);
    }
    None
}

fn enumeration(node: Node<'_, '_>) -> TypeBody {
    let base = node.attribute("basetype").map(|base| base.trim_start_matches("T_"));
    let by_size = || match xml::number(node, "size") {
        Some(1) => IecType::Usint,
        Some(4) => IecType::Dint,
        Some(8) => IecType::Lint,
        _ => IecType::Int,
    };
    let base = base.and_then(|base| base.parse().ok()).unwrap_or_else(by_size);
    let value = |element: Node<'_, '_>| {
        let name = ["iecname", "name"].into_iter().find_map(|key| element.attribute(key))?;
        let number = ["enumvalue", "value", "initialvalue", "init"];
        let number = number.into_iter().find_map(|key| element.attribute(key));
        Some((name.to_owned(), number.and_then(st::parse_expression)))
    };
    let values = node.children().filter(Node::is_element).filter_map(value).collect();
    TypeBody::Enumeration(EnumerationBody { base, values })
}
