//! Arithmetic modulo p = 2^3072 − 1103717.
//!
//! A number is a tree of two halves of two quarters of twelve limbs, least significant first, so that one level of
//! the tree is one level of Karatsuba: nine 12 × 12 limb products instead of sixteen. Values stay below 2^3072 and
//! are brought below p only when they are written out.

#![expect(clippy::indexing_slicing, reason = "constant bounds, which the compiler checks away; iterators do not unroll as well")]

/// 2^3072 − p: what a carry out of the top limb is worth at the bottom.
const FOLD: u64 = 1_103_717;

/// Length of a number's little-endian bytes.
pub(crate) const BYTES: usize = 384;

const QUARTER: usize = 12;
type Quarter = [u64; QUARTER];
type Whole = [[Quarter; 2]; 2];

trait Limbs: Copy {
    const ZERO: Self;

    /// `self += (other ^ mask) + carry`; returns the carry out. With `mask` all ones and a carry this subtracts.
    fn add(&mut self, other: &Self, mask: u64, carry: bool) -> bool;

    /// `self += other * factor + carry`; returns the limb carried out.
    fn add_scaled(&mut self, other: &Self, factor: u64, carry: u64) -> u64;

    /// The full product, as its low and high half.
    fn product(&self, other: &Self) -> [Self; 2];

    /// `|self − other|`, and all ones if the difference is negative, else zero.
    #[inline(always)]
    fn distance(&self, other: &Self) -> (Self, u64) {
        let mut difference = *self;
        let borrowed = !difference.add(other, u64::MAX, true);
        let sign = u64::from(borrowed).wrapping_neg();
        let mut distance = Self::ZERO;
        distance.add(&difference, sign, borrowed);
        (distance, sign)
    }
}

impl Limbs for Quarter {
    const ZERO: Self = [0; QUARTER];

    #[inline(always)]
    fn add(&mut self, other: &Self, mask: u64, mut carry: bool) -> bool {
        for (limb, other) in self.iter_mut().zip(other) {
            let (sum, over) = limb.overflowing_add(other ^ mask);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over | over_again);
        }
        carry
    }

    #[inline(always)]
    fn add_scaled(&mut self, other: &Self, factor: u64, carry: u64) -> u64 {
        scaled_row(self, other, factor, carry)
    }

    #[inline]
    fn product(&self, other: &Self) -> [Self; 2] {
        let mut product = [Self::ZERO; 2];
        let limbs = product.as_flattened_mut();
        for (i, factor) in self.iter().enumerate() {
            limbs[i + QUARTER] = scaled_row(&mut limbs[i..i + QUARTER], other, *factor, 0);
        }
        product
    }
}

#[inline(always)]
fn scaled_row(sum: &mut [u64], row: &Quarter, factor: u64, mut carry: u64) -> u64 {
    for (limb, other) in sum.iter_mut().zip(row) {
        // At most (2^64 − 1)^2 + 2 (2^64 − 1) = 2^128 − 1.
        let wide = u128::from(*other) * u128::from(factor) + u128::from(*limb) + u128::from(carry);
        (*limb, carry) = (wide as u64, (wide >> 64) as u64);
    }
    carry
}

impl<T: Limbs> Limbs for [T; 2] {
    const ZERO: Self = [T::ZERO; 2];

    #[inline(always)]
    fn add(&mut self, [low, high]: &Self, mask: u64, carry: bool) -> bool {
        let carry = self[0].add(low, mask, carry);
        self[1].add(high, mask, carry)
    }

    #[inline(always)]
    fn add_scaled(&mut self, [low, high]: &Self, factor: u64, carry: u64) -> u64 {
        let carry = self[0].add_scaled(low, factor, carry);
        self[1].add_scaled(high, factor, carry)
    }

    /// Karatsuba: the middle term a0·b1 + a1·b0 is a0·b0 + a1·b1 − (a0 − a1)(b0 − b1).
    #[inline]
    fn product(&self, other: &Self) -> [Self; 2] {
        let mut low = self[0].product(&other[0]);
        let mut high = self[1].product(&other[1]);
        let (a, a_sign) = self[0].distance(&self[1]);
        let (b, b_sign) = other[0].distance(&other[1]);

        let mut middle = low;
        let mut carries = u64::from(middle.add(&high, 0, false));
        let subtract = !(a_sign ^ b_sign);
        carries += u64::from(middle.add(&a.product(&b), subtract, subtract != 0));
        // A subtraction that did not borrow carries out once.
        carries -= subtract & 1;

        let carry = low[1].add(&middle[0], 0, false);
        let carry = high[0].add(&middle[1], 0, carry);
        high[1].add_scaled(&T::ZERO, 0, carries + u64::from(carry));
        [low, high]
    }
}

/// A residue modulo p, below 2^3072 but not always below p.
#[derive(Clone, Debug)]
pub(crate) struct Num3072(Whole);

impl Num3072 {
    pub(crate) const ONE: Self = {
        let mut one = Whole::ZERO;
        one[0][0][0] = 1;
        Self(one)
    };

    pub(crate) fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut number = Whole::ZERO;
        let limbs = number.as_flattened_mut().as_flattened_mut();
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Self(number)
    }

    /// The canonical value, below p.
    pub(crate) fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        let reduced = self.reduced();
        let limbs = reduced.as_flattened().as_flattened();
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
        let mut carry = self.0.add_scaled(&high, FOLD, 0);
        // The first carry is below 2^21; a second one leaves nearly nothing behind, so there is no third.
        while carry != 0 {
            carry = self.0.add_scaled(&Whole::ZERO, 0, carry * FOLD);
        }
    }

    fn reduced(&self) -> Whole {
        let mut shifted = self.0;
        match shifted.add_scaled(&Whole::ZERO, 0, FOLD) {
            0 => self.0,
            _ => shifted,
        }
    }

    fn squared(&self, times: u32) -> Self {
        let mut power = self.clone();
        for _ in 0..times {
            power.multiply(&power.clone());
        }
        power
    }

    /// The inverse, by Fermat: self^(p − 2). Zero, which has none, gives zero.
    pub(crate) fn inverse(&self) -> Self {
        // p − 2 = 2^3072 − 1103719: 3051 ones, then the 21 low bits. Build self^(2^3051 − 1) by doubling the ones.
        const TAIL_BITS: u32 = 21;
        let ones = 3072 - TAIL_BITS;
        let mut power = self.clone();
        let mut have = 1;
        for bit in (0..ones.ilog2()).rev() {
            let mut doubled = power.squared(have);
            doubled.multiply(&power);
            (power, have) = (doubled, 2 * have);
            if ones >> bit & 1 == 1 {
                power = power.squared(1);
                power.multiply(self);
                have += 1;
            }
        }
        let tail = (1 << TAIL_BITS) - FOLD - 2;
        for bit in (0..TAIL_BITS).rev() {
            power = power.squared(1);
            if tail >> bit & 1 == 1 {
                power.multiply(self);
            }
        }
        power
    }
}

impl PartialEq for Num3072 {
    fn eq(&self, other: &Self) -> bool {
        self.reduced() == other.reduced()
    }
}

impl Eq for Num3072 {}
