//! Answers, cut anywhere: what passes, what is read of it, and what is held back.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tidepool_proxy::fuzzing::stream(input));
