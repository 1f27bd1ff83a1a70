//! For the fuzz target and the corpus test: what must hold of any bytes that are taken for a value.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::fmt::Debug;

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{BlockUndo, Undo};
use groundtackle_utxo_store::{BlockHash, Record, Tip, Txid};

use crate::record::{
    Token, chunk_of, cut, pack_body, pack_chain, pack_chunk, pack_main, pack_undo, unpack_body,
    unpack_chain, unpack_chunk, unpack_main, unpack_undo,
};

const MAIN: u8 = 0;
const BODY: u8 = 1;
const CHUNK: u8 = 2;
const UNDO: u8 = 3;
const CHAIN: u8 = 4;

const TOKEN: Token = [7; 8];

/// Takes a byte that says what the bytes after it are. What is read comes back from what is written, it is that of no other
/// record, and a body counts out no more chunks than there can be.
pub fn value(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let (txid, block) = (Txid::ZERO, BlockHash::ZERO);
    let (other, another) = (Txid::from_bytes([1; 32]), BlockHash::from_bytes([1; 32]));
    match *kind {
        MAIN => {
            again(
                bytes,
                |b| unpack_main(txid, b).ok(),
                |main| pack_main(main.token, &main.head, main.body.as_ref(), &main.outputs),
            );
            assert!(unpack_main(txid, bytes).is_err() || unpack_main(other, bytes).is_err());
        }
        BODY => {
            let read = |b: &[u8]| unpack_body(txid, b).ok();
            again(bytes, read, |body| pack_body(TOKEN, txid, body));
            if let Some(body) = read(bytes) {
                let last = body.ranges.iter().map(|(_, last)| *last).max();
                assert!(last.is_none_or(|last| last <= chunk_of(u32::MAX)));
            }
            assert!(unpack_body(txid, bytes).is_err() || unpack_body(other, bytes).is_err());
        }
        CHUNK => {
            let read = |b: &[u8]| unpack_chunk(txid, b).ok();
            again(bytes, read, |(token, outputs)| {
                pack_chunk(*token, txid, outputs)
            });
            assert!(unpack_chunk(txid, bytes).is_err() || unpack_chunk(other, bytes).is_err());
        }
        UNDO => {
            let read = |b: &[u8]| unpack_undo(&block, b).ok();
            again(bytes, read, |(token, undo)| pack_undo(*token, &block, undo));
            assert!(unpack_undo(&block, bytes).is_err() || unpack_undo(&another, bytes).is_err());
        }
        CHAIN => {
            let read = |b: &[u8]| {
                let (token, tip, muhash) = unpack_chain(b).ok()?;
                Some((token, tip, muhash.to_bytes()))
            };
            again(bytes, read, |(token, tip, muhash)| {
                let muhash = MuHash3072::from_bytes(muhash).unwrap();
                pack_chain(*token, tip.as_ref(), &muhash)
            });
        }
        _ => {}
    }
}

fn again<T: PartialEq + Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
) {
    if let Some(value) = read(bytes) {
        assert_eq!(read(&write(&value)), Some(value));
    }
}

/// The values of a record, as [`value`] takes them.
pub fn values(record: &Record) -> Vec<Vec<u8>> {
    let mut record = record.clone();
    record.txid = Txid::ZERO;
    let tip = Tip {
        height: 170,
        hash: BlockHash::ZERO,
        median_time_past: 1,
    };
    let undo = BlockUndo {
        height: tip.height,
        previous: Some(tip),
        transactions: vec![
            (record.txid, Undo::Created),
            (
                record.txid,
                Undo::Existed {
                    unmined_since: record.unmined_since,
                    entry: record.mined_in.first().copied(),
                    fee_sat: record.fee_sat,
                },
            ),
        ],
        replaced_coinbase: Some(Box::new(record.clone())),
    };
    let cut = cut(TOKEN, &record);
    let chunks = cut.chunks.into_iter().map(|(_, chunk)| (CHUNK, chunk));
    let all = [
        (MAIN, cut.main),
        (UNDO, pack_undo(TOKEN, &BlockHash::ZERO, &undo)),
        (CHAIN, pack_chain(TOKEN, Some(&tip), &MuHash3072::new())),
    ];
    all.into_iter()
        .chain(cut.body.map(|body| (BODY, body)))
        .chain(chunks)
        .map(|(kind, bytes)| [vec![kind], bytes].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/redis_value");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            value(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
