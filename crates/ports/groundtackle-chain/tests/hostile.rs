//! Bytes that nobody vouches for: decoding ends, without panic, and what decodes is consistent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use std::sync::LazyLock;

use groundtackle_chain::decode::{Reader, read_transaction, write_compact_size};
use groundtackle_chain::hash::{from_hex, to_hex};
use groundtackle_chain::undo::undo_records;
use groundtackle_chain::{
    BlockHeader, BlockUndo, DecodeError, Network, decode_block, decode_transaction,
};
use proptest::prelude::*;
use proptest::sample::Index;

// Blocks with payments, with witnesses among them.
static BLOCKS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut blocks = common::first_blocks();
    blocks.drain(..170);
    blocks.truncate(80);
    blocks
});

// The first transactions of a block with witnesses, each by itself.
static TRANSACTIONS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let block = common::read("full-blocks/702861.raw");
    let mut reader = Reader::new(&block[83..]);
    (0..300)
        .map(|_| {
            let before = reader.rest();
            let transaction = read_transaction(&mut reader).unwrap();
            before[..usize::try_from(transaction.size_bytes).unwrap()].to_vec()
        })
        .collect()
});

#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = prop_oneof![
        Just(vec![0xff; 9]),
        Just(vec![0xfd, 0, 0]),
        prop::collection::vec(any::<u8>(), 0..10),
    ];
    prop::collection::vec(
        prop_oneof![
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
            (any::<Index>(), bytes).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (any::<Index>(), 1..50_usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        ],
        0..4,
    )
}

fn edited(original: &[u8], edits: Vec<Edit>) -> Vec<u8> {
    let mut bytes = original.to_vec();
    for edit in edits {
        match edit {
            Edit::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Edit::Insert(at, inserted) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, inserted);
            }
            Edit::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..(at + count).min(bytes.len() - 1).max(at));
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_block(&bytes, &Default::default());
        let _ = undo_records(&bytes, Network::Main).count();
        if let Ok(undo) = BlockUndo::decode(&bytes) {
            prop_assert!(BlockUndo::decode(&undo.encode().unwrap()) == Ok(undo));
        }
        if let Ok(transaction) = decode_transaction(&bytes) {
            prop_assert_eq!(transaction.size_bytes, bytes.len() as u64);
        }
        prop_assert_eq!(from_hex(&to_hex(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn edited_blocks(index: Index, edits in edits()) {
        let original = &BLOCKS[index.index(BLOCKS.len())];
        let bytes = edited(original, edits);
        if let Ok(block) = decode_block(&bytes, &Default::default()) {
            // The merkle root covers all but the header's other fields.
            prop_assert_eq!(&bytes[80..], &original[80..]);
            prop_assert_eq!(block.hash, common::hash(&bytes));
        }
    }

    #[test]
    fn edited_transactions(index: Index, edits in edits()) {
        let original = &TRANSACTIONS[index.index(TRANSACTIONS.len())];
        let bytes = edited(original, edits);
        if let Ok(transaction) = decode_transaction(&bytes) {
            prop_assert_eq!(transaction.size_bytes, bytes.len() as u64);
            #[cfg(feature = "bitcoin")]
            {
                let theirs: bitcoin::Transaction = bitcoin::consensus::deserialize(&bytes).unwrap();
                prop_assert_eq!(transaction.txid, theirs.compute_txid().into());
            }
        }
    }

    #[test]
    fn headers_come_back(bytes: [u8; 32], more: [u8; 32], last: [u8; 16]) {
        let bytes: [u8; 80] = [&bytes[..], &more, &last].concat().try_into().unwrap();
        prop_assert_eq!(BlockHeader::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn compact_sizes_come_back(value: u64, bits in 0..64_u32) {
        let mut bytes = Vec::new();
        write_compact_size(&mut bytes, value >> bits);
        prop_assert_eq!(Reader::new(&bytes).compact_size(), Ok(value >> bits));
        for end in 0..bytes.len() {
            let read = Reader::new(&bytes[..end]).compact_size();
            let truncated = matches!(read, Err(DecodeError::Truncated { .. }));
            prop_assert!(truncated);
        }
    }

    #[test]
    fn each_compact_size_has_one_form(bytes in prop::collection::vec(any::<u8>(), 0..10)) {
        let mut reader = Reader::new(&bytes);
        if let Ok(value) = reader.compact_size() {
            let mut again = Vec::new();
            write_compact_size(&mut again, value);
            prop_assert_eq!(&again, &bytes[..reader.position()]);
        }
    }
}
