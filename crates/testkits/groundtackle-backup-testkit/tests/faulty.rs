//! Faults come when they are asked for, and are what they say.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::time::Duration;

use bytes::Bytes;
use groundtackle_backup::{Error, MemoryTarget, ObjectKey, PutIf, Result, Retryability, Target};
use groundtackle_backup_testkit::{Call, Fault, Faulty, TargetHarness, content};

fn key(text: &str) -> ObjectKey {
    text.try_into().unwrap()
}

fn target() -> Faulty<MemoryTarget> {
    Faulty::new(MemoryTarget::new(), 42)
}

async fn put(target: &Faulty<MemoryTarget>, name: &str) -> Result<()> {
    let body = content(1, 0..1_000);
    let put = target.put(&key(name), body, &PutIf::Absent, None).await?;
    put.map(drop)
        .map_err(|refused| Error::invalid_request(refused.to_string()))
}

async fn hangs(call: impl Future<Output = Result<()>>) -> bool {
    tokio::time::timeout(Duration::from_millis(20), call)
        .await
        .is_err()
}

#[tokio::test]
async fn a_fault_comes_at_its_call_and_once() {
    let target = target();
    target.fail_at(Call::Put, 3, Fault::Fail);
    for (name, fine) in [
        ("a", true),
        ("b", true),
        ("c", false),
        ("c", true),
        ("d", true),
    ] {
        assert_eq!(put(&target, name).await.is_ok(), fine, "{name}");
    }
    assert_eq!((target.calls(Call::Put), target.injected()), (5, 1));
    // Of any kind that it fits.
    target.fail_at(None, 2, Fault::FlipBit);
    target.info(&key("a")).await.unwrap();
    target.remove(&key("b")).await.unwrap().unwrap();
    let read = target.read(&key("a"), 0..1_000).await.unwrap().unwrap();
    assert_eq!(read, content(1, 0..1_000));
    let read = target.read(&key("a"), 0..1_000).await.unwrap().unwrap();
    assert_ne!(read, content(1, 0..1_000));
    target.fail_at(None, 1, Fault::Fail);
    target.heal();
    put(&target, "e").await.unwrap();
}

#[tokio::test]
async fn what_is_lost_was_applied_and_what_fails_was_not() {
    let target = target();
    for (name, fault, retryability, applied) in [
        ("a", Fault::Fail, Retryability::Transient, false),
        ("b", Fault::LoseAnswer, Retryability::Indeterminate, true),
        ("c", Fault::Overload, Retryability::Transient, false),
        ("d", Fault::Full, Retryability::Indeterminate, false),
    ] {
        target.fail_at(Call::Put, 1, fault);
        let error = put(&target, name).await.unwrap_err();
        assert_eq!(error.retryability(), retryability, "{fault:?}");
        let found = target.info(&key(name)).await.unwrap();
        assert_eq!(found.is_some(), applied, "{fault:?}");
    }
    for (name, fault, applied) in [("e", Fault::Hang, false), ("f", Fault::HangAfter, true)] {
        target.fail_at(Call::Put, 1, fault);
        assert!(hangs(put(&target, name)).await, "{fault:?}");
        let found = target.info(&key(name)).await.unwrap();
        assert_eq!(found.is_some(), applied, "{fault:?}");
    }
}

#[tokio::test]
async fn damage_is_silent() {
    let target = target();
    let original = content(1, 0..1_000);
    for fault in [Fault::Truncate, Fault::FlipBit] {
        put(&target, "a").await.unwrap();
        target.fail_at(Call::Read, 1, fault);
        let read = target.read(&key("a"), 0..1_000).await.unwrap().unwrap();
        assert!(read != original, "{fault:?}");
        let read = target.read(&key("a"), 0..1_000).await.unwrap().unwrap();
        assert_eq!(read, original);
        target.remove(&key("a")).await.unwrap().unwrap();
        target.fail_at(Call::Put, 1, fault);
        put(&target, "a").await.unwrap();
        target.fail_at(Call::Write, 2, fault);
        let mut upload = target.upload(&key("b"), None).await.unwrap();
        for part in [0..400, 400..1_000] {
            upload.write(original.slice(part)).await.unwrap();
        }
        let info = upload.finish().await.unwrap().unwrap();
        assert_eq!(info.bytes, 1_000, "{fault:?}");
        for name in ["a", "b"] {
            let bytes = target.info(&key(name)).await.unwrap().unwrap().bytes;
            let kept = target.read(&key(name), 0..bytes).await.unwrap().unwrap();
            assert_ne!(kept, original, "{fault:?} of {name}");
            assert_eq!(kept.len() == original.len(), fault == Fault::FlipBit);
            target.remove(&key(name)).await.unwrap().unwrap();
        }
    }
    for name in ["a", "b", "c", "d"] {
        put(&target, name).await.unwrap();
    }
    let whole = target.list("", None, 10).await.unwrap().objects;
    target.fail_at(Call::List, 1, Fault::Reorder);
    let other = target.list("", None, 10).await.unwrap().objects;
    assert!(other != whole && other.len() == 4);
    target.fail_at(Call::List, 1, Fault::Omit);
    assert_eq!(target.list("", None, 10).await.unwrap().objects.len(), 3);
}

#[tokio::test]
async fn an_upload_that_stopped_short_never_finishes() {
    for fault in [Fault::StopShort, Fault::Fail, Fault::LoseAnswer] {
        let target = target();
        target.fail_at(Call::Write, 2, fault);
        let mut upload = target.upload(&key("a"), None).await.unwrap();
        upload.write(Bytes::from("one")).await.unwrap();
        upload.write(Bytes::from("two")).await.unwrap_err();
        upload.write(Bytes::from("three")).await.unwrap_err();
        upload.finish().await.unwrap_err();
        assert_eq!(target.info(&key("a")).await.unwrap(), None, "{fault:?}");
    }
}

#[tokio::test]
async fn the_same_seed_fails_the_same_calls() {
    let run = |seed| async move {
        let target = Faulty::new(MemoryTarget::new(), seed);
        target.fail_often(Call::Put, 300_000, Fault::Fail);
        let mut failed = Vec::new();
        for n in 0..200 {
            failed.push(put(&target, &n.to_string()).await.is_err());
        }
        failed
    };
    let (one, same, other) = (run(1).await, run(1).await, run(2).await);
    assert_eq!(one, same);
    assert_ne!(one, other);
    let count = one.iter().filter(|failed| **failed).count();
    assert!((30..90).contains(&count), "{count}");
}

#[test]
#[should_panic(expected = "can't happen to")]
fn a_fault_that_fits_no_call_is_refused() {
    target().fail_at(Call::Remove, 1, Fault::Truncate);
}

struct Unfailing;

#[async_trait::async_trait]
impl TargetHarness for Unfailing {
    type Target = Faulty<MemoryTarget>;
    type Place = Faulty<MemoryTarget>;

    async fn place(&self) -> Faulty<MemoryTarget> {
        target()
    }

    async fn open(&self, place: &Faulty<MemoryTarget>) -> Result<Faulty<MemoryTarget>> {
        Ok(place.clone())
    }
}

mod unfailing {
    use super::Unfailing;

    groundtackle_backup_testkit::target_conformance!(Unfailing);
}
