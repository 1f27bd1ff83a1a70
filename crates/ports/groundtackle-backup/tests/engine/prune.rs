//! Forgetting and pruning.

use std::sync::Mutex;

use groundtackle_backup::{MIN_GRACE, Pack, PruneOptions, Pruned};

use super::kept::{Actor, Done, Gate, Gated, HOUR, Kept};
use super::retention::Random;
use super::*;

#[tokio::test]
async fn a_prune_killed_anywhere_goes_on() {
    let mut killed = 0;
    for seed in 0..200 {
        let mut random = Random(seed ^ 0xdead);
        let mut kept = Kept::random(seed, &mut random).await;
        kept.forget_some(&mut random).await;
        kept.forget_some(&mut random).await;
        kept.clock.pass(MIN_GRACE * random.below(3) as u32);
        let gate = Arc::new(Mutex::new(Gate::default()));
        let target = Gated {
            target: kept.place.target.clone(),
            gate: Some(gate.clone()),
            ..Gated::default()
        };
        let repository = kept.through(target, Duration::ZERO).await;
        let work = Box::pin(async move {
            let options = PruneOptions::new().with_grace(MIN_GRACE);
            repository.prune(&options).await.unwrap();
            Done::Pruned
        });
        let mut actor = Actor {
            work: Some(work),
            gate,
        };
        for _ in 0..random.below(24) {
            if actor.step().await.is_some() {
                break;
            }
        }
        killed += usize::from(actor.work.is_some());
        drop(actor);
        let what = format!("seed {seed}");
        kept.assert_whole(&what).await;
        // What is still there of those forgotten is whole, too.
        let points = kept.place.repository.points().await.unwrap();
        for point in &points.forgotten {
            let found = kept.listed.iter().find(|(other, _)| other == point);
            kept.assert_restores(&points, &found.unwrap().1, &what)
                .await;
        }
        kept.assert_ends_clean(&what).await;
    }
    assert!(killed > 100, "{killed}");
}

#[tokio::test]
async fn what_was_forgotten_is_not_offered_and_goes_after_the_grace() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.delta(0..5).await;
    let third = kept.base(9).await;
    assert_eq!(kept.forget(&[first, second, first]).await, 2);
    assert_eq!(kept.forget(&[first]).await, 0);
    let points = kept.place.repository.points().await.unwrap();
    let names = |points: &[Manifest]| points.iter().map(|point| point.point).collect::<Vec<_>>();
    assert_eq!(names(&points.usable), [third]);
    assert_eq!(names(&points.forgotten), [first, second]);
    // They can still be had by the block's name.
    let block = kept.blocks[4].clone();
    kept.assert_restores(&points, &block, "forgotten").await;
    // Not the last one, though another one is.
    let plan = points.plan("set", At::Latest).unwrap();
    assert_eq!(plan.position.height, 9);

    // Before the grace is over nothing goes, and one comes back.
    let nothing = kept.prune().await;
    assert_eq!(nothing, Pruned::default());
    assert_eq!(kept.place.repository.unforget(&[second]).await.unwrap(), 1);
    assert_eq!(kept.place.repository.unforget(&[second]).await.unwrap(), 0);
    kept.forgotten.remove(&second);
    kept.clock.pass(MIN_GRACE * 3);
    // What it goes over stays.
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.needed), (0, 1));
    kept.assert_whole("one needs the other").await;

    kept.forget(&[second]).await;
    kept.clock.pass(MIN_GRACE * 3);
    let options = PruneOptions::new().dry_run();
    let all = kept.keys("").await;
    let would = kept.place.repository.prune(&options).await.unwrap();
    assert_eq!(kept.keys("").await, all);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs), (2, 2));
    assert!(pruned.bytes > 100);
    assert_eq!(would, pruned);
    kept.assert_ends_clean("all went").await;
    assert_eq!(kept.keys("points/").await.len(), 1);
    let error = kept.place.repository.unforget(&[first]).await.unwrap_err();
    assert!(error.to_string().contains("no restore point"), "{error}");
}

