//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz --features libfuzzer wg_quick`
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::wg_quick(bytes));
