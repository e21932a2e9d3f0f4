//! A page in Chromium, driven through playwright-core.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

use serde_json::{Value, json};

use crate::{NodeRed, Process};

/// A page. Dropping it ends the browser.
#[derive(Debug)]
pub struct BrowserPage {
    process: Process,
    steps: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl BrowserPage {
    /// Opens a page.
    #[must_use]
    pub fn open(url: &str) -> Self {
        let script = NodeRed::home().join("browser.js");
        let mut process = Process::start(Command::new("node").arg(script).arg(url));
        let (steps, answers) = (process.stdin(), BufReader::new(process.stdout()));
        Self { process, steps, answers }
    }

    /// Waits until an element has a text that matches a pattern of JavaScript.
    pub fn see(&mut self, element: &str, pattern: &str) {
        self.follow(&json!({ "in": element, "see": pattern }));
    }

    /// Types a text into an input, and Enter.
    pub fn enter(&mut self, element: &str, text: &str) {
        self.follow(&json!({ "in": element, "type": text }));
    }

    /// Writes a picture of the page to a PNG file.
    pub fn picture(&mut self, path: &Path) {
        self.follow(&json!({ "picture": path.display().to_string() }));
    }

    fn follow(&mut self, step: &Value) {
        writeln!(self.steps, "{step}").expect("the browser runs");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the browser answers");
        let answer: Value = serde_json::from_str(&answer)
            .unwrap_or_else(|error| panic!("{error}: {}", self.process.log().text()));
        if let Some(error) = answer["error"].as_str() {
            panic!("{step}: {error}");
        }
    }
}
