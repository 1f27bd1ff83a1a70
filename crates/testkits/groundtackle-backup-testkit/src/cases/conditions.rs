//! Conditional writes.

use std::sync::Arc;

use bytes::Bytes;
use groundtackle_backup::{ObjectTag, PutIf, Target};
use tokio::task::JoinSet;

use super::{changed, exists, small};
use crate::harness::{Subject, done, key};

/// `Absent`: "only where there is none."
pub(crate) async fn absent_means_absent(target: Subject) {
    target.created("object", &small(1)).await;
    for tag in [1, 2] {
        assert_eq!(
            target.create("object", &small(tag)).await,
            Err(exists("object"))
        );
    }
    assert_eq!(target.whole("object").await, Some(small(1)));
    assert_eq!(target.remove_it("object").await, Ok(()));
    target.created("object", &small(3)).await;
    assert_eq!(target.whole("object").await, Some(small(3)));
}

/// `Unchanged`: "only over this content." `Changed`: "the object has another content, or is gone."
pub(crate) async fn unchanged_means_unchanged(target: Subject) {
    let first = target.created("lease", &small(1)).await;
    let second = target.replace(&first, &small(2)).await.expect("unchanged");
    assert_eq!(second.bytes, small(2).len() as u64);
    assert_eq!(
        target.replace(&first, &small(3)).await,
        Err(changed("lease"))
    );
    assert_eq!(target.whole("lease").await, Some(small(2)));
    let nonsense = PutIf::Unchanged(ObjectTag::new("nonsense"));
    let put = target.put(&key("lease"), small(3), &nonsense, None).await;
    assert_eq!(done(put), Err(changed("lease")));
    assert_eq!(target.whole("lease").await, Some(small(2)));
    assert_eq!(target.remove_it("lease").await, Ok(()));
    for tag in [&first, &second] {
        assert_eq!(target.replace(tag, &small(3)).await, Err(changed("lease")));
    }
    target.assert_gone("lease").await;
}

/// Several handles, as several processes have them.
async fn handles(target: &Subject) -> [Arc<dyn Target>; 3] {
    [
        target.share(),
        target.another().await,
        target.another().await,
    ]
}

/// Twelve at once put contents of their own under one condition; the only one that wins, if there is only one.
async fn race(handles: &[Arc<dyn Target>; 3], name: &str, condition: &PutIf, round: u64) -> Bytes {
    let mut tasks = JoinSet::new();
    for writer in 0..12_usize {
        let (target, condition) = (handles[writer % 3].clone(), condition.clone());
        let (key, body) = (key(name), small(round * 100 + writer as u64));
        tasks.spawn(async move {
            let put = target.put(&key, body.clone(), &condition, None).await;
            done(put).map(|_| body)
        });
    }
    let answers = tasks.join_all().await;
    let lost = match condition {
        PutIf::Absent => exists(name),
        PutIf::Unchanged(_) => changed(name),
    };
    let mut winners = Vec::new();
    for answer in answers {
        match answer {
            Ok(body) => winners.push(body),
            Err(refused) => assert_eq!(refused, lost),
        }
    }
    assert_eq!(winners.len(), 1, "winners of round {round}");
    winners.remove(0)
}

/// "Of several that put under one condition at once, exactly one is told that it did."
pub(crate) async fn exactly_one_of_many_creates(target: Subject) {
    let handles = handles(&target).await;
    for round in 0..20 {
        let name = format!("leases/{round}");
        let winner = race(&handles, &name, &PutIf::Absent, round).await;
        assert_eq!(target.whole(&name).await, Some(winner), "{name}");
    }
}

/// The same over a content.
pub(crate) async fn exactly_one_of_many_replaces(target: Subject) {
    let handles = handles(&target).await;
    target.created("lease", &small(9_999)).await;
    for round in 0..20 {
        let info = done(target.info(&key("lease")).await).expect("it is there");
        let winner = race(&handles, "lease", &PutIf::Unchanged(info.tag), round).await;
        assert_eq!(target.whole("lease").await, Some(winner));
    }
}

/// With conditions, what several count is counted.
pub(crate) async fn no_count_is_lost(target: Subject) {
    let count = |number: u64| Bytes::copy_from_slice(&number.to_le_bytes());
    target.created("count", &count(0)).await;
    let mut tasks = JoinSet::new();
    for handle in handles(&target).await {
        tasks.spawn(async move {
            let key = key("count");
            let mut left = 10;
            while left > 0 {
                let info = done(handle.info(&key).await).expect("it is there");
                let read = done(handle.read(&key, 0..8).await).expect("it is there");
                let number = u64::from_le_bytes(read[..].try_into().expect("8 bytes"));
                let unchanged = PutIf::Unchanged(info.tag);
                // Read before the tag was: the put is refused then.
                let put = handle.put(&key, count(number + 1), &unchanged, None).await;
                left -= u64::from(done(put).is_ok());
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(target.whole("count").await, Some(count(30)));
}

/// "An object is there as a whole or not at all, for every reader, at every moment."
pub(crate) async fn readers_see_the_whole_old_or_the_whole_new(target: Subject) {
    const BYTES: usize = 200_000;
    let of = |number: u8| Bytes::from(vec![number; BYTES]);
    let mut info = target.created("lease", &of(0)).await;
    let mut readers = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for _ in 0..3 {
        let (target, stopped) = (target.another().await, stopped.clone());
        readers.spawn(async move {
            let mut last = 0;
            let mut read = 0_u64;
            while !*stopped.borrow() || read == 0 {
                let bytes = target.read(&key("lease"), 0..BYTES as u64).await;
                let bytes = done(bytes).expect("it is always there");
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two contents");
                assert!(bytes[0] >= last, "an older content after a newer one");
                last = bytes[0];
                let info = done(target.info(&key("lease")).await).expect("it is always there");
                assert_eq!(info.bytes, BYTES as u64);
                read += 1;
            }
        });
    }
    for number in 1..60 {
        info = target.replace(&info, &of(number)).await.expect("unchanged");
    }
    stop.send_replace(true);
    readers.join_all().await;
    assert_eq!(target.whole("lease").await, Some(of(59)));
}
