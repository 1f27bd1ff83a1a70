//! What every evidence source promises, of a service with a check.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_health_check::{Health, Name, Observation, Settings};
use groundtackle_release_gate::{EvidenceSource, Request};
use groundtackle_release_gate_health::{HealthEvidence, HealthEvidenceConfig, ItemRule};
use groundtackle_release_gate_testkit::{SourceHarness, State, request};

struct Harness(Health);

impl Harness {
    fn new() -> Self {
        let health = Health::builder().push(Name::try_from("disk").unwrap(), Settings::default());
        let harness = Self(health.build().unwrap());
        harness.pass();
        harness
    }

    fn pass(&self) {
        let reporter = self.0.reporter("disk").unwrap();
        // More than it takes to be up.
        for _ in 0..5 {
            reporter.report(Observation::pass());
        }
    }
}

#[async_trait]
impl SourceHarness for Harness {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        let mut config = HealthEvidenceConfig::new("production");
        config.items.push(ItemRule {
            id: "disk-headroom".into(),
            check: Name::try_from("disk").unwrap(),
            owner: "olga".into(),
        });
        Arc::new(HealthEvidence::new(self.0.clone(), config).unwrap())
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        match state {
            State::Working => self.pass(),
            State::Broken => {
                let reporter = self.0.reporter("disk").unwrap();
                for _ in 0..5 {
                    reporter.report(Observation::unknown("unreachable"));
                }
            }
            // What is in memory always answers, with all that was asked for.
            State::Empty | State::Silent => return false,
        }
        true
    }
}

groundtackle_release_gate_testkit::source_conformance!(Harness::new());
