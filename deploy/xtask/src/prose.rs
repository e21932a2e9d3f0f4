//! Checks of the Markdown pages: links and anchors, words that need a second reading, long lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::workspace;

/// Pages outside docs/; those that are missing are skipped.
const ROOT_PAGES: [&str; 6] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "RELEASING.md",
    "SECURITY.md",
];

/// Pages that a test writes; their lines are as long as what they quote.
const GENERATED_PAGES: [&str; 3] = ["docs/commands.md", "docs/configuration.md", "docs/metrics.md"];

const MAX_COLUMNS: usize = 100;

/// Words that hide a number or the subject, or that are not the term of the field.
const BANNED_WORDS: &[&str] = &[
    "anew", "beside", "give up", "given up", "gives up", "hangs up", "nobody", "so long",
    "so many", "so much", "somebody", "told", "wants", "whatever", "whoever",
];

/// A page as checked: path below the workspace, and text.
#[derive(Debug)]
struct Page {
    path: String,
    text: String,
}

/// Fails with every finding in every page.
pub(crate) fn check() -> Result<()> {
    let pages = read_pages()?;
    let known: BTreeSet<&str> = pages.iter().map(|page| page.path.as_str()).collect();
    let mut findings = Vec::new();
    for page in &pages {
        findings.extend(long_lines(page));
        findings.extend(banned_words(page));
        findings.extend(broken_links(page, &pages));
    }
    findings.extend(pages_without_place(&pages, &known));
    if !findings.is_empty() {
        bail!("{} findings in the documents:\n{}", findings.len(), findings.join("\n"));
    }
    Ok(())
}

fn read_pages() -> Result<Vec<Page>> {
    let mut paths = markdown_files(&workspace().join("docs"))?;
    paths.extend(ROOT_PAGES.map(|page| workspace().join(page)).into_iter().filter(|p| p.exists()));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let path = path.strip_prefix(workspace())?.display().to_string();
        Ok(Page { path, text })
    };
    paths.into_iter().map(read).collect()
}

fn markdown_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(markdown_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Lines with their numbers from 1, without those of code blocks.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

/// A line that a link makes long cannot be broken, nor can a row of a table.
fn long_lines(page: &Page) -> Vec<String> {
    if GENERATED_PAGES.contains(&page.path.as_str()) {
        return Vec::new();
    }
    let is_long = |line: &str| {
        line.chars().count() > MAX_COLUMNS && !line.starts_with('|') && !line.contains("](")
    };
    let lines = prose_lines(&page.text).filter(|(_, line)| is_long(line));
    lines.map(|(number, _)| format!("{}:{number}: over {MAX_COLUMNS} columns", page.path)).collect()
}

fn banned_words(page: &Page) -> Vec<String> {
    let mut findings = Vec::new();
    for (number, line) in prose_lines(&page.text) {
        // With a space for all that is no letter, a word ends where it ends.
        let words: String = without_targets(&without_code(line))
            .to_lowercase()
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { ' ' })
            .collect();
        let words = format!(" {} ", words.split_whitespace().collect::<Vec<_>>().join(" "));
        let found = BANNED_WORDS.iter().filter(|word| words.contains(&format!(" {word} ")));
        findings.extend(found.map(|word| format!("{}:{number}: \"{word}\"", page.path)));
    }
    findings
}

/// Inline code is quoted, not written.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// The target of a link is a name.
fn without_targets(line: &str) -> String {
    let mut parts = line.split("](");
    let text = parts.next().unwrap_or_default().to_owned();
    parts.fold(text, |text, part| text + " " + part.split_once(')').map_or("", |(_, rest)| rest))
}

fn broken_links(page: &Page, pages: &[Page]) -> Vec<String> {
    let prose: String =
        prose_lines(&page.text).map(|(_, line)| format!("{}\n", without_code(line))).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let mut findings = Vec::new();
    for (target, _) in targets {
        if let Some(problem) = link_problem(page, target, pages) {
            findings.push(format!("{}: link to \"{target}\": {problem}", page.path));
        }
    }
    findings
}

