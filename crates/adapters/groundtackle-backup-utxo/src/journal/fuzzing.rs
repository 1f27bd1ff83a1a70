//! For the fuzz target and the corpus test: what must hold of any bytes that lie in a journal's folder.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::fs;
use std::path::Path;

use groundtackle_utxo_store::{BlockHash, OutPoint, Tip};

use super::file::{EPOCH, Epoch, Folder, Intent, MAGIC, VERSION, checksum};
use crate::delta::Delta;

const OF_EPOCH: u8 = 0;
const OF_INTENT: u8 = 1;
const OF_DELTA: u8 = 2;
/// The parts, each after its length, get the front and the checksums of a whole file.
const MENDED: u8 = 4;

const HEIGHT: u32 = 1;
const HASH: BlockHash = BlockHash::from_bytes([1; 32]);

/// Takes a byte that says which file the bytes after it are. It is refused, or what is read comes back from what is written; with
/// a byte more or less it is refused.
pub fn journal(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let file = match kind & MENDED {
        0 => bytes.to_vec(),
        _ => mended(bytes),
    };
    let folder = tempfile::tempdir().unwrap();
    let at = Folder(folder.path().into());
    match kind & !MENDED {
        OF_EPOCH => again(&at.path(EPOCH), &file, || {
            let epoch = at.read_epoch().ok()?;
            at.write_epoch(epoch).unwrap();
            assert_eq!(at.read_epoch().unwrap(), epoch);
            Some(())
        }),
        OF_INTENT => again(&at.path(super::file::INTENT), &file, || {
            let intent = at.read_intent().ok()?.unwrap();
            at.write_intent(&intent).unwrap();
            assert_eq!(at.read_intent().unwrap(), Some(intent));
            Some(())
        }),
        OF_DELTA => again(&at.delta_path(HEIGHT, &HASH), &file, || {
            let (head, delta) = at.read_delta(HEIGHT, &HASH).ok()?;
            assert_eq!(at.read_head(HEIGHT, &HASH).unwrap(), Some(head));
            assert_eq!(delta.previous, head.previous);
            at.write_delta(head.epoch, delta.clone()).unwrap();
            assert_eq!(at.read_delta(HEIGHT, &HASH).unwrap(), (head, delta));
            Some(())
        }),
        _ => {}
    }
}

fn again(path: &Path, file: &[u8], read: impl Fn() -> Option<()>) {
    fs::write(path, file).unwrap();
    if read().is_none() {
        return;
    }
    // By now it is what was written.
    let written = fs::read(path).unwrap();
    for whole in [file, &written] {
        let (_, cut) = whole.split_last().unwrap();
        for changed in [cut.to_vec(), [whole, &[0]].concat()] {
            fs::write(path, changed).unwrap();
            assert!(read().is_none());
        }
    }
}

fn mended(mut parts: &[u8]) -> Vec<u8> {
    let mut file = [&MAGIC[..], &[VERSION]].concat();
    while let Some((length, rest)) = parts.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        let length = (length as u32).to_le_bytes();
        file.extend(length);
        file.extend(checksum(length, part).to_le_bytes());
        file.extend(part);
        parts = rest;
    }
    file
}

/// Files of a journal that says so of a block, as [`journal`] takes them.
pub fn files(delta: &Delta) -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let at = Folder(folder.path().into());
    let tip = Tip {
        height: HEIGHT,
        hash: HASH,
        ..delta.tip
    };
    let epoch = Epoch::from_bytes([7; 16]);
    let outpoints = |coins: &[groundtackle_utxo_store::Coin]| -> Vec<OutPoint> {
        coins.iter().map(|coin| coin.outpoint).collect()
    };
    let intent = Intent {
        tip,
        previous: delta.previous,
        created: outpoints(&delta.created),
        spent: outpoints(&delta.spent),
        overwritten: delta.created.iter().take(2).cloned().collect(),
    };
    let delta = Delta {
        tip,
        ..delta.clone()
    };
    at.write_epoch(Some(epoch)).unwrap();
    at.write_intent(&intent).unwrap();
    at.write_delta(epoch, delta).unwrap();
    let mut all = Vec::new();
    for (kind, path) in [
        (OF_EPOCH, at.path(EPOCH)),
        (OF_INTENT, at.path(super::file::INTENT)),
        (OF_DELTA, at.delta_path(HEIGHT, &HASH)),
    ] {
        let file = fs::read(path).unwrap();
        all.push([&[kind], &file[..]].concat());
        all.push([&[kind | MENDED], &parts(&file)[..]].concat());
    }
    at.write_epoch(None).unwrap();
    let none = fs::read(at.path(EPOCH)).unwrap();
    all.push([&[OF_EPOCH], &none[..]].concat());
    all
}

/// The parts of a whole file, as [`mended`] takes them.
fn parts(file: &[u8]) -> Vec<u8> {
    let mut rest = file.get(MAGIC.len() + 1..).unwrap();
    let mut parts = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_le_bytes(*length);
        let (part, after) = after.get(4..).unwrap().split_at(length as usize);
        parts.extend(u16::try_from(length).unwrap().to_le_bytes());
        parts.extend(part);
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/journal");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            journal(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
