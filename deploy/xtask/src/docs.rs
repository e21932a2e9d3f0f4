//! `cargo xtask docs`: builds the book of docs/ with a pinned mdBook, into target/book.

use anyhow::Result;

use crate::run::{cargo, command, output_of, run, step, target_dir, workspace};

const MDBOOK_VERSION: &str = "0.5.4";

/// Installs mdBook below target/ when it is missing, and builds the book.
pub(crate) fn docs() -> Result<()> {
    let home = target_dir().join("mdbook");
    let program = home.join("bin/mdbook").display().to_string();
    let book = target_dir().join("book");
    if !is_pinned(&program) {
        step("mdBook, which takes minutes", || install(&home.display().to_string()))?;
    }
    let source = workspace().join("docs");
    step("book", || run(command(&program, &["build"]).arg(source).arg("--dest-dir").arg(&book)))?;
    println!("{}", book.join("index.html").display());
    Ok(())
}

fn is_pinned(program: &str) -> bool {
    let version = output_of(&mut command(program, &["--version"])).unwrap_or_default();
    version.trim().trim_start_matches("mdbook v") == MDBOOK_VERSION
}

fn install(home: &str) -> Result<()> {
    let arguments = ["install", "--quiet", "--locked", "--version", MDBOOK_VERSION];
    // Without its web server, which would double the time of the build.
    let features = ["--no-default-features", "--features", "search"];
    let mut install = cargo(&[&arguments[..], &features, &["--root", home, "mdbook"]].concat());
    // A directory of its own, so that neither build discards the other's work.
    run(install.env("CARGO_TARGET_DIR", target_dir().join("tools")))
}
