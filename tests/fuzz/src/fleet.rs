use std::env;
use std::fs;
use std::process;

use provisioning::config::{self, FileCheck};
use provisioning::office::fleet::Fleet;

/// Line between the files in an input.
const SEPARATOR: &[u8] = b"\n===\n";

/// `fleet.toml`, a template and a site: what is taken is rendered to a `gateway.toml` that the
/// gateway takes, what is not is explained.
pub fn fleet(bytes: &[u8]) {
    let dir = env::temp_dir().join(format!("edge-fuzz-fleet-{}", process::id()));
    for name in ["sites", "templates"] {
        fs::create_dir_all(dir.join(name)).expect("the temporary directory is writable");
    }
    let mut rest = bytes;
    for name in ["fleet.toml", "templates/pump.toml", "sites/plant-7.toml"] {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (text, next) = rest.split_at(end.unwrap_or(rest.len()));
        fs::write(dir.join(name), text).expect("the temporary directory is writable");
        rest = next.get(SEPARATOR.len()..).unwrap_or_default();
    }
    match Fleet::check(&dir) {
        Ok(fleet) => {
            for site in fleet.sites() {
                let files = fleet.site_files(site).expect("it was checked");
                let file = files.iter().find(|file| file.name == "gateway.toml");
                let path = dir.join("gateway.toml");
                fs::write(&path, &file.expect("every site has it").content).expect("writable");
                config::inspect(&path, FileCheck::Skip).expect("it was checked");
            }
        }
        Err(rejected) => {
            assert!(!rejected.files.is_empty() && !rejected.to_string().is_empty());
        }
    }
    fs::remove_dir_all(&dir).expect("the test owns it");
}
