//! Whose turn it is.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use groundtackle_backup::{LeaseTerms, PruneOptions, Retryability, Turn};

use super::kept::{Actor, Done, Gate, Gated, HOUR, Kept, signer_of};
use super::retention::Random;
use super::*;

const LASTS: Duration = Duration::from_secs(60);

fn terms(holder: &str) -> LeaseTerms {
    LeaseTerms::new(holder, LASTS).unwrap()
}

fn turn() -> Turn {
    Turn::back_up("set")
}

fn object(kept: &[ObjectKey]) -> ObjectKey {
    let mut leases = kept
        .iter()
        .filter(|key| key.as_str().starts_with("leases/"));
    let lease = leases.next().unwrap().clone();
    assert!(leases.next().is_none());
    lease
}

async fn open(kept: &Kept) -> Repository {
    kept.through(
        Gated {
            target: kept.place.target.clone(),
            ..Gated::default()
        },
        Duration::ZERO,
    )
    .await
}

/// What actors saw.
#[derive(Debug, Default)]
struct Seen {
    /// In the order in which they were taken.
    taken: Vec<(u64, usize)>,
    waited: usize,
    lost: usize,
}

async fn take_turn(
    number: usize,
    repository: Repository,
    signer: SigningKey,
    blocks: Vec<Block>,
    mut random: Random,
    seen: Arc<Mutex<Seen>>,
) -> Done {
    let name = format!("host {number}");
    let lease = match repository.lease(turn(), &terms(&name), &signer).await {
        Ok(lease) => lease,
        Err(Error::Leased { .. }) => {
            seen.lock().unwrap().waited += 1;
            return Done::GaveUp;
        }
        Err(error) => panic!("{error:?}"),
    };
    seen.lock().unwrap().taken.push((lease.token(), number));
    for _ in 0..random.below(3) {
        lease.renew().await.ok();
    }
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 1,
    };
    let at = random.below(40) as usize;
    let mut source = Numbers::base(&blocks[at]);
    let under = repository.under(lease.clone());
    let done = match under.back_up(&mut source, &how).await {
        Ok(manifest) => Done::Listed(Box::new(manifest), Box::new(blocks[at].clone())),
        Err(Error::LeaseLost { .. }) => {
            seen.lock().unwrap().lost += 1;
            Done::GaveUp
        }
        Err(error) => panic!("{error:?}"),
    };
    if random.below(2) == 0 {
        lease.release().await.ok();
    }
    done
}

