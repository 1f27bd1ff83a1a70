//! What must hold of any bytes. The fuzz targets and the corpus test call the same checks.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
#![allow(unreachable_pub)]

use std::collections::BTreeMap;
use std::fs;

use groundtackle_health_check::{
    Check, Error, FileLedger, HealthConfig, LedgerEntry, LedgerStorage, Name, Observation,
};

#[derive(Debug)]
struct Passes;

#[async_trait::async_trait]
impl Check for Passes {
    async fn check(&self) -> Observation {
        Observation::pass()
    }
}

/// What a probe may be.
type Probe = BTreeMap<String, serde_json::Value>;

/// A config: it is refused with a line and a problem of one line, or all of it can be put together.
pub fn health_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let config = match HealthConfig::<Probe>::from_toml("health.toml", text) {
        Ok(config) => config,
        Err(Error::Config {
            file,
            line,
            problem,
            ..
        }) => {
            assert_eq!(file, "health.toml");
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(!problem.is_empty() && !problem.contains('\n'));
            return;
        }
        Err(other) => panic!("{other}"),
    };
    for check in &config.checks {
        let name = Name::try_from(check.name.as_str()).unwrap();
        assert_eq!(name, check.name);
    }
    let made = config.into_builder(|_| Passes).build();
    assert!(made.is_ok(), "{:?}", made.err());
}

/// A ledger's file, as it is after a byte of 0, and with a checksum that fits otherwise: it is refused, or its entries come back
/// from a file that is written anew, and what was unfinished at its end is gone.
pub fn ledger(bytes: &[u8]) {
    let Some((how, bytes)) = bytes.split_first() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let mut file = bytes.to_vec();
    if *how != 0 {
        file = b"GTHLDG\x00\x01".to_vec();
        for payload in bytes.chunks(usize::from(*how) * 8) {
            file.extend((payload.len() as u32).to_le_bytes());
            file.extend(crc32fast::hash(payload).to_le_bytes());
            file.extend(payload);
        }
    }
    fs::write(&path, &file).unwrap();
    let Ok(ledger) = FileLedger::open(&path) else {
        assert_eq!(fs::read(&path).unwrap(), file);
        return;
    };
    let whole = fs::read(&path).unwrap();
    assert!(file.starts_with(&whole));
    let entries = entries(&ledger);
    ledger.append(&entries).unwrap();
    let twice = [&entries[..], &entries].concat();
    assert_eq!(self::entries(&ledger), twice);
    ledger.replace(&entries).unwrap();
    drop(ledger);
    let again = FileLedger::open(&path).unwrap();
    assert_eq!(self::entries(&again), entries);
}

fn entries(ledger: &FileLedger) -> Vec<LedgerEntry> {
    let mut entries = Vec::new();
    ledger.load(&mut |entry| entries.push(entry)).unwrap();
    entries
}
