//! The file's format.

use std::path::PathBuf;

use groundtackle_release_gate::{Digest, Error, Evidence, Fact, Form, Result, Timestamp};
use serde::{Deserialize, Serialize};

/// The version of the format that this crate reads.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) version: u32,
    #[serde(default, rename = "item")]
    pub(crate) items: Vec<Item>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) artefact: Digest,
    pub(crate) form: Form,
    pub(crate) passed: bool,
    pub(crate) by: String,
    pub(crate) at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) document: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signatures: Vec<String>,
}

#[derive(Serialize)]
struct Lines {
    item: [Item; 1],
}

impl Item {
    /// What makes no sense in it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match (self.form, &self.document, &self.digest) {
            _ if self.id.trim().is_empty() => Some("`id` is empty"),
            _ if self.by.trim().is_empty() => Some("`by` is empty"),
            (Form::Probe, ..) => Some("`form` is a probe, which is measured: nobody's word counts"),
            (Form::Document, None, _) => Some("`document` is missing: name the file"),
            (Form::Document, _, None) => {
                Some("`digest` is missing: write the document's, when it was ticked")
            }
            (Form::Statement, Some(_), _) | (Form::Statement, _, Some(_)) => {
                Some("a statement has neither `document` nor `digest`")
            }
            _ => None,
        }
    }

    pub(crate) fn evidence(self, source: &str) -> Evidence {
        let fact = Fact::Item {
            id: self.id,
            artefact: self.artefact,
            form: self.form,
            passed: self.passed,
            by: self.by,
        };
        let mut evidence = Evidence::new(source, self.at, fact);
        evidence.digest = self.digest;
        evidence.signatures = self.signatures;
        evidence
    }
}

/// Evidence of an item as the text that goes to the end of the file; `document` is where the document lies, from the file's folder.
///
/// # Errors
/// [`Error::InvalidRequest`] if it is not of an item, or makes no sense.
pub fn line(evidence: &Evidence, document: Option<PathBuf>) -> Result<String> {
    let Fact::Item {
        id,
        artefact,
        form,
        passed,
        by,
    } = &evidence.fact
    else {
        return Err(Error::invalid_request(
            "only evidence of an item goes into a checklist",
        ));
    };
    let item = Item {
        id: id.clone(),
        artefact: *artefact,
        form: *form,
        passed: *passed,
        by: by.clone(),
        at: evidence.observed_at,
        document,
        digest: evidence.digest,
        signatures: evidence.signatures.clone(),
    };
    if let Some(fault) = item.fault() {
        return Err(Error::invalid_request(format!("item {id:?}: {fault}")));
    }
    let lines = toml::to_string(&Lines { item: [item] });
    lines.map_err(|error| Error::invalid_request(error.to_string()))
}
