//! A pattern of models' names, and a name.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::patterns(data));
