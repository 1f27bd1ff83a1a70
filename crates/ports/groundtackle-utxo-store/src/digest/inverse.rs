//! The modular inverse by "safegcd": Bernstein and Yang, *Fast constant-time gcd computation and modular inversion*
//! (2019), in the variable-time form of Bitcoin Core's secp256k1 (`doc/safegcd_implementation.md`).
//!
//! Division steps depend on the lowest bits alone. So 62 of them are worked out on single limbs, and their product, a
//! matrix, is applied to the whole numbers once.

use super::num3072::{BYTES, FOLD};

/// Bits of a limb, so that a limb and the entries of a matrix have room for a sign.
const BITS: u32 = 62;
const MASK: u64 = u64::MAX >> (64 - BITS);

/// Signed, the value being the sum of limb · 2^(62 · index). All limbs but the highest are below 2^62 in size.
type Limbs = [i64; 50];

const ZERO: Limbs = [0; 50];

/// 2^3072 − 1103717.
const P: Limbs = {
    let mut p = ZERO;
    p[0] = -(FOLD as i64);
    p[49] = 1 << (3072 - BITS * 49);
    p
};

/// The inverse of p modulo 2^62, by Newton: each round doubles the bits that are right, of which an odd number's own
/// value has three.
const P_INVERSE: u64 = {
    let p = P[0] as u64;
    let mut inverse = p;
    let mut right = 3;
    while right < BITS {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(inverse)));
        right *= 2;
    }
    inverse & MASK
};

/// What some division steps do to a pair, times 2^62.
type Matrix = [[i64; 2]; 2];

/// 62 division steps. `eta` is the negative of what the papers call delta.
fn division_steps(eta: &mut i64, [f, g]: [u64; 2]) -> Matrix {
    let (mut f, mut g) = (f, g);
    let [mut row_f, mut row_g] = [[1_u64, 0], [0, 1]];
    let mut left = BITS;
    loop {
        // All steps that only halve g, at once.
        let zeros = (g | (u64::MAX << left)).trailing_zeros();
        g >>= zeros;
        row_f = row_f.map(|entry| entry << zeros);
        *eta -= i64::from(zeros);
        left -= zeros;
        if left == 0 {
            break;
        }
        if *eta < 0 {
            *eta = -*eta;
            (f, g) = (g, f.wrapping_neg());
            (row_f, row_g) = (row_g, row_f.map(u64::wrapping_neg));
        }
        // As many low bits of g as may be cleared by adding f before the next exchange: −g / f modulo 2^6.
        let bits = left
            .min(u32::try_from(*eta).unwrap_or(BITS).saturating_add(1))
            .min(6);
        let times = f
            .wrapping_mul(f)
            .wrapping_sub(2)
            .wrapping_mul(f)
            .wrapping_mul(g)
            & (u64::MAX >> (64 - bits));
        g = g.wrapping_add(f.wrapping_mul(times));
        let [[u, v], [q, r]] = [row_f, row_g];
        row_g = [
            q.wrapping_add(u.wrapping_mul(times)),
            r.wrapping_add(v.wrapping_mul(times)),
        ];
    }
    [row_f, row_g].map(|row| row.map(|entry| entry as i64))
}

/// (row · (x, y) + times · p) / 2^62, which must be a whole number.
fn combined([u, v]: [i64; 2], [x, y]: [&Limbs; 2], times: i64) -> Limbs {
    let mut result = ZERO;
    let mut carry = 0_i128;
    let terms = x.iter().zip(y).zip(&P);
    let mut sums = terms.map(|((x, y), p)| {
        carry += i128::from(u) * i128::from(*x)
            + i128::from(v) * i128::from(*y)
            + i128::from(times) * i128::from(*p);
        let low = carry as u64 & MASK;
        carry >>= BITS;
        low as i64
    });
    // Its bits are zero; the others move down by one limb.
    sums.next();
    for (limb, sum) in result.iter_mut().zip(sums) {
        *limb = sum;
    }
    result[49] = carry as i64;
    result
}

fn is_negative(number: &Limbs) -> bool {
    number[49] < 0
}

/// How often p must be added, or taken away, so that row · (x, y) can be divided by 2^62. Once more for each negative
/// of the two keeps the result between −2p and p.
fn times_p([u, v]: [i64; 2], [x, y]: [&Limbs; 2]) -> i64 {
    let times = if is_negative(x) { u } else { 0 } + if is_negative(y) { v } else { 0 };
    let low = (x[0] as u64)
        .wrapping_mul(u as u64)
        .wrapping_add((y[0] as u64).wrapping_mul(v as u64));
    let excess = P_INVERSE.wrapping_mul(low).wrapping_add(times as u64) & MASK;
    times - excess as i64
}

/// `number * factor + p * times`, for small numbers.
fn adjusted(number: &Limbs, factor: i64, times: i64) -> Limbs {
    let mut carry = 0_i64;
    let mut result = ZERO;
    for ((limb, number), p) in result.iter_mut().zip(number).zip(&P) {
        carry += number * factor + p * times;
        *limb = carry & MASK as i64;
        carry >>= BITS;
    }
    result[49] |= carry << BITS;
    result
}

/// The inverse modulo p of a number below p, both in little-endian bytes. Zero, which has none, gives zero.
pub(super) fn inverse(number: &[u8; BYTES]) -> [u8; BYTES] {
    let (mut f, mut g) = (P, limbs(number));
    // d · number = f and e · number = g modulo p, always.
    let (mut d, mut e) = (ZERO, ZERO);
    e[0] = 1;
    let mut eta = -1;
    while g != ZERO {
        let [first, second] = division_steps(&mut eta, [f[0] as u64, g[0] as u64]);
        (f, g) = (combined(first, [&f, &g], 0), combined(second, [&f, &g], 0));
        (d, e) = (
            combined(first, [&d, &e], times_p(first, [&d, &e])),
            combined(second, [&d, &e], times_p(second, [&d, &e])),
        );
    }
    // f is 1 or −1 now, and d between −2p and p.
    d = adjusted(&d, 1, i64::from(is_negative(&d)));
    d = adjusted(&d, if is_negative(&f) { -1 } else { 1 }, 0);
    d = adjusted(&d, 1, i64::from(is_negative(&d)));
    bytes(&d)
}

fn limbs(bytes: &[u8; BYTES]) -> Limbs {
    let (mut limbs, mut wide, mut bits) = (ZERO, 0_u128, 0);
    let mut bytes = bytes.iter();
    for limb in &mut limbs {
        while bits < BITS {
            wide |= u128::from(bytes.next().copied().unwrap_or(0)) << bits;
            bits += 8;
        }
        *limb = (wide as u64 & MASK) as i64;
        wide >>= BITS;
        bits -= BITS;
    }
    limbs
}

fn bytes(limbs: &Limbs) -> [u8; BYTES] {
    let (mut bytes, mut wide, mut bits) = ([0; BYTES], 0_u128, 0);
    let mut limbs = limbs.iter();
    for byte in &mut bytes {
        if bits < 8 {
            wide |= u128::from(limbs.next().copied().unwrap_or(0) as u64) << bits;
            bits += BITS;
        }
        *byte = wide as u8;
        wide >>= 8;
        bits -= 8;
    }
    bytes
}
