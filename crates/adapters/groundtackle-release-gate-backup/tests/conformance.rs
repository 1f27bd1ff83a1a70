//! What every evidence source promises, of a repository with a restore point and a drill.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{DrillLevel, Target};
use groundtackle_backup_testkit::{Call, Fault};
use groundtackle_release_gate::{EvidenceSource, Request};
use groundtackle_release_gate_testkit::{SourceHarness, State, request};
use tokio::sync::OnceCell;

use support::{Place, files};

struct Harness(OnceCell<Place>);

impl Harness {
    async fn place(&self) -> &Place {
        let make = || async {
            let place = Place::new().await;
            fill(&place).await;
            place
        };
        self.0.get_or_init(make).await
    }
}

async fn fill(place: &Place) {
    place.at(1).back_up().await;
    let _ = place.at(2).drill(DrillLevel::Read, true).await;
}

async fn empty(place: &Place) {
    for prefix in ["points/", "drills/"] {
        for object in place.target.list(prefix, None, 1000).await.unwrap().objects {
            let _ = place.target.remove(&object.key).await.unwrap();
        }
    }
}

#[async_trait]
impl SourceHarness for Harness {
    async fn source(&self) -> Arc<dyn EvidenceSource> {
        Arc::new(self.place().await.source(files()))
    }

    fn request(&self) -> Request {
        request()
    }

    async fn make(&self, state: State) -> bool {
        let place = self.place().await;
        place.target.heal();
        match state {
            State::Working => {
                empty(place).await;
                fill(place).await;
            }
            State::Empty => empty(place).await,
            State::Broken => place.target.fail_often(Call::Read, 1_000_000, Fault::Fail),
            State::Silent => place.target.fail_often(None, 1_000_000, Fault::Hang),
        }
        true
    }
}

groundtackle_release_gate_testkit::source_conformance!(Harness(OnceCell::new()));
