//! Listings.

use bytes::Bytes;
use groundtackle_backup::PutIf;
use tokio::task::JoinSet;

use super::{names, small};
use crate::harness::{Subject, done, key, list_all};

/// Keys in whose order a walk through folders goes wrong: `-` and `.` come before `/`, which comes before `0`.
const ORDERED: [&str; 15] = [
    "0", "_", "a-b", "a.b", "a/a", "a/b-", "a/b.c/d", "a/b/c", "a/b/d/e", "a/b0", "a0", "aa", "b",
    "b.", "z/z/z/z",
];

async fn fill(target: &Subject) {
    // In another order than theirs.
    for n in 0..ORDERED.len() {
        let name = ORDERED[(n * 7 + 3) % ORDERED.len()];
        target.created(name, &Bytes::from(name)).await;
    }
}

/// "Ascending by the bytes of their keys."
pub(crate) async fn keys_come_in_the_order_of_their_bytes(target: Subject) {
    assert!(ORDERED.is_sorted(), "the case itself");
    assert!(target.listed("", 10).await.is_empty());
    fill(&target).await;
    let listed = target.listed("", 1_000).await;
    assert_eq!(names(&listed), ORDERED);
    for info in &listed {
        assert_eq!(done(target.info(&info.key).await).as_ref(), Some(info));
        assert_eq!(info.bytes, info.key.as_str().len() as u64);
    }
}

/// "Objects whose keys begin with `prefix` (any text, also half a part)."
pub(crate) async fn a_prefix_is_any_text(target: Subject) {
    fill(&target).await;
    for prefix in [
        "", "a", "a-", "a/", "a/b", "a/b.", "a/b/", "a/b/c", "a/b/cc", "z/z/", "z/z/z/z",
        "z/z/z/z/", "b.", "c", "/", "//", "a//", ".", "..", "../", "a/../", "a/./b", "A", "a/B",
        "a b", "a%2fb", "%", "*", "a*", "?", "\u{e9}", "\\", "a\\b", "&", "+", "<", "\"",
    ] {
        let wanted = ORDERED.into_iter().filter(|name| name.starts_with(prefix));
        let wanted: Vec<_> = wanted.collect();
        for limit in [2, 1_000] {
            let listed = target.listed(prefix, limit).await;
            assert_eq!(names(&listed), wanted, "{prefix:?}");
        }
    }
    // Longer than any key.
    assert!(target.listed(&"a".repeat(300), 10).await.is_empty());
    assert!(target.listed(&"a/".repeat(400), 10).await.is_empty());
}

/// "Behind `after`, at most `limit` and at least one if there is one."
pub(crate) async fn pages_join_without_gap_or_overlap(target: Subject) {
    fill(&target).await;
    for limit in [0, 1, 2, 3, 7, 14, 15, 16, usize::MAX] {
        for prefix in ["", "a/b"] {
            let wanted = ORDERED.into_iter().filter(|name| name.starts_with(prefix));
            let listed = target.listed(prefix, limit).await;
            assert_eq!(names(&listed), wanted.collect::<Vec<_>>(), "{limit}");
        }
    }
    // Behind what is there and what is not, before, in and behind the prefix.
    for after in [
        "-", "0", "a", "a-b", "a/b", "a/b/", "a/b/c", "a/b/c/d", "a/b1", "b", "z", "zz",
    ] {
        let Ok(after) = groundtackle_backup::ObjectKey::try_from(after) else {
            continue;
        };
        for prefix in ["", "a/", "a/b/"] {
            let wanted = ORDERED
                .into_iter()
                .filter(|name| name.starts_with(prefix) && *name > after.as_str());
            let wanted: Vec<_> = wanted.collect();
            let page = done(target.list(prefix, Some(&after), 1_000).await);
            assert_eq!(names(&page.objects), wanted, "{prefix:?} behind {after}");
            assert!(!page.more);
            let page = done(target.list(prefix, Some(&after), 1).await);
            assert_eq!(names(&page.objects), wanted[..wanted.len().min(1)]);
            assert_eq!(page.more, wanted.len() > 1, "{prefix:?} behind {after}");
        }
    }
}

