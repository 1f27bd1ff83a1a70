//! Bytes that tell where they come from.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The next number of a sequence, well mixed (splitmix64).
pub(crate) fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A range of the endless content `tag`, which nothing compresses: a part of an object can be compared without the
/// rest.
pub fn content(tag: u64, range: Range<u64>) -> Bytes {
    let (first, last) = (range.start / 8, range.end.div_ceil(8));
    let mut bytes = BytesMut::new();
    for block in first..last {
        let mut state = tag.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ block;
        bytes.extend_from_slice(&mix(&mut state).to_le_bytes());
    }
    let skipped = usize::try_from(range.start % 8).expect("below 8");
    let length = usize::try_from(range.end.saturating_sub(range.start)).expect("it fits memory");
    bytes.freeze().slice(skipped..skipped + length)
}
