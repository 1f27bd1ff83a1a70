#![no_main]

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| groundtackle_health_check_redis::fuzzing::redis_info(bytes)
);
