//! For the fuzz target and the corpus test: what must hold of any bytes under any key.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{BlockHash, Result, Txid};

use crate::record::{
    RECORD_KIND, Slot, TIP_KEY, TipState, UNDO_KIND, UNMINED_KIND, chunk_of, decode_chunk,
    decode_head, decode_inputs, decode_tip, decode_undo, decode_unmined, encode_chunk, encode_head,
    encode_inputs, encode_tip, encode_undo, encode_unmined, encoded, expiring_key, inputs_key,
    read_expiring, read_hash, read_number, record_key, seal, split_expiring_key, split_record_key,
    undo_key, unmined_key,
};
use crate::store::EmbeddedUtxoStore;

const HEAD: u8 = 0;
const CHUNK: u8 = 1;
const INPUTS: u8 = 2;
const UNDO: u8 = 3;
const TIP: u8 = 4;
const UNMINED: u8 = 5;
const KEYS: u8 = 6;
const UNSEALED: u8 = 7;

const TXID: Txid = Txid::from_bytes([7; 32]);

/// Takes a byte that says what the bytes after it are, and those without their checksum: that is
/// put on here, so that what is behind it is reached.
pub fn record(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else {
        return;
    };
    match *kind {
        HEAD => same_again(
            &sealed(&record_key(&TXID, 0), body),
            |value| decode_head(&TXID, value),
            |(head, slots)| {
                assert!(head.last_chunk <= chunk_of(u32::MAX));
                read_scripts(slots);
                encoded(|out| encode_head(out, &TXID, head, slots))
            },
        ),
        CHUNK => {
            let Some((number, body)) = body.split_first_chunk() else {
                return;
            };
            let number = u32::from_be_bytes(*number);
            same_again(
                &sealed(&record_key(&TXID, number), body),
                |value| decode_chunk(&TXID, number, value),
                |slots| {
                    assert!(slots.iter().all(|slot| chunk_of(slot.vout) == number));
                    assert!(slots.is_sorted_by(|a, b| a.vout < b.vout));
                    read_scripts(slots);
                    encoded(|out| encode_chunk(out, &TXID, number, slots))
                },
            );
        }
        INPUTS => same_again(
            &sealed(&inputs_key(&TXID), body),
            |value| decode_inputs(&TXID, value),
            |inputs| encoded(|out| encode_inputs(out, &TXID, inputs)),
        ),
        UNDO => {
            let key = undo_key(9, &BlockHash::ZERO);
            same_again(
                &sealed(&key, body),
                |value| decode_undo(&key, Some(8), value),
                |undo| {
                    undo.replaced
                        .iter()
                        .for_each(|(_, slots)| read_scripts(slots));
                    encoded(|out| encode_undo(out, &key, undo))
                },
            );
        }
        TIP => {
            let value = sealed(TIP_KEY, body);
            let Ok(state) = decode_tip(&value) else {
                return;
            };
            let digest = |state: &TipState| state.muhash.as_ref().map(MuHash3072::to_bytes);
            assert_eq!(
                state.muhash.is_some(),
                body.len() > MuHash3072::STATE_BYTES,
                "a digest is read or refused, not left out"
            );
            // A digest of numbers above the modulus is written below it.
            let again = encoded(|out| encode_tip(out, &state));
            assert_eq!(again.len(), value.len());
            let again = decode_tip(&again).unwrap();
            assert_eq!(again.tip, state.tip);
            assert_eq!(again.next_block, state.next_block);
            assert_eq!(digest(&again), digest(&state));
        }
        UNMINED => same_again(
            body,
            |value| decode_unmined(&unmined_key(&TXID), value),
            |(txid, since, conflicting)| {
                assert_eq!(*txid, TXID);
                encode_unmined(*since, *conflicting).into()
            },
        ),
        KEYS => keys(body),
        UNSEALED => {
            let _ = decode_head(&TXID, body);
            let _ = decode_chunk(&TXID, 1, body);
            let _ = decode_inputs(&TXID, body);
            let _ = decode_undo(body, None, body);
            let _ = decode_tip(body);
        }
        _ => {}
    }
}

fn sealed(key: &[u8], body: &[u8]) -> Vec<u8> {
    encoded(|out| seal(out, key, |out| out.extend_from_slice(body)))
}

fn same_again<T: Debug + PartialEq>(
    value: &[u8],
    decode: impl Fn(&[u8]) -> Result<T>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(decoded) = decode(value) else { return };
    let again = encode(&decoded);
    // There is one form of everything; scripts are kept in the form that they have.
    assert_eq!(again, value);
    assert_eq!(decode(&again).unwrap(), decoded);
}

fn read_scripts(slots: &[Slot]) {
    // Which keys are on the curve shows only here.
    for output in slots.iter().filter_map(|slot| slot.output().ok()) {
        assert_eq!(Slot::unspent(0, &output).output().unwrap(), output);
    }
}

fn keys(key: &[u8]) {
    if let Ok((txid, Some(chunk))) = split_record_key(key) {
        assert_eq!(record_key(&txid, chunk), key);
    }
    if let Ok((txid, None)) = split_record_key(key) {
        assert_eq!(inputs_key(&txid), key);
    }
    if let Ok((height, number)) = split_expiring_key(key) {
        assert_eq!(expiring_key(height, number), key);
    }
    assert_eq!(read_expiring(key).is_ok(), key.len().is_multiple_of(32));
    if let Ok((txid, ..)) = decode_unmined(key, &[0; 5]) {
        assert_eq!(unmined_key(&txid).get(1..), key.get(1..));
    }
    assert_eq!(read_number("a number", key).is_ok(), key.len() == 4);
    assert_eq!(read_hash("a hash", key).is_ok(), key.len() == 32);
}

/// The records of a store as [`record`] takes them.
pub fn records(store: &EmbeddedUtxoStore) -> Result<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    let mut add = |kind: u8, number: &[u8], body: &[u8]| {
        records.push([&[kind], number, body].concat());
    };
    let engine = store.engine();
    let snapshot = engine.snapshot();
    for entry in engine.range(&snapshot, &[], &[u8::MAX]) {
        let (key, value) = entry?;
        add(KEYS, &[], &key);
        let kind = match key.first() {
            Some(&RECORD_KIND) => match split_record_key(&key)?.1 {
                Some(0) => HEAD,
                Some(_) => CHUNK,
                None => INPUTS,
            },
            Some(&UNDO_KIND) => UNDO,
            Some(&UNMINED_KIND) => {
                add(UNMINED, &[], &value);
                continue;
            }
            _ if *key == *TIP_KEY => TIP,
            _ => continue,
        };
        let value = engine.whole(&snapshot, &key, value)?;
        let Some((body, _checksum)) = value.bytes().split_last_chunk::<4>() else {
            continue;
        };
        let number = if kind == CHUNK {
            key.get(33..).unwrap_or_default()
        } else {
            &[]
        };
        add(kind, number, body);
    }
    Ok(records)
}
