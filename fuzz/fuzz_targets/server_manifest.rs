#![no_main]

libfuzzer_sys::fuzz_target!(
    |bytes: &[u8]| groundtackle_backup_postgres::fuzzing::server_manifest(bytes)
);
