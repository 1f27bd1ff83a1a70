//! Small objects: put, read, known, removed.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use groundtackle_backup::{Error, PutIf};

use super::small;
use crate::content::content;
use crate::harness::{Subject, done, key};

/// "Writes a small object, in one piece." "What is known of an object."
pub(crate) async fn what_is_put_comes_back(target: Subject) {
    // By the second, and by the target's clock.
    let hour = Duration::from_secs(3600);
    let begun = SystemTime::now();
    let body = small(1);
    let put = target.created("packs/ab/one-1.pack_x", &body).await;
    assert!(put.written > begun - hour && put.written < begun + hour);
    assert_eq!(target.whole("packs/ab/one-1.pack_x").await, Some(body));
    assert_eq!(done(target.info(&put.key).await).as_ref(), Some(&put));
    assert_eq!(target.listed("", 10).await, [put]);
}

/// "What comes has the length asked for."
pub(crate) async fn parts_have_the_length_asked_for(target: Subject) {
    let body = content(2, 0..70_000);
    target.created("object", &body).await;
    for range in [
        0..0,
        0..1,
        0..70_000,
        1..69_999,
        69_999..70_000,
        70_000..70_000,
        35_000..35_000,
        8_191..65_537,
    ] {
        let wanted = content(2, range.clone());
        let read = done(target.read(&key("object"), range.clone()).await);
        assert_eq!(read, Some(wanted), "{range:?}");
    }
}

/// "`Corrupt` where the object ends before the range does."
pub(crate) async fn a_range_beyond_the_end_is_corrupt(target: Subject) {
    target.created("object", &small(3)).await;
    let bytes = small(3).len() as u64;
    for range in [
        0..bytes + 1,
        bytes - 1..bytes + 1,
        bytes..bytes + 1,
        bytes + 1..bytes + 2,
        bytes + 1..bytes + 1,
        bytes + 1_000_000..bytes + 1_000_001,
        0..u64::MAX,
    ] {
        let error = target.read(&key("object"), range.clone()).await;
        assert!(
            matches!(&error, Err(Error::Corrupt { object, .. }) if object.contains("object")),
            "{range:?}: {error:?}"
        );
    }
    let backwards = std::ops::Range { start: 2, end: 1 };
    let error = target.read(&key("object"), backwards).await;
    assert!(
        matches!(error, Err(Error::InvalidRequest { .. })),
        "{error:?}"
    );
}

/// "`None` where there is none of that key."
pub(crate) async fn what_is_not_there_is_none(target: Subject) {
    target.assert_gone("object").await;
    target.created("folder/object", &small(4)).await;
    for name in [
        "folder",
        "folder/objec",
        "folder/objects",
        "folder/object/deeper",
        "folder2",
        "object",
    ] {
        target.assert_gone(name).await;
    }
}

/// An object may have no bytes.
pub(crate) async fn an_empty_object_is_an_object(target: Subject) {
    let put = target.created("empty", &Bytes::new()).await;
    assert_eq!(target.whole("empty").await, Some(Bytes::new()));
    let read = target.read(&put.key, 0..1).await;
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
    assert_eq!(target.listed("", 10).await, [put]);
}

/// "All together have at most 255 bytes", in one part or in many.
pub(crate) async fn the_longest_keys_work(target: Subject) {
    let flat = "k".repeat(255);
    let deep = "d/".repeat(127) + "d";
    for name in [&flat, &deep] {
        target.created(name, &small(5)).await;
        assert_eq!(target.whole(name).await, Some(small(5)));
    }
    let listed = target.listed("", 10).await;
    assert_eq!(super::names(&listed), [&deep, &flat]);
    for name in [&flat, &deep] {
        let large = format!("u{}", &name[1..]);
        target.uploaded(&large, 5, 100_000).await;
        target.assert_content(&large, 5, 100_000).await;
        assert_eq!(target.remove_it(name).await, Ok(()));
        target.assert_gone(name).await;
    }
}

