#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dynochat_fuzz::checks::entry(bytes));
