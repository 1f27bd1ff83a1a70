//! Large objects.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use groundtackle_backup::Upload;
use tokio::task::JoinSet;

use super::{exists, names, small};
use crate::content::content;
use crate::harness::{Subject, done, key};

const MIB: u64 = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);

/// "Takes the next bytes, any number of them": 72 MiB, and what comes back is that.
pub(crate) async fn large_objects_come_back(target: Subject) {
    const BYTES: u64 = 72 * MIB + 12_345;
    let info = target.uploaded("packs/large", 1, BYTES).await;
    target.assert_content("packs/large", 1, BYTES).await;
    assert_eq!(done(target.info(&info.key).await).as_ref(), Some(&info));
    assert_eq!(target.listed("packs", 10).await, [info]);
    for range in [
        BYTES - 1..BYTES,
        8 * MIB - 1..8 * MIB + 1,
        31 * MIB + 17..47 * MIB + 3,
        BYTES..BYTES,
    ] {
        let read = done(target.read(&key("packs/large"), range.clone()).await);
        assert!(read == Some(content(1, range.clone())), "{range:?}");
    }
    let beyond = target.read(&key("packs/large"), BYTES - 1..BYTES + 1).await;
    assert!(beyond.is_err(), "{beyond:?}");
}

/// Whatever way an adapter takes for objects of a size.
pub(crate) async fn objects_of_every_size_come_back(target: Subject) {
    let mut sizes = vec![1, 4_096, 65_536, MIB, 5 * MIB, 8 * MIB, 16 * MIB];
    sizes.extend(target.edges());
    for edge in sizes {
        for bytes in [edge - 1, edge, edge + 1] {
            let name = format!("object-{bytes}");
            let upload = target.uploading(&name, bytes, bytes, None).await;
            match done(upload.finish().await) {
                Ok(info) => assert_eq!(info.bytes, bytes),
                // Two edges beside each other.
                Err(refused) => assert_eq!(refused, exists(&name)),
            }
            target.assert_content(&name, bytes, bytes).await;
        }
    }
}

/// An upload may have no bytes.
pub(crate) async fn an_upload_without_bytes_is_an_empty_object(target: Subject) {
    target.uploaded("empty", 0, 0).await;
    assert_eq!(target.whole("empty").await, Some(Bytes::new()));
    let mut upload = done(target.upload(&key("empty-too"), None).await);
    for _ in 0..3 {
        done(upload.write(Bytes::new()).await);
    }
    done(upload.finish().await).expect("nothing was there");
    assert_eq!(target.whole("empty-too").await, Some(Bytes::new()));
}

/// "A large object, of which nothing is seen before `finish`." "Unfinished uploads are in no listing."
pub(crate) async fn nothing_is_seen_before_the_end(target: Subject) {
    let upload = target.uploading("folder/object", 2, 20 * MIB, None).await;
    target.assert_gone("folder/object").await;
    assert_eq!(target.listed("", 10).await, []);
    // A key that is on its way is free.
    assert_eq!(target.remove_it("folder/object").await, Ok(()));
    done(upload.finish().await).expect("nothing was there");
    target.assert_content("folder/object", 2, 20 * MIB).await;
    assert_eq!(names(&target.listed("", 10).await), ["folder/object"]);
}

/// "Makes it an object, if there is none of its key." One after the other.
pub(crate) async fn one_of_two_uploads_finishes(target: Subject) {
    let first = target.uploading("object", 3, 9 * MIB, None).await;
    let second = target.uploading("object", 4, 11 * MIB, None).await;
    done(second.finish().await).expect("nothing was there");
    assert_eq!(done(first.finish().await), Err(exists("object")));
    target.assert_content("object", 4, 11 * MIB).await;
    assert_eq!(names(&target.listed("", 10).await), ["object"]);
}

/// The same at once: exactly one.
pub(crate) async fn exactly_one_of_many_uploads_finishes(target: Subject) {
    for round in 0..4 {
        let name = format!("object-{round}");
        // Of sizes that go by one piece and by several.
        let bytes = move |writer| {
            if round % 2 == 0 {
                1_000 + writer
            } else {
                8 * MIB + writer
            }
        };
        let mut tasks = JoinSet::new();
        for writer in 0..4 {
            let upload = target.uploading(&name, writer, bytes(writer), None).await;
            tasks.spawn(async move { (writer, done(upload.finish().await)) });
        }
        let handle = target.another().await;
        let object = key(&name);
        tasks.spawn(async move {
            let absent = groundtackle_backup::PutIf::Absent;
            let put = handle.put(&object, content(9, 0..bytes(9)), &absent, None);
            (9, done(put.await))
        });
        let mut winners = Vec::new();
        for (writer, answer) in tasks.join_all().await {
            match answer {
                Ok(_) => winners.push(writer),
                Err(refused) => assert_eq!(refused, exists(&name)),
            }
        }
        let [winner] = winners[..] else {
            panic!("winners of round {round}: {winners:?}")
        };
        target.assert_content(&name, winner, bytes(winner)).await;
    }
}

