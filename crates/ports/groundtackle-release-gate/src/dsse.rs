//! Signed JSON: DSSE envelopes (<https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md>), ed25519.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::{hex, unhex};
use crate::error::{Error, Result};

/// Who signs: an ed25519 public key, as 64 hexadecimal digits in lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PublicKey {
    /// Whether signatures can be told from forged ones by it: a key of small order signs everything.
    pub(crate) fn is_sound(&self) -> bool {
        VerifyingKey::from_bytes(&self.0).is_ok_and(|key| !key.is_weak())
    }
}

/// A text that is no [`PublicKey`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no public key: write 64 hexadecimal digits in lower case")]
pub struct ParsePublicKeyError(String);

impl FromStr for PublicKey {
    type Err = ParsePublicKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        unhex(text)
            .map(Self)
            .ok_or_else(|| ParsePublicKeyError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for PublicKey {
    type Error = ParsePublicKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// Signs records and permits: ed25519.
#[derive(Clone)]
pub struct Signer(SigningKey);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer(of {})", self.public())
    }
}

impl Signer {
    /// From its secret seed, 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Who this is, for those who check.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: [EnvelopeSignature; 1],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvelopeSignature {
    keyid: PublicKey,
    sig: String,
}

/// What is signed: type and payload with their lengths, so that no two pairs read alike.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    );
    [head.as_bytes(), payload].concat()
}

/// An envelope on one line.
pub(crate) fn seal(payload_type: &str, payload: &[u8], signer: &Signer) -> Result<String> {
    let signature = signer.0.sign(&pre_authentication(payload_type, payload));
    let envelope = Envelope {
        payload_type: payload_type.into(),
        payload: STANDARD.encode(payload),
        signatures: [EnvelopeSignature {
            keyid: signer.public(),
            sig: STANDARD.encode(signature.to_bytes()),
        }],
    };
    serde_json::to_string(&envelope).map_err(|error| Error::invalid_request(error.to_string()))
}

/// The payload, if one of `trusted` signed it and every byte is as [`seal`] writes it.
pub(crate) fn open(
    what: &str,
    bytes: &[u8],
    payload_type: &str,
    trusted: &[PublicKey],
) -> Result<Vec<u8>> {
    let corrupt = |detail: &str| Error::corrupt(what, detail);
    let envelope: Envelope = serde_json::from_slice(bytes)
        .map_err(|error| corrupt(&format!("it is no envelope: {error}")))?;
    // Spaces, escapes and the like would be two texts with one signature.
    if serde_json::to_vec(&envelope).ok().as_deref() != Some(bytes) {
        return Err(corrupt("it is not written as it was signed"));
    }
    if envelope.payload_type != payload_type {
        return Err(corrupt("it is signed as something else"));
    }
    let payload = STANDARD
        .decode(&envelope.payload)
        .map_err(|_| corrupt("its payload is not base64"))?;
    let [EnvelopeSignature { keyid, sig }] = envelope.signatures;
    let signature = STANDARD
        .decode(sig)
        .ok()
        .and_then(|sig| Signature::from_slice(&sig).ok());
    let message = pre_authentication(payload_type, &payload);
    // Keys of small order sign everything, so they count for nothing.
    let signed = trusted.contains(&keyid)
        && signature.is_some_and(|signature| {
            VerifyingKey::from_bytes(&keyid.0)
                .is_ok_and(|key| key.verify_strict(&message, &signature).is_ok())
        });
    signed
        .then_some(payload)
        .ok_or_else(|| Error::Untrusted { what: what.into() })
}
