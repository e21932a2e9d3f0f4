//! PLCopenXML as CODESYS and Machine Expert export it (PLCopen TC6 XML 2.01).

use std::collections::{BTreeMap, BTreeSet};

use roxmltree::Node;

use super::declaration::{
    Declarations, DeclaredAccess, DeclaredVariable, EnumerationBody, MemberDeclaration,
    StructureBody, TypeBody, TypeDefinition, TypeExpression,
};
use super::expression::Expression;
use super::source::{ImportFile, SourceText};
use super::st;
use super::xml;
use crate::plc::IecType;

/// Deepest nesting of types.
const MAX_DEPTH: usize = 16;

/// Reads types, constants and variables.
pub(super) fn read(root: Node<'_, '_>, source: &SourceText, declarations: &mut Declarations) {
    for node in root.descendants().filter(|node| xml::is_named(*node, "dataType")) {
        if let Some(name) = node.attribute("name") {
            declarations.add_type(name, type_definition(node, name));
        }
    }
    for node in root.descendants().filter(|node| xml::is_named(*node, "pou")) {
        read_program(node, source, declarations);
    }
    let mut lists = VariableLists::new(root);
    for node in root.descendants().filter(|node| xml::is_named(*node, "globalVars")) {
        // The second copy of a list with mixed attributes.
        if !is_in(node, "MixedAttrsVarList") {
            lists.read(node, node.attribute("name"), source, declarations);
        }
    }
}

/// Reads the variables of a program. Each instance of a function block has variables of its own.
fn read_program(node: Node<'_, '_>, source: &SourceText, declarations: &mut Declarations) {
    let Some(name) = node.attribute("name") else { return };
    if node.attribute("pouType") != Some("program") {
        let what = format!("{name} is a function block, whose layout is not documented");
        let body = TypeBody::Alias(TypeExpression::Unsupported(what));
        let definition = TypeDefinition { name: name.to_owned(), body, stated_size: None };
        return declarations.add_type(name, definition);
    }
    let Some(interface) = xml::child(node, "interface") else { return };
    let mut lists = VariableLists::default();
    let is_kept = |list: &Node<'_, '_>| {
        ["localVars", "inputVars", "outputVars"].iter().any(|name| xml::is_named(*list, name))
    };
    for list in interface.children().filter(is_kept) {
        lists.read(list, Some(name), source, declarations);
    }
}

/// What the parts of a list say about its variables.
#[derive(Debug, Default)]
struct VariableLists {
    /// Lists and names, in lower case, of constants in lists with mixed attributes.
    constants: BTreeSet<(String, String)>,
}

impl VariableLists {
    /// Notes which variables of lists with mixed attributes are constants: such a list is written
    /// twice, and the first copy does not say so.
    fn new(root: Node<'_, '_>) -> Self {
        let mut lists = Self::default();
        let mixed = root.descendants().filter(|node| xml::is_named(*node, "MixedAttrsVarList"));
        for list in mixed.flat_map(|node| xml::children(node, "globalVars")) {
            if !is_constant(list) {
                continue;
            }
            let scope = list.attribute("name").unwrap_or_default().to_lowercase();
            let names = xml::children(list, "variable").filter_map(|node| node.attribute("name"));
            lists.constants.extend(names.map(|name| (scope.clone(), name.to_lowercase())));
        }
        lists
    }

    fn read(
        &mut self,
        list: Node<'_, '_>,
        scope: Option<&str>,
        source: &SourceText,
        declarations: &mut Declarations,
    ) {
        let addresses = addresses_in_text(list);
        let key = scope.unwrap_or_default().to_lowercase();
        for node in xml::children(list, "variable") {
            let Some(name) = node.attribute("name") else { continue };
            let at = node.attribute("address").map(|at| at.trim().to_ascii_uppercase());
            let at = at.filter(|at| !at.is_empty());
            let at = at.or_else(|| addresses.get(&name.to_lowercase()).cloned());
            let is_mixed = self.constants.contains(&(key.clone(), name.to_lowercase()));
            if is_constant(list) || is_mixed {
                let value = xml::child(node, "initialValue")
                    .and_then(|value| xml::child(value, "simpleValue"))
                    .and_then(|value| st::parse_expression(value.attribute("value")?));
                if let Some(value) = value {
                    declarations.add_constant(scope, name, &value);
                }
                if at.is_none() {
                    continue;
                }
            }
            declarations.variables.push(DeclaredVariable {
                scope: scope.map(ToOwned::to_owned),
                name: name.to_owned(),
                at,
                declared: xml::child(node, "type").map_or_else(unknown, |node| type_in(node, 0)),
                comment: xml::comment(node, "documentation"),
                access: DeclaredAccess::Unknown,
                place: source.place(node.range().start),
            });
        }
    }
}

fn is_constant(list: Node<'_, '_>) -> bool {
    list.attribute("constant") == Some("true")
}

fn is_in(node: Node<'_, '_>, name: &str) -> bool {
    node.ancestors().any(|ancestor| xml::is_named(ancestor, name))
}

/// Returns the addresses, by name in lower case, in the declaration that an export may contain as
/// text as well. Some versions leave out the attribute `address`.
fn addresses_in_text(list: Node<'_, '_>) -> BTreeMap<String, String> {
    let data = xml::children(list, "addData").flat_map(|data| xml::children(data, "data"));
    let Some(text) = data.filter_map(|data| xml::child(data, "InterfaceAsPlainText")).next() else {
        return BTreeMap::new();
    };
    let text = xml::text_of(text);
    if !text.contains('%') {
        return BTreeMap::new();
    }
    let file = ImportFile { path: "declaration.st".into(), bytes: text.into_bytes() };
    let inner = SourceText::decode(0, &file);
    let mut declarations = Declarations::default();
    st::read_list(&inner, 0..inner.text.len(), None, &mut declarations);
    let located = declarations.variables.into_iter();
    located.filter_map(|variable| Some((variable.name.to_lowercase(), variable.at?))).collect()
}

