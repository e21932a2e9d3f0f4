//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer bundle`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::bundle(bytes));
