use std::collections::BTreeSet;
use std::{env, fs, process};

use provisioning::config;
use provisioning::office::import::{Import, ImportFile, TagFile, import};

/// The symbol configuration of Machine Expert: what becomes a tag is a tag for the gateway too.
pub fn import_symbols(bytes: &[u8]) {
    check("symbols.xml", bytes);
}

/// Declarations in Structured Text.
pub fn import_st(bytes: &[u8]) {
    check("list.gvl", bytes);
}

/// PLCopenXML.
pub fn import_plcopen(bytes: &[u8]) {
    check("plcopen.xml", bytes);
}

/// A project of Machine Expert - Basic.
pub fn import_smbp(bytes: &[u8]) {
    check("project.smbp", bytes);
}

/// A table in CSV.
pub fn import_csv(bytes: &[u8]) {
    check("table.csv", bytes);
}

fn check(path: &str, bytes: &[u8]) {
    let file = ImportFile { path: path.into(), bytes: bytes.to_vec() };
    match import(&[file], None) {
        Ok(import) => check_import(path, &import),
        Err(rejected) => {
            assert!(!rejected.problems.is_empty() && !rejected.to_string().is_empty());
        }
    }
}

fn check_import(target: &str, import: &Import) {
    let names: BTreeSet<_> = import.tags.iter().map(|tag| tag.name.to_lowercase()).collect();
    assert_eq!(names.len(), import.tags.len(), "{import}");
    assert!(!import.to_string().is_empty() && import.to_json().is_object());
    if import.tags.is_empty() {
        return;
    }
    let tags = import.to_toml();
    let mut written = TagFile::parse("tags.toml".as_ref(), &tags, None).expect("it is TOML");
    // An import applied to its own result changes nothing.
    assert_eq!(written.update(import).expect("they are sections"), []);
    assert_eq!(written.to_string(), tags);
    let text = format!(
        "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://127.0.0.1\"]\n[[plc]]\nname = \"p\"\n\
         model = \"{}\"\naddress = \"127.0.0.1\"\n{tags}",
        import.model
    );
    let path = env::temp_dir().join(format!("edge-fuzz-{target}-{}.toml", process::id()));
    fs::write(&path, text).expect("the temporary directory is writable");
    let loaded = config::load(&path).unwrap_or_else(|rejected| panic!("{rejected}"));
    assert_eq!(loaded.config.plcs.iter().map(|plc| plc.tags.len()).sum::<usize>(), names.len());
    fs::remove_file(&path).expect("the test owns it");
}
