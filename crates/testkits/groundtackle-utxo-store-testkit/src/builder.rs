//! Transactions and blocks for cases: same calls, same bytes.

use groundtackle_utxo_store::{
    BlockHash, ChainBlock, NewRecord, OutPoint, Script, Tip, Transaction, TxOut, Txid,
};
use sha2::{Digest, Sha256};

/// The coins that a block of these tests mints.
pub const SUBSIDY_SAT: u64 = 50 * 100_000_000;

/// A number from parts; also for identifiers, so that nothing here is random.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// A locking script of the commonest shape, another one for each `tag`.
pub fn script(tag: u64) -> Script {
    let mut bytes = vec![0x76, 0xa9, 0x14];
    bytes.extend(
        digest(&[b"script", &tag.to_le_bytes()])
            .into_iter()
            .take(20),
    );
    bytes.extend([0x88, 0xac]);
    Script::from_bytes(bytes)
}

/// Output `vout` of a transaction.
pub const fn out(tx: &Transaction, vout: u32) -> OutPoint {
    OutPoint::new(tx.txid, vout)
}

/// Builds a transaction; its identifier follows from all that was put in.
#[derive(Clone, Debug)]
pub struct TxBuilder {
    tag: u64,
    tx: Transaction,
}

impl TxBuilder {
    /// A transaction told from others by `tag`.
    pub const fn new(tag: u64) -> Self {
        Self {
            tag,
            tx: Transaction {
                txid: Txid::ZERO,
                inputs: Vec::new(),
                outputs: Vec::new(),
                lock_time: 0,
                size_bytes: 0,
                coinbase: false,
            },
        }
    }

    /// A coinbase that mints [`SUBSIDY_SAT`].
    pub fn coinbase(tag: u64) -> Self {
        let mut builder = Self::new(tag).pay(SUBSIDY_SAT);
        builder.tx.coinbase = true;
        builder
    }

    /// Spends one more output.
    #[must_use]
    pub fn spend(mut self, outpoint: OutPoint) -> Self {
        self.tx.inputs.push(outpoint);
        self
    }

    /// Spends more outputs.
    #[must_use]
    pub fn spend_all(mut self, outpoints: impl IntoIterator<Item = OutPoint>) -> Self {
        self.tx.inputs.extend(outpoints);
        self
    }

    /// Adds an output with a script of its own.
    #[must_use]
    pub fn pay(self, value_sat: u64) -> Self {
        let tag = self.tag.wrapping_mul(1_000_003) + self.tx.outputs.len() as u64;
        self.pay_to(value_sat, script(tag))
    }

    /// Adds `count` outputs.
    #[must_use]
    pub fn pay_each(self, count: usize, value_sat: u64) -> Self {
        (0..count).fold(self, |builder, _| builder.pay(value_sat))
    }

    /// Adds an output.
    #[must_use]
    pub fn pay_to(mut self, value_sat: u64, script: Script) -> Self {
        self.tx.outputs.push(TxOut { value_sat, script });
        self
    }

    /// Adds an output that nobody can ever spend.
    #[must_use]
    pub fn pay_nobody(self) -> Self {
        self.pay_to(0, Script::from_bytes(vec![0x6a, 0x01, 0x00]))
    }

    /// Sets the lock time.
    #[must_use]
    pub const fn lock_time(mut self, lock_time: u32) -> Self {
        self.tx.lock_time = lock_time;
        self
    }

    /// The transaction.
    pub fn build(mut self) -> Transaction {
        let tx = &mut self.tx;
        let mut bytes = self.tag.to_le_bytes().to_vec();
        for input in &tx.inputs {
            bytes.extend_from_slice(input.txid.as_bytes());
            bytes.extend_from_slice(&input.vout.to_le_bytes());
        }
        for output in &tx.outputs {
            bytes.extend_from_slice(&output.value_sat.to_le_bytes());
            bytes.extend_from_slice(output.script.as_bytes());
        }
        bytes.extend_from_slice(&tx.lock_time.to_le_bytes());
        tx.txid = Txid::from_bytes(digest(&[b"tx", &bytes, &[u8::from(tx.coinbase)]]));
        tx.size_bytes = 10 + 148 * tx.inputs.len() as u64 + 34 * tx.outputs.len() as u64;
        self.tx
    }

    /// Its outputs as coins of a snapshot at `height`, and nothing else of it.
    pub fn seed(self, height: u32) -> NewRecord {
        let tx = self.build();
        NewRecord::Seed {
            txid: tx.txid,
            coinbase: tx.coinbase,
            height,
            outputs: (0..).zip(tx.outputs).collect(),
        }
    }
}

/// Builds a block.
#[derive(Clone, Debug)]
pub struct BlockBuilder {
    previous: Option<Tip>,
    branch: u64,
    coinbase: Option<Transaction>,
    transactions: Vec<Transaction>,
    coinbase_may_overwrite: bool,
}

impl BlockBuilder {
    /// The block after `previous`, or a genesis block.
    pub fn after(previous: impl Into<Option<Tip>>) -> Self {
        Self {
            previous: previous.into(),
            branch: 0,
            coinbase: None,
            transactions: Vec::new(),
            coinbase_may_overwrite: false,
        }
    }

    /// Tells a block from others at its place in the chain.
    #[must_use]
    pub const fn branch(mut self, branch: u64) -> Self {
        self.branch = branch;
        self
    }

    /// Adds transactions after the coinbase.
    #[must_use]
    pub fn with(mut self, transactions: &[&Transaction]) -> Self {
        self.transactions
            .extend(transactions.iter().copied().cloned());
        self
    }

    /// Another coinbase than the block's own.
    #[must_use]
    pub fn coinbase(mut self, coinbase: &Transaction) -> Self {
        self.coinbase = Some(coinbase.clone());
        self
    }

    /// Exempts the block from BIP 30.
    #[must_use]
    pub const fn coinbase_may_overwrite(mut self) -> Self {
        self.coinbase_may_overwrite = true;
        self
    }

    /// The block.
    pub fn build(self) -> ChainBlock {
        let (height, previous) = match self.previous {
            Some(tip) => (tip.height + 1, tip.hash),
            None => (0, BlockHash::ZERO),
        };
        let tag = u64::from(height) << 32 | self.branch;
        let mut transactions = vec![
            self.coinbase
                .unwrap_or_else(|| TxBuilder::coinbase(tag).build()),
        ];
        transactions.extend(self.transactions);
        let mut bytes = tag.to_le_bytes().to_vec();
        for tx in &transactions {
            bytes.extend_from_slice(tx.txid.as_bytes());
        }
        ChainBlock {
            height,
            hash: BlockHash::from_bytes(digest(&[b"block", previous.as_bytes(), &bytes])),
            previous,
            median_time_past: 1_231_006_505 + 600 * height,
            transactions,
            coinbase_may_overwrite: self.coinbase_may_overwrite,
        }
    }
}

/// The tip that connecting `block` leaves.
pub const fn tip_of(block: &ChainBlock) -> Tip {
    Tip {
        height: block.height,
        hash: block.hash,
        median_time_past: block.median_time_past,
    }
}
