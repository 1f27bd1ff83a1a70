#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| groundtackle_utxo_store_redis::fuzzing::value(bytes));
