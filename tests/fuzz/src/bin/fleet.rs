//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer fleet`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::fleet(bytes));
