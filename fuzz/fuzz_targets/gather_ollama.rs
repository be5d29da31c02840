//! The body of an Ollama reply, as one document or as lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::gather_ollama(data));
