//! What stores and backups keep, beside what the chain itself has.

use std::fs;
use std::path::Path;

use groundtackle_backup::fuzzing::payload;
use groundtackle_backup_utxo::delta::Delta;
use groundtackle_backup_utxo::journal::fuzzing::files;
use groundtackle_chain::{ChainBlock, Txid};
use groundtackle_utxo_store::pending::CellKey;
use groundtackle_utxo_store::pending::fuzzing::cells;
use groundtackle_utxo_store::{MinedIn, Record, RecordOutput, SpentBy, TxOut};

use crate::{fuzz, save};

pub(crate) fn save_cells(blocks: &[ChainBlock]) {
    let mut bodies = Vec::new();
    for block in blocks {
        for (number, bytes) in cells(block).into_iter().enumerate() {
            let name = format!("{}-kind-{}-{number}", block.height, bytes[0]);
            save("cell", name, &bytes);
            if bytes[0] == 0 {
                bodies.push(bytes[1..].to_vec());
            }
        }
    }
    let txid = blocks[0].transactions[0].txid;
    let keys = [
        CellKey::Page { txid, page: 0 },
        CellKey::Chain,
        CellKey::Undo(blocks[0].hash),
        CellKey::Intent(2),
    ];
    let records = groundtackle_utxo_store_aerospike::fuzzing::records(&keys, &bodies);
    for bytes in records {
        save("aerospike_record", format!("{}-bytes", bytes.len()), &bytes);
    }
    for tx in blocks.iter().flat_map(|block| &block.transactions) {
        let spent_by = SpentBy {
            txid: Txid::from_bytes([1; 32]),
            vin: 1,
        };
        let output = |(vout, output): (u32, &TxOut)| RecordOutput {
            vout: vout * 7,
            output: output.clone(),
            spent_by: (vout % 2 == 0).then_some(spent_by),
            frozen: vout % 3 == 1,
            spendable_from: (vout % 3 == 2).then_some(9),
        };
        let mined = MinedIn {
            block: Some(blocks[0].hash),
            height: blocks[0].height,
            subtree_index: 0,
            on_longest_chain: true,
        };
        let record = Record {
            txid: tx.txid,
            coinbase: tx.coinbase,
            fee_sat: (!tx.coinbase).then_some(1),
            size_bytes: tx.size_bytes,
            lock_time: tx.lock_time,
            inputs: tx.inputs.clone(),
            outputs: (0..).zip(&tx.outputs).map(output).collect(),
            mined_in: vec![mined],
            unmined_since: (!tx.coinbase).then_some(7),
            locked: false,
            conflicting: false,
            conflicting_children: vec![Txid::from_bytes([2; 32])],
            preserve_until: None,
        };
        for bytes in groundtackle_utxo_store_redis::fuzzing::values(&record) {
            let name = format!("kind-{}-{}-bytes", bytes[0], bytes.len());
            save("redis_value", name, &bytes);
        }
    }
}

pub(crate) fn save_journal(delta: &Delta) {
    for (number, bytes) in files(delta).into_iter().enumerate() {
        save("journal", format!("file-{number}"), &bytes);
    }
}

