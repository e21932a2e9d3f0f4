//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer import_st`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::import_st(bytes));
