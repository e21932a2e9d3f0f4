//! The commands of a page of the book.

use std::fs;
use std::path::Path;

/// Returns the lines of the code blocks that begin with "```sh PLACE", in their order.
///
/// # Panics
/// When the page, which is a path below the workspace, has none.
#[must_use]
pub fn commands_of_page(page: &str, place: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
    let text = fs::read_to_string(path).expect("the page is there");
    let head = format!("sh {place}\n");
    let blocks = text.split("```").skip(1).step_by(2);
    let lines = blocks.filter_map(|block| block.strip_prefix(&head)).flat_map(str::lines);
    let commands: Vec<_> = lines.map(str::to_owned).collect();
    assert!(!commands.is_empty(), "{page} has no block for {place}");
    commands
}
