#![no_main]

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| groundtackle_health_check_json_rpc::fuzzing::rpc_answer(bytes)
);
