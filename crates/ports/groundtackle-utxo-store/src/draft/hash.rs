use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use groundtackle_chain::Txid;

/// A map by identifier, quicker than the standard one.
pub type TxidMap<T> = HashMap<Txid, T, TxidHash>;

/// Hashes keys that begin with an identifier, of a transaction or a block. Identifiers are hashes, so that a few of their bytes are as good as all of them. The secret keeps
/// anybody from choosing identifiers that share a bucket.
#[derive(Clone, Copy, Debug)]
pub struct TxidHash {
    secret: u64,
    factor: u64,
}

impl Default for TxidHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            secret: random.hash_one(0),
            factor: random.hash_one(1) | 1,
        }
    }
}

impl BuildHasher for TxidHash {
    type Hasher = TxidHasher;

    fn build_hasher(&self) -> TxidHasher {
        TxidHasher {
            state: self.secret,
            factor: self.factor,
        }
    }
}

/// See [`TxidHash`].
#[derive(Debug)]
pub struct TxidHasher {
    state: u64,
    factor: u64,
}

impl TxidHasher {
    fn mix(&mut self, word: u64) {
        let mixed = u128::from(self.state ^ word) * u128::from(self.factor);
        self.state = (mixed >> 64) as u64 ^ mixed as u64;
    }
}

impl Hasher for TxidHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Words from both ends: what is ground to begin with zeros ends at random.
        let words = [bytes.first_chunk(), bytes.last_chunk()];
        for word in words.into_iter().flatten() {
            self.mix(u64::from_le_bytes(*word));
        }
    }

    /// The index of an outpoint.
    fn write_u32(&mut self, number: u32) {
        self.mix(number.into());
    }

    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}
