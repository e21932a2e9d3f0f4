//! Any file is accepted or explained: reading and explaining never panic.
#![expect(clippy::unwrap_used, reason = "test code may stop on the spot")]

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use provisioning::config;

/// Loads a file with these contents and renders the result.
fn load_and_render(name: &str, contents: &[u8]) {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, contents).unwrap();
    match config::load(&path) {
        Ok(loaded) => assert!(!loaded.config.plcs.is_empty()),
        Err(rejected) => {
            assert!(!rejected.problems.is_empty());
            assert!(rejected.to_string().contains("problem"));
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_accepted_or_explained(
        cut in any::<prop::sample::Index>(),
        length in 0_usize..40,
        instead in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            "[\\[\\]{}=\",.'#%\\\\ \n\r0-9a-zÄ€😀-]{0,20}".prop_map(String::into_bytes),
        ],
    ) {
        let mut contents = fs::read("tests/good/every_key.toml").unwrap();
        let start = cut.index(contents.len());
        let end = (start + length).min(contents.len());
        contents.splice(start..end, instead);
        load_and_render("damaged.toml", &contents);
    }

    #[test]
    fn any_value_of_any_key_is_accepted_or_explained(
        line in any::<prop::sample::Index>(),
        value in prop_oneof![
            "\"[^\"\\\\\\p{Cc}]{0,12}\"",
            "-?[0-9]{1,25}(\\.[0-9]{1,5})?",
            Just("true".to_owned()),
            Just("[]".to_owned()),
            Just("[[1], {a = 2}]".to_owned()),
            Just("{ a = { b = 1 } }".to_owned()),
            Just("2020-06-24T10:01:44Z".to_owned()),
            Just("inf".to_owned()),
            Just("\"\"\"\nmany\nlines\n\"\"\"".to_owned()),
        ],
    ) {
        let contents = fs::read_to_string("tests/good/every_key.toml").unwrap();
        let mut lines: Vec<_> = contents.lines().map(str::to_owned).collect();
        let index = line.index(lines.len());
        if let Some((key, _)) = lines[index].split_once('=') {
            lines[index] = format!("{key}= {value}");
        }
        load_and_render("other_value.toml", lines.join("\n").as_bytes());
    }
}

#[test]
fn an_endless_file_is_rejected() {
    let rejected = config::load("/dev/zero".as_ref()).unwrap_err();
    assert!(rejected.to_string().contains("a pipe, a device or a socket"), "{rejected}");
    // Sparse: it takes no space on the disk.
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("endless.toml");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let rejected = config::load(&path).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert!(rejected.to_string().contains("larger than 16 MiB"), "{rejected}");
}

#[test]
fn all_problems_are_counted_and_the_first_200_are_shown() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("thousand.toml");
    fs::write(&path, "a = 1\n".repeat(1001)).unwrap();
    let rejected = config::load(&path).unwrap_err();
    assert_eq!(rejected.problems.len(), 1000);
    assert!(rejected.to_string().ends_with("1000 problems; the first 200 are shown"));
}

#[test]
fn a_file_with_byte_order_mark_and_crlf_is_read() {
    let text = "[gateway]\nid = \"g\"\n[mqtt]\nbrokers = [\"mqtt://h\"]\n[[plc]]\nname = \"p\"\n\
                model = \"M241\"\naddress = \"h\"\n[[plc.tag]]\nname = \"t\"\nat = \"%MW1\"\n\
                type = \"INT\"\n";
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("windows.toml");
    fs::write(&path, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    assert_eq!(config::load(&path).unwrap().config.gateway.id, "g");
}