fn unknown() -> TypeExpression {
    TypeExpression::Unsupported("the export does not state its type".to_owned())
}

fn type_definition(node: Node<'_, '_>, name: &str) -> TypeDefinition {
    let declared = xml::child(node, "baseType").map_or_else(unknown, |base| type_in(base, 0));
    let mut body = declared.into_body();
    if let TypeBody::Structure(structure) = &mut body {
        for attribute in node.descendants().filter(|node| xml::is_named(*node, "Attribute")) {
            let key = attribute.attribute("Name").unwrap_or_default();
            if key.eq_ignore_ascii_case("pack_mode") {
                structure.set_pack_mode(attribute.attribute("Value").unwrap_or_default());
            }
        }
        // CODESYS writes what a structure extends into its additional data.
        let extends = |node: &Node<'_, '_>| {
            let name = node.attribute("name").unwrap_or_default().to_ascii_lowercase();
            xml::is_named(*node, "data") && name.contains("extend")
        };
        if node.descendants().any(|node| extends(&node)) {
            structure.unknown_layout = Some("it extends another structure");
        }
    }
    TypeDefinition { name: name.to_owned(), body, stated_size: None }
}

/// Returns the type in a `<type>` or `<baseType>` element.
fn type_in(node: Node<'_, '_>, depth: usize) -> TypeExpression {
    let Some(node) = node.children().find(Node::is_element) else { return unknown() };
    if depth == MAX_DEPTH {
        return TypeExpression::Unsupported("its types are nested too deeply".to_owned());
    }
    let base =
        || xml::child(node, "baseType").map_or_else(unknown, |base| type_in(base, depth + 1));
    let name = node.tag_name().name();
    match name.to_ascii_lowercase().as_str() {
        "derived" => node.attribute("name").map_or_else(unknown, derived),
        "array" => array_type(node, base()),
        "string" => text_type(node, "STRING"),
        "wstring" => text_type(node, "WSTRING"),
        "pointer" => TypeExpression::Pointer("pointer"),
        "reference" => TypeExpression::Pointer("reference"),
        "subrangesigned" | "subrangeunsigned" => base(),
        "struct" => {
            let members = members(node, depth);
            inline(TypeBody::Structure(StructureBody { members, ..StructureBody::default() }))
        }
        "union" => inline(TypeBody::Union(members(node, depth))),
        "enum" => inline(enumeration(node, depth)),
        "bit" => TypeExpression::Bit,
        "date" | "dt" | "tod" | "time" => elementary(name),
        _ => elementary(name),
    }
}

fn inline(body: TypeBody) -> TypeExpression {
    TypeExpression::Inline(Box::new(body))
}

/// Returns the type with a name, which may be written as in a declaration.
fn derived(name: &str) -> TypeExpression {
    st::parse_type(name).unwrap_or_else(|| TypeExpression::Named(name.to_owned()))
}

fn elementary(name: &str) -> TypeExpression {
    match name.parse::<IecType>() {
        Ok(iec) => TypeExpression::Elementary(iec),
        Err(_) => TypeExpression::Unsupported(format!("the type {name} has no value for Modbus")),
    }
}

fn array_type(node: Node<'_, '_>, element: TypeExpression) -> TypeExpression {
    let bound =
        |node: Node<'_, '_>, name: &str| node.attribute(name).and_then(st::parse_expression);
    let dims: Option<Vec<_>> = xml::children(node, "dimension")
        .map(|dim| Some([bound(dim, "lower")?, bound(dim, "upper")?]))
        .collect();
    match dims.filter(|dims| !dims.is_empty()) {
        Some(dims) => TypeExpression::Array(dims, Box::new(element)),
        None => {
            TypeExpression::Unsupported("the export does not state the bounds of it".to_owned())
        }
    }
}

fn text_type(node: Node<'_, '_>, keyword: &str) -> TypeExpression {
    let length = node.attribute("length").map(|length| format!("{keyword}({length})"));
    st::parse_type(length.as_deref().unwrap_or(keyword)).unwrap_or_else(unknown)
}

fn members(node: Node<'_, '_>, depth: usize) -> Vec<MemberDeclaration> {
    let member = |node: Node<'_, '_>| MemberDeclaration {
        name: node.attribute("name").unwrap_or_default().to_owned(),
        declared: xml::child(node, "type").map_or_else(unknown, |node| type_in(node, depth + 1)),
        comment: xml::comment(node, "documentation"),
    };
    xml::children(node, "variable").map(member).collect()
}

fn enumeration(node: Node<'_, '_>, depth: usize) -> TypeBody {
    let base = xml::child(node, "baseType").map(|base| type_in(base, depth + 1));
    let base = match base {
        Some(TypeExpression::Elementary(iec)) => iec,
        _ => IecType::Int,
    };
    let values = xml::child(node, "values").into_iter().flat_map(|values| {
        xml::children(values, "value").filter_map(|value| {
            let number: Option<Expression> =
                value.attribute("value").and_then(st::parse_expression);
            Some((value.attribute("name")?.to_owned(), number))
        })
    });
    TypeBody::Enumeration(EnumerationBody { base, values: values.collect() })
}