/// A tag is "what tells one content of an object from another".
pub(crate) async fn tags_tell_contents_apart(target: Subject) {
    let mut info = target.created("object", &small(10)).await;
    let mut tags = vec![info.tag.clone()];
    for tag in 11..15 {
        info = target.replace(&info, &small(tag)).await.expect("unchanged");
        assert_eq!(done(target.info(&info.key).await), Some(info.clone()));
        assert!(!tags.contains(&info.tag), "{tags:?} {info:?}");
        tags.push(info.tag.clone());
    }
}

/// "Removes an object."
pub(crate) async fn removed_objects_are_gone(target: Subject) {
    for name in ["folder/one", "folder/two", "three"] {
        target.created(name, &small(6)).await;
    }
    assert_eq!(target.remove_it("folder/one").await, Ok(()));
    target.assert_gone("folder/one").await;
    assert_eq!(target.whole("folder/two").await, Some(small(6)));
    assert_eq!(target.remove_it("folder/two").await, Ok(()));
    assert_eq!(super::names(&target.listed("", 10).await), ["three"]);
    // The place is free for another one.
    target.created("folder/one", &small(7)).await;
    assert_eq!(target.whole("folder/one").await, Some(small(7)));
}

/// "One that is gone already counts as removed."
pub(crate) async fn removing_is_idempotent(target: Subject) {
    target.created("folder/object", &small(8)).await;
    for name in [
        "nothing",
        "no/folder/either",
        "folder",
        "folder/object/deeper",
    ] {
        assert_eq!(target.remove_it(name).await, Ok(()), "{name}");
    }
    assert_eq!(target.whole("folder/object").await, Some(small(8)));
    for _ in 0..3 {
        assert_eq!(target.remove_it("folder/object").await, Ok(()));
    }
    target.assert_gone("folder/object").await;
}

/// Whoever opens the same place sees what others have been told is done.
pub(crate) async fn every_handle_sees_the_same(target: Subject) {
    let other = target.another().await;
    let put = target.created("folder/object", &small(9)).await;
    assert_eq!(done(other.info(&put.key).await), Some(put.clone()));
    let listed = done(other.list("", None, 10).await).objects;
    assert_eq!(listed, std::slice::from_ref(&put));
    let unchanged = PutIf::Unchanged(put.tag.clone());
    let replaced = other.put(&put.key, small(10), &unchanged, None).await;
    let replaced = done(replaced).expect("unchanged");
    assert_eq!(done(target.info(&put.key).await), Some(replaced));
    assert_eq!(target.whole("folder/object").await, Some(small(10)));
    assert_eq!(done(other.remove(&put.key).await), Ok(()));
    target.assert_gone("folder/object").await;
}

/// "What is acknowledged stays."
pub(crate) async fn what_is_acknowledged_outlives_a_restart(mut target: Subject) {
    let kept = target.created("folder/kept", &small(11)).await;
    let replaced = target.created("replaced", &small(12)).await;
    let replaced = target.replace(&replaced, &small(13)).await;
    let replaced = replaced.expect("unchanged");
    let uploaded = target.uploaded("uploaded", 14, 6_000_001).await;
    target.created("removed", &small(15)).await;
    assert_eq!(target.remove_it("removed").await, Ok(()));
    target.reopen().await;
    assert_eq!(target.listed("", 10).await, [kept, replaced, uploaded]);
    assert_eq!(target.whole("folder/kept").await, Some(small(11)));
    assert_eq!(target.whole("replaced").await, Some(small(13)));
    target.assert_content("uploaded", 14, 6_000_001).await;
}

/// "Whole or not at all. Cancel safety: it may have been written; look."
pub(crate) async fn dropped_puts_are_whole_or_not_there(target: Subject) {
    let body = content(16, 0..300_000);
    for round in 0..40_u64 {
        let name = format!("object-{round}");
        let wait = Duration::from_micros(round * round * 5);
        let key = key(&name);
        let put = target.put(&key, body.clone(), &PutIf::Absent, None);
        let in_time = tokio::time::timeout(wait, put).await.is_ok();
        let found = target.whole(&name).await;
        assert!(found.as_ref().is_none_or(|found| *found == body), "{name}");
        assert!(!in_time || found.is_some(), "{name} was acknowledged");
    }
    for info in target.listed("", 7).await {
        assert_eq!(info.bytes, 300_000, "{info:?}");
    }
}
