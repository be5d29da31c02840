//! The body of an OpenAI reply, as one document or as events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::gather_openai(data));
