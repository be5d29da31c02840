//! The fields of an entry in Redis, with a valid seal and without.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::redis_record(data));
