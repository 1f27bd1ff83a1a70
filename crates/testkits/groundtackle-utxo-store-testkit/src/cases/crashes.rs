//! Processes that are killed while they work, and what they leave.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{env, hint};

use tokio::task::block_in_place;

use super::chain::replay;
use crate::builder::tip_of;
use crate::differential::{Call, Script, steps};
use crate::harness::{Subject, all};
use crate::mainnet::{ANSWERS, blocks, reversed_hex};
use crate::skipped;
use crate::state::{State, muhash};
use crate::victim::{STEPS, Victim, Work};

/// Compares a store with the model after the death of a victim that saw so many calls acknowledged.
async fn compare(store: &mut Subject, seed: u64, acknowledged: usize) {
    let (mut script, prologue) = Script::begin(steps(seed, STEPS)).await;
    for _ in 1..acknowledged {
        script.next().await;
    }
    store.reopen().await;
    // "Twice, or beside live traffic, is safe."
    all(store.recover().await);
    if acknowledged == 0 {
        for call in prologue {
            call.apply(&**store).await;
        }
        assert_same(&script, store, "the first calls").await;
    } else {
        let before = script.state().clone();
        match script.next().await {
            Some((call, _)) => settle(store, &script, &before, &call).await,
            None => assert_same(&script, store, "all calls").await,
        }
    }
    go_on(store, &mut script).await;
}

/// The call under way is done or undone; repeated, it is done.
async fn settle(store: &Subject, script: &Script, before: &State, call: &Call) {
    let found = script.state_of(&**store).await;
    no_recordless_spender(&found, [before, script.state()]);
    let whole = call.is_single() || call.is_block() && store.capabilities().atomic_blocks;
    let undone = || before.difference(&found);
    if let Some(difference) = (whole && found != *script.state()).then(undone).flatten() {
        panic!("{call:?} is neither done nor undone (before, then now):\n{difference}");
    }
    // "Repeat it."
    call.apply(&**store).await;
    assert_same(script, store, &format!("{call:?}")).await;
}

async fn assert_same(script: &Script, store: &Subject, what: &str) {
    let found = script.state_of(&**store).await;
    if let Some(difference) = script.state().difference(&found) {
        panic!("after {what} (model, then now):\n{difference}");
    }
}

/// The store works on.
async fn go_on(store: &mut Subject, script: &mut Script) {
    for _ in 0..6 {
        if let Some((call, said)) = script.next().await {
            let compared = script.compare(&call, &said, store).await;
            compared.unwrap_or_else(|difference| panic!("{difference}"));
        }
    }
}

fn kills() -> u64 {
    env::var("GROUNDTACKLE_TEST_KILLS").map_or(16, |text| {
        text.parse().expect("GROUNDTACKLE_TEST_KILLS is a number")
    })
}

/// "No output ever names a spender without a record", unless that was pruned: then the model before the
/// call, or after it, has it so too.
fn no_recordless_spender(found: &State, models: [&State; 2]) {
    let orphans = |state: &State| {
        let outputs = state.records.values().flat_map(|record| &record.outputs);
        let spenders = outputs.filter_map(|output| output.spent_by);
        let without = spenders.filter(|by| !state.records.contains_key(&by.txid));
        without.collect::<BTreeSet<_>>()
    };
    let pruned: BTreeSet<_> = models.into_iter().flat_map(orphans).collect();
    let orphans = orphans(found);
    let orphan = orphans.difference(&pruned).next();
    assert!(orphan.is_none(), "a spender without a record: {orphan:?}");
}

/// `recover`: "Finishes or undoes what a crash interrupted." A process dies at each of the adapter's
/// write points, the first time that it comes by and later.
pub(crate) async fn killed_at_each_write_point(store: Subject) {
    let points = store.write_points();
    if points.is_empty() {
        return skipped("killed_at_each_write_point", "the harness names none");
    }
    for (number, point) in (0..).zip(points) {
        let mut deaths = 0;
        for (seed, times) in [(1, 1), (2, 2), (3, 3), (4, 7), (5, 12), (6, 25)] {
            let seed = 100 * number + seed;
            let mut store = store.unopened().await;
            let victim = Victim::start(&store, Work::Sequence(seed), Some((point, times)));
            let (acknowledged, died) = block_in_place(|| victim.end());
            deaths += u32::from(died);
            compare(&mut store, seed, acknowledged).await;
        }
        assert!(
            deaths > 0,
            "no process came by {point}: is it passed to fail_point, with its feature on?"
        );
        println!("{point}: {deaths} deaths");
    }
}

