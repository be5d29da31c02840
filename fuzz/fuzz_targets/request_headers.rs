//! Headers, one a line as `name: value`: `Cache-Control`, `X-Rejoinder-…`, `traceparent`, and all that is taken out.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rejoinder::fuzzing::request_headers(data));
