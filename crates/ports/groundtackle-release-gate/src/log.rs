//! The record: what was asked, answered and done, signed, chained, and verified without anybody's help.
//!
//! A log is a text of lines. Each is a DSSE envelope of an in-toto statement
//! (<https://github.com/in-toto/attestation/blob/v1.1.0/spec/v1/statement.md>) whose predicate has the SHA-256 of the line before. The
//! last line is nobody's predecessor, so that a log that was cut short verifies: the signed [`Head`], which is kept apart from
//! it, shows that.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::decision::{Action, Decision};
use crate::digest::Digest;
use crate::dsse::{self, PublicKey, Signer};
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::incident::Incident;

pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const HEAD_TYPE: &str = "application/vnd.groundtackle.release-log-head.v1+json";
pub(crate) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://github.com/groundtackle/groundtackle/release-record/v1";

/// The longest record, in bytes of its line.
pub const MAX_RECORD_BYTES: usize = 16 << 20;

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Entry {
    /// An answer, with all that it comes from, so that it can be replayed.
    Decision {
        /// The answer.
        decision: Box<Decision>,
        /// The evidence.
        evidence: Vec<Evidence>,
    },
    /// Something was done.
    Deployed {
        /// What.
        deployment: Deployed,
    },
    /// Somebody approved, overrode or met.
    Evidence {
        /// What was said.
        evidence: Evidence,
    },
    /// An incident, as it is by now.
    Incident {
        /// The incident.
        incident: Incident,
    },
}

/// What was done, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployed {
    /// The decision that allowed it, which is its name.
    pub decision: Digest,
    /// The artefact.
    pub artefact: Digest,
    /// Where.
    pub environment: String,
    /// What.
    pub action: Action,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether it runs there.
    pub succeeded: bool,
    /// When each of its changes was made.
    #[serde(default)]
    pub changed_at: Vec<Timestamp>,
    /// The deployment that had failed and is made good by this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repairs: Option<Digest>,
}

/// An entry, and its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 0.
    pub sequence: u64,
    /// Of the line before; zeros for the first.
    pub previous: Digest,
    /// When it was written, by the clock of whoever wrote it.
    pub at: Timestamp,
    /// What.
    pub entry: Entry,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    type_: String,
    subject: [Subject; 1],
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Record,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    name: String,
    digest: SubjectDigest,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectDigest {
    sha256: String,
}

impl Subject {
    pub(crate) fn new(name: impl Into<String>, digest: Digest) -> Self {
        Self {
            name: name.into(),
            digest: SubjectDigest {
                sha256: digest.hex(),
            },
        }
    }
}

impl Entry {
    fn subject(&self) -> Subject {
        let of = |value: serde_json::Result<Vec<u8>>| Digest::of(&value.unwrap_or_default());
        let (name, digest) = match self {
            Self::Decision { decision, .. } => {
                (decision.request.name.clone(), decision.request.artefact)
            }
            Self::Deployed { deployment } => (deployment.environment.clone(), deployment.artefact),
            Self::Evidence { evidence } => {
                (evidence.source.clone(), of(serde_json::to_vec(evidence)))
            }
            Self::Incident { incident } => (incident.id.clone(), of(serde_json::to_vec(incident))),
        };
        Subject::new(name, digest)
    }
}

/// How far a log goes. Kept apart from it, it shows whether the log was cut short since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// How many records there are.
    pub records: u64,
    /// Of the last line; zeros if there is none.
    pub digest: Digest,
}

impl Head {
    /// Of a log without a record.
    pub const EMPTY: Self = Self {
        records: 0,
        digest: Digest([0; 32]),
    };

    /// As a signed text.
    ///
    /// # Errors
    /// None that can be met.
    pub fn seal(&self, signer: &Signer) -> Result<String> {
        let payload =
            serde_json::to_vec(self).map_err(|error| Error::invalid_request(error.to_string()))?;
        dsse::seal(HEAD_TYPE, &payload, signer)
    }

    /// From a text that one of `trusted` signed.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Untrusted`].
    pub fn open(text: &str, trusted: &[PublicKey]) -> Result<Self> {
        let payload = dsse::open("head of the log", text.as_bytes(), HEAD_TYPE, trusted)?;
        serde_json::from_slice(&payload)
            .map_err(|error| Error::corrupt("head of the log", error.to_string()))
    }

