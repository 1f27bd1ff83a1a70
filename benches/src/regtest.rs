//! Generated blocks made valid: what Bitcoin Core connects on regtest, and the store just as well.
//!
//! Amounts are conserved, txids are hashes, and every script can be spent by anyone who knows it, without a
//! signature: the point is what the set of coins costs. P2SH stands for all short scripts, P2WSH for the long ones.

use crate::BoxError;
use crate::generator::{GenBlock, GenTx, is_unspendable};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::{OP_DROP, OP_PUSHNUM_1};
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Target,
    Transaction, TxIn, TxMerkleNode, TxOut, Txid, Witness,
};
use groundtackle_utxo_store::ChainBlock;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::Path;

const GENESIS_TIME: u32 = 1_296_688_602;
const SPACING: u32 = 600;
const HALVING: u32 = 150;
const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// Makes the chain. Generate with a `coinbase_maturity` of 100.
#[derive(Debug)]
pub struct Regtest {
    previous: BlockHash,
    /// What became of generated transactions that have coins left.
    made: HashMap<[u8; 32], Made>,
}

#[derive(Debug)]
struct Made {
    txid: Txid,
    coins: HashMap<u32, (Amount, Kind)>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    P2sh,
    P2wsh,
    /// The script itself, with this many bytes to push and drop.
    Bare(usize),
}

impl Default for Regtest {
    fn default() -> Self {
        Self {
            previous: bitcoin::constants::genesis_block(Network::Regtest).block_hash(),
            made: HashMap::new(),
        }
    }
}

impl Regtest {
    /// The next block: generated height 0 becomes height 1.
    ///
    /// # Errors
    ///
    /// When the block spends what the chain did not make.
    pub fn block(&mut self, block: &GenBlock) -> Result<Block, BoxError> {
        let height = block.height + 1;
        let mut txdata = Vec::with_capacity(block.txs.len());
        for tx in &block.txs {
            txdata.push(self.transaction(tx, height)?);
        }
        let mut made = Block {
            header: Header {
                version: Version::from_consensus(0x2000_0000),
                prev_blockhash: self.previous,
                merkle_root: TxMerkleNode::all_zeros(),
                time: GENESIS_TIME + height * SPACING,
                bits: CompactTarget::from_consensus(0x207f_ffff),
                nonce: 0,
            },
            txdata,
        };
        commit_to_witnesses(&mut made);
        // The coinbase has its txid only now.
        if let (Some(from), Some(coinbase)) = (block.txs.first(), made.txdata.first())
            && let Some(entry) = self.made.get_mut(&from.txid)
        {
            entry.txid = coinbase.compute_txid();
        }
        made.header.merkle_root = made.compute_merkle_root().ok_or("an empty block")?;
        let target = Target::from_compact(made.header.bits);
        while !target.is_met_by(made.block_hash()) {
            made.header.nonce += 1;
        }
        self.previous = made.block_hash();
        Ok(made)
    }

    fn transaction(&mut self, tx: &GenTx, height: u32) -> Result<Transaction, BoxError> {
        let mut total = Amount::ZERO;
        let mut input = Vec::with_capacity(tx.inputs.len().max(1));
        if tx.inputs.is_empty() {
            total = Amount::from_int_btc(50) / (1 << (height / HALVING).min(63));
            input.push(TxIn {
                previous_output: OutPoint::null(),
                // BIP 34, and at least two bytes.
                script_sig: Builder::new()
                    .push_int(height.into())
                    .push_slice([0; 4])
                    .into_script(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[0; 32]]),
            });
        }
        for (from, vout) in &tx.inputs {
            let parent = self.made.get_mut(from).ok_or("an unknown parent")?;
            let (amount, kind) = parent.coins.remove(vout).ok_or("an unknown coin")?;
            let previous_output = OutPoint::new(parent.txid, *vout);
            if parent.coins.is_empty() {
                self.made.remove(from);
            }
            total += amount;
            input.push(unlock(previous_output, from, *vout, kind));
        }
        // A small fee; the rest is halved from output to output.
        let mut rest = if tx.inputs.is_empty() {
            total
        } else {
            total - total / 1_000
        };
        let coins = tx
            .outputs
            .iter()
            .filter(|(_, script)| !is_unspendable(script))
            .count() as u64;
        let even = coins > 8;
        let share = rest / coins.max(1);
        let mut made = Made {
            txid: Txid::all_zeros(),
            coins: HashMap::new(),
        };
        let mut output = Vec::with_capacity(tx.outputs.len());
        for (vout, (_, script)) in (0_u32..).zip(&tx.outputs) {
            if is_unspendable(script) {
                output.push(TxOut {
                    value: Amount::ZERO,
                    script_pubkey: ScriptBuf::from_bytes(script.clone()),
                });
                continue;
            }
            let kind = match script.len() {
                0..34 => Kind::P2sh,
                34 => Kind::P2wsh,
                length => Kind::Bare(length),
            };
            let value = if even { share } else { rest / 2 };
            rest -= value;
            made.coins.insert(vout, (value, kind));
            output.push(TxOut {
                value,
                script_pubkey: lock(&tx.txid, vout, kind),
            });
        }
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input,
            output,
        };
        if !made.coins.is_empty() {
            made.txid = transaction.compute_txid();
            self.made.insert(tx.txid, made);
        }
        Ok(transaction)
    }
}

/// A script that anyone can satisfy, and that no other output has.
fn anyone(from: &[u8; 32], vout: u32) -> ScriptBuf {
    let [a, b, c, d, ..] = *from;
    let salt = u32::from_le_bytes([a, b, c, d]) ^ vout;
    Builder::new()
        .push_slice(salt.to_le_bytes())
        .push_opcode(OP_DROP)
        .push_opcode(OP_PUSHNUM_1)
        .into_script()
}