/// The same at any moment. `GROUNDTACKLE_TEST_KILLS` says how often (16).
pub(crate) async fn killed_at_any_moment(store: Subject) {
    let kills = kills();
    let mut deaths = 0;
    for seed in 0..kills {
        let mut store = store.unopened().await;
        let mut victim = Victim::start(&store, Work::Sequence(1_000_000 + seed), None);
        let (acknowledged, died) = block_in_place(|| {
            victim.wait_for(seed as usize * 7 % STEPS);
            // Another moment of the call under way for each.
            let moment = Instant::now() + Duration::from_micros(seed * 97 % 2_000);
            while Instant::now() < moment {
                hint::spin_loop();
            }
            victim.kill()
        });
        deaths += u64::from(died);
        compare(&mut store, 1_000_000 + seed, acknowledged).await;
    }
    assert!(
        deaths * 2 >= kills,
        "{deaths} of {kills} were killed before their end"
    );
    println!("{deaths} killed before their end, of {kills}");
}

/// "After a crash the store is checked against the chain itself": a process that connects the blocks of
/// main net is killed again and again; each time the set is the one that a naive replay of the blocks
/// up to the tip leaves, and no block is lost that was acknowledged.
pub(crate) async fn killed_while_connecting_the_real_chain(store: Subject) {
    let blocks = blocks().await;
    let mut store = store.unopened().await;
    let mut connected = 0;
    for part in [1, 60, 100, 140, 150, 110] {
        let mut victim = Victim::start(&store, Work::Chain, None);
        let (acknowledged, died) = block_in_place(|| {
            victim.wait_for(part);
            victim.kill()
        });
        assert!(died, "the process had blocks left");
        store.reopen().await;
        let tip = all(store.tip().await);
        let heights = connected + acknowledged..=connected + acknowledged + 1;
        connected = tip.map_or(0, |tip| tip.height as usize + 1);
        assert!(
            heights.contains(&connected),
            "{connected} blocks, not {heights:?}"
        );
        if !store.capabilities().atomic_blocks {
            // Half a block may be there, until it is repeated.
            all(store.connect_block(&blocks[connected]).await).expect("the block is good");
            connected += 1;
        }
        let mut set = BTreeMap::new();
        blocks[..connected]
            .iter()
            .for_each(|block| replay(&mut set, block));
        let state = store.state().await;
        assert_eq!(state.tip, blocks[..connected].last().map(tip_of));
        assert_eq!(state.coins, set.into_values().collect::<Vec<_>>());
        assert_eq!(state.digest.muhash, muhash(&state.coins));
        store.close();
    }
    store.reopen().await;
    for block in &blocks[connected..] {
        all(store.connect_block(block).await).expect("the block is good");
    }
    let answer = ANSWERS.last().expect("there are some");
    assert_eq!(
        reversed_hex(&all(store.digest().await).muhash),
        answer.muhash
    );
}

/// "What was acknowledged outlives" the backend too: it is killed while a call is under way, again and
/// again, and started again on what it left. What was acknowledged is there, the call under way is done
/// or undone, no output names a spender without a record.
pub(crate) async fn the_backend_is_killed(store: Subject) {
    if !store.kill_backend().await {
        return skipped("the_backend_is_killed", "the harness can't kill it");
    }
    let (mut answered, mut failed) = (0, 0);
    for seed in 0..kills() {
        let mut store = store.another().await;
        let (mut script, prologue) = Script::begin(steps(2_000_000 + seed, STEPS)).await;
        for call in prologue {
            call.apply(&*store).await;
        }
        for _ in 0..seed % 20 {
            script.next_applied(&store).await;
        }
        let before = script.state().clone();
        let (call, said) = script.next().await.expect("it has more steps");
        let moment = Duration::from_micros(seed * 97 % 3_000);
        let (answer, killed) = tokio::join!(call.apply(&*store), async {
            tokio::time::sleep(moment).await;
            store.kill_backend().await
        });
        assert!(killed);
        store.reopen().await;
        if answer == said {
            answered += 1;
            assert_same(&script, &store, &format!("{call:?}, acknowledged")).await;
        } else {
            failed += 1;
            assert!(answer.is_error(), "{call:?} was answered with {answer:?}");
            settle(&store, &script, &before, &call).await;
        }
        go_on(&mut store, &mut script).await;
    }
    println!("{answered} calls were acknowledged, {failed} failed");
}
