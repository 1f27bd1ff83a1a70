//! Keys: who can read, and who wrote.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use hkdf::Hkdf;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::bytes_as_text::{Hex, HexBytes};
use crate::clock::Entropy;
use crate::error::{Error, Result};

/// What each sealed segment is longer than its plaintext, in bytes.
pub const SEAL_BYTES: u64 = 16;

/// The key to one restore point. Random, and never used for another one.
pub struct DataKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl DataKey {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut *key)?;
        Ok(Self(key))
    }

    /// From its bytes, for whoever has unwrapped it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its bytes, for whoever wraps it.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A data key, readable to some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrappedKey {
    /// How: `age`.
    pub scheme: String,
    /// Who can open it.
    pub recipients: Vec<String>,
    /// What they open.
    pub blob: HexBytes,
}

/// Wraps data keys to those who may read: a backup host has public keys only, can write and not read.
pub trait KeyWrapping: fmt::Debug + Send + Sync + 'static {
    /// Wraps a key.
    ///
    /// # Errors
    /// When nobody would be able to read it.
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey>;
}

/// Opens wrapped keys.
pub trait KeyUnwrapping: fmt::Debug + Send + Sync + 'static {
    /// The key, or `None` if it is for others.
    ///
    /// # Errors
    /// When what is wrapped is damaged.
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>>;
}

/// Seals and opens the segments of one restore point: AES-256-GCM under a key for each segment, HKDF-SHA256 of the data
/// key, so that no nonce is ever used twice under one key.
pub(crate) struct Seal {
    hkdf: Hkdf<Sha256>,
    repository: Hex<16>,
    point: Hex<16>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal")
            .field("point", &self.point)
            .finish_non_exhaustive()
    }
}

impl Seal {
    pub(crate) fn new(key: &DataKey, repository: Hex<16>, point: Hex<16>) -> Self {
        Self {
            hkdf: Hkdf::new(Some(&repository.0), key.expose()),
            repository,
            point,
        }
    }

    /// The cipher of one segment, and what binds it to its place.
    fn segment(&self, ordinal: u64, codec: &str) -> Option<(LessSafeKey, Aad<Vec<u8>>)> {
        let mut identity = Vec::from(*b"groundtackle segment 1");
        identity.extend_from_slice(&self.repository.0);
        identity.extend_from_slice(&self.point.0);
        identity.extend_from_slice(&ordinal.to_be_bytes());
        let mut key = Zeroizing::new([0; 32]);
        self.hkdf.expand(&identity, &mut *key).ok()?;
        identity.extend_from_slice(codec.as_bytes());
        let key = UnboundKey::new(&AES_256_GCM, &*key).ok()?;
        Some((LessSafeKey::new(key), Aad::from(identity)))
    }

    /// Encrypts in place, and appends the tag.
    pub(crate) fn seal(&self, ordinal: u64, codec: &str, bytes: &mut Vec<u8>) -> Result<()> {
        let sealed = self.segment(ordinal, codec).and_then(|(key, identity)| {
            key.seal_in_place_append_tag(nonce(), identity, bytes).ok()
        });
        sealed.ok_or_else(|| {
            Error::invalid_request(format!(
                "a segment of {} bytes is too long to be sealed",
                bytes.len()
            ))
        })
    }

    /// Decrypts in place; `None` if it is not what was sealed there.
    pub(crate) fn open(&self, ordinal: u64, codec: &str, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let (key, identity) = self.segment(ordinal, codec)?;
        let length = key.open_in_place(nonce(), identity, &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

/// Always the same: no key seals twice.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Signs what this host writes: ed25519.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(of {})", self.public())
    }
}

impl SigningKey {
    /// From its secret seed, 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn random(entropy: &dyn Entropy) -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(&mut *seed)?;
        Ok(Self::from_seed(&seed))
    }

    /// Who this is, for those who check.
    pub fn public(&self) -> Hex<32> {
        Hex(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Hex<64> {
        Hex(self.0.sign(message).to_bytes())
    }
}

/// Whether `key` signed it. Keys of small order sign everything, so they count for nothing.
pub(crate) fn is_signed_by(key: &Hex<32>, message: &[u8], signature: &Hex<64>) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| {
        key.verify_strict(message, &Signature::from_bytes(&signature.0))
            .is_ok()
    })
}
