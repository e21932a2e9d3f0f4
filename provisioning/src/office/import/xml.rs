//! Access to the elements of an XML file by their local names, in any namespace.

use roxmltree::{Document, Node, ParsingOptions};

use super::declaration::tidy_comment;
use super::source::SourceText;
use crate::diagnostics::RejectedFile;

/// Most nodes of a file: a symbol configuration of 100,000 variables has a million.
const MAX_NODES: u32 = 8_000_000;

/// Parses the file. A document type definition is an error, so no entity can be expanded.
pub(super) fn parse(source: &SourceText) -> Result<Document<'_>, RejectedFile> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    Document::parse_with_options(&source.text, options).map_err(|error| {
        let position = error.pos();
        let line = usize::try_from(position.row).unwrap_or(usize::MAX);
        let column = usize::try_from(position.col).unwrap_or(usize::MAX);
        let at = source.line_start(line).saturating_add(column.saturating_sub(1));
        let message = format!("this is not well-formed XML: {error}");
        source.reject_at(at, message, "export the file again; it may have been cut short")
    })
}

/// Returns the child elements with this local name.
pub(super) fn children<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| is_named(*child, name))
}

/// Returns the first child element with this local name.
pub(super) fn child<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

pub(super) fn is_named(node: Node<'_, '_>, name: &str) -> bool {
    node.is_element() && node.tag_name().name().eq_ignore_ascii_case(name)
}

/// Returns the text of the first child element with this name, without the spaces around it.
pub(super) fn child_text(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    let text = text_of(child(node, name)?);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns all text within an element.
pub(super) fn text_of(node: Node<'_, '_>) -> String {
    node.descendants().filter(Node::is_text).filter_map(|text| text.text()).collect()
}

/// Returns the comment in the first child element with this name.
pub(super) fn comment(node: Node<'_, '_>, name: &'static str) -> Option<String> {
    tidy_comment(&text_of(child(node, name)?))
}

/// Returns the number in an attribute.
pub(super) fn number(node: Node<'_, '_>, attribute: &str) -> Option<u64> {
    node.attribute(attribute)?.trim().parse().ok()
}
