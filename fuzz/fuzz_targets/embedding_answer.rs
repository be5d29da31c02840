//! The answer of a remote embedder.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::embedding_answer(data));
