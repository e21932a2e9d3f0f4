//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer site_status`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::site_status(bytes));