/// More objects than one answer of a server has.
pub(crate) async fn more_than_a_thousand_are_listed(target: Subject) {
    let all: Vec<_> = (0..1_105)
        .map(|n| format!("many/{:02}/{n:04}", n % 10))
        .collect();
    let mut tasks = JoinSet::new();
    for share in all.chunks(140) {
        let (target, share) = (target.share(), share.to_vec());
        tasks.spawn(async move {
            for name in share {
                let body = Bytes::from(name.clone());
                let put = target.put(&key(&name), body, &PutIf::Absent, None).await;
                done(put).expect("nothing was there");
            }
        });
    }
    tasks.join_all().await;
    target.created("before", &small(1)).await;
    target.created("never", &small(1)).await;
    let mut wanted: Vec<_> = all.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    for limit in [1_105, 5_000, 1_000, 999, 100] {
        assert_eq!(names(&target.listed("many/", limit).await), wanted);
    }
    assert_eq!(target.listed("", 2_000).await.len(), 1_107);
    assert_eq!(target.listed("many/03", 2_000).await.len(), 111);
}

/// "An object is listed once its write is acknowledged", and no more once it is removed.
pub(crate) async fn listed_once_acknowledged(target: Subject) {
    let other = target.another().await;
    for round in 0..20 {
        let name = format!("folder-{}/object-{round}", round % 3);
        let put = target.created(&name, &small(round)).await;
        let listed = list_all(&*other, "", 1_000).await;
        assert_eq!(listed, std::slice::from_ref(&put), "{name}");
        let put = target.replace(&put, &small(round + 1)).await;
        let put = put.expect("unchanged");
        assert_eq!(target.listed("folder-", 1).await, [put]);
        assert_eq!(target.remove_it(&name).await, Ok(()));
        assert_eq!(list_all(&*other, "", 1_000).await, []);
        let uploaded = target.uploaded(&name, round, 10_000).await;
        assert_eq!(list_all(&*other, &name, 1_000).await, [uploaded]);
        assert_eq!(target.remove_it(&name).await, Ok(()));
        assert_eq!(target.listed("", 1_000).await, []);
    }
}

/// "Objects that are neither written nor removed meanwhile come exactly once over all pages."
pub(crate) async fn what_stays_is_listed_once_beside_writers(target: Subject) {
    let stays = |n| format!("o/{n:02}-stays");
    for n in 0..12 {
        target.created(&stays(n), &small(n)).await;
    }
    let wanted: Vec<_> = (0..12).map(stays).collect();
    // Between any two pages the last one listed goes, and others come behind it and ahead.
    for limit in 1..4 {
        let mut kept = Vec::new();
        let mut after = None;
        for round in 0.. {
            let page = done(target.list("o/", after.as_ref(), limit).await);
            let stay = names(&page.objects).into_iter();
            kept.extend(
                stay.filter(|name| name.ends_with("-stays"))
                    .map(str::to_owned),
            );
            after = page.objects.last().map(|info| info.key.clone());
            let Some(last) = after.as_ref().filter(|_| page.more) else {
                break;
            };
            if !last.as_str().ends_with("-stays") {
                assert_eq!(target.remove_it(last.as_str()).await, Ok(()));
            }
            for (number, which) in [(0, "before"), ((round + 2) % 12, "ahead")] {
                let name = format!("o/{number:02}-comes-{limit}-{round}-{which}");
                target.created(&name, &small(round)).await;
            }
        }
        assert_eq!(kept, wanted, "by pages of {limit}");
        for info in target.listed("o/", 1_000).await {
            if !info.key.as_str().ends_with("-stays") {
                assert_eq!(target.remove_it(info.key.as_str()).await, Ok(()));
            }
        }
    }
    let mut writers = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    for writer in 0..2 {
        let (target, stopped) = (target.another().await, stopped.clone());
        writers.spawn(async move {
            for n in (0..12).cycle() {
                if *stopped.borrow() {
                    break;
                }
                let key = key(&format!("o/{n:02}-comes-{writer}"));
                let put = target.put(&key, small(n), &PutIf::Absent, None).await;
                done(put).expect("nobody else writes it");
                assert_eq!(done(target.remove(&key).await), Ok(()));
            }
        });
    }
    for round in 0..9 {
        let listed = target.listed("o/", 1 + round).await;
        let kept = names(&listed).into_iter();
        let kept: Vec<_> = kept.filter(|name| name.ends_with("-stays")).collect();
        assert_eq!(kept, wanted);
    }
    stop.send_replace(true);
    writers.join_all().await;
}
