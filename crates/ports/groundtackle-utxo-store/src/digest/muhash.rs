//! The order-free digest of a multiset.

use std::{num::NonZeroUsize, panic, thread};

use chacha20::{
    ChaChaCore,
    cipher::{KeyIvInit, StreamCipherCore, consts::U10},
};
use sha2::{Digest, Sha256};

use super::num3072::{BYTES, Num3072};

/// The vector backends work on four blocks at a time, so eight cost less than the six that are needed.
const KEYSTREAM_BLOCKS: usize = if cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
    8
} else {
    6
};

/// A digest that does not depend on the order of its elements, and from which elements can be taken away again.
///
/// The state is a fraction modulo 2^3072 − 1103717: every inserted element is a factor of the numerator, every
/// removed one of the denominator. Two states are equal if the fractions are, and then so are their digests.
///
/// There is no membership check. Inserting an element twice is not the same as inserting it once, and removing what
/// was never inserted cancels a later insertion; both give a digest that matches no set.
///
/// ```
/// use groundtackle_utxo_store::digest::MuHash3072;
///
/// let mut set = MuHash3072::new();
/// set.insert_all([b"a", b"b"]);
/// set.remove(b"a");
///
/// let mut other = MuHash3072::new();
/// other.insert(b"b");
/// assert_eq!(set.digest(), other.digest());
/// ```
#[derive(Clone, Debug)]
pub struct MuHash3072 {
    numerator: Num3072,
    denominator: Num3072,
}

impl MuHash3072 {
    /// Length of the serialised state.
    pub const STATE_BYTES: usize = 2 * BYTES;

    /// The empty multiset.
    pub const fn new() -> Self {
        Self {
            numerator: Num3072::ONE,
            denominator: Num3072::ONE,
        }
    }

    /// Adds an element.
    pub fn insert(&mut self, element: &[u8]) {
        self.numerator.multiply(&residue(element));
    }

    /// Takes an element away. It must be the very bytes that were inserted.
    pub fn remove(&mut self, element: &[u8]) {
        self.denominator.multiply(&residue(element));
    }

    /// Adds every element.
    pub fn insert_all<E: AsRef<[u8]>>(&mut self, elements: impl IntoIterator<Item = E>) {
        multiply_all(&mut self.numerator, elements);
    }

    /// Takes every element away.
    pub fn remove_all<E: AsRef<[u8]>>(&mut self, elements: impl IntoIterator<Item = E>) {
        multiply_all(&mut self.denominator, elements);
    }

    /// Adds every element, with at most `threads` threads, one of them the caller's. Worth it from some hundred
    /// elements on. For elements that come as a stream, give each worker a state of its own and
    /// [combine](Self::combine) them.
    pub fn insert_parallel<E: AsRef<[u8]> + Sync>(
        &mut self,
        elements: &[E],
        threads: NonZeroUsize,
    ) {
        multiply_parallel(&mut self.numerator, elements, threads);
    }

    /// Takes every element away, with threads as in [`insert_parallel`](Self::insert_parallel).
    pub fn remove_parallel<E: AsRef<[u8]> + Sync>(
        &mut self,
        elements: &[E],
        threads: NonZeroUsize,
    ) {
        multiply_parallel(&mut self.denominator, elements, threads);
    }

    /// Adds all that `other` holds: the union of two multisets.
    pub fn combine(&mut self, other: &Self) {
        self.numerator.multiply(&other.numerator);
        self.denominator.multiply(&other.denominator);
    }

    /// Takes away all that `other` holds: the difference of two multisets.
    pub fn subtract(&mut self, other: &Self) {
        self.numerator.multiply(&other.denominator);
        self.denominator.multiply(&other.numerator);
    }

    /// The digest in internal byte order; Core displays it reversed. Takes as long as inserting some thousand
    /// elements.
    pub fn digest(&self) -> [u8; 32] {
        let mut fraction = self.denominator.inverse();
        fraction.multiply(&self.numerator);
        Sha256::digest(fraction.to_bytes()).into()
    }

    /// The running state as Core stores it: the numerator, then the denominator, each 384 bytes in little-endian
    /// order. Equal states may have different bytes, for the fraction is not reduced to lowest terms.
    pub fn to_bytes(&self) -> [u8; Self::STATE_BYTES] {
        let mut bytes = [0; Self::STATE_BYTES];
        let halves = [self.numerator.to_bytes(), self.denominator.to_bytes()];
        bytes.copy_from_slice(halves.as_flattened());
        bytes
    }

    /// Reads a state written by [`to_bytes`](Self::to_bytes) or by Core. A half may be any number, also above the
    /// modulus, except a multiple of the modulus: zero is the product of no elements, swallows every later one and
    /// has no inverse, so it gives `None`. Core would accept it.
    pub fn from_bytes(bytes: &[u8; Self::STATE_BYTES]) -> Option<Self> {
        let [numerator, denominator] = bytes.as_chunks().0 else {
            return None;
        };
        let state = Self {
            numerator: Num3072::from_bytes(numerator),
            denominator: Num3072::from_bytes(denominator),
        };
        (!state.numerator.is_zero() && !state.denominator.is_zero()).then_some(state)
    }
}

impl Default for MuHash3072 {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for MuHash3072 {
    fn eq(&self, other: &Self) -> bool {
        let mut difference = self.clone();
        difference.subtract(other);
        difference.numerator == difference.denominator
    }
}

impl Eq for MuHash3072 {}

/// The number of an element: 384 bytes of ChaCha20 keystream, the element's hash being the key.
fn residue(element: &[u8]) -> Num3072 {
    let mut keystream = [[0; 64].into(); KEYSTREAM_BLOCKS];
    ChaChaCore::<U10>::new(&Sha256::digest(element), &[0; 12].into())
        .write_keystream_blocks(&mut keystream);
    let mut bytes = [0; BYTES];
    for (bytes, block) in bytes.as_chunks_mut().0.iter_mut().zip(keystream) {
        *bytes = block.into();
    }
    Num3072::from_bytes(&bytes)
}

fn multiply_all<E: AsRef<[u8]>>(number: &mut Num3072, elements: impl IntoIterator<Item = E>) {
    for element in elements {
        number.multiply(&residue(element.as_ref()));
    }
}

fn multiply_parallel<E: AsRef<[u8]> + Sync>(
    number: &mut Num3072,
    elements: &[E],
    threads: NonZeroUsize,
) {
    let share = elements.len().div_ceil(threads.get()).max(1);
    let (own, others) = elements.split_at_checked(share).unwrap_or((elements, &[]));
    thread::scope(|scope| {
        let work = |share| {
            let mut number = Num3072::ONE;
            multiply_all(&mut number, share);
            number
        };
        let workers: Vec<_> = others
            .chunks(share)
            .map(|share| {
                thread::Builder::new()
                    .spawn_scoped(scope, move || work(share))
                    .map_err(|_| share)
            })
            .collect();
        multiply_all(number, own);
        for worker in workers {
            match worker.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(product)) => number.multiply(&product),
                Ok(Err(payload)) => panic::resume_unwind(payload),
                // The system has no thread to spare: the work is done here.
                Err(share) => multiply_all(number, share),
            }
        }
    });
}
