//! The body of an Anthropic reply, as one document or as events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::gather_anthropic(data));