/// What is there stays, whatever was begun before it came.
pub(crate) async fn an_upload_replaces_nothing(target: Subject) {
    let before = target.uploading("object", 5, 9 * MIB, None).await;
    target.created("object", &small(1)).await;
    let after = target.upload(&key("object"), None).await;
    assert_eq!(done(before.finish().await), Err(exists("object")));
    let mut after = done(after);
    done(after.write(small(2)).await);
    assert_eq!(done(after.finish().await), Err(exists("object")));
    assert_eq!(target.whole("object").await, Some(small(1)));
}

/// "Dropped without `finish` it never becomes an object." "Gives it up, and what was sent goes."
pub(crate) async fn dropped_and_aborted_uploads_leave_nothing(mut target: Subject) {
    for bytes in [0, 1_000, 9 * MIB] {
        let dropped = format!("dropped-{bytes}");
        drop(target.uploading(&dropped, 6, bytes, None).await);
        let aborted = format!("aborted-{bytes}");
        let upload = target.uploading(&aborted, 7, bytes, None).await;
        done(upload.abort().await);
        for name in [&dropped, &aborted] {
            target.assert_gone(name).await;
        }
    }
    target.reopen().await;
    assert_eq!(target.listed("", 10).await, []);
    target.uploaded("aborted-1000", 8, 2_000).await;
    target.assert_content("aborted-1000", 8, 2_000).await;
}

/// As a process that is killed does.
fn forget(upload: Box<dyn Upload>) {
    std::mem::forget(upload);
}

/// "Removes what uploads left that were begun before `before` and never finished. How many there were."
pub(crate) async fn unfinished_uploads_are_removed(mut target: Subject) {
    let kept = target.uploaded("folder/kept", 1, 9 * MIB).await;
    for n in 0..3 {
        forget(
            target
                .uploading(&format!("folder/{n}"), n, 9 * MIB, None)
                .await,
        );
    }
    target.reopen().await;
    let soon = SystemTime::now() + HOUR;
    // What was not sent before it died left nothing.
    let removed = done(target.remove_unfinished(soon).await);
    assert!(removed <= 3, "{removed}");
    assert_eq!(done(target.remove_unfinished(soon).await), 0);
    assert_eq!(target.listed("", 10).await, [kept]);
    target.assert_content("folder/kept", 1, 9 * MIB).await;
    for n in 0..3 {
        target.uploaded(&format!("folder/{n}"), n, 10_000).await;
    }
}

/// Only what was "begun before `before`".
pub(crate) async fn uploads_under_way_are_not_removed(target: Subject) {
    let upload = target.uploading("object", 2, 9 * MIB, None).await;
    let other = target.another().await;
    let before = SystemTime::now() - HOUR;
    assert_eq!(done(other.remove_unfinished(before).await), 0);
    done(upload.finish().await).expect("nothing was there");
    target.assert_content("object", 2, 9 * MIB).await;
}

/// "Whole or not at all", also where what was sent is taken away meanwhile.
pub(crate) async fn a_removed_upload_makes_no_object_in_part(target: Subject) {
    let mut upload = target.uploading("object", 3, 20 * MIB, None).await;
    let soon = SystemTime::now() + HOUR;
    done(target.remove_unfinished(soon).await);
    let written = upload.write(content(3, 20 * MIB..29 * MIB)).await;
    let finished = match written {
        Ok(()) => upload.finish().await.is_ok(),
        Err(_) => false,
    };
    if finished {
        target.assert_content("object", 3, 29 * MIB).await;
    } else {
        target.assert_gone("object").await;
    }
}

/// "It returns when there is room for more, so that memory stays bounded with a slow target."
pub(crate) async fn memory_is_bounded(target: Subject) {
    let limit = target.upload_memory_bytes();
    let mut upload = done(target.upload(&key("object"), None).await);
    if !target.stall(true).await {
        panic!("the harness says how much an upload holds, so it must implement stall");
    }
    let mut taken = 0;
    // What is sent without an answer is held.
    let held = async {
        while taken <= 4 * limit {
            done(upload.write(content(4, taken..taken + MIB / 2)).await);
            taken += MIB / 2;
        }
    };
    let endless = tokio::time::timeout(Duration::from_secs(3), held).await;
    assert!(endless.is_err(), "it takes {taken} bytes and more");
    assert!(taken <= limit, "it holds {taken} bytes, and says {limit}");
    drop(upload);
    target.stall(false).await;
    target.assert_gone("object").await;
}