/// What is signed in the repositories that the second reader's tests read, and what else the engine signs.
pub(crate) fn save_objects() {
    let golden = fuzz().join("../crates/adapters/groundtackle-backup-unpack/tests/golden");
    let save_object = |name: String, object: &str, path: &Path| {
        let bytes = fs::read(path).unwrap();
        let payload = payload(object, &bytes);
        save("backup_object", &name, &payload);
        let kind = u8::from(object == "repository.json");
        save("second_reader", &name, &[&[kind], &payload[1..]].concat());
        bytes
    };
    for repository in ["chain", "branches", "tree"] {
        let at = golden.join(repository);
        let descriptor = at.join("repository.json");
        let name = format!("{repository}-descriptor");
        let bytes = save_object(name, "repository.json", &descriptor);
        save(
            "backup_object",
            format!("{repository}-envelope"),
            &[&[0], &bytes[..]].concat(),
        );
        let mut points: Vec<_> = fs::read_dir(at.join("points"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        points.sort();
        for (number, path) in points.iter().enumerate().take(3) {
            save_object(format!("{repository}-{number}"), "points/", path);
        }
    }
    let [zeros, ones] = ["0", "1"].map(|digit| digit.repeat(32));
    let digest = "2".repeat(64);
    let named =
        format!(r#""format":1,"repository":"{zeros}","point":"{ones}","created_unix_millis":7"#);
    let drill = format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"points/7","digest":{{"sha256":"{digest}"}}}}],"predicateType":"https://github.com/groundtackle/groundtackle/restore-drill/v1","predicate":{{"id":"{zeros}","repository":"{ones}","network":"main","stream":"utxo","level":"replay","share":null,"choice":"latest","scheduled":true,"started_unix_millis":1,"finished_unix_millis":2,"place":null,"chosen":null,"restored":null,"checked":{{"packs":1,"bytes":2,"segments":3}},"proofs":[{{"what":"tip","found":"7"}}],"measured":{{"recovery_millis":1,"recovery_point_age_millis":2,"recovery_point_blocks":null}},"objectives":{{"recovery_time":"4h","recovery_point_age":null,"recovery_point_blocks":6}},"outcome":"passed","reasons":[],"tool":"groundtackle 0.1.0"}}}}"#
    );
    let key = r#"{"scheme":"age","recipients":["age1q"],"blob":"00ff"}"#;
    let place = r#"{"pack":0,"offset":0,"bytes":9,"ordinal":0}"#;
    let index = format!(
        r#"[{{"info":{{"codec":"coins.1","items":3,"first":"00","last":"ff","heights":null}},"place":{place},"blake3":"{digest}"}},{{"info":{{"codec":"deltas.1","items":3,"first":"","last":"","heights":[1,2]}},"place":{place},"blake3":"{digest}"}}]"#
    );
    let lease = format!(
        r#"{{"format":1,"repository":"{zeros}","id":"{ones}","token":7,"holder":"host","renewed":1,"lasts_millis":60000}}"#
    );
    let wrapping = format!(r#"{{{named},"id":"{zeros}","wrapped_unix_millis":8,"key":{key}}}"#);
    for (kind, name, json) in [
        (2, "drill", drill),
        (4, "tombstone", format!("{{{named}}}")),
        (5, "wrapping", wrapping),
        (6, "lease", lease),
        (7, "index", index),
        (8, "segment", "some bytes".into()),
    ] {
        save("backup_object", name, &[&[kind], json.as_bytes()].concat());
    }
    for (name, path) in [
        ("plain", "a/b"),
        ("dots", "a/../b"),
        ("root", "/a"),
        ("none", ""),
        ("dot", "."),
    ] {
        save(
            "second_reader",
            format!("path-{name}"),
            &[&[3], path.as_bytes()].concat(),
        );
    }
    for entry in fs::read_dir(fuzz().join("corpus/segment")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|ending| ending == "seed")
            && !name.starts_with("regression")
        {
            let bytes = fs::read(&path).unwrap();
            save(
                "second_reader",
                format!("segment-{name}"),
                &[&[2], &bytes[..]].concat(),
            );
        }
    }
    save_server_manifest();
}

/// In the form in which PostgreSQL writes it.
fn save_server_manifest() {
    let came = "PG_VERSION\t3\t744468068\npg_wal/0000000100000000000000FF\t16777216\t7\npg_wal/000000010000000100000000\t16777216\t7\npg_wal/000000010000000100000001\t16777216\t7\n\n";
    let file = r#"{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64b25f2c" }"#;
    let manifest = |files: &str| {
        format!(
            "{came}{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"0/FF000028\", \"End-LSN\": \"1/1000100\" }}\n],\n\"Manifest-Checksum\": \"00\"}}\n"
        )
    };
    save("server_manifest", "whole", manifest(file).as_bytes());
    let twice = format!("more\t0\t0\n{}", manifest(&format!("{file},\n{file}")));
    save("server_manifest", "refused-twice", twice.as_bytes());
    let encoded = file.replace(
        "\"Path\": \"PG_VERSION\"",
        "\"Encoded-Path\": \"50475f56455253494f4e\"",
    );
    save("server_manifest", "encoded", manifest(&encoded).as_bytes());
}
