//! For the fuzz target and the corpus test: what must hold of any bytes that are taken for an object, signed or not.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bytes_as_text::Hex;
use crate::envelope::{Envelope, sealed};
use crate::evidence::{self, DrillRecord, Evidence};
use crate::forget::Tombstone;
use crate::keys::{DataKey, SEAL_BYTES, Seal, SigningKey};
use crate::lease::Written;
use crate::manifest::{self, Manifest, of_known_format};
use crate::rekey::Wrapping;
use crate::repository::{DESCRIPTOR, Descriptor};
use crate::source::SegmentEntry;

const ENVELOPE: u8 = 0;
const MANIFEST: u8 = 1;
const EVIDENCE: u8 = 2;
const REPOSITORY: u8 = 3;
const TOMBSTONE: u8 = 4;
const WRAPPING: u8 = 5;
const LEASE: u8 = 6;
const INDEX: u8 = 7;
const SEGMENT: u8 = 8;

/// Takes a byte that says what the bytes after it are: an envelope, what is signed in one, a part of an index, or a sealed
/// segment. What is read comes back from what is written; of another signer, or under another name, it is refused.
pub fn object(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match *kind {
        ENVELOPE => envelope(bytes),
        MANIFEST => signed_manifest(bytes),
        EVIDENCE => signed_evidence(bytes),
        REPOSITORY => known::<Descriptor>(bytes),
        TOMBSTONE => known::<Tombstone>(bytes),
        WRAPPING => known::<Wrapping>(bytes),
        LEASE => known::<Written>(bytes),
        INDEX => again::<Vec<SegmentEntry>>(bytes),
        SEGMENT => segment(bytes),
        _ => {}
    }
}

fn signer() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn envelope(bytes: &[u8]) {
    let Ok(envelope) = Envelope::read(DESCRIPTOR, bytes) else {
        return;
    };
    // Nobody signed what a fuzzer makes up.
    let open = envelope.open(DESCRIPTOR, "text/plain", &[signer().public()]);
    assert!(open.is_err());
}

fn signed_manifest(payload: &[u8]) {
    let trusted = [signer().public()];
    let whole = sealed(manifest::PAYLOAD_TYPE, payload, &signer()).unwrap();
    let wanted = of_known_format::<Manifest>(DESCRIPTOR, payload);
    let object = wanted.as_ref().ok().map(|read| read.object().unwrap());
    let object = object.as_ref().map_or(DESCRIPTOR, |object| object.as_str());
    let Ok(read) = Manifest::read(object, &whole, &trusted) else {
        return;
    };
    assert_eq!(read, wanted.unwrap());
    let again = read.sign(&signer()).unwrap();
    assert_eq!(Manifest::read(object, &again, &trusted).unwrap(), read);
    let stranger = [SigningKey::from_seed(&[8; 32]).public()];
    assert!(Manifest::read(object, &whole, &stranger).is_err());
    assert!(Manifest::read(DESCRIPTOR, &whole, &trusted).is_err());
    let blocks = read.content.blocks();
    let follow = |(a, b): (&manifest::BlockEntry, &manifest::BlockEntry)| {
        b.previous == a.position.hash && b.position.height - 1 == a.position.height
    };
    assert!(blocks.iter().zip(blocks.iter().skip(1)).all(follow));
}

fn signed_evidence(payload: &[u8]) {
    #[derive(serde::Deserialize)]
    struct Statement {
        predicate: DrillRecord,
    }
    let trusted = [signer().public()];
    let whole = sealed(evidence::PAYLOAD_TYPE, payload, &signer()).unwrap();
    let Ok(Statement { predicate }) = serde_json::from_slice(payload) else {
        assert!(Evidence::read(DESCRIPTOR, &whole, &trusted).is_err());
        return;
    };
    let object = evidence::object(&predicate).unwrap();
    let Ok(read) = Evidence::read(object.as_str(), &whole, &trusted) else {
        return;
    };
    assert_eq!(read.drill, predicate);
    let again = read.sign(&signer()).unwrap();
    let again = Evidence::read(object.as_str(), &again, &trusted).unwrap();
    assert_eq!(again, read);
    assert!(Evidence::read(DESCRIPTOR, &whole, &trusted).is_err());
}

/// Whatever is read by its format first.
fn known<T: DeserializeOwned + Serialize + PartialEq + Debug>(payload: &[u8]) {
    if of_known_format::<T>(DESCRIPTOR, payload).is_ok() {
        again::<T>(payload);
    }
}

fn again<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else {
        return;
    };
    let written = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), read);
}

/// What was sealed opens in its place alone, and as a whole alone.
fn segment(bytes: &[u8]) {
    let seal = |point| {
        Seal::new(
            &DataKey::from_bytes([9; 32]),
            Hex([1; 16]),
            Hex([point; 16]),
        )
    };
    let codec = "coins.1";
    assert_eq!(seal(2).open(0, codec, bytes.to_vec()), None);
    let mut sealed = bytes.to_vec();
    seal(2).seal(0, codec, &mut sealed).unwrap();
    assert_eq!(sealed.len() as u64, bytes.len() as u64 + SEAL_BYTES);
    assert_eq!(
        seal(2).open(0, codec, sealed.clone()).as_deref(),
        Some(bytes)
    );
    assert_eq!(seal(2).open(1, codec, sealed.clone()), None);
    assert_eq!(seal(2).open(0, "deltas.1", sealed.clone()), None);
    assert_eq!(seal(3).open(0, codec, sealed.clone()), None);
    sealed.pop();
    assert_eq!(seal(2).open(0, codec, sealed), None);
}

/// A signed object's payload, as [`object`] takes it; the signature is not looked at.
pub fn payload(object: &str, bytes: &[u8]) -> Vec<u8> {
    let kind = match object.split('/').next() {
        Some("points") => MANIFEST,
        Some("drills") => EVIDENCE,
        Some("forgotten") => TOMBSTONE,
        Some("keys") => WRAPPING,
        Some("leases") => LEASE,
        _ => REPOSITORY,
    };
    let payload = Envelope::read(object, bytes).unwrap().payload().unwrap();
    [vec![kind], payload].concat()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/backup_object");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            object(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
