//! Signed JSON: DSSE envelopes (<https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::keys::{SigningKey, is_signed_by};

/// The most signatures of an object: each of them is tried with each trusted key.
const MAX_SIGNATURES: usize = 16;

/// What lies in an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

/// One of a payload's signatures.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    /// The public key, as hexadecimal text. A hint: what counts is who is trusted.
    keyid: String,
    sig: String,
}

/// What is signed: type and payload with their lengths, so that no two pairs read alike.
fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "DSSEv1 {} {payload_type} {} ",
        payload_type.len(),
        payload.len()
    )
    .into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

/// A signed object of `value`.
pub(crate) fn seal(payload_type: &str, value: &impl Serialize, by: &SigningKey) -> Result<Vec<u8>> {
    let payload =
        serde_json::to_vec(value).map_err(|error| Error::invalid_request(error.to_string()))?;
    sealed(payload_type, &payload, by)
}

/// A signed object of what is written already.
pub(crate) fn sealed(payload_type: &str, payload: &[u8], by: &SigningKey) -> Result<Vec<u8>> {
    let signature = by.sign(&pre_authentication(payload_type, payload));
    let envelope = Envelope {
        payload_type: payload_type.into(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature {
            keyid: by.public().to_string(),
            sig: STANDARD.encode(signature.0),
        }],
    };
    serde_json::to_vec(&envelope).map_err(|error| Error::invalid_request(error.to_string()))
}

impl Envelope {
    /// Whoever signed it: to make seeds of real objects.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn payload(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.payload).ok()
    }

    pub(crate) fn read(object: &str, bytes: &[u8]) -> Result<Self> {
        let envelope: Self = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(object, format!("it is no signed object: {error}")))?;
        match envelope.signatures.len() {
            0..=MAX_SIGNATURES => Ok(envelope),
            many => Err(Error::corrupt(
                object,
                format!("it has {many} signatures, and {MAX_SIGNATURES} are the most"),
            )),
        }
    }

    /// The payload, if one of `trusted` signed it.
    pub(crate) fn open(
        &self,
        object: &str,
        payload_type: &str,
        trusted: &[Hex<32>],
    ) -> Result<Vec<u8>> {
        let corrupt = |detail: &str| Error::corrupt(object, detail);
        if self.payload_type != payload_type {
            return Err(corrupt("it is signed as something else"));
        }
        let payload = STANDARD
            .decode(&self.payload)
            .map_err(|_| corrupt("its payload is not base64"))?;
        let message = pre_authentication(payload_type, &payload);
        let signed = self.signatures.iter().any(|signature| {
            let signature: Option<[u8; 64]> = STANDARD
                .decode(&signature.sig)
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            signature.is_some_and(|signature| {
                trusted
                    .iter()
                    .any(|key| is_signed_by(key, &message, &Hex(signature)))
            })
        });
        if signed {
            return Ok(payload);
        }
        let signers: Vec<_> = self
            .signatures
            .iter()
            .map(|signature| signature.keyid.chars().take(64).collect::<String>())
            .collect();
        Err(Error::Untrusted {
            object: object.into(),
            detail: match signers.is_empty() {
                true => "nobody signed it".into(),
                false => format!("it says that {} signed it", signers.join(", ")),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_bounded() {
        let by = SigningKey::from_seed(&[7; 32]);
        let sealed = seal("text/plain", &"hello", &by).expect("it is signed");
        let mut envelope = Envelope::read("object", &sealed).expect("its own");
        let good = envelope.signatures.pop().expect("one");
        let bad = Signature {
            keyid: String::new(),
            sig: "none".into(),
        };
        envelope.signatures = vec![bad.clone(); MAX_SIGNATURES - 1];
        envelope.signatures.push(good);
        let read = |envelope: &Envelope| {
            let bytes = serde_json::to_vec(envelope).expect("JSON");
            Envelope::read("object", &bytes)?.open("object", "text/plain", &[by.public()])
        };
        assert_eq!(read(&envelope).expect("sixteen"), b"\"hello\"");
        envelope.signatures.insert(0, bad);
        let error = read(&envelope).expect_err("seventeen");
        assert!(
            error.to_string().contains("17 signatures, and 16"),
            "{error}"
        );
    }
}
