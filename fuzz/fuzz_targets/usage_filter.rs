//! A stream out of which usage is taken, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::usage_filter(data));
