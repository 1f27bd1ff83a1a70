//! Arithmetic modulo the prime p = 2^3072 − 1103717.
//!
//! A number is a binary tree over leaves of six limbs, least significant first, and each level of the tree is one
//! level of Karatsuba: 27 leaf products instead of 64. Six is what a leaf product can keep in registers. Values stay
//! below 2^3072 and are brought below p only to be compared or written out.
//!
//! The timing depends on the values, which are public.

use std::cmp::Ordering;

use super::inverse::inverse;

/// Length of a number's little-endian bytes.
pub(crate) const BYTES: usize = 384;

/// 2^3072 − p: what a carry out of the top limb is worth at the bottom.
pub(super) const FOLD: u64 = 1_103_717;

type Leaf = [u64; 6];
type Whole = [[[Leaf; 2]; 2]; 2];

trait Limbs: Copy {
    const ZERO: Self;

    /// `self += other + carry`, or with `complement` `self += !other + carry`; returns the carry out.
    fn add(&mut self, other: &Self, complement: bool, carry: bool) -> bool;

    /// `self += other * factor + carry`; returns the limb carried out.
    fn add_scaled(&mut self, other: &Self, factor: u64, carry: u64) -> u64;

    /// `self += carry`; returns the carry out.
    fn increment(&mut self, carry: u64) -> bool;

    fn compare(&self, other: &Self) -> Ordering;

    /// The full product, as its low and high half.
    fn product(&self, other: &Self) -> [Self; 2];

    /// `|pair[0] − pair[1]|`, and whether the difference is negative.
    #[inline(always)]
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is a bool; a branch would be mispredicted half the time"
    )]
    fn distance(pair: &[Self; 2]) -> (Self, bool) {
        let negative = pair[0].compare(&pair[1]).is_lt();
        let larger = usize::from(negative);
        let mut distance = pair[larger];
        distance.add(&pair[1 - larger], true, true);
        (distance, negative)
    }
}

impl Limbs for Leaf {
    const ZERO: Self = [0; 6];

    #[inline(always)]
    fn add(&mut self, other: &Self, complement: bool, mut carry: bool) -> bool {
        let mask = u64::from(complement).wrapping_neg();
        for (limb, other) in self.iter_mut().zip(other) {
            let (sum, over) = limb.overflowing_add(other ^ mask);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over | over_again);
        }
        carry
    }

    #[inline(always)]
    fn add_scaled(&mut self, other: &Self, factor: u64, mut carry: u64) -> u64 {
        for (limb, other) in self.iter_mut().zip(other) {
            // At most (2^64 − 1)^2 + 2 (2^64 − 1) = 2^128 − 1. The carry joins apart from the limb: as one sum of
            // three, the compiler would add the two first and keep that carry in a register.
            let wide = u128::from(*other) * u128::from(factor) + u128::from(*limb);
            let (low, over) = (wide as u64).overflowing_add(carry);
            *limb = low;
            carry = (wide >> 64) as u64 + u64::from(over);
        }
        carry
    }

    #[inline(always)]
    fn increment(&mut self, mut carry: u64) -> bool {
        for limb in self {
            let (sum, over) = limb.overflowing_add(carry);
            *limb = sum;
            if !over {
                return false;
            }
            carry = 1;
        }
        true
    }

    #[inline(always)]
    fn compare(&self, other: &Self) -> Ordering {
        self.iter().rev().cmp(other.iter().rev())
    }

    /// Row by row, with the six limbs that still change in a window that stays in registers.
    #[inline(always)]
    fn product(&self, other: &Self) -> [Self; 2] {
        let mut window = Self::ZERO;
        let mut row = |factor| {
            let carry = window.add_scaled(other, factor, 0);
            let [done, a, b, c, d, e] = window;
            window = [a, b, c, d, e, carry];
            done
        };
        let [a, b, c, d, e, f] = *self;
        let low = [row(a), row(b), row(c), row(d), row(e), row(f)];
        [low, window]
    }
}

impl<T: Limbs> Limbs for [T; 2] {
    const ZERO: Self = [T::ZERO; 2];

    #[inline(always)]
    fn add(&mut self, other: &Self, complement: bool, carry: bool) -> bool {
        let carry = self[0].add(&other[0], complement, carry);
        self[1].add(&other[1], complement, carry)
    }

    #[inline(always)]
    fn add_scaled(&mut self, other: &Self, factor: u64, carry: u64) -> u64 {
        let carry = self[0].add_scaled(&other[0], factor, carry);
        self[1].add_scaled(&other[1], factor, carry)
    }

    #[inline(always)]
    fn increment(&mut self, carry: u64) -> bool {
        self[0].increment(carry) && self[1].increment(1)
    }

    #[inline(always)]
    fn compare(&self, other: &Self) -> Ordering {
        self[1]
            .compare(&other[1])
            .then_with(|| self[0].compare(&other[0]))
    }

    /// Karatsuba: the middle term a0·b1 + a1·b0 is a0·b0 + a1·b1 − (a0 − a1)(b0 − b1).
    #[inline]
    fn product(&self, other: &Self) -> [Self; 2] {
        let mut low = self[0].product(&other[0]);
        let mut high = self[1].product(&other[1]);
        let (a, a_negative) = T::distance(self);
        let (b, b_negative) = T::distance(other);
        let subtract = a_negative == b_negative;

        let mut middle = low;
        let mut carries = u64::from(middle.add(&high, false, false));
        carries += u64::from(middle.add(&a.product(&b), subtract, subtract));
        // A subtraction that does not borrow carries out; the middle term as a whole never borrows.
        carries -= u64::from(subtract);

        let carry = low[1].add(&middle[0], false, false);
        carries += u64::from(high[0].add(&middle[1], false, carry));
        high[1].increment(carries);
        [low, high]
    }
}

