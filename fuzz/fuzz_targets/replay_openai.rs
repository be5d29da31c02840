//! A stored document of an OpenAI endpoint, replayed in every form.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::replay_openai(data));