#[tokio::test]
async fn packs_of_a_backup_under_way_stay() {
    let mut kept = Kept::new(1).await;
    kept.base(0).await;
    let mut broken = Numbers::base(&kept.blocks[5]);
    broken.fails = Some("finish");
    kept.place.back_up(broken).await.unwrap_err();
    // What was open when it failed was no object yet; this one is.
    let key = Pack::key(&Hex([7; 16])).unwrap();
    let left = kept
        .place
        .target
        .put(&key, Bytes::from_static(b"left"), &PutIf::Absent, None);
    left.await.unwrap().unwrap();
    kept.clock.pass(MIN_GRACE - Duration::from_secs(1));
    assert_eq!(kept.prune().await.packs, 0);
    kept.clock.pass(Duration::from_secs(1));
    let pruned = kept.prune().await;
    assert_eq!((pruned.packs, pruned.bytes), (1, 4));
    kept.assert_whole("a pack was left").await;
}

#[tokio::test]
async fn a_slow_backup_gives_up() {
    let kept = Kept::new(1).await;
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &kept.place.signer,
        workers: 1,
    };
    for (hours, slow) in [(12, false), (13, true)] {
        let began = kept.place.repository.begin();
        kept.clock.pass(HOUR * hours);
        let mut source = Numbers::base(&kept.blocks[3]);
        let made = kept
            .place
            .repository
            .back_up_begun(began, &mut source, &how);
        assert_eq!(matches!(made.await, Err(Error::TooSlow { .. })), slow);
    }
    assert_eq!(kept.keys("points/").await.len(), 1);
}

/// A host whose clock is behind another one's.
#[tokio::test]
async fn what_is_made_last_is_the_last() {
    let mut kept = Kept::new(1).await;
    kept.base(0).await;
    let ahead = kept.delta(0..3).await;
    let target = Gated {
        target: kept.place.target.clone(),
        gate: None,
        ..Gated::default()
    };
    let behind = kept.through(target, HOUR * 50).await;
    let how = |stream| BackUp {
        stream,
        wrapping: &Named("reader"),
        signer: &kept.place.signer,
        workers: 1,
    };
    // Nobody signed this one, so it is no time.
    let forged = format!("points/{:016x}-{}", u64::MAX, Hex([3; 16]));
    let key = ObjectKey::try_from(forged).unwrap();
    let put = kept
        .place
        .target
        .put(&key, Bytes::from_static(b"{}"), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let mut source = Numbers::delta(&kept.blocks[1..=2]);
    let made = behind.back_up(&mut source, &how("set")).await.unwrap();
    let newest = &kept.listed.last().unwrap().0;
    assert_eq!(newest.point, ahead);
    assert_eq!(made.created_unix_millis, newest.created_unix_millis + 1);
    // Another stream has a time of its own.
    let mut source = Numbers::base(&kept.blocks[1]);
    let other = behind.back_up(&mut source, &how("other")).await.unwrap();
    assert!(other.created_unix_millis < newest.created_unix_millis);
    let points = behind.points().await.unwrap();
    let plan = points.plan("set", At::Latest).unwrap();
    assert_eq!(plan.position.height, 2);
}

#[tokio::test]
async fn what_can_not_be_removed_goes_later() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.delta(0..5).await;
    kept.base(9).await;
    kept.forget(&[first, second]).await;
    kept.clock.pass(MIN_GRACE * 2);
    // The delta can't go, so the base that it needs stays too.
    let object = kept.listed[1].0.object().unwrap();
    let until = kept.clock.now() + MIN_GRACE;
    kept.place
        .target
        .lock(&object, until)
        .await
        .unwrap()
        .unwrap();
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs, pruned.later), (0, 0, 1));
    let points = kept.place.repository.points().await.unwrap();
    let block = kept.blocks[5].clone();
    kept.assert_restores(&points, &block, "locked").await;

    kept.clock.pass(MIN_GRACE);
    let target = Gated {
        target: kept.place.target.clone(),
        denies: true,
        ..Gated::default()
    };
    let denied = kept.through(target, Duration::ZERO).await;
    let pruned = denied.prune(&PruneOptions::new()).await.unwrap();
    assert_eq!((pruned.points, pruned.packs), (0, 0));
    assert!(pruned.later >= 2, "{pruned:?}");
    assert_eq!(kept.prune().await.points, 2);
    kept.assert_ends_clean("later").await;
}

