//! Server-sent events and lines of JSON, cut anywhere.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::streams(data));
