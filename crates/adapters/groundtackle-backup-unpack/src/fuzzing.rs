//! For the fuzz target and the corpus test: what this reader makes of bytes, in words that another reader has too.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::hex::Hex;
use crate::manifest::{Descriptor, Manifest, open};
use crate::segment;

/// Identifier and number of an output, height, whether it is a coinbase's, amount and script.
pub type Coin = ([u8; 32], u32, u32, bool, u64, Vec<u8>);

fn plain(coin: segment::Coin) -> Coin {
    let segment::Coin {
        txid,
        vout,
        height,
        coinbase,
        value_sat,
        script,
    } = coin;
    (txid, vout, height, coinbase, value_sat, script)
}

/// The coins of a segment of them.
pub fn coins(segment: &[u8]) -> Option<Vec<Coin>> {
    let coins = segment::decode_coins(segment).ok()?;
    Some(coins.into_iter().map(plain).collect())
}

/// A part of what a block changed.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as the format's specification names them")]
pub struct Delta {
    pub hash: [u8; 32],
    pub previous: [u8; 32],
    pub height: u32,
    pub median_time_past: u32,
    pub part: u32,
    pub last: bool,
    pub created: Vec<Coin>,
    pub spent: Vec<Coin>,
}

/// The changes of a segment of them.
pub fn deltas(segment: &[u8]) -> Option<Vec<Delta>> {
    let deltas = segment::decode_deltas(segment).ok()?;
    let delta = |delta: segment::Delta| Delta {
        hash: delta.hash,
        previous: delta.previous,
        height: delta.height,
        median_time_past: delta.median_time_past,
        part: delta.part,
        last: delta.last,
        created: delta.created.into_iter().map(plain).collect(),
        spent: delta.spent.into_iter().map(plain).collect(),
    };
    Some(deltas.into_iter().map(delta).collect())
}

fn signer() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// The key whose signatures [`signed`] makes.
pub fn trusted() -> [u8; 32] {
    signer().verifying_key().to_bytes()
}

/// A payload of a kind, signed.
pub fn signed(kind: &str, payload: &[u8]) -> Vec<u8> {
    let payload_type = format!("application/vnd.groundtackle.{kind}.v1+json");
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    let signature = signer().sign(&[head.as_bytes(), payload].concat());
    let (payload, sig) = (
        STANDARD.encode(payload),
        STANDARD.encode(signature.to_bytes()),
    );
    let envelope = serde_json::json!({
        "payloadType": payload_type,
        "payload": payload,
        "signatures": [{ "keyid": "", "sig": sig }],
    });
    serde_json::to_vec(&envelope).unwrap()
}

/// Whether it is a manifest of that repository, under that name, that our key signed.
pub fn manifest(object: &str, bytes: &[u8], repository: [u8; 16]) -> bool {
    let repository = Hex(repository);
    let descriptor = serde_json::json!({
        "format": 1,
        "repository": repository.to_string(),
        "network": "main",
        "created_unix_millis": 0,
    });
    let descriptor: Descriptor = serde_json::from_value(descriptor).unwrap();
    Manifest::read(object, bytes, &[Hex(trusted())], &descriptor).is_ok()
}

/// Whether it is a descriptor that our key signed.
pub fn descriptor(bytes: &[u8]) -> bool {
    let trusted = [Hex(trusted())];
    open::<Descriptor>("repository.json", bytes, "repository", &trusted).is_ok()
}

/// Where an entry of a tree's listing goes; what of it that leads out of the tree is refused.
pub fn within(root: &Path, path: &[u8]) -> Option<std::path::PathBuf> {
    crate::tree::within(root, path).ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checks::second_reader;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/second_reader");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            second_reader(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
