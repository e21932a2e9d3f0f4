//! The pages as a reader meets them: files to write, commands to type, in their order.

use std::fs;
use std::path::{Path, PathBuf};

/// A page of the book, or the README.
#[derive(Debug)]
pub(crate) struct Page {
    /// Path below the workspace.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// What a code block asks of the reader.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Block {
    /// A file with this text: its first line is a comment with the path.
    File { path: String, text: String },
    /// A part of a gateway.toml.
    Fragment(String),
    /// Commands, one a line.
    Commands(Vec<Line>),
    /// JSON that is shown, one value or several.
    Json(String),
}

/// A command and what its comment says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) command: String,
    pub(crate) comment: String,
}

impl Line {
    /// Whether the reader leaves it running and opens another terminal.
    pub(crate) fn keeps_running(&self) -> bool {
        self.comment.contains("keeps running")
    }
}

/// Every page that has examples.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = Vec::new();
    markdown_files(&workspace().join("docs"), &mut paths);
    paths.push(workspace().join("README.md"));
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

/// One page, by its path below the workspace.
pub(crate) fn page(path: &str) -> Page {
    read(&workspace().join(path))
}

fn read(path: &Path) -> Page {
    let text = fs::read_to_string(path).expect("the page is there");
    let path = path.strip_prefix(workspace()).expect("a page of the workspace");
    Page { path: path.display().to_string(), text }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in it").to_owned()
}

fn markdown_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("docs/ is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            markdown_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Page {
    /// Its code blocks.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        blocks(&self.text)
    }

    /// The blocks of the section under this heading.
    pub(crate) fn section(&self, heading: &str) -> Vec<Block> {
        let start = format!("\n## {heading}\n");
        let (_, rest) = self.text.split_once(&start).expect("the section is there");
        blocks(rest.split_once("\n## ").map_or(rest, |(section, _)| section))
    }

    /// Every command of the page.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let lines = |block| match block {
            Block::Commands(lines) => lines,
            Block::File { .. } | Block::Fragment(_) | Block::Json(_) => Vec::new(),
        };
        self.blocks().into_iter().flat_map(lines).collect()
    }
}

fn blocks(text: &str) -> Vec<Block> {
    text.split("```").skip(1).step_by(2).filter_map(block).collect()
}

fn block(fenced: &str) -> Option<Block> {
    let (language, text) = fenced.split_once('\n')?;
    let path = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("# "))
        .filter(|path| path.contains(['.', '/']) && !path.contains(' '));
    match (language, path) {
        ("sh", _) => Some(Block::Commands(text.lines().filter_map(line).collect())),
        ("toml fragment", _) => Some(Block::Fragment(text.to_owned())),
        ("json", _) => Some(Block::Json(text.to_owned())),
        (_, Some(path)) => Some(Block::File { path: path.to_owned(), text: text.to_owned() }),
        // Without a path there is nothing that could be tried.
        ("toml" | "yaml", None) => panic!("this block names no file:\n{text}"),
        _ => None,
    }
}

fn line(line: &str) -> Option<Line> {
    let (command, comment) = line.split_once(" # ").unwrap_or((line, ""));
    let command = command.trim().to_owned();
    (!command.is_empty()).then(|| Line { command, comment: comment.to_owned() })
}
