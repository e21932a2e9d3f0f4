//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer command`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::command(bytes));
