//! A body under each content coding.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::content_coding(data));
