//! The body of a request to Anthropic's endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::request_anthropic(data));
