#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xos_fuzz::jsdl(data));
