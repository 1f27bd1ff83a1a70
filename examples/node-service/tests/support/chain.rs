//! Blocks of regtest, where every second nonce has enough work.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use groundtackle_chain::decode::{DecodeOptions, decode_block, decode_transaction};
use groundtackle_chain::{BlockHash, Network};

const BITS: u32 = 0x207f_ffff;
/// That of regtest's first block.
const BEGAN: u32 = 1_296_688_602;
/// Main net's first block with its frame: all networks have the same first transaction.
const FIRST: &[u8] = include_bytes!("../../data/blk00000.dat");

/// A chain in one block file, as a node writes it.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    hashes: Vec<BlockHash>,
}

impl Chain {
    /// Appends so many blocks to a file; `branch` sets them apart from others at the same heights.
    pub fn grow(&mut self, file: &Path, blocks: u32, branch: u8) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .unwrap();
        for _ in 0..blocks {
            let bytes = self.block(branch);
            file.write_all(&Network::Regtest.magic()).unwrap();
            file.write_all(&u32::try_from(bytes.len()).unwrap().to_le_bytes())
                .unwrap();
            file.write_all(&bytes).unwrap();
        }
    }

    /// The same without its newest blocks.
    pub fn fork(&self, blocks: usize) -> Self {
        let kept = self.hashes.len() - blocks;
        Self {
            hashes: self.hashes[..kept].to_vec(),
        }
    }

    pub fn tip(&self) -> BlockHash {
        *self.hashes.last().unwrap()
    }

    fn block(&mut self, branch: u8) -> Vec<u8> {
        let height = u32::try_from(self.hashes.len()).unwrap();
        let coinbase = match height {
            0 => FIRST[8 + 81..8 + 285].to_vec(),
            _ => coinbase(height, branch),
        };
        let txid = decode_transaction(&coinbase).unwrap().txid;
        let previous = self.hashes.last().copied().unwrap_or(BlockHash::ZERO);
        for nonce in 0.. {
            let mut bytes = Vec::new();
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(previous.as_bytes());
            bytes.extend(txid.as_bytes());
            bytes.extend((BEGAN + height * 600).to_le_bytes());
            bytes.extend(BITS.to_le_bytes());
            bytes.extend(u32::to_le_bytes(nonce));
            bytes.push(1);
            bytes.extend(&coinbase);
            let block = decode_block(&bytes, &DecodeOptions::default()).unwrap();
            let wanted = match height {
                0 => block.hash == Network::Regtest.genesis_hash(),
                _ => block.hash.as_bytes()[31] < 0x7f,
            };
            if !wanted {
                continue;
            }
            self.hashes.push(block.hash);
            return bytes;
        }
        unreachable!("every second nonce will do");
    }
}

fn coinbase(height: u32, branch: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(1_u32.to_le_bytes());
    bytes.push(1);
    bytes.extend([0; 32]);
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.push(6);
    bytes.push(4);
    bytes.extend(height.to_le_bytes());
    bytes.push(branch);
    bytes.extend(u32::MAX.to_le_bytes());
    bytes.push(1);
    bytes.extend(5_000_000_000_u64.to_le_bytes());
    // Whoever wants it.
    bytes.extend([1, 0x51]);
    bytes.extend(0_u32.to_le_bytes());
    bytes
}
