//! Prunes beside backups.

use std::pin::Pin;
use std::sync::Mutex;

use groundtackle_backup::{MIN_GRACE, PruneOptions};

use super::kept::{Actor, Done, Gate, Gated, HOUR, Kept, drive, signer_of, write};
use super::retention::Random;
use super::*;

#[derive(Debug, Default)]
struct Tally {
    listed: usize,
    gave_up: usize,
    pruned: usize,
    removed: usize,
}

/// Two writers, one of them with a clock that is behind, somebody who forgets, and two prunes, step by step in an order that a
/// seed says, while hours and days pass.
async fn interleave(seed: u64) -> Tally {
    let mut tally = Tally::default();
    let mut random = Random(seed);
    let mut kept = Kept::random(seed, &mut random).await;
    let mut actors = Vec::new();
    for kind in 0..5 {
        let gate = Arc::new(Mutex::new(Gate::default()));
        let target = Gated {
            target: kept.place.target.clone(),
            gate: Some(gate.clone()),
            ..Gated::default()
        };
        let behind = HOUR * if kind == 1 { 70 } else { 0 };
        let repository = kept.through(target, behind).await;
        let signer = signer_of(&kept.place, seed);
        let own = Random(random.below(u64::MAX >> 33));
        let forgets = kept.one_of(&mut random);
        let blocks = kept.blocks.clone();
        let work: Pin<Box<dyn Future<Output = Done> + Send>> = match kind {
            0 | 1 => Box::pin(write(repository, signer, blocks, own)),
            2 => Box::pin(async move {
                repository.forget(&[forgets], &signer).await.ok();
                Done::Forgot(forgets)
            }),
            _ => Box::pin(async move {
                let options = PruneOptions::new().with_grace(MIN_GRACE);
                repository.prune(&options).await.unwrap();
                Done::Pruned
            }),
        };
        let work = Some(work);
        actors.push(Actor { work, gate });
    }
    let before = kept.keys("points/").await.len();
    for done in drive(&mut kept, actors, &mut random).await {
        match done {
            Done::Listed(manifest, block) => {
                kept.listed.push((*manifest, *block));
                tally.listed += 1;
            }
            Done::GaveUp => tally.gave_up += 1,
            Done::Pruned => tally.pruned += 1,
            Done::ListedTree | Done::Forgot(_) => {}
        }
    }
    tally.removed += before.saturating_sub(kept.keys("points/").await.len());
    let what = format!("seed {seed}");
    kept.assert_whole(&what).await;
    kept.assert_ends_clean(&what).await;
    tally
}

#[tokio::test]
async fn prunes_beside_backups_lose_nothing() {
    let mut all = Tally::default();
    for seed in 0..200 {
        let tally = interleave(seed).await;
        all.listed += tally.listed;
        all.gave_up += tally.gave_up;
        all.pruned += tally.pruned;
        all.removed += tally.removed;
    }
    assert!(
        all.listed > 150 && all.gave_up > 50 && all.pruned == 400 && all.removed > 20,
        "{all:?}"
    );
}
