//! The whole conformance kit against the S3 adapter: on a plain bucket, on one with versions and locks, and on a server
//! that ignores conditions.

mod common;

use std::time::Duration;

use async_trait::async_trait;
use common::Place;
use groundtackle_backup::Result;
use groundtackle_backup_s3::{Retention, S3Target};
use groundtackle_backup_testkit::TargetHarness;

#[derive(Clone, Copy)]
enum Server {
    Plain,
    Locks(Retention),
    IgnoresConditions,
}

struct S3Harness(Server);

#[async_trait]
impl TargetHarness for S3Harness {
    type Target = S3Target;
    type Place = Place;

    fn missing(&self) -> Option<String> {
        common::missing()
    }

    async fn place(&self) -> Place {
        let place = Place::new(matches!(self.0, Server::Locks(_)));
        match self.0 {
            Server::IgnoresConditions => place.ignore_conditions(),
            Server::Plain | Server::Locks(_) => {}
        }
        place
    }

    async fn open(&self, place: &Place) -> Result<S3Target> {
        let mut config = place.config();
        if let Server::Locks(retention) = self.0 {
            config = config.with_object_lock(Some(retention));
        }
        S3Target::open(config).await
    }

    fn edges(&self) -> Vec<u64> {
        vec![10 << 20]
    }

    fn upload_memory_bytes(&self) -> u64 {
        4 * (5 << 20)
    }

    async fn stall(&self, place: &Place, stalled: bool) -> bool {
        place.stall(stalled);
        true
    }

    fn shortest_lock(&self) -> Duration {
        Duration::from_secs(2)
    }
}

groundtackle_backup_testkit::target_conformance!(S3Harness(Server::Plain));

mod governance {
    use super::{Retention, S3Harness, Server};

    groundtackle_backup_testkit::target_conformance!(S3Harness(Server::Locks(
        Retention::Governance
    )));
}

mod ignores_conditions {
    use super::{S3Harness, Server};

    groundtackle_backup_testkit::target_conformance!(S3Harness(Server::IgnoresConditions));
}
