//! What every evidence source promises.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{EvidenceSource, Request};
use groundtackle_release_gate_checklist::{Checklist, ChecklistConfig};
use groundtackle_release_gate_testkit::{SourceHarness, State, request};
use tempfile::TempDir;

struct Harness(TempDir);

impl Harness {
    fn new() -> Self {
        let harness = Self(tempfile::tempdir().unwrap());
        harness.write(&item());
        harness
    }

    fn write(&self, text: &str) {
        fs::write(self.0.path().join("checklist.toml"), text).unwrap();
    }
}

fn item() -> String {
    format!(
        "version = 1\n[[item]]\nid = \"announced\"\nartefact = \"{}\"\nform = \"statement\"\npassed = true\nby = \"rita\"\nat = \"2026-11-09T10:00:00Z\"\n",
        request().artefact
    )
}

#[async_trait]
impl SourceHarness for Harness {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        let path = self.0.path().join("checklist.toml");
        Arc::new(Checklist::new(ChecklistConfig::new(path)))
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        match state {
            State::Working => self.write(&item()),
            State::Empty => self.write("version = 1\n"),
            State::Broken => self.write(&item().replace("passed", "past")),
            // A file always answers.
            State::Silent => return false,
        }
        true
    }
}

groundtackle_release_gate_testkit::source_conformance!(Harness::new());
