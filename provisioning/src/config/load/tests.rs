//! A split file and the same file as a whole give the same result.

use std::fs;

use fastrand::Rng;

use super::*;

/// Returns the whole result for a file: configuration, hash, settings, notes, or all problems.
fn outcome(split: Option<&SplitDocument<'_>>, text: &str) -> String {
    let path = Path::new("gateway.toml");
    let read =
        read_split(split, path, text, Purpose::Run, EnvVariables::default(), Some(Vec::new()));
    match read {
        Ok(CheckedFile { config, hash, settings, notes }) => {
            format!("{config:?} {hash} {settings:?} {notes:?}")
        }
        Err(rejected) => format!("{rejected:?}"),
    }
}

/// Compares both results; returns whether the file could be split.
fn split_and_compare(text: &str) -> bool {
    let Some(split) = SplitDocument::split(text) else { return false };
    assert_eq!(outcome(Some(&split), text), outcome(None, text), "{text}");
    true
}

fn corpus() -> Vec<String> {
    let files = ["tests/good", "tests/broken", "tests/noted"].map(|dir| fs::read_dir(dir).unwrap());
    let paths = files.into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some()).collect();
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[test]
fn a_split_file_gives_the_result_of_the_whole_file() {
    let split_count = corpus().iter().filter(|text| split_and_compare(text)).count();
    assert!(split_count >= 40, "{split_count} files were split");
}

#[test]
fn a_split_file_of_shuffled_lines_gives_the_result_of_the_whole_file() {
    let corpus = corpus();
    let mut lines: Vec<&str> = corpus.iter().flat_map(|text| text.lines()).collect();
    lines.extend([
        "[[plc]]",
        "[plc]",
        "[ plc.publish ]",
        "plc = []",
        "x = \"\"\"",
        "\"\"\"",
        "y = [",
        "]",
    ]);
    let mut random = Rng::with_seed(11);
    let mut split_count = 0;
    for _ in 0..3_000 {
        let mut text: Vec<&str> = random.choice(&corpus).unwrap().lines().collect();
        for _ in 0..random.u8(1..4) {
            let from = random.usize(0..=text.len());
            let to = (from + random.usize(0..8)).min(text.len());
            let moved: Vec<_> = text.drain(from..to).collect();
            let at = random.usize(0..=text.len());
            text.splice(at..at, moved);
            let at = random.usize(0..=text.len());
            text.insert(at, random.choice(&lines).unwrap());
        }
        split_count += usize::from(split_and_compare(&text.join("\n")));
    }
    assert!(split_count > 500, "{split_count} files were split");
}

#[test]
fn headers_inside_a_string_or_an_array_do_not_split_the_file() {
    let text = "[a]\nx = \"\"\"\n[[plc]]\nname = \"p\"\n[b]\ny = \"\"\"\n";
    assert!(SplitDocument::split(text).is_none());
    let text = "[a]\nx = [\n[1],\n[[plc]]\n]\n";
    assert!(SplitDocument::split(text).is_none());
}

#[test]
fn sections_between_and_after_the_plcs_are_read() {
    let text = "[[plc]]\nname = \"p\"\n[mqtt]\nqos = 9\n[[plc]]\n[plc.publish]\n[queue]\n";
    assert!(split_and_compare(text));
    assert!(SplitDocument::split("[[plc]]\n[mqtt]\n[[plc.tag]]\n").is_none());
}
