//! A record of the embedded store, with a valid seal and without.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::disk_record(data));
