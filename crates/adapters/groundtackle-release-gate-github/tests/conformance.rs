//! What every evidence source promises, of a server on a socket.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{EvidenceSource, Request};
use groundtackle_release_gate_testkit::{SourceHarness, State, request};
use groundtackle_testkit_servers::Reply;

use support::{COMMIT, Fake, TOKEN, of, shapes};

struct Harness(Fake);

impl Harness {
    fn new() -> Self {
        let fake = Fake::start();
        let run = shapes::check_run("all", COMMIT, "github-actions", Some("success"));
        fake.released(&request());
        fake.list(
            &format!("/commits/{COMMIT}/check-runs"),
            Some("check_runs"),
            vec![run],
        );
        fake.deployed(
            "production",
            &[(
                1,
                COMMIT,
                of(request().artefact),
                &[("success", "2026-11-05T01:19:13Z")],
            )],
        );
        Self(fake)
    }
}

#[async_trait]
impl SourceHarness for Harness {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        let mut config = self.0.config();
        config.checks = toml::from_str::<toml::Table>("c = [{ suite = \"all\", name = \"all\" }]")
            .unwrap()["c"]
            .clone()
            .try_into()
            .unwrap();
        config.timeout = std::time::Duration::from_secs(1);
        config.changes = false;
        Arc::new(groundtackle_release_gate_github::GitHub::from(config))
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        let always = match state {
            State::Working => None,
            // No release, and no deployments.
            State::Empty => {
                self.0.deployed("elsewhere", &[]);
                let mut fake = self.0.state();
                fake.things.clear();
                for (_, list) in fake.lists.values_mut() {
                    list.clear();
                }
                fake.always = None;
                return true;
            }
            State::Broken => Some(Reply::status(200, "[{")),
            State::Silent => Some(Reply::Hang),
        };
        if self.0.state().things.is_empty() {
            let anew = Self::new();
            let (mut fake, anew) = (self.0.state(), anew.0);
            fake.things = anew.state().things.clone();
            fake.lists = anew.state().lists.clone();
        }
        self.0.state().always = always;
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.into()]
    }
}

groundtackle_release_gate_testkit::source_conformance!(Harness::new());