    /// The line of the next record, with its newline, and the head that counts once the line is on disk.
    ///
    /// Append the line and sync it, then keep the new head; only then is the record acknowledged. After a crash, or any error of the
    /// disk, read the log again with [`verify`], cut it to [`Verified::whole_bytes`], and go on from its head.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] if the record is longer than [`MAX_RECORD_BYTES`].
    pub fn append(&self, entry: Entry, at: Timestamp, signer: &Signer) -> Result<(Vec<u8>, Self)> {
        let invalid = |error: serde_json::Error| {
            Error::invalid_request(format!("the entry can't be written: {error}"))
        };
        let statement = Statement {
            type_: STATEMENT_TYPE.into(),
            subject: [entry.subject()],
            predicate_type: PREDICATE_TYPE.into(),
            predicate: Record {
                sequence: self.records,
                previous: self.digest,
                at,
                entry,
            },
        };
        let payload = serde_json::to_vec(&statement).map_err(invalid)?;
        // What can't be read back is not written: a number that is none, for one.
        serde_json::from_slice::<Statement>(&payload).map_err(invalid)?;
        let mut line = dsse::seal(PAYLOAD_TYPE, &payload, signer)?.into_bytes();
        if line.len() >= MAX_RECORD_BYTES {
            let what = format!(
                "the record has {} bytes, and may have {MAX_RECORD_BYTES}; collect less evidence",
                line.len()
            );
            return Err(Error::invalid_request(what));
        }
        let next = Self {
            records: self.records.saturating_add(1),
            digest: Digest::of(&line),
        };
        line.push(b'\n');
        Ok((line, next))
    }
}

/// A log that is what was written.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verified {
    /// All records, oldest first.
    pub records: Vec<Record>,
    /// How far it goes.
    pub head: Head,
    /// How many bytes are whole records. What follows was being written when something crashed, and was never acknowledged.
    pub whole_bytes: usize,
}

/// Reads a log, whose every record one of `trusted` signed, and which goes as far as `head` says at least.
///
/// Without a head, or with an old one, records that were cut off after it are not missed. All else is found: a changed, missing,
/// added or moved byte, line or signature.
///
/// # Errors
/// [`Error::BrokenLog`] with the number of the first record that is not what was written.
pub fn verify(log: &[u8], trusted: &[PublicKey], head: Option<&Head>) -> Result<Verified> {
    let mut verified = Verified {
        records: Vec::new(),
        head: Head::EMPTY,
        whole_bytes: 0,
    };
    let mut passed = head.is_none_or(|head| *head == Head::EMPTY);
    for line in log.split_inclusive(|byte| *byte == b'\n') {
        let Some(whole) = line.strip_suffix(b"\n") else {
            break;
        };
        let number = verified.head.records;
        let record = read_record(whole, trusted, &verified.head).map_err(|error| match error {
            Error::Corrupt { detail, .. } => Error::broken(number, detail),
            Error::Untrusted { .. } => Error::broken(number, "no trusted key signed it"),
            other => other,
        })?;
        verified.records.push(record);
        verified.whole_bytes = verified.whole_bytes.saturating_add(line.len());
        verified.head = Head {
            records: number.saturating_add(1),
            digest: Digest::of(whole),
        };
        passed |= head == Some(&verified.head);
    }
    if !passed {
        let wanted = head.map_or(0, |head| head.records);
        let detail = format!("the head says that there are {wanted} records, and another last one");
        return Err(Error::broken(verified.head.records, detail));
    }
    Ok(verified)
}

fn read_record(line: &[u8], trusted: &[PublicKey], before: &Head) -> Result<Record> {
    let corrupt = |detail: String| Error::corrupt("record", detail);
    if line.len() >= MAX_RECORD_BYTES {
        return Err(corrupt(format!("it has {} bytes", line.len())));
    }
    let payload = dsse::open("record", line, PAYLOAD_TYPE, trusted)?;
    let statement: Statement = serde_json::from_slice(&payload)
        .map_err(|error| corrupt(format!("it is no statement: {error}")))?;
    if statement.type_ != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(corrupt(
            "it is a statement of another kind or version".into(),
        ));
    }
    let record = statement.predicate;
    if statement.subject != [record.entry.subject()] {
        return Err(corrupt("its subject is not what it is about".into()));
    }
    if record.sequence != before.records || record.previous != before.digest {
        return Err(corrupt("it does not follow the record before it".into()));
    }
    Ok(record)
}