#[tokio::test]
async fn what_is_not_understood_stops_a_prune() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.base(9).await;
    kept.forget(&[first]).await;
    kept.clock.pass(MIN_GRACE * 2);
    let object = kept.listed[1].0.object().unwrap();
    let body = kept.place.body(&object).await;
    kept.place.put(&object, body[1..].to_vec()).await;
    let options = PruneOptions::new();
    let error = kept.place.repository.prune(&options).await.unwrap_err();
    assert!(error.to_string().contains(object.as_str()), "{error}");
    assert_eq!(kept.keys("points/").await.len(), 2);
    assert_eq!(kept.keys("packs/").await.len(), 2);
    // Whoever does not want it says so.
    kept.forget(&[second]).await;
    let prune = kept.place.repository.prune(&options).await;
    prune.unwrap_err();
    kept.clock.pass(MIN_GRACE * 2);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs), (2, 2));
}

#[tokio::test]
async fn tombstones_are_believed_only_from_the_trusted() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.base(9).await;
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let error = kept.place.repository.forget(&[first], &stranger).await;
    assert!(error.unwrap_err().to_string().contains("not among those"));
    let error = kept
        .place
        .repository
        .forget(&[first, Hex([5; 16])], &kept.place.signer)
        .await;
    assert!(error.unwrap_err().to_string().contains("no restore point"));
    assert_eq!(kept.keys("forgotten/").await.len(), 0);

    // Another one's, a damaged one, and a forged one.
    kept.forget(&[first]).await;
    let tombstone = ObjectKey::try_from(kept.keys("forgotten/").await[0].clone()).unwrap();
    let good = kept.place.body(&tombstone).await;
    let of_second = kept.listed[1].0.object().unwrap();
    let others = of_second.as_str().replace("points/", "forgotten/");
    let others = ObjectKey::try_from(others).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let forged = text.replace("\"sig\":\"", "\"sig\":\"AAAA");
    for (key, body) in [
        (&others, good.clone()),
        (&tombstone, good[1..].to_vec()),
        (&tombstone, forged.into_bytes()),
    ] {
        kept.place.put(key, body).await;
        let points = kept.place.repository.points().await.unwrap();
        assert!(
            points.unusable.iter().any(|(object, _)| object == key),
            "{points:?}"
        );
        assert!(points.usable.iter().any(|point| point.point == second));
        kept.clock.pass(MIN_GRACE * 2);
        let plain = PruneOptions::new().dry_run();
        let would = kept.place.repository.prune(&plain).await.unwrap();
        assert_eq!(would.points, u64::from(*key == others));
    }
    // A good one takes its place.
    assert_eq!(kept.forget(&[first, second]).await, 2);
    let points = kept.place.repository.points().await.unwrap();
    assert!(points.unusable.is_empty() && points.usable.is_empty());
}

#[tokio::test]
async fn a_short_grace_needs_a_word() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    kept.base(9).await;
    kept.forget(&[first]).await;
    let short = PruneOptions::new().with_grace(Duration::ZERO);
    let error = kept.place.repository.prune(&short).await.unwrap_err();
    assert!(error.to_string().contains("nobody else writes"), "{error}");
    let alone = short.nobody_else_writes();
    let pruned = kept.place.repository.prune(&alone).await.unwrap();
    assert_eq!((pruned.points, pruned.packs), (1, 1));
    kept.assert_ends_clean("alone").await;
}
