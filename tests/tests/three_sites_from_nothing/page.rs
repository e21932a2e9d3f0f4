//! The page of the book whose commands are typed here.

use std::fs;
use std::path::Path;

/// The page, below the workspace.
pub(crate) const PAGE: &str = "docs/fleet/first-sites.md";

/// What a code block asks of the operator.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Lines for a shell.
    Type { at: Place, lines: String },
    /// A file with this text.
    Save { at: Place, path: String, text: String },
}

/// Where it is typed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    Office,
    Hub,
    /// At each box.
    Box,
}

/// Returns the steps of the sections under the headings that begin with these numbers.
///
/// # Panics
/// When a code block names no machine.
pub(crate) fn steps(sections: std::ops::RangeInclusive<u32>) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE);
    let text = fs::read_to_string(path).expect("the page is there");
    let numbered = text.split("\n## ").skip(1).filter(|section| {
        let number = section.split('.').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number| sections.contains(&number))
    });
    numbered.flat_map(|section| section.split("```").skip(1).step_by(2)).map(step).collect()
}

fn step(fenced: &str) -> Step {
    let (head, text) = fenced.split_once('\n').expect("a block has lines");
    let (language, place) = head.split_once(' ').expect("a block names its machine");
    let at = match place {
        "office" => Place::Office,
        "hub" => Place::Hub,
        "box" => Place::Box,
        other => panic!("there is no machine {other}"),
    };
    if language == "sh" {
        return Step::Type { at, lines: text.to_owned() };
    }
    let first = text.lines().next().and_then(|line| line.strip_prefix("# "));
    let path = first.expect("the first line names the file").to_owned();
    Step::Save { at, path, text: text.to_owned() }
}
