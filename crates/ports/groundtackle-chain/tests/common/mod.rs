//! Real blocks, and a miner for blocks of regtest.

#![allow(dead_code, missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use groundtackle_chain::decode::write_compact_size;
use groundtackle_chain::hash::sha256d;
use groundtackle_chain::{BlockHash, BlockHeader, Network};

/// The file or directory of this name in the test data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// The file's bytes, decompressed if it is compressed.
pub fn read(name: &str) -> Vec<u8> {
    let bytes = fs::read(data(name)).unwrap();
    if !name.ends_with(".zst") {
        return bytes;
    }
    let mut plain = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(bytes.as_slice())
        .unwrap()
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

/// The large blocks: network and bytes.
pub fn full_blocks() -> Vec<(Network, Vec<u8>)> {
    [
        (Network::Main, "full-blocks/block300025.raw"),
        (Network::Main, "full-blocks/367891/raw.zst"),
        (Network::Main, "full-blocks/702861.raw"),
        (Network::Main, "full-blocks/866342/raw.zst"),
        (Network::Testnet3, "full-blocks/testnet3/block928816.raw"),
        (Network::Testnet3, "full-blocks/testnet3/block928828.raw"),
        (Network::Testnet3, "full-blocks/testnet3/block928831.raw"),
    ]
    .map(|(network, name)| (network, read(name)))
    .into()
}

/// Main net's blocks 0 to 599.
pub fn first_blocks() -> Vec<Vec<u8>> {
    let mut files = read("mainnet-0-599/blk00000.dat");
    files.extend(read("mainnet-0-599/blk00001.dat"));
    let mut rest = files.as_slice();
    let mut blocks = Vec::new();
    while rest.starts_with(&Network::Main.magic()) {
        let size = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(rest[8..8 + size].to_vec());
        rest = &rest[8 + size..];
    }
    assert!(rest.iter().all(|byte| *byte == 0));
    blocks
}

/// A block as it lies in a block file.
pub fn framed(network: Network, block: &[u8]) -> Vec<u8> {
    [
        &network.magic()[..],
        &u32::try_from(block.len()).unwrap().to_le_bytes(),
        block,
    ]
    .concat()
}

pub fn all_framed<'a>(network: Network, blocks: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    blocks
        .into_iter()
        .flat_map(|block| framed(network, block))
        .collect()
}

pub fn header(block: &[u8]) -> BlockHeader {
    BlockHeader::from_bytes(block.first_chunk().unwrap())
}

pub fn hash(block: &[u8]) -> BlockHash {
    header(block).hash()
}

/// Changes the nonce until the hash meets the target, or until it does not.
pub fn mine(network: Network, block: &mut [u8], valid: bool) {
    let mut header = header(block);
    while network
        .check_proof_of_work(&header.hash(), header.bits)
        .is_ok()
        != valid
    {
        header.nonce += 1;
    }
    block[..80].copy_from_slice(&header.to_bytes());
}

/// Regtest's genesis block: main net's with another header.
pub fn regtest_genesis() -> Vec<u8> {
    let mut block = first_blocks().swap_remove(0);
    let header = BlockHeader {
        time: 1_296_688_602,
        bits: 0x207f_ffff,
        nonce: 2,
        ..header(&block)
    };
    block[..80].copy_from_slice(&header.to_bytes());
    assert_eq!(hash(&block), Network::Regtest.genesis_hash());
    block
}

/// A block of regtest with a coinbase only, which `tag` makes unique.
pub fn regtest_block(previous: BlockHash, time: u32, tag: u32) -> Vec<u8> {
    let mut coinbase = vec![1, 0, 0, 0, 1];
    coinbase.extend([0; 32]);
    coinbase.extend([0xff; 4]);
    coinbase.push(4);
    coinbase.extend(tag.to_le_bytes());
    coinbase.extend([0xff; 4]);
    coinbase.push(1);
    coinbase.extend(50_0000_0000_u64.to_le_bytes());
    coinbase.extend([1, 0x51, 0, 0, 0, 0]);
    block_of(previous, time, sha256d(&coinbase), &[coinbase])
}

pub fn block_of(
    previous: BlockHash,
    time: u32,
    merkle_root: [u8; 32],
    transactions: &[Vec<u8>],
) -> Vec<u8> {
    let header = BlockHeader {
        version: 4,
        previous,
        merkle_root,
        time,
        bits: 0x207f_ffff,
        nonce: 0,
    };
    let mut block = header.to_bytes().to_vec();
    write_compact_size(&mut block, transactions.len() as u64);
    block.extend(transactions.concat());
    mine(Network::Regtest, &mut block, true);
    block
}

/// Regtest's genesis block and `count` blocks on it, ten minutes apart.
pub fn regtest_chain(count: u32) -> Vec<Vec<u8>> {
    let mut blocks = vec![regtest_genesis()];
    extend(&mut blocks, count, 0);
    blocks
}

/// Adds `count` blocks on the last; another `branch` makes other blocks.
pub fn extend(blocks: &mut Vec<Vec<u8>>, count: u32, branch: u32) {
    for tag in 0..count {
        let last = blocks.last().unwrap();
        blocks.push(regtest_block(
            hash(last),
            header(last).time + 600,
            branch * 1_000_000 + tag,
        ));
    }
}
