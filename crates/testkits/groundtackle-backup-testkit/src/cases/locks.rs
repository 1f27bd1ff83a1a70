//! Locks.

use std::time::{Duration, SystemTime};

use groundtackle_backup::{Error, ObjectInfo, PutIf, Refused};

use super::small;
use crate::harness::{Subject, done, key};

const HOUR: Duration = Duration::from_secs(3600);

fn locked(name: &str) -> Refused {
    Refused::Locked { key: key(name) }
}

async fn put_locked(target: &Subject, tag: u64, until: SystemTime) -> ObjectInfo {
    let object = key("object");
    let put = target.put(&object, small(tag), &PutIf::Absent, Some(until));
    done(put.await).expect("nothing was there")
}

/// Waits until it is as late as this by the target's clock, give or take a second.
async fn wait_until(time: SystemTime) {
    while SystemTime::now() <= time {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// That it can't be removed now, and can once the lock is over.
async fn assert_locked_until(target: &Subject, name: &str, time: SystemTime) {
    let removed = target.remove_it(name).await;
    // The answer may come after the end, on a slow machine.
    if SystemTime::now() < time {
        assert_eq!(removed, Err(locked(name)));
        assert!(done(target.info(&key(name)).await).is_some());
    }
    wait_until(time).await;
    for _ in 0..100 {
        if target.remove_it(name).await.is_ok() {
            return target.assert_gone(name).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} stays locked");
}

/// "Objects can be locked until a time: nobody removes them earlier."
pub(crate) async fn locked_objects_stay_until_then(target: Subject) {
    let until = SystemTime::now() + target.shortest_lock();
    put_locked(&target, 1, until).await;
    assert_locked_until(&target, "object", until).await;
    // Locked later.
    let put = target.created("later", &small(2)).await;
    let until = SystemTime::now() + target.shortest_lock();
    assert_eq!(done(target.lock(&put.key, until).await), Ok(()));
    assert_eq!(target.whole("later").await, Some(small(2)));
    assert_eq!(target.listed("", 10).await, [put]);
    assert_locked_until(&target, "later", until).await;
}

/// The same of an upload.
pub(crate) async fn locked_uploads_stay_until_then(target: Subject) {
    for bytes in [10_000, 9 << 20] {
        let until = SystemTime::now() + target.shortest_lock() + Duration::from_secs(1);
        let upload = target.uploading("object", 3, bytes, Some(until)).await;
        done(upload.finish().await).expect("nothing was there");
        target.assert_content("object", 3, bytes).await;
        assert_locked_until(&target, "object", until).await;
    }
}

/// "A lock that lasts longer stays."
pub(crate) async fn a_shorter_lock_does_not_shorten(target: Subject) {
    let now = SystemTime::now();
    let put = put_locked(&target, 4, now + HOUR).await;
    let soon = SystemTime::now() + target.shortest_lock();
    for until in [soon, now - HOUR, now + HOUR] {
        assert_eq!(done(target.lock(&put.key, until).await), Ok(()));
    }
    wait_until(soon + Duration::from_secs(1)).await;
    assert_eq!(target.remove_it("object").await, Err(locked("object")));
    assert_eq!(target.whole("object").await, Some(small(4)));
}

/// A lock can be made longer.
pub(crate) async fn a_longer_lock_extends(target: Subject) {
    let soon = SystemTime::now() + target.shortest_lock();
    let put = put_locked(&target, 5, soon).await;
    let later = SystemTime::now() + HOUR;
    assert_eq!(done(target.lock(&put.key, later).await), Ok(()));
    wait_until(soon + Duration::from_secs(1)).await;
    assert_eq!(target.remove_it("object").await, Err(locked("object")));
}

/// `lock` refuses what is `Missing`.
pub(crate) async fn what_is_not_there_cannot_be_locked(target: Subject) {
    let name = key("folder/object");
    let missing = Err(Refused::Missing { key: name.clone() });
    let later = SystemTime::now() + target.shortest_lock();
    assert_eq!(done(target.lock(&name, later).await), missing);
    target.created("folder/object", &small(6)).await;
    assert_eq!(target.remove_it("folder/object").await, Ok(()));
    assert_eq!(done(target.lock(&name, later).await), missing);
    assert_eq!(target.listed("", 10).await, []);
}

/// "`InvalidRequest` from a target without locks": nothing is written that would not be locked.
pub(crate) async fn locks_are_refused_where_there_are_none(target: Subject) {
    let later = Some(SystemTime::now() + HOUR);
    let object = key("object");
    let put = target.put(&object, small(7), &PutIf::Absent, later);
    let put = put.await.map(drop);
    let upload = target.upload(&object, later).await.map(drop);
    target.assert_gone("object").await;
    target.created("object", &small(8)).await;
    let lock = target.lock(&object, SystemTime::now() + HOUR);
    let lock = lock.await.map(drop);
    for refused in [put, upload, lock] {
        assert!(
            matches!(refused, Err(Error::InvalidRequest { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(target.remove_it("object").await, Ok(()));
}
