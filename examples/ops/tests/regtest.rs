//! Chains that no public network has: reorganisations, and blocks that a store refuses.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use groundtackle_chain::hash::sha256d;
use groundtackle_chain::{BlockHash, Network, Txid};
use serde_json::json;
use support::{Place, blocks, write_blocks};

const BITS: u32 = 0x207f_ffff;
const ANYONE_CAN_SPEND: u8 = 0x51;

/// A transaction of one input and one output.
fn transaction(previous: [u8; 32], vout: u32, script: &[u8], value_sat: u64) -> Vec<u8> {
    [
        &1_u32.to_le_bytes()[..],
        &[1],
        &previous,
        &vout.to_le_bytes(),
        &[u8::try_from(script.len()).unwrap()],
        script,
        &u32::MAX.to_le_bytes(),
        &[1],
        &value_sat.to_le_bytes(),
        &[1, ANYONE_CAN_SPEND],
        &0_u32.to_le_bytes(),
    ]
    .concat()
}

/// A block of a coinbase that `tag` makes unique, and at most one more transaction.
fn mine(previous: &[u8], tag: u8, spend: Option<&Vec<u8>>) -> Vec<u8> {
    let time = u32::from_le_bytes(previous[68..72].try_into().unwrap()) + 600;
    let coinbase = transaction(
        [0; 32],
        u32::MAX,
        &[3, b't', b'a', b'g', tag],
        5_000_000_000,
    );
    let transactions: Vec<_> = [&coinbase].into_iter().chain(spend).collect();
    let root = match spend {
        None => sha256d(&coinbase),
        Some(spend) => sha256d(&[sha256d(&coinbase), sha256d(spend)].concat()),
    };
    let mut block = [
        &1_u32.to_le_bytes()[..],
        &sha256d(&previous[..80]),
        &root,
        &time.to_le_bytes(),
        &BITS.to_le_bytes(),
        &[0; 4],
        &[u8::try_from(transactions.len()).unwrap()],
    ]
    .concat();
    transactions.into_iter().for_each(|tx| block.extend(tx));
    for nonce in 0_u32.. {
        block[76..80].copy_from_slice(&nonce.to_le_bytes());
        if sha256d(&block[..80])[31] < 0x7f {
            break;
        }
    }
    block
}

/// `count` blocks after the last of `chain`.
fn grow(mut chain: Vec<Vec<u8>>, count: u8, tag: u8) -> Vec<Vec<u8>> {
    for number in 0..count {
        let block = mine(chain.last().unwrap(), tag + number, None);
        chain.push(block);
    }
    chain
}

fn genesis() -> Vec<Vec<u8>> {
    // Main net's, but for time, target and nonce.
    let mut block = blocks().swap_remove(0);
    block[68..72].copy_from_slice(&1_296_688_602_u32.to_le_bytes());
    block[72..76].copy_from_slice(&BITS.to_le_bytes());
    block[76..80].copy_from_slice(&2_u32.to_le_bytes());
    assert_eq!(
        sha256d(&block[..80]),
        *Network::Regtest.genesis_hash().as_bytes()
    );
    vec![block]
}

fn hash(block: &[u8]) -> String {
    BlockHash::from_bytes(sha256d(&block[..80])).to_string()
}

fn sync(place: &Place, blocks: &[Vec<u8>]) -> support::Ran {
    let file = place.file("blk00000.dat");
    write_blocks(&file, Network::Regtest, blocks);
    place.utxo(
        "sync",
        &["--network", "regtest", "--blocks", file.to_str().unwrap()],
    )
}

#[test]
fn a_reorganisation_takes_blocks_back_to_the_fork_and_says_so() {
    let place = Place::new();
    let trunk = grow(genesis(), 2, 0);
    let old = grow(trunk.clone(), 3, 10);
    let new = grow(trunk.clone(), 5, 20);
    sync(&place, &old).exits(0);
    assert_eq!(place.stats()["height"], 5);

    // As a node keeps them: the blocks of both, in the order of their arrival.
    let both: Vec<_> = old.iter().chain(&new[3..]).cloned().collect();
    let ran = sync(&place, &both).exits(0).says(&[
        "reorganisation",
        "block 5",
        &hash(&old[5]),
        "height 2",
    ]);
    let event = ran.event("reorganised");
    assert_eq!(event["blocks"], 3);
    assert_eq!(event["from"]["hash"], hash(&old[5]));
    assert_eq!(event["to"]["height"], 2);
    assert_eq!(event["to"]["hash"], hash(&trunk[2]));
    assert_eq!(ran.event("started")["first_height"], 3);

    // The store is what it would be had it never seen the other blocks.
    let stats = place.stats();
    assert_eq!(stats["height"], 7);
    assert_eq!(stats["bestblock"], hash(&new[7]));
    let fresh = Place::new();
    sync(&fresh, &new).exits(0);
    assert_eq!(stats, fresh.stats());
}

#[test]
fn a_store_whose_blocks_the_files_lack_is_left_alone() {
    let place = Place::new();
    let trunk = grow(genesis(), 2, 0);
    sync(&place, &grow(trunk.clone(), 1, 10)).exits(0);
    let before = place.stats();
    sync(&place, &grow(trunk, 5, 20)).exits(65).says(&[
        "block 3",
        before["bestblock"].as_str().unwrap(),
        "ops utxo rewind",
    ]);
    assert_eq!(place.stats(), before);
}

#[test]
fn a_refused_block_is_named_with_height_transaction_and_verdict() {
    let place = Place::new();
    let mut chain = grow(genesis(), 2, 0);
    let coinbase = transaction([0; 32], u32::MAX, &[3, b't', b'a', b'g', 0], 5_000_000_000);
    let (missing, immature) = ([7; 32], sha256d(&coinbase));
    for (parent, verdict) in [
        (missing, "the store has no transaction"),
        (immature, "immature until height 101"),
    ] {
        let spend = transaction(parent, 0, &[], 1);
        let refused = mine(chain.last().unwrap(), 9, Some(&spend));
        chain.push(refused.clone());
        let ran = sync(&place, &chain).exits(65).says(&[
            "error: block 3 (",
            &hash(&refused),
            &format!(
                "because of its transaction {}",
                Txid::from_bytes(sha256d(&spend))
            ),
            &format!("{}:0", Txid::from_bytes(parent)),
            verdict,
            "what to do",
        ]);
        // What came before is kept.
        assert_eq!(ran.event("failed")["height"], 2);
        assert_eq!(place.stats()["height"], 2);
        chain.pop();
    }
    let chain = grow(chain, 1, 30);
    assert_eq!(
        sync(&place, &chain).exits(0).event("started"),
        json!({"event": "started", "first_height": 3, "blocks": 1})
    );
}
