//! The order-free digest of a multiset.

use std::{num::NonZeroUsize, panic, thread};

use chacha20::{
    ChaChaCore,
    cipher::{KeyIvInit, StreamCipherCore, consts::U10},
};
use sha2::{Digest, Sha256};

use super::num3072::{BYTES, Num3072};

/// Six are needed, but the AVX2 backend makes four at a time or one at the price of four.
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

    /// The digest in internal byte order; Core displays it reversed. Takes as long as inserting some hundred
    /// elements.
    pub fn digest(&self) -> [u8; 32] {
        let mut fraction = self.denominator.inverse();
        fraction.multiply(&self.numerator);
        Sha256::digest(fraction.to_bytes()).into()
    }

    /// The running state as Core stores it: the numerator, then the denominator, each below the modulus and 384 bytes
    /// in little-endian order. Equal states may have different bytes, as equal fractions may.
    pub fn to_bytes(&self) -> [u8; Self::STATE_BYTES] {
        let mut bytes = [0; Self::STATE_BYTES];
        let halves = [self.numerator.to_bytes(), self.denominator.to_bytes()];
        bytes.copy_from_slice(halves.as_flattened());
        bytes
    }

    /// Reads a state written by [`to_bytes`](Self::to_bytes) or by Core. A half may be any number, also one above the
    /// modulus, but `None` is given if one is zero modulo it. Elements never multiply to zero, and it would swallow
    /// all that come later. Core accepts it.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::super::tests::{display, first_coin};
    use super::*;

    /// Bitcoin Core, `src/test/crypto_tests.cpp`: the numerator of {1, 2}.
    const ONE_TWO: &str = concat!(
        "1fa093295ea30a6a3acdc7b3f770fa538eff537528e990e2910e40bbcfd7f6696b12569019290946",
        "94b56316de342f593303dd12ac43e06dce1be1ff8301c845beb15468fff0ef002dbf80c29f26e645",
        "2bccc91b5cb9437ad410d2a67ea847887fa3c6a6553309946880fe20db2c73fe0641adbd4e86edfe",
        "e0d9f8cd0ee1230898873dc13ed8ddcaf045c80faa082774279007a2253f8922ee3ef361d378a6af",
        "3ddaf180b190ac97e556888c36b3d1fb1c85aab9ccd46e3deaeb7b7cf5db067a7e9ff86b658cf3ac",
        "d6662bbcce37232daa753c48b794356c020090c831a8304416e2aa7ad633c0ddb2f11be1be316a81",
        "be7f7e472071c042cb68faef549c221ebff209273638b741aba5a81675c45a5fa92fea4ca821d7a3",
        "24cb1e1a2ccd3b76c4228ec8066dad2a5df6e1bd0de45c7dd5de8070bdb46db6c554cf9aefc9b7b2",
        "bbf9f75b1864d9f95005314593905c0109b71f703d49944ae94477b51dac10a816bb6d1c700bafab",
        "c8bd86fac8df24be519a2f2836b16392e18036cb13e48c5c",
    );

    fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
        bytes
            .into_iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// `FromInt` of Core's tests.
    fn from_int(int: u8) -> [u8; 32] {
        let mut element = [0; 32];
        element[0] = int;
        element
    }

    fn set_of(elements: &[Vec<u8>]) -> MuHash3072 {
        let mut set = MuHash3072::new();
        set.insert_all(elements);
        set
    }

    #[test]
    fn digests_nothing_as_core_does() {
        let expected = "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8";
        assert_eq!(display(MuHash3072::default().digest()), expected);
    }

    #[test]
    fn digests_cores_integers() {
        let expected = "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863";
        let mut set = MuHash3072::new();
        set.insert(&from_int(0));
        set.insert(&from_int(1));
        set.remove(&from_int(2));
        assert_eq!(display(set.digest()), expected);

        let [mut zero, mut one, mut two] = [const { MuHash3072::new() }; 3];
        zero.insert(&from_int(0));
        one.insert(&from_int(1));
        two.insert(&from_int(2));
        zero.combine(&one);
        zero.subtract(&two);
        assert_eq!(display(zero.digest()), expected);
    }

    #[test]
    fn serialises_as_core_does() {
        let mut set = MuHash3072::new();
        set.insert_all([from_int(1), from_int(2)]);
        assert_eq!(
            hex(set.to_bytes()),
            format!("{ONE_TWO}01{}", "00".repeat(BYTES - 1))
        );
        assert_eq!(MuHash3072::from_bytes(&set.to_bytes()), Some(set));
    }

    #[test]
    fn reads_a_half_above_the_modulus() {
        let mut bytes = [0; MuHash3072::STATE_BYTES];
        bytes[..BYTES].fill(0xff);
        bytes[BYTES] = 1;
        let digest = MuHash3072::from_bytes(&bytes).unwrap().digest();
        assert_eq!(
            hex(digest),
            "3a31e6903aff0de9f62f9a9f7f8b861de76ce2cda09822b90014319ae5dc2271"
        );
    }

    #[test]
    fn refuses_a_half_that_is_zero() {
        let mut modulus = [0xff; BYTES];
        modulus[..8].copy_from_slice(&(1103717u64.wrapping_neg()).to_le_bytes());
        for zero in [[0; BYTES], modulus] {
            for half in [0, BYTES] {
                let mut bytes = MuHash3072::new().to_bytes();
                bytes[half..half + BYTES].copy_from_slice(&zero);
                assert_eq!(MuHash3072::from_bytes(&bytes), None);
            }
        }
    }

    #[test]
    fn digests_the_first_coin_of_mainnet() {
        let mut set = MuHash3072::new();
        set.insert(&first_coin());
        assert_eq!(
            display(set.digest()),
            "1bd372a3f225dc6f8ce0e10ead6f8b0b00e65a2ff4a4c9ccaa615a69fbeeb2f2"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(3072), ..ProptestConfig::default() })]

        #[test]
        fn the_order_does_not_matter(
            (elements, shuffled) in prop::collection::vec(any::<Vec<u8>>(), 0..8)
                .prop_flat_map(|elements| (Just(elements.clone()), Just(elements).prop_shuffle()))
        ) {
            let (set, other) = (set_of(&elements), set_of(&shuffled));
            prop_assert_eq!(set.to_bytes(), other.to_bytes());
        }

        #[test]
        fn combining_is_inserting_all(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let mut combined = set_of(&a);
            combined.combine(&set_of(&b));
            let mut all = set_of(&a);
            all.insert_all(&b);
            prop_assert_eq!(combined.to_bytes(), all.to_bytes());

            all.subtract(&set_of(&a));
            prop_assert_eq!(&all, &set_of(&b));
        }

        #[test]
        fn removing_undoes_inserting(elements in prop::collection::vec(any::<Vec<u8>>(), 1..8)) {
            let mut set = set_of(&elements);
            prop_assert_ne!(&set, &MuHash3072::new());
            set.remove_all(&elements);
            prop_assert_eq!(&set, &MuHash3072::new());
        }

        #[test]
        fn a_state_survives_its_bytes(inserted: Vec<Vec<u8>>, removed: Vec<Vec<u8>>) {
            let mut set = set_of(&inserted);
            set.remove_all(&removed);
            let read = MuHash3072::from_bytes(&set.to_bytes()).unwrap();
            prop_assert_eq!(read.to_bytes(), set.to_bytes());
            prop_assert_eq!(read, set);
        }

        #[test]
        fn threads_do_not_change_the_state(elements: Vec<Vec<u8>>, threads in 1..12usize) {
            let threads = NonZeroUsize::new(threads).unwrap();
            let [mut set, mut parallel] = [const { MuHash3072::new() }; 2];
            set.insert_all(&elements);
            set.remove_all(elements.iter().skip(1));
            parallel.insert_parallel(&elements, threads);
            parallel.remove_parallel(elements.get(1..).unwrap_or_default(), threads);
            prop_assert_eq!(parallel.to_bytes(), set.to_bytes());
        }
    }
}
