#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xos_fuzz::grid_mapfile(data));