/// A residue modulo p.
#[derive(Clone, Debug)]
pub(crate) struct Num3072(Whole);

impl Num3072 {
    pub(crate) const ONE: Self = {
        let mut one = Whole::ZERO;
        one[0][0][0][0] = 1;
        Self(one)
    };

    /// Takes any bytes, little-endian, modulo p.
    pub(crate) fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut number = Whole::ZERO;
        let limbs = number
            .as_flattened_mut()
            .as_flattened_mut()
            .as_flattened_mut();
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Self(number)
    }

    /// The canonical value, below p.
    pub(crate) fn to_bytes(&self) -> [u8; BYTES] {
        let number = self.reduced();
        let limbs = number.as_flattened().as_flattened().as_flattened();
        let mut bytes = [0; BYTES];
        for (bytes, limb) in bytes.as_chunks_mut().0.iter_mut().zip(limbs) {
            *bytes = limb.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.reduced() == Whole::ZERO
    }

    pub(crate) fn multiply(&mut self, other: &Self) {
        let [low, high] = self.0.product(&other.0);
        self.0 = low;
        let carry = self.0.add_scaled(&high, FOLD, 0);
        self.fold(carry);
    }

    /// The inverse. Zero, which has none, gives zero.
    pub(crate) fn inverse(&self) -> Self {
        Self::from_bytes(&inverse(&self.to_bytes()))
    }

    /// Brings in a carry out of the top limb of at most 2^32.
    fn fold(&mut self, carry: u64) {
        // Should this carry once more, what stays is too small to carry again.
        if self.0.increment(carry * FOLD) {
            self.0.increment(FOLD);
        }
    }

    fn reduced(&self) -> Whole {
        let mut reduced = self.0;
        if reduced.increment(FOLD) {
            reduced
        } else {
            self.0
        }
    }
}

impl PartialEq for Num3072 {
    fn eq(&self, other: &Self) -> bool {
        self.reduced() == other.reduced()
    }
}

impl Eq for Num3072 {}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn modulus() -> BigUint {
        (BigUint::from(1u8) << 3072u32) - FOLD
    }

    fn bytes(number: &BigUint) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let digits = number.to_bytes_le();
        bytes[..digits.len()].copy_from_slice(&digits);
        bytes
    }

    fn edges() -> [BigUint; 8] {
        let p = modulus();
        let one = BigUint::from(1u8);
        let largest = (&one << 3072u32) - 1u8;
        [
            BigUint::ZERO,
            one,
            FOLD.into(),
            &p - 1u8,
            p.clone(),
            p + 1u8,
            &largest - 1u8,
            largest,
        ]
    }

    /// Any number below 2^3072, often one at an edge or made of whole limbs of ones and zeros, where carries run far.
    fn numbers() -> impl Strategy<Value = BigUint> {
        let limb = prop_oneof![
            Just(0),
            Just(1),
            Just(u64::MAX),
            Just(1 << 63),
            any::<u64>()
        ];
        let limbs = prop::collection::vec(limb, BYTES / 8).prop_map(|limbs| {
            BigUint::from_bytes_le(
                &limbs
                    .into_iter()
                    .flat_map(u64::to_le_bytes)
                    .collect::<Vec<_>>(),
            )
        });
        let random = prop::collection::vec(any::<u8>(), BYTES)
            .prop_map(|bytes| BigUint::from_bytes_le(&bytes));
        prop_oneof![prop::sample::select(edges().to_vec()), limbs, random]
    }

    proptest! {
        #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(3072), ..ProptestConfig::default() })]

        #[test]
        fn multiplies_like_the_model(a in numbers(), b in numbers(), c in numbers()) {
            let mut product = Num3072::from_bytes(&bytes(&a));
            product.multiply(&Num3072::from_bytes(&bytes(&b)));
            // A second time, for the first product stayed unreduced.
            product.multiply(&Num3072::from_bytes(&bytes(&c)));
            prop_assert_eq!(BigUint::from_bytes_le(&product.to_bytes()), a * b * c % modulus());
        }

        #[test]
        fn reduces_like_the_model(a in numbers()) {
            let number = Num3072::from_bytes(&bytes(&a));
            let canonical = a % modulus();
            prop_assert_eq!(number.is_zero(), canonical == BigUint::ZERO);
            prop_assert_eq!(BigUint::from_bytes_le(&number.to_bytes()), canonical);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, rng_seed: RngSeed::Fixed(3072), ..ProptestConfig::default() })]

        #[test]
        fn an_inverse_times_its_number_is_one(a in numbers()) {
            let number = Num3072::from_bytes(&bytes(&a));
            let mut product = number.inverse();
            product.multiply(&number);
            prop_assert_eq!(product, if number.is_zero() { Num3072(Whole::ZERO) } else { Num3072::ONE });
        }
    }

    #[test]
    fn multiplies_all_pairs_of_edges() {
        for a in &edges() {
            for b in &edges() {
                let mut product = Num3072::from_bytes(&bytes(a));
                product.multiply(&Num3072::from_bytes(&bytes(b)));
                assert_eq!(
                    BigUint::from_bytes_le(&product.to_bytes()),
                    a * b % modulus(),
                    "{a:x} * {b:x}"
                );
            }
        }
    }
}
