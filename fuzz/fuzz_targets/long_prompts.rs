//! Two long prompts, made by repeating two short ones: what takes more than linear time, times out.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::long_prompts(data));
