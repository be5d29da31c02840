//! Two prompts as a client sends them: normalised, compared by the guard, split into word pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::prompts(data));
