//! `[prices]`, and the name of a model.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::prices(data));
