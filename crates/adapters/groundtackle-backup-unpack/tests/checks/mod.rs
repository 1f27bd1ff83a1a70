//! What must hold of any bytes, for this reader and the engine's. The fuzz target and the corpus test call the same check.

#![allow(clippy::unwrap_used)]
#![allow(unreachable_pub)]

use std::path::Path;

use groundtackle_backup::{Descriptor, Hex, Manifest};
use groundtackle_backup_utxo::codec::decode_coins;
use groundtackle_backup_utxo::delta::{DeltaPart, decode_parts};
use groundtackle_utxo_store::Coin;

use super::fuzzing as second;

const MANIFEST: u8 = 0;
const DESCRIPTOR: u8 = 1;
const SEGMENT: u8 = 2;
const PATH: u8 = 3;

/// Takes a byte that says what the bytes after it are. Both readers refuse the same segments and descriptors, and read the same
/// in all others; a manifest that the engine takes is taken here as well; no path leads out of a tree.
pub fn second_reader(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match *kind {
        MANIFEST => manifest(bytes),
        DESCRIPTOR => {
            let read = serde_json::from_slice::<Descriptor>(bytes);
            let taken = read.is_ok_and(|read| read.format == 1);
            assert_eq!(
                second::descriptor(&second::signed("repository", bytes)),
                taken
            );
        }
        SEGMENT => segment(bytes),
        PATH => path(bytes),
        _ => {}
    }
}

fn manifest(payload: &[u8]) {
    let Ok(read) = serde_json::from_slice::<Manifest>(payload) else {
        return;
    };
    let object = read.object().unwrap();
    let object = object.as_str();
    let signed = second::signed("restore-point", payload);
    let first = Manifest::read(object, &signed, &[Hex(second::trusted())]);
    // Here the network is compared with the descriptor's; the engine asks for it elsewhere.
    if first.is_ok() && read.network == "main" {
        assert!(second::manifest(object, &signed, read.repository.0));
    }
    let mut stranger = read.repository.0;
    stranger[0] ^= 1;
    assert!(!second::manifest(object, &signed, stranger));
}

fn plain(coin: &Coin) -> second::Coin {
    let (txid, vout) = (*coin.outpoint.txid.as_bytes(), coin.outpoint.vout);
    let script = coin.output.script.as_bytes().to_vec();
    let value = coin.output.value_sat;
    (txid, vout, coin.height, coin.coinbase, value, script)
}

fn segment(segment: &[u8]) {
    let coins = decode_coins(segment).ok();
    let coins: Option<Vec<_>> = coins.map(|coins| coins.iter().map(plain).collect());
    assert_eq!(second::coins(segment), coins);
    let delta = |part: DeltaPart| second::Delta {
        hash: *part.delta.tip.hash.as_bytes(),
        previous: *part.delta.previous.as_bytes(),
        height: part.delta.tip.height,
        median_time_past: part.delta.tip.median_time_past,
        part: part.number,
        last: part.last,
        created: part.delta.created.iter().map(plain).collect(),
        spent: part.delta.spent.iter().map(plain).collect(),
    };
    let deltas = decode_parts(segment).ok();
    let deltas: Option<Vec<_>> = deltas.map(|parts| parts.into_iter().map(delta).collect());
    assert_eq!(second::deltas(segment), deltas);
}

fn path(path: &[u8]) {
    use std::path::Component;

    let root = Path::new("/nowhere");
    let Some(found) = second::within(root, path) else {
        return;
    };
    let below = found.strip_prefix(root).unwrap();
    let mut parts = below.components();
    assert!(parts.all(|part| matches!(part, Component::Normal(_))));
    assert_eq!(below.as_os_str().as_encoded_bytes(), path);
}
