//! MuHash.
use chacha20::{
    ChaChaCore,
    cipher::{KeyIvInit, StreamCipherCore, consts::U10},
};
use sha2::{Digest, Sha256};
use super::num3072::{self, Num3072};
/// Mu
#[derive(Clone, Debug)]
pub struct MuHash3072 { numerator: Num3072, denominator: Num3072 }
const KEYSTREAM_BLOCKS: usize = 8;
fn residue(element: &[u8]) -> Num3072 {
    let mut keystream = [[0; 64].into(); KEYSTREAM_BLOCKS];
    ChaChaCore::<U10>::new(&Sha256::digest(element), &[0; 12].into()).write_keystream_blocks(&mut keystream);
    let mut bytes = [0; num3072::BYTES];
    for (bytes, block) in bytes.as_chunks_mut().0.iter_mut().zip(keystream) {
        *bytes = block.into();
    }
    Num3072::from_bytes(&bytes)
}
impl MuHash3072 {
    /// x
    pub fn new()->Self { Self{numerator:Num3072::ONE,denominator:Num3072::ONE} }
    /// x
    pub fn insert(&mut self, e:&[u8]) { self.numerator.multiply(&residue(e)); }
    /// x
    pub fn digest(&self)->[u8;32] { let mut n=self.numerator.clone(); n.multiply(&self.denominator.inverse()); Sha256::digest(n.to_bytes()).into() }
}
