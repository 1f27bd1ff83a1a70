#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| groundtackle_fuzz::ledger(bytes));
