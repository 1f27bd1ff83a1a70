//! For the fuzz target and the corpus test: what must hold of any bytes that are taken for what lies in a cell.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::fmt::Debug;

use groundtackle_chain::{ChainBlock, Txid};

use super::cells::{Body, CellKey, Guard, Page, Phase, Slot, Stored};
use super::codec::{
    Head, pack_body, pack_chain, pack_contents, pack_head, pack_intent, pack_txids, pack_undo,
    unpack_body, unpack_chain, unpack_contents, unpack_head, unpack_intent, unpack_txids,
    unpack_undo,
};
use super::intent::{Contents, Intent, IntentState};
use super::page_of;
use crate::digest::MuHash3072;
use crate::draft::ops::new_record;
use crate::draft::{BlockUndo, Undo};
use crate::types::{Tip, UnspendableRule};

const BACKEND: &str = "a fuzzer";

const BODY: u8 = 0;
const KEY: u8 = 1;
const HEAD: u8 = 2;
const UNDO: u8 = 3;
const CHAIN: u8 = 4;
const TXIDS: u8 = 5;
const CONTENTS: u8 = 6;
const INTENT: u8 = 7;

/// Takes a byte that says what the bytes after it are. What is read comes back from what is written; a byte more or less is
/// refused; a key has one form.
pub fn cell(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match *kind {
        BODY => again(bytes, |b| unpack_body(BACKEND, b).ok(), pack_body),
        KEY => {
            again(bytes, CellKey::from_bytes, CellKey::to_bytes);
            if let Some(key) = CellKey::from_bytes(bytes) {
                assert_eq!(key.to_bytes(), bytes);
            }
        }
        HEAD => {
            let read = |b: &[u8]| unpack_head(BACKEND, Txid::ZERO, b).ok();
            again(bytes, read, pack_head);
            let other = Txid::from_bytes([1; 32]);
            assert!(read(bytes).is_none() || unpack_head(BACKEND, other, bytes).is_err());
        }
        UNDO => again(bytes, |b| unpack_undo(BACKEND, b).ok(), pack_undo),
        CHAIN => {
            let read = |b: &[u8]| {
                let (tip, muhash) = unpack_chain(BACKEND, b).ok()?;
                Some((tip, muhash.to_bytes()))
            };
            again(bytes, read, |(tip, muhash)| {
                pack_chain(tip.as_ref(), &MuHash3072::from_bytes(muhash).unwrap())
            });
        }
        TXIDS => {
            let read = |b: &[u8]| unpack_txids(BACKEND, b).ok();
            again(bytes, read, |txids| pack_txids(txids));
        }
        CONTENTS => again(bytes, |b| unpack_contents(BACKEND, b).ok(), pack_contents),
        INTENT => again(bytes, |b| unpack_intent(BACKEND, b).ok(), pack_intent),
        _ => {}
    }
}

fn again<T: PartialEq + Debug>(
    bytes: &[u8],
    read: impl Fn(&[u8]) -> Option<T>,
    write: impl Fn(&T) -> Vec<u8>,
) {
    let Some(value) = read(bytes) else {
        return;
    };
    let written = write(&value);
    assert_eq!(read(&written), Some(value));
    for whole in [bytes, &written] {
        let (_, cut) = whole.split_last().unwrap();
        assert_eq!(read(cut), None);
        assert_eq!(read(&[whole, &[0]].concat()), None);
    }
}

/// What cells hold of a block, as [`cell`] takes it.
pub fn cells(block: &ChainBlock) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut add = |kind: u8, bytes: Vec<u8>| all.push([vec![kind], bytes].concat());
    let mut keys = vec![CellKey::Chain, CellKey::Undo(block.hash)];
    for tx in &block.transactions {
        let mut record = new_record(UnspendableRule::Core, tx);
        let slot = |output: &crate::RecordOutput| Slot {
            value_sat: output.output.value_sat,
            script: Stored::Here(output.output.script.as_bytes().to_vec()),
            mark: None,
            frozen: output.vout % 2 == 1,
            spendable_from: (output.vout % 3 == 1).then_some(block.height),
        };
        let outputs = record.outputs.iter();
        let slots = outputs
            .filter(|output| page_of(output.vout) == 0)
            .map(|output| (output.vout, slot(output)));
        let page = Page {
            attempt: 1,
            phase: Phase::Live,
            guard: Guard {
                coinbase: tx.coinbase,
                height: Some(block.height),
                ..Guard::default()
            },
            unmined_since: (!tx.coinbase).then_some(block.height),
            head: Some(Stored::Apart { id: 7, len: 300 }),
            slots: slots.collect(),
        };
        add(BODY, pack_body(&Body::Page(page)));
        keys.push(CellKey::Page {
            txid: tx.txid,
            page: 0,
        });
        record.outputs.clear();
        record.txid = Txid::ZERO;
        let pages = vec![1, 4];
        add(HEAD, pack_head(&Head { record, pages }));
    }
    let height = block.height;
    keys.extend([
        CellKey::Due { height, id: 1 },
        CellKey::Intent(2),
        CellKey::Part { id: 3, part: 4 },
    ]);
    keys.iter().for_each(|key| add(KEY, key.to_bytes()));
    let txids: Vec<_> = block.transactions.iter().map(|tx| tx.txid).collect();
    let bytes = Body::Bytes {
        due: Some(height),
        bytes: Stored::Here(pack_txids(&txids)),
    };
    add(BODY, pack_body(&bytes));
    add(TXIDS, pack_txids(&txids));
    let existed = Undo::Existed {
        unmined_since: Some(height),
        entry: None,
        fee_sat: Some(1),
    };
    let tip = Tip {
        height,
        hash: block.hash,
        median_time_past: 1,
    };
    let undo = BlockUndo {
        height,
        previous: Some(tip),
        transactions: txids
            .iter()
            .map(|txid| (*txid, Undo::Created))
            .chain([(Txid::ZERO, existed)])
            .collect(),
        replaced_coinbase: block
            .transactions
            .first()
            .map(|tx| Box::new(new_record(UnspendableRule::Core, tx))),
    };
    add(UNDO, pack_undo(&undo));
    add(CHAIN, pack_chain(Some(&tip), &MuHash3072::new()));
    let contents = Contents {
        keys,
        dropped: vec![(1, 2)],
        new: vec![(3, 4)],
        old: Vec::new(),
    };
    add(CONTENTS, pack_contents(&contents));
    let contents = Stored::Here(pack_contents(&contents));
    let state = IntentState::Committed;
    add(INTENT, pack_intent(&Intent { state, contents }));
    all
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/cell");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            cell(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