/// Hosts with clocks that differ, which take turns, renew, crash and come too late, step by step in an order that a seed says.
#[tokio::test]
async fn turns_are_in_order_and_a_lost_one_commits_nothing() {
    let (mut listed, mut waited, mut lost, mut crashed, mut succeeded) = (0, 0, 0, 0, 0);
    for seed in 0..200 {
        let what = format!("seed {seed}");
        let mut random = Random(seed);
        let mut kept = Kept::new(seed).await;
        kept.base(0).await;
        let seen = Arc::<Mutex<Seen>>::default();
        let mut actors = Vec::new();
        for number in 0..5 {
            let gate = Arc::new(Mutex::new(Gate::default()));
            let target = Gated {
                target: kept.place.target.clone(),
                gate: Some(gate.clone()),
                ..Gated::default()
            };
            let behind = HOUR * [0, 70, 3][random.below(3) as usize];
            let repository = kept.through(target, behind).await;
            let own = Random(random.below(u64::MAX >> 33));
            let signer = signer_of(&kept.place, seed);
            let blocks = kept.blocks.clone();
            let work = take_turn(number, repository, signer, blocks, own, seen.clone());
            actors.push(Actor {
                work: Some(Box::pin(work)),
                gate,
            });
        }
        let pace = [8, 30][random.below(2) as usize];
        while actors.iter().any(|actor| actor.work.is_some()) {
            if random.below(pace) == 0 {
                kept.clock.pass(LASTS / [6, 2, 1][random.below(3) as usize]);
            }
            let running: Vec<_> = actors
                .iter_mut()
                .filter(|actor| actor.work.is_some())
                .collect();
            let chosen = random.below(running.len() as u64) as usize;
            let actor = running.into_iter().nth(chosen).unwrap();
            if random.below(60) == 0 {
                actor.work = None;
                crashed += 1;
                continue;
            }
            if let Some(Done::Listed(manifest, block)) = actor.step().await {
                kept.listed.push((*manifest, *block));
                listed += 1;
            }
        }
        let points = kept.place.points().await;
        let highest = {
            let seen = seen.lock().unwrap();
            // One after the other, each token once.
            assert!(
                seen.taken.windows(2).all(|pair| pair[0].0 < pair[1].0),
                "{what}: {seen:?}"
            );
            let holders: HashMap<_, _> = seen.taken.iter().copied().collect();
            let mut used = HashMap::new();
            for fencing in points.iter().filter_map(|point| point.fencing.as_ref()) {
                let holder = format!("host {}", holders[&fencing.token]);
                assert_eq!(fencing.holder, holder, "{what}");
                assert!(used.insert(fencing.token, holder).is_none(), "{what}");
            }
            waited += seen.waited;
            lost += seen.lost;
            seen.taken.last().map_or(0, |(token, _)| *token)
        };
        // Those who crashed at their commit may have come so far.
        let blocks = kept.blocks.clone();
        for point in points {
            if !kept.listed.iter().any(|(listed, _)| *listed == point) {
                let height = point.content.position().unwrap().height as usize;
                kept.listed.push((point, blocks[height].clone()));
            }
        }
        kept.assert_whole(&what).await;
        // Whoever had it last, and did not release it, is succeeded.
        kept.clock.pass(LASTS + Duration::from_secs(2));
        let signer = signer_of(&kept.place, seed);
        let next = open(&kept).await;
        let lease = next.lease(turn(), &terms("next"), &signer).await.unwrap();
        assert!(lease.token() > highest, "{what}");
        succeeded += 1;
    }
    assert!(
        listed > 100 && waited > 300 && lost > 50 && crashed > 100 && succeeded == 200,
        "{listed} {waited} {lost} {crashed}"
    );
}

#[tokio::test]
async fn a_holder_is_succeeded_after_its_time_and_lists_nothing_more() {
    let kept = Kept::new(1).await;
    let signer = signer_of(&kept.place, 1);
    let (first, second) = (open(&kept).await, open(&kept).await);
    let lease = first.lease(turn(), &terms("first"), &signer).await.unwrap();
    assert_eq!(lease.token(), 1);
    let error = second
        .lease(turn(), &terms("second"), &signer)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("first is backing up set"),
        "{error}"
    );
    assert_eq!(error.retryability(), Retryability::Transient);
    // Other turns are their own.
    second
        .lease(Turn::Prune, &terms("second"), &signer)
        .await
        .unwrap();
    second
        .lease(Turn::back_up("other"), &terms("second"), &signer)
        .await
        .unwrap();

    kept.clock.pass(LASTS / 2);
    lease.renew().await.unwrap();
    kept.clock.pass(LASTS - Duration::from_secs(1));
    lease.check().await.unwrap();
    // It gives up before the other one may take over.
    kept.clock.pass(Duration::from_secs(1));
    let error = lease.check().await.unwrap_err();
    assert!(matches!(error, Error::LeaseLost { .. }), "{error:?}");
    assert!(
        second
            .lease(turn(), &terms("second"), &signer)
            .await
            .is_err()
    );
    kept.clock.pass(Duration::from_secs(2));
    let after = second
        .lease(turn(), &terms("second"), &signer)
        .await
        .unwrap();
    assert_eq!(after.token(), 2);

    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 1,
    };
    let back_up = async |repository: Repository| {
        repository
            .back_up(&mut Numbers::base(&kept.blocks[3]), &how)
            .await
    };
    let late = back_up(first.under(lease.clone())).await.unwrap_err();
    assert!(matches!(late, Error::LeaseLost { .. }), "{late:?}");
    assert!(kept.place.points().await.is_empty());
    let made = back_up(second.under(after.clone())).await.unwrap();
    assert_eq!(made.fencing.unwrap().token, 2);
    // For what it is.
    let pruned = second
        .under(after.clone())
        .prune(&PruneOptions::new())
        .await;
    assert!(pruned.unwrap_err().to_string().contains("pruning"));

    after.release().await.unwrap();
    let third = first.lease(turn(), &terms("first"), &signer).await.unwrap();
    assert_eq!(third.token(), 3);
}

