//! What people say, signed by themselves: an in-toto statement
//! (<https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md>) about the artefact, in a DSSE envelope.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use crate::digest::Digest;
use crate::dsse::{self, PublicKey, Signer};
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Fact};
use crate::log::{PAYLOAD_TYPE, STATEMENT_TYPE, Subject};

const PREDICATE_TYPE: &str = "https://github.com/groundtackle/groundtackle/release-evidence/v1";

/// How many people can sign one piece of evidence. More than these are not looked at.
const MAX_SIGNATURES: usize = 16;

#[derive(Serialize)]
struct Statement<'a> {
    #[serde(rename = "_type")]
    type_: &'static str,
    subject: [Subject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

/// All but who passed it on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    observed_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    fact: &'a Fact,
}

impl Evidence {
    /// With somebody's signature of the fact, its time and its digest; the source is not signed. A statement of the artefact and, where the
    /// fact names one, of the environment: it counts for no other.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if it is not what somebody says of an artefact (an approval, an override, an item of a
    /// checklist), or has as many signatures as are looked at.
    pub fn sign(mut self, signer: &Signer) -> Result<Self> {
        let Some(payload) = self.payload()? else {
            return Err(Error::invalid_request(
                "only an approval, an override and an item of a checklist are signed; give one of them",
            ));
        };
        if self.signatures.len() >= MAX_SIGNATURES {
            return Err(Error::invalid_request(format!(
                "the evidence has {MAX_SIGNATURES} signatures already, and no more are looked at"
            )));
        }
        self.signatures
            .push(dsse::seal(PAYLOAD_TYPE, &payload, signer)?);
        Ok(self)
    }

    /// Whether one of these keys signed it, as it is.
    pub fn is_signed_by(&self, keys: &BTreeSet<PublicKey>) -> bool {
        if keys.is_empty() || self.signatures.is_empty() {
            return false;
        }
        let Ok(Some(payload)) = self.payload() else {
            return false;
        };
        let trusted: Vec<_> = keys.iter().copied().collect();
        self.signatures.iter().take(MAX_SIGNATURES).any(|envelope| {
            dsse::open("signature", envelope.as_bytes(), PAYLOAD_TYPE, &trusted)
                .is_ok_and(|signed| signed == payload)
        })
    }

    fn payload(&self) -> Result<Option<Vec<u8>>> {
        let (Fact::Approval { artefact, .. }
        | Fact::Override { artefact, .. }
        | Fact::Item { artefact, .. }) = &self.fact
        else {
            return Ok(None);
        };
        let statement = Statement {
            type_: STATEMENT_TYPE,
            subject: [Subject::new("artefact", *artefact)],
            predicate_type: PREDICATE_TYPE,
            predicate: Predicate {
                observed_at: self.observed_at,
                digest: self.digest,
                fact: &self.fact,
            },
        };
        let payload = serde_json::to_vec(&statement)
            .map_err(|error| Error::invalid_request(error.to_string()))?;
        Ok(Some(payload))
    }
}
