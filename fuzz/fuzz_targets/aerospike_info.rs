#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    groundtackle_health_check_aerospike::fuzzing::aerospike_info(bytes)
});
