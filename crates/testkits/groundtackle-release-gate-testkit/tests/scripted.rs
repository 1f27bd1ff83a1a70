//! What the kit itself offers keeps the promises.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_release_gate::{
    Action, Deployer, Evidence, EvidenceSource, Fact, Request, Timestamp, Verdict, collect,
};
use groundtackle_release_gate_testkit::{
    Act, DeployerHarness, Done, ScriptedDeployer, ScriptedSource, SourceHarness, State, frozen,
    gate, now, request,
};

fn backup() -> Vec<Evidence> {
    let fact = Fact::Backup {
        name: "utxo".into(),
    };
    vec![Evidence::new("script", Timestamp::UNIX_EPOCH, fact)]
}

mod source {
    use super::*;

    struct Harness(ScriptedSource);

    fn harness() -> Harness {
        let source = ScriptedSource::new("script");
        source.from_now_on(Act::Find(backup()));
        Harness(source)
    }

    #[async_trait]
    impl SourceHarness for Harness {
        async fn source(&self) -> Arc<dyn EvidenceSource> {
            Arc::new(self.0.clone())
        }

        fn request(&self) -> Request {
            request()
        }

        async fn make(&self, state: State) -> bool {
            self.0.from_now_on(match state {
                State::Working => Act::Find(backup()),
                State::Empty => Act::Find(Vec::new()),
                State::Broken => Act::Fail,
                State::Silent => Act::Hang,
            });
            true
        }
    }

    groundtackle_release_gate_testkit::source_conformance!(harness());
}

mod deployer {
    use super::*;

    struct Harness(ScriptedDeployer);

    fn harness() -> Harness {
        Harness(ScriptedDeployer::at(
            "2026-11-10T11:00:00Z".parse().unwrap(),
        ))
    }

    #[async_trait]
    impl DeployerHarness for Harness {
        async fn deployer(&self) -> Arc<dyn Deployer> {
            Arc::new(self.0.clone())
        }

        fn now(&self) -> Timestamp {
            self.0.now()
        }

        async fn changes(&self) -> usize {
            let done = self.0.done();
            let of = |done: &Done| (done.actor.clone(), done.environment.clone());
            assert!(
                done.iter()
                    .all(|done| of(done) == ("olga".into(), "production".into()))
            );
            assert!(done.iter().all(|done| done.action != Action::Change));
            done.len()
        }

        async fn refuse(&self, refuse: bool) -> bool {
            self.0.fail(refuse);
            true
        }
    }

    groundtackle_release_gate_testkit::deployer_conformance!(harness());
}

#[tokio::test]
async fn a_script_is_followed_call_by_call() {
    let source = ScriptedSource::new("script");
    source.then(Act::Find(backup()));
    source.then(Act::Fail);
    let first = collect(&[&source], &request(), now()).await;
    assert_eq!((first.evidence, first.failures.len()), (backup(), 0));
    let second = collect(&[&source], &request(), now()).await;
    let (name, error) = &second.failures[0];
    assert_eq!(name, "script");
    // It is written down that nobody knows.
    let detail = error.to_string();
    let unread = Evidence::new("script", now(), Fact::Unread { detail });
    assert_eq!(second.evidence, [unread]);
    let third = collect(&[&source], &request(), now()).await;
    assert_eq!((third.evidence.len(), third.failures.len()), (0, 0));
    assert_eq!(source.asked().len(), 3);
}

/// Of two sources with one name the later would be taken for news of the first.
#[tokio::test]
async fn sources_that_share_a_name_are_not_read() {
    let sources = ["one", "two", "one"].map(|name| {
        let source = ScriptedSource::new(name);
        source.from_now_on(Act::Find(backup()));
        source
    });
    let [a, b, c] = &sources;
    let found = collect(&[a, b, c], &request(), now()).await;
    let unread = found.evidence.iter().filter(|evidence| {
        matches!(&evidence.fact, Fact::Unread { detail } if detail.contains("more than one source") && evidence.source == "one")
    });
    assert_eq!((unread.count(), found.evidence.len()), (2, 3));
    assert_eq!(found.failures.len(), 2);
    assert!(a.asked().is_empty() && c.asked().is_empty());
    assert_eq!(
        gate().judge(&found.evidence, &request(), now()).verdict,
        Verdict::Inconclusive
    );
    let apart = collect(&[a, b], &request(), now()).await;
    assert_eq!(apart.failures.len(), 0);
    assert_eq!(
        gate().judge(&apart.evidence, &request(), now()).verdict,
        Verdict::Go
    );
    assert_eq!(
        gate().judge(&[], &request(), frozen()).verdict,
        Verdict::Hold
    );
}