fn link_problem(page: &Page, target: &str, pages: &[Page]) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    if target.is_empty() {
        // The summary names the place of a page that does not exist yet.
        return (page.path != "docs/SUMMARY.md").then_some("it is empty");
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
    let Some(linked) = pages.iter().find(|page| page.path == path) else {
        let is_file = workspace().join(&path).exists();
        return if !is_file {
            Some("there is no such file")
        } else {
            (!anchor.is_empty()).then_some("only pages have anchors")
        };
    };
    let is_known = anchor.is_empty() || anchors(&linked.text).contains(anchor);
    (!is_known).then_some("that page has no such heading")
}

/// The path below the workspace of a link in a page.
fn resolve(page: &str, link: &str) -> String {
    let joined = Path::new(page).parent().unwrap_or_else(|| Path::new("")).join(link);
    let mut parts = Vec::new();
    for part in joined.components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    parts.join("/")
}

/// Anchors of the headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in prose_lines(text).filter(|(_, line)| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = (0..).map(|n| if n == 0 { anchor.clone() } else { format!("{anchor}-{n}") });
        found.extend(count.skip_while(|name| found.contains(name)).take(1).collect::<Vec<_>>());
    }
    found
}

/// Every page of docs/ is in the summary, or mdBook would leave it out.
fn pages_without_place(pages: &[Page], known: &BTreeSet<&str>) -> Vec<String> {
    let summary = pages.iter().find(|page| page.path == "docs/SUMMARY.md");
    let summary = summary.map_or("", |page| page.text.as_str());
    let has_place = |path: &&&str| {
        path.strip_prefix("docs/")
            .is_none_or(|name| name == "SUMMARY.md" || summary.contains(&format!("]({name})")))
    };
    let missing = known.iter().filter(|path| !has_place(path));
    missing.map(|path| format!("{path}: docs/SUMMARY.md does not name it")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "docs/plc/page.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn code_blocks_tables_and_links_may_be_long() {
        let long = "x".repeat(101);
        let text = format!("```sh\n{long}\n```\n| {long} |\n[a]({long})\n{long}\n");
        assert_eq!(long_lines(&page(&text)), ["docs/plc/page.md:6: over 100 columns"]);
    }

    #[test]
    fn banned_words_are_found_whole_and_outside_code() {
        let text = "Besides, untold.\n`so many`, [a](told.md)\nIt is So\u{20}Many, nobody.\n";
        assert_eq!(
            banned_words(&page(text)),
            ["docs/plc/page.md:3: \"nobody\"", "docs/plc/page.md:3: \"so many\""]
        );
    }

    #[test]
    fn links_lead_to_files_and_headings() {
        let other = Page {
            path: "docs/other.md".to_owned(),
            text: "# One: `two`, 3\n## Again\n## Again\n".to_owned(),
        };
        let anchors = anchors(&other.text);
        let expected = ["again", "again-1", "one-two-3"].map(str::to_owned);
        assert_eq!(anchors, BTreeSet::from(expected));
        let here = page("# Here\n[a](#here) [b](https://x.y/#z) `[c](d)`\n[e](#there) [f](g.md)\n");
        let findings = broken_links(&here, &[page("# Here\n"), other]);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn a_link_is_resolved_from_its_page() {
        assert_eq!(resolve("docs/plc/page.md", "../messages.md"), "docs/messages.md");
        assert_eq!(resolve("README.md", "docs/start.md"), "docs/start.md");
    }

    #[test]
    fn a_page_without_a_place_in_the_summary_is_found() {
        let summary = Page { path: "docs/SUMMARY.md".to_owned(), text: "[a](plc/a.md)".to_owned() };
        let pages = [summary, page("# Lost\n")];
        let known = ["docs/SUMMARY.md", "docs/plc/a.md", "docs/plc/page.md", "README.md"];
        let found = pages_without_place(&pages, &BTreeSet::from(known));
        assert_eq!(found, ["docs/plc/page.md: docs/SUMMARY.md does not name it"]);
    }
}
