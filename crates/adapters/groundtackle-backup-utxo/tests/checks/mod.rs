//! What must hold of any bytes. The fuzz target and the corpus test call the same check.

#![allow(clippy::unwrap_used)]
#![allow(unreachable_pub)]

use groundtackle_backup_utxo::codec::{CodecError, MAX_SEGMENT_COINS, decode_coins, encode_coins};
use groundtackle_backup_utxo::delta::{Joiner, decode_deltas, decode_parts, encode_parts};

/// A segment of coins or deltas: it ends with an error, or with what comes back from its encoding; a byte more or less is
/// refused, and parts join or are refused.
pub fn segment(bytes: &[u8]) {
    if let Ok(coins) = decode_coins(bytes) {
        assert!(coins.len() <= MAX_SEGMENT_COINS);
        let written = encode_coins(&coins).unwrap();
        assert_eq!(decode_coins(&written).unwrap(), coins);
        ends_here(bytes, |bytes| decode_coins(bytes).map(drop));
        ends_here(&written, |bytes| decode_coins(bytes).map(drop));
    }
    if let Ok(parts) = decode_parts(bytes) {
        let written = encode_parts(&parts).unwrap();
        assert_eq!(decode_parts(&written).unwrap(), parts);
        ends_here(bytes, |bytes| decode_parts(bytes).map(drop));
        let whole = parts.iter().all(|part| part.number == 0 && part.last);
        assert_eq!(decode_deltas(bytes).is_ok(), whole);
        let mut joiner = Joiner::default();
        for part in parts {
            if joiner.push(part).is_err() {
                return;
            }
        }
        drop(joiner.finish());
    }
}

fn ends_here(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<(), CodecError>) {
    let (_, cut) = bytes.split_last().unwrap();
    decode(cut).unwrap_err();
    let longer = [bytes, &[0]].concat();
    assert_eq!(decode(&longer), Err(CodecError::Trailing { bytes: 1 }));
}
