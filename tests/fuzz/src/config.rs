use std::env;
use std::fs;
use std::process;

use provisioning::{config, plan};

/// A `gateway.toml`: what is taken can be planned, what is not is explained.
pub fn config(bytes: &[u8]) {
    let path = env::temp_dir().join(format!("edge-fuzz-{}.toml", process::id()));
    fs::write(&path, bytes).expect("the temporary directory is writable");
    match config::load(&path) {
        Ok(loaded) => {
            assert_eq!(loaded.notes.is_empty(), loaded.notes.to_string().is_empty());
            for plc in &loaded.config.plcs {
                assert!(!plan::plan(plc).classes.is_empty());
            }
        }
        Err(rejected) => {
            assert!(!rejected.problems.is_empty() && !rejected.to_string().is_empty());
        }
    }
    fs::remove_file(&path).expect("the test owns it");
}
