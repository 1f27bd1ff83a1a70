//! For the fuzz target and the corpus test: what must hold of any bins that a server may say a record has.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::collections::BTreeMap;

use aerospike::{Bin, IndexMap, Value};
use groundtackle_utxo_store::pending::{Body, Cell, CellKey, Lock, Next, unpack_body};

use crate::record::{
    ATTEMPT, BYTES, DUE, FLAGS, HEAD, HEIGHT, KEY, LOCK, OUTPUTS, SLOTS, STAMP, UNFINISHED,
    UNMINED, UNMINED_SINCE, bins, cell_of_bins,
};

const NAMES: [&str; 14] = [
    KEY,
    STAMP,
    LOCK,
    ATTEMPT,
    UNFINISHED,
    FLAGS,
    HEIGHT,
    UNMINED,
    UNMINED_SINCE,
    HEAD,
    OUTPUTS,
    SLOTS,
    BYTES,
    DUE,
];

const NIL: u8 = 0;
const INT: u8 = 1;
const BLOB: u8 = 2;
const LIST: u8 = 3;

/// Takes bins: the number of a name, the kind of a value, its length and its bytes. What is read as a cell comes back from the
/// bins that are written for it.
pub fn record(mut bytes: &[u8]) {
    let mut found = IndexMap::new();
    while let Some((name, value)) = bin(&mut bytes) {
        found.insert(name, value);
    }
    let Some(Value::Blob(key)) = found.get(KEY) else {
        return;
    };
    let Some(key) = CellKey::from_bytes(key) else {
        return;
    };
    let Ok(cell) = cell_of_bins(&key, &found) else {
        return;
    };
    let written = bins(&key, &cell);
    let written = written.into_iter().map(|bin| (bin.name, bin.value));
    let again = cell_of_bins(&key, &written.collect()).unwrap();
    assert_eq!(again, cell);
    let other = CellKey::Intent(u64::MAX);
    assert!(key == other || cell_of_bins(&other, &found).is_err());
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (found, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(found)
}

fn bin(bytes: &mut &[u8]) -> Option<(String, Value)> {
    let ([name, kind], rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    let name = NAMES.get(usize::from(*name) % NAMES.len())?;
    let mut content = take(bytes)?;
    let value = match *kind {
        NIL => Value::Nil,
        INT => Value::Int(i64::from_be_bytes(content.try_into().ok()?)),
        BLOB => Value::Blob(content.into()),
        LIST => {
            let mut items = Vec::new();
            while let Some(item) = take(&mut content) {
                items.push(Value::Blob(item.into()));
            }
            Value::List(items)
        }
        _ => Value::String(String::from_utf8_lossy(content).into()),
    };
    Some(((*name).into(), value))
}

/// Records as [`record`] takes them, of keys and of packed bodies as the store's port writes them.
pub fn records(keys: &[CellKey], bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut all = BTreeMap::new();
    for (stamp, body) in (1..).zip(bodies) {
        let body = unpack_body("a seed", body).unwrap();
        let page = matches!(body, Body::Page(_));
        for key in keys {
            if matches!(key, CellKey::Page { .. }) != page {
                continue;
            }
            for next in [None, Some(Next::Delete), Some(Next::Put(body.clone()))] {
                let lock = next.map(|next| Lock { intent: 9, next });
                let cell = Cell {
                    stamp,
                    lock,
                    body: Some(body.clone()),
                };
                let bytes: Vec<u8> = bins(key, &cell).iter().flat_map(encoded).collect();
                all.insert(bytes.len(), bytes);
            }
        }
    }
    all.into_values().collect()
}

fn encoded(bin: &Bin) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let name = NAMES.iter().position(|name| *name == bin.name).unwrap();
    let (kind, content) = match &bin.value {
        Value::Int(number) => (INT, number.to_be_bytes().to_vec()),
        Value::Blob(bytes) => (BLOB, bytes.clone()),
        Value::List(items) => {
            let item = |item: &Value| match item {
                Value::Blob(bytes) => sized(bytes),
                _ => Vec::new(),
            };
            (LIST, items.iter().flat_map(item).collect())
        }
        _ => (NIL, Vec::new()),
    };
    [vec![name as u8, kind], sized(&content)].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/aerospike_record");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            record(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
