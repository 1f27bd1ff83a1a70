//! MuHash3072, as Bitcoin Core has it: the product of one number for each coin.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use num_bigint::BigUint;
use sha2::{Digest, Sha256};

use crate::hex::Hex;
use crate::segment::Coin;

const BYTES: usize = 384;

#[derive(Debug)]
pub(crate) struct MuHash {
    modulus: BigUint,
    product: BigUint,
}

impl MuHash {
    pub(crate) fn new() -> Self {
        let one = BigUint::from(1_u8);
        Self {
            modulus: (&one << (8 * BYTES)) - BigUint::from(1_103_717_u32),
            product: one,
        }
    }

    pub(crate) fn insert(&mut self, coin: &Coin) {
        let mut number = [0; BYTES];
        let key = Sha256::digest(element(coin));
        ChaCha20::new(&key, &[0; 12].into()).apply_keystream(&mut number);
        self.product = &self.product * BigUint::from_bytes_le(&number) % &self.modulus;
    }

    /// In internal order.
    pub(crate) fn digest(&self) -> Hex<32> {
        let mut bytes = self.product.to_bytes_le();
        bytes.resize(BYTES, 0);
        Hex(Sha256::digest(bytes).into())
    }
}

/// What is hashed of a coin.
fn element(coin: &Coin) -> Vec<u8> {
    // Core keeps 32 bits of it.
    let height = coin.height << 1 | u32::from(coin.coinbase);
    let length = coin.script.len() as u64;
    let (mark, bytes) = match length {
        0..=0xfc => (None, 1),
        0xfd..=0xffff => (Some(0xfd), 2),
        0x1_0000..=0xffff_ffff => (Some(0xfe), 4),
        _ => (Some(0xff), 8),
    };
    let mut element = coin.txid.to_vec();
    element.extend(coin.vout.to_le_bytes());
    element.extend(height.to_le_bytes());
    element.extend(coin.value_sat.to_le_bytes());
    element.extend(mark);
    element.extend(length.to_le_bytes().iter().take(bytes));
    element.extend(&coin.script);
    element
}
