//! The body of a request to an Ollama endpoint.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::request_ollama(data));