#[tokio::test]
async fn a_damaged_lease_is_taken_over_above_all_tokens_that_were_listed() {
    let kept = Kept::new(1).await;
    let signer = signer_of(&kept.place, 1);
    let repository = open(&kept).await;
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 1,
    };
    for token in 1..=3 {
        let lease = repository
            .lease(turn(), &terms("a"), &signer)
            .await
            .unwrap();
        assert_eq!(lease.token(), token);
        let under = repository.under(lease.clone());
        under
            .back_up(&mut Numbers::base(&kept.blocks[3]), &how)
            .await
            .unwrap();
        lease.release().await.unwrap();
    }
    let lease = repository
        .lease(turn(), &terms("a"), &signer)
        .await
        .unwrap();
    let object = object(&kept.place.objects().await);
    let body = kept.place.body(&object).await;
    for damaged in [Vec::new(), body[1..].to_vec()] {
        kept.place.put(&object, damaged).await;
        assert!(matches!(lease.check().await, Err(Error::LeaseLost { .. })));
        let next = repository
            .lease(turn(), &terms("b"), &signer)
            .await
            .unwrap();
        assert_eq!(next.token(), 4);
    }
    // Removed, likewise; by others, not even looked at.
    kept.place.target.remove(&object).await.unwrap().unwrap();
    assert_eq!(
        repository
            .lease(turn(), &terms("c"), &signer)
            .await
            .unwrap()
            .token(),
        4
    );
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let error = repository
        .lease(turn(), &terms("d"), &stranger)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("not among those"), "{error}");
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_counts() {
    let kept = Kept::new(1).await;
    let signer = signer_of(&kept.place, 1);
    let loses = Arc::new(AtomicBool::new(false));
    let target = Gated {
        target: kept.place.target.clone(),
        loses_answer: loses.clone(),
        ..Gated::default()
    };
    let repository = kept.through(target, Duration::ZERO).await;
    let lease = repository
        .lease(turn(), &terms("a"), &signer)
        .await
        .unwrap();
    loses.store(true, Ordering::Relaxed);
    lease.renew().await.unwrap_err();
    kept.clock.pass(LASTS / 2);
    lease.renew().await.unwrap();
    kept.clock.pass(LASTS - Duration::from_secs(1));
    lease.check().await.unwrap();
    lease.release().await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_a_lease_is_refused() {
    for lasts in [Duration::from_secs(9), Duration::from_secs(3_601)] {
        let error = LeaseTerms::new("a", lasts).unwrap_err();
        assert!(error.to_string().contains("10 s to 3600 s"), "{error}");
    }
    LeaseTerms::new("a".repeat(256), LASTS).unwrap_err();
    let kept = Kept::new(1).await;
    let target = Gated {
        target: kept.place.target.clone(),
        unconditional: true,
        ..Gated::default()
    };
    let repository = kept.through(target, Duration::ZERO).await;
    let signer = signer_of(&kept.place, 1);
    let error = repository
        .lease(turn(), &terms("a"), &signer)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("one host writes"), "{error}");
}

/// By the system's clock: the shortest there is.
#[tokio::test]
async fn it_is_renewed_while_work_goes_on() {
    let place = Place::new().await;
    let trust = Trust::new([place.signer.public()]).unwrap();
    let target = Arc::new(place.target.clone());
    let repository = Repository::open(target, trust).await.unwrap();
    let terms = LeaseTerms::new("a", LeaseTerms::SHORTEST).unwrap();
    let lease = repository
        .lease(turn(), &terms, &place.signer)
        .await
        .unwrap();
    let object = object(&place.objects().await);
    let first = place.body(&object).await;
    let work = async {
        while place.body(&object).await == first {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let kept = tokio::time::timeout(LeaseTerms::SHORTEST, lease.keep(work)).await;
    kept.expect("it is renewed after a third of its time");
    lease.check().await.unwrap();
}
