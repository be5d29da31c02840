//! The body of a request to an OpenAI endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::request_openai(data));
