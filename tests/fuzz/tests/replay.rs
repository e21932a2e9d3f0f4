//! Whatever the fuzzer has found worth keeping, and whatever ever found a fault, is read again.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "test code stops on the spot and says where"
)]

use std::fs;
use std::path::Path;

/// Reads every file of a target's corpus.
fn replay(target: &str, read: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = fs::read_dir(&dir).expect("every target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it is readable").path()).collect();
    assert!(!paths.is_empty(), "{target} has none");
    paths.sort();
    for path in paths {
        let bytes = fs::read(&path).expect("it is readable");
        // The harness shows this when the input fails.
        println!("{}", path.display());
        read(&bytes);
    }
}

#[test]
fn the_corpus_of_bundle_holds() {
    replay("bundle", fuzz::bundle);
}

#[test]
fn the_corpus_of_codec_holds() {
    replay("codec", fuzz::codec);
}

#[test]
fn the_corpus_of_command_holds() {
    replay("command", fuzz::command);
}

#[test]
fn the_corpus_of_config_holds() {
    replay("config", fuzz::config);
}

#[test]
fn the_corpus_of_datagrams_holds() {
    replay("datagrams", fuzz::datagrams);
}

#[test]
fn the_corpus_of_fleet_holds() {
    replay("fleet", fuzz::fleet);
}

#[test]
fn the_corpus_of_packets_holds() {
    replay("packets", fuzz::packets);
}

#[test]
fn the_corpus_of_queue_holds() {
    replay("queue", fuzz::queue);
}

#[test]
fn the_corpus_of_site_status_holds() {
    replay("site_status", fuzz::site_status);
}

#[test]
fn the_corpus_of_wg_quick_holds() {
    replay("wg_quick", fuzz::wg_quick);
}

#[test]
fn the_corpus_of_import_symbols_holds() {
    replay("import_symbols", fuzz::import_symbols);
}

#[test]
fn the_corpus_of_import_st_holds() {
    replay("import_st", fuzz::import_st);
}

#[test]
fn the_corpus_of_import_plcopen_holds() {
    replay("import_plcopen", fuzz::import_plcopen);
}

#[test]
fn the_corpus_of_import_smbp_holds() {
    replay("import_smbp", fuzz::import_smbp);
}

#[test]
fn the_corpus_of_import_csv_holds() {
    replay("import_csv", fuzz::import_csv);
}