fn lock(from: &[u8; 32], vout: u32, kind: Kind) -> ScriptBuf {
    match kind {
        Kind::P2sh => anyone(from, vout).to_p2sh(),
        Kind::P2wsh => anyone(from, vout).to_p2wsh(),
        Kind::Bare(mut length) => {
            let mut script = Builder::new();
            while length > 0 {
                let piece: Vec<u8> = from.iter().copied().cycle().take(length.min(500)).collect();
                length -= piece.len();
                if let Ok(piece) = PushBytesBuf::try_from(piece) {
                    script = script.push_slice(piece).push_opcode(OP_DROP);
                }
            }
            script.push_opcode(OP_PUSHNUM_1).into_script()
        }
    }
}

fn unlock(previous_output: OutPoint, from: &[u8; 32], vout: u32, kind: Kind) -> TxIn {
    let mut input = TxIn {
        previous_output,
        sequence: Sequence::MAX,
        ..TxIn::default()
    };
    match kind {
        Kind::P2sh => {
            if let Ok(script) = PushBytesBuf::try_from(anyone(from, vout).into_bytes()) {
                input.script_sig = Builder::new().push_slice(script).into_script();
            }
        }
        Kind::P2wsh => input.witness.push(anyone(from, vout)),
        Kind::Bare(_) => {}
    }
    input
}

fn commit_to_witnesses(block: &mut Block) {
    let Some(root) = block.witness_root() else {
        return;
    };
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let mut script = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
    script.extend_from_slice(commitment.as_byte_array());
    if let Some(coinbase) = block.txdata.first_mut() {
        coinbase.output.push(TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        });
    }
}

/// Writes blocks as Bitcoin Core's block files have them.
#[derive(Debug)]
pub struct BlockWriter(BufWriter<File>);

impl BlockWriter {
    /// A new file.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, BoxError> {
        Ok(Self(BufWriter::new(File::create(path)?)))
    }

    /// Appends a block.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub fn write(&mut self, block: &Block) -> Result<(), BoxError> {
        let bytes = bitcoin::consensus::serialize(block);
        self.0.write_all(&MAGIC)?;
        self.0
            .write_all(&u32::try_from(bytes.len())?.to_le_bytes())?;
        Ok(self.0.write_all(&bytes)?)
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub fn finish(mut self) -> Result<(), BoxError> {
        Ok(self.0.flush()?)
    }
}

/// Reads such a file, as blocks to connect: the genesis block first, which the file does not have.
#[derive(Debug)]
pub struct BlockReader {
    file: BufReader<File>,
    height: u32,
}

impl BlockReader {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, BoxError> {
        Ok(Self {
            file: BufReader::new(File::open(path)?),
            height: 0,
        })
    }

    /// The next block; `None` behind the last.
    ///
    /// # Errors
    ///
    /// When the file is damaged.
    pub fn block(&mut self) -> Result<Option<ChainBlock>, BoxError> {
        let height = self.height;
        let bytes = if height == 0 {
            bitcoin::consensus::serialize(&bitcoin::constants::genesis_block(Network::Regtest))
        } else {
            let mut head = [0; 8];
            match self.file.read_exact(&mut head) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
                read => read?,
            }
            let [_, _, _, _, a, b, c, d] = head;
            let mut bytes = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
            self.file.read_exact(&mut bytes)?;
            bytes
        };
        self.height += 1;
        let block = groundtackle_chain::decode_block(
            &bytes,
            &groundtackle_chain::DecodeOptions::default(),
        )?;
        Ok(Some(ChainBlock {
            height,
            hash: block.hash,
            previous: block.header.previous,
            // The blocks' times ascend, so the median of the last eleven is known.
            median_time_past: GENESIS_TIME + (height - height.min(10) / 2) * SPACING,
            transactions: block.transactions,
            coinbase_may_overwrite: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{ChainGenerator, GeneratorConfig};

    #[test]
    fn blocks_survive_the_file() -> Result<(), BoxError> {
        let path = std::env::temp_dir().join(format!("groundtackle-blocks-{}", std::process::id()));
        let mut writer = BlockWriter::create(&path)?;
        let mut regtest = Regtest::default();
        let config = GeneratorConfig {
            txs_per_block: 50,
            coinbase_maturity: 100,
            ..GeneratorConfig::default()
        };
        let mut heaviest = 0;
        for block in ChainGenerator::new(config).take(130) {
            let block = regtest.block(&block)?;
            heaviest = heaviest.max(block.weight().to_wu());
            assert!(block.check_merkle_root() && block.check_witness_commitment());
            writer.write(&block)?;
        }
        writer.finish()?;
        assert!(heaviest < 4_000_000);
        let mut reader = BlockReader::open(&path)?;
        let mut coins = std::collections::HashSet::new();
        let (mut blocks, mut spends) = (0, 0);
        while let Some(block) = reader.block()? {
            blocks += 1;
            for tx in &block.transactions {
                for input in &tx.inputs {
                    assert!(coins.remove(input), "{input} is not there");
                    spends += 1;
                }
                let vouts = (0..tx.outputs.len()).filter_map(|vout| u32::try_from(vout).ok());
                coins.extend(vouts.map(|vout| groundtackle_chain::OutPoint::new(tx.txid, vout)));
            }
        }
        std::fs::remove_file(&path)?;
        assert_eq!(blocks, 131);
        assert!(spends > 1_000);
        Ok(())
    }
}
