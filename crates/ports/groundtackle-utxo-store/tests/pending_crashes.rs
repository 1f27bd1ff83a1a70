//! The store over cells loses nothing wherever its process ends: after each single step.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use groundtackle_utxo_store::pending::{
    Body, CellKey, Cells, Claim, Lock, Mark, MemoryCells, Next, PendingConfig, PendingUtxoStore,
    Phase, StepFault, Write,
};
use groundtackle_utxo_store::{
    Applied, BlockHash, BlockStore, ChainBlock, ConflictStore, Fields, MaintenanceStore,
    MemoryUtxoStore, MinedIn, NewRecord, NewTransaction, OutPoint, Reassignment, RetentionStore,
    Retryability, SlotState, SpendOptions, SpendStore, SpentBy, Tip, Transaction, Txid, UtxoStore,
    Verdict,
};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, out, script};
use groundtackle_utxo_store_testkit::state::{State, muhash};
use tokio::task::JoinSet;

type Store = PendingUtxoStore<MemoryCells>;

fn config() -> PendingConfig {
    let mut config = PendingConfig::default();
    config.patience = Duration::from_millis(2);
    config.retry = config.retry.with_max_attempts(1);
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// One call, on whatever store.
#[derive(Clone, Debug)]
enum Call {
    Create(Vec<NewRecord>),
    Submit(Vec<Transaction>),
    Connect(Arc<ChainBlock>),
    Disconnect(BlockHash, BlockHash),
    Conflict(Txid),
    Unspend(Vec<Txid>),
    Spend(Txid),
    Unmark(Txid),
    Remove(Vec<Txid>),
    Lock(Vec<Txid>),
    Freeze(Vec<OutPoint>),
    Reassign(OutPoint),
    Prune(u32),
}

impl Call {
    /// Whether it has effect as a whole or not at all.
    fn is_whole(&self) -> bool {
        match self {
            Self::Submit(transactions) => transactions.len() == 1,
            Self::Prune(_) => false,
            // Judged as one, and so they are carried out.
            _ => true,
        }
    }

    async fn on(&self, store: &dyn UtxoStore) -> Result<String, groundtackle_utxo_store::Error> {
        let options = SpendOptions::at(201);
        Ok(match self {
            Self::Create(records) => format!("{:?}", store.create(records).await?),
            Self::Submit(transactions) => {
                let new: Vec<_> = transactions
                    .iter()
                    .cloned()
                    .map(NewTransaction::from)
                    .collect();
                format!("{:?}", store.spend_and_create(&new, &options).await?)
            }
            Self::Connect(block) => format!("{:?}", store.connect_block(block).await?.map(|_| ())),
            Self::Disconnect(block, previous) => {
                format!(
                    "{:?}",
                    store.disconnect_block(block, previous).await?.map(|_| ())
                )
            }
            Self::Conflict(txid) => format!("{:?}", store.mark_conflicting(&[*txid]).await?),
            Self::Unspend(txids) => format!("{:?}", store.unspend(txids).await?),
            Self::Spend(txid) => format!("{:?}", store.spend(&[*txid], &options).await?),
            Self::Unmark(txid) => format!("{:?}", store.unmark_conflicting(&[*txid]).await?),
            Self::Remove(txids) => format!("{:?}", store.remove(txids).await?),
            Self::Lock(txids) => format!("{:?}", store.set_locked(txids, true).await?),
            Self::Freeze(outpoints) => format!("{:?}", store.freeze(outpoints).await?),
            Self::Reassign(outpoint) => {
                let reassignment = Reassignment {
                    outpoint: *outpoint,
                    script: script(77),
                    spendable_from: 300,
                };
                format!("{:?}", store.reassign(&[reassignment]).await?)
            }
            Self::Prune(horizon) => format!("{:?}", store.prune(*horizon).await?),
        })
    }
}

/// Calls that between them change all there is to change, and the transactions they are about.
fn script_of_calls() -> (Vec<Call>, Vec<Txid>) {
    let tip = Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    };
    let seed = TxBuilder::new(1).pay_each(8, 1_000).seed(1);
    // On two pages, one script of which lies in parts.
    let mut wide = TxBuilder::new(2).pay_each(600, 7).seed(2);
    if let NewRecord::Seed { outputs, .. } = &mut wide {
        for (vout, output) in outputs.iter_mut().take(40) {
            output.script = vec![*vout as u8 + 1; 9_000].into();
        }
    }
    let coin = |vout| OutPoint::new(seed.txid(), vout);
    let far = |vout| OutPoint::new(wide.txid(), vout);
    let parent = TxBuilder::new(3)
        .spend_all([coin(0), far(1), far(599)])
        .pay_each(600, 1)
        .build();
    let child = TxBuilder::new(4)
        .spend_all([out(&parent, 0), out(&parent, 599)])
        .pay(1)
        .build();
    let refused = TxBuilder::new(5)
        .spend_all([coin(1), coin(0)])
        .pay(1)
        .build();
    let rival = TxBuilder::new(6)
        .spend_all([coin(0), coin(2)])
        .pay(1)
        .build();
    let lost = NewRecord::Conflicting {
        tx: rival.clone(),
        fee_sat: None,
        unmined_since: 201,
    };
    let mined = TxBuilder::new(7)
        .spend_all([coin(3), far(2)])
        .pay(5)
        .build();
    let family = [
        TxBuilder::new(8).spend(coin(4)).pay(1).build(),
        TxBuilder::new(9).spend(coin(5)).pay(1).build(),
    ];
    // One that can be done, one that can't, and a child of the first.
    let last = TxBuilder::new(11).spend(coin(7)).pay(3).build();
    let mixed = vec![
        last.clone(),
        TxBuilder::new(12).spend(coin(0)).pay(1).build(),
        TxBuilder::new(13).spend(out(&last, 0)).pay(1).build(),
    ];
    let after = |tag| TxBuilder::new(tag).spend(out(&mined, 0)).pay(2).build();
    let spends_mined = after(10);
    let block = BlockBuilder::after(Some(tip))
        .with(&[&mined, &spends_mined])
        .build();
    let next = BlockBuilder::after(Some(groundtackle_utxo_store_testkit::builder::tip_of(
        &block,
    )))
    .with(&[&family[0]])
    .build();
    let mut txids: Vec<Txid> = vec![seed.txid(), wide.txid()];
    txids.extend([&parent, &child, &refused, &rival, &mined, &spends_mined].map(|tx| tx.txid));
    txids.extend(family.iter().chain(&mixed).map(|tx| tx.txid));
    for block in [&block, &next] {
        txids.extend(block.transactions.iter().map(|tx| tx.txid));
    }
    let take_back = |block: &ChainBlock| Call::Disconnect(block.hash, block.previous);
    let calls = vec![
        Call::Create(vec![seed.clone(), wide.clone()]),
        Call::Submit(vec![parent.clone()]),
        Call::Submit(vec![child.clone()]),
        Call::Submit(vec![refused.clone()]),
        Call::Submit(family.to_vec()),
        Call::Submit(mixed),
        Call::Lock(vec![parent.txid, family[0].txid]),
        Call::Create(vec![lost]),
        Call::Connect(Arc::new(block.clone())),
        take_back(&block),
        Call::Connect(Arc::new(block.clone())),
        Call::Connect(Arc::new(next.clone())),
        take_back(&next),
        Call::Connect(Arc::new(next)),
        Call::Conflict(parent.txid),
        Call::Unspend(vec![parent.txid, child.txid]),
        Call::Spend(rival.txid),
        Call::Unmark(rival.txid),
        Call::Freeze(vec![coin(6), far(3), far(598)]),
        Call::Reassign(far(3)),
        Call::Remove(vec![child.txid, parent.txid]),
        Call::Prune(201),
        Call::Prune(202),
    ];
    (calls, txids)
}

async fn begin(store: &dyn UtxoStore) {
    let tip = Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    };
    store.set_tip(&tip).await.unwrap();
}

/// What lies in cells after all calls, or a recovery: no locks, no intents, nothing pending, and every
/// part belongs to something.
fn assert_tidy(cells: &MemoryCells, when: &str) {
    let all: BTreeMap<_, _> = cells.all().into_iter().collect();
    for (key, cell) in &all {
        assert!(
            !matches!(key, CellKey::Intent(_)),
            "{when}: an intent is left"
        );
        assert_eq!(cell.lock, None, "{when}: {key:?} is locked");
        if let Some(Body::Page(page)) = &cell.body {
            assert_eq!(page.phase, Phase::Live, "{when}: {key:?}");
        }
    }
}

/// A call that is about to be made: all calls before it have been.
struct Scene<'a> {
    call: &'a Call,
    cells: MemoryCells,
    before: State,
    after: State,
    answer: String,
}

impl<'a> Scene<'a> {
    async fn new(at: usize, calls: &'a [Call], txids: &[Txid]) -> Self {
        let cells = MemoryCells::new();
        let model = MemoryUtxoStore::new();
        let calm = Store::new(cells.clone(), config());
        begin(&model).await;
        begin(&calm).await;
        for call in &calls[..at] {
            let expected = call.on(&model).await.unwrap();
            assert_eq!(call.on(&calm).await.unwrap(), expected, "{call:?}");
        }
        let call = &calls[at];
        Self {
            call,
            cells,
            before: State::of(&model, txids).await,
            answer: call.on(&model).await.unwrap(),
            after: State::of(&model, txids).await,
        }
    }

    /// Makes the call on a copy of the cells that fails at a step, and ever after; says whether it came to that.
    async fn fail(
        &self,
        at: u64,
        fault: StepFault,
        then: StepFault,
        config: PendingConfig,
    ) -> (
        MemoryCells,
        bool,
        Result<String, groundtackle_utxo_store::Error>,
    ) {
        let cells = self.cells.copy();
        let (steps, failed) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
        let has_failed = failed.clone();
        let victim = Store::new(
            cells.with_faults(move |_| {
                let step = steps.fetch_add(1, Ordering::Relaxed);
                has_failed.fetch_or(step >= at, Ordering::Relaxed);
                match step.cmp(&at) {
                    std::cmp::Ordering::Less => StepFault::None,
                    std::cmp::Ordering::Equal => fault,
                    std::cmp::Ordering::Greater => then,
                }
            }),
            config,
        );
        let answered = self.call.on(&victim).await;
        (cells, failed.load(Ordering::Relaxed), answered)
    }

    fn assert_whole(&self, now: &State, when: &str) {
        if self.call.is_whole() && *now != self.before && *now != self.after {
            panic!(
                "{when}: neither before nor after.\nBefore:\n{}\nAfter:\n{}",
                self.before.difference(now).unwrap_or_default(),
                self.after.difference(now).unwrap_or_default()
            );
        }
    }
}

async fn check_call(at: usize, calls: &[Call], txids: &[Txid], fault: StepFault) -> u64 {
    let scene = Scene::new(at, calls, txids).await;
    let call = scene.call;
    for last in 0.. {
        let failed = scene.fail(last, fault, StepFault::NotSent, config());
        let (cells, died, answered) = failed.await;
        let when = format!("{call:?}, {fault:?} at step {last}");
        if !died {
            assert_eq!(answered.unwrap(), scene.answer);
            assert_tidy(&cells, &when);
            return last;
        }
        let next = Store::new(cells.clone(), config());
        // Half of the times nobody recovers: whoever comes next copes.
        if last % 2 == 0 {
            next.recover().await.unwrap();
            let now = State::of(&next, txids).await;
            scene.assert_whole(&now, &when);
            assert_eq!(now.digest.muhash, muhash(&now.coins), "{when}");
            let again = next.recover().await.unwrap();
            assert_eq!(
                again,
                groundtackle_utxo_store::Recovered::default(),
                "{when}"
            );
        }
        call.on(&next).await.unwrap();
        next.recover().await.unwrap();
        let now = State::of(&next, txids).await;
        if let Some(difference) = scene.after.difference(&now) {
            panic!("{when}, then again:\n{difference}");
        }
        for call in &calls[at + 1..] {
            call.on(&next).await.unwrap();
        }
        assert_tidy(&cells, &when);
    }
    unreachable!("a call ends")
}

/// "Nothing was applied", where an error says so, and what is answered is so: the backend goes away at each step of
/// each call, and comes back when the call has ended.
#[test]
fn errors_say_whether_anything_was_applied() {
    let (calls, txids) = script_of_calls();
    let mut config = config();
    config.retry = config
        .retry
        .with_max_attempts(2)
        .with_initial_delay(Duration::from_micros(1));
    runtime().block_on(async {
        let (mut done, mut nothing, mut unknown) = (0, 0, 0);
        for at in 0..calls.len() {
            let scene = Scene::new(at, &calls, &txids).await;
            for fault in [StepFault::Refused, StepFault::AnswerLost] {
                for step in 0.. {
                    let failed = scene.fail(step, fault, StepFault::Refused, config.clone());
                    let (cells, went_away, answered) = failed.await;
                    if !went_away {
                        break;
                    }
                    let when = format!("{:?}, {fault:?} at step {step}", scene.call);
                    let next = Store::new(cells, config.clone());
                    next.recover().await.unwrap();
                    let now = State::of(&next, &txids).await;
                    let (count, expected) = match answered.map_err(|error| error.retryability()) {
                        Ok(answer) => {
                            assert_eq!(answer, scene.answer, "{when}");
                            (&mut done, Some(&scene.after))
                        }
                        Err(Retryability::Indeterminate) => (&mut unknown, None),
                        Err(_) => (&mut nothing, Some(&scene.before)),
                    };
                    *count += 1;
                    match expected {
                        Some(expected) => {
                            if let Some(difference) = expected.difference(&now) {
                                panic!("{when}:\n{difference}");
                            }
                        }
                        None => scene.assert_whole(&now, &when),
                    }
                }
            }
        }
        println!("{done} calls done, {nothing} that did nothing, {unknown} that may have");
        assert!(done.min(nothing).min(unknown) > 50);
    });
}

/// "Per transaction all or nothing; after a crash too, if need be by `recover`." A process ends at each
/// step of each call, the last one carried out or not; the next one recovers, or just goes on.
#[test]
fn a_process_ends_at_each_step() {
    let (calls, txids) = script_of_calls();
    runtime().block_on(async {
        let mut steps = 0;
        for at in 0..calls.len() {
            for fault in [StepFault::NotSent, StepFault::AnswerLost] {
                steps += check_call(at, &calls, &txids, fault).await;
            }
        }
        println!(
            "{steps} steps of {} calls, each the last of a process",
            calls.len()
        );
        assert!(steps > 500, "{steps}");
    });
}

/// Many processes that work on the same coins, each of which ends somewhere; others recover meanwhile.
/// In the end each output that is spent has a spender on record that holds all its inputs, and no
/// acknowledged transaction is missing.
#[test]
fn processes_end_among_others() {
    runtime().block_on(async {
        for round in 0..40_u64 {
            let cells = MemoryCells::new();
            let calm = Store::new(cells.clone(), config());
            begin(&calm).await;
            let seed = TxBuilder::new(1).pay_each(12, 1_000).seed(1);
            calm.create(std::slice::from_ref(&seed)).await.unwrap();
            let coin = |n: u64| OutPoint::new(seed.txid(), (n % 12) as u32);
            let mut tasks = JoinSet::new();
            let mut known = BTreeMap::new();
            for task in 0..8_u64 {
                let mut mine = Vec::new();
                for n in 0..12 {
                    let first = n * 5 + task + round;
                    let wanted = [coin(first), coin(first + 1 + task % 3), coin(first + 7)];
                    let mut wanted = wanted.to_vec();
                    wanted.dedup();
                    wanted.sort_unstable();
                    wanted.dedup();
                    let tx = TxBuilder::new(1_000 * task + n)
                        .spend_all(wanted)
                        .pay(1)
                        .build();
                    known.insert(tx.txid, tx.clone());
                    mine.push(tx);
                }
                let cells = cells.clone();
                tasks.spawn(async move {
                    let mut acknowledged = Vec::new();
                    let mut store = None;
                    let mut drawn = task * 7_919 + round * 104_729 + 1;
                    for tx in mine {
                        drawn = drawn
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let store = store.get_or_insert_with(|| mortal(&cells, drawn >> 32 & 0x7f));
                        let new = [NewTransaction::from(tx.clone())];
                        match store.spend_and_create(&new, &SpendOptions::at(201)).await {
                            Ok(answers) if answers[0].is_ok() => acknowledged.push(tx.txid),
                            Ok(_) => {}
                            // Dead: a new process begins, sometimes by recovering.
                            Err(_) => {
                                *store = mortal(&cells, drawn >> 16 & 0x7f);
                                if drawn & 1 == 0 {
                                    let _ = store.recover().await;
                                }
                            }
                        }
                        if drawn & 0x700 == 0 {
                            let _ = store.mark_conflicting(&[tx.txid]).await;
                        }
                    }
                    acknowledged
                });
            }
            let acknowledged = tasks.join_all().await.concat();
            calm.recover().await.unwrap();
            let records = calm.records(&acknowledged, Fields::META).await.unwrap();
            assert!(
                records.iter().all(Option::is_some),
                "round {round}: acknowledged, and missing"
            );
            let txids: Vec<_> = known.keys().copied().collect();
            let mut held = BTreeMap::new();
            for output in calm.records(&[seed.txid()], Fields::ALL).await.unwrap()[0]
                .as_ref()
                .unwrap()
                .outputs
                .iter()
            {
                held.insert(OutPoint::new(seed.txid(), output.vout), output.spent_by);
            }
            for record in calm
                .records(&txids, Fields::ALL)
                .await
                .unwrap()
                .into_iter()
                .flatten()
            {
                for (vin, input) in (0..).zip(&record.inputs) {
                    let by = held[input];
                    let mine = by.is_some_and(|by| by.txid == record.txid && by.vin == vin);
                    assert!(
                        mine,
                        "round {round}: {} is on record, and {input} is with {by:?}",
                        record.txid
                    );
                }
            }
            for by in held.values().flatten() {
                let spender = calm.records(&[by.txid], Fields::META).await.unwrap();
                assert!(
                    spender[0].is_some(),
                    "round {round}: a spender without a record"
                );
            }
            let state = State::of(&calm, &txids).await;
            assert_eq!(state.digest.muhash, muhash(&state.coins));
            // All that is left can still be spent.
            for (outpoint, _) in held.iter().filter(|(_, by)| by.is_none()) {
                let tx = TxBuilder::new(9_999).spend(*outpoint).pay(1).build();
                let answer = calm
                    .spend_and_create(&[tx.into()], &SpendOptions::at(201))
                    .await;
                assert!(
                    answer.unwrap()[0].is_ok(),
                    "round {round}: {outpoint} is lost"
                );
            }
        }
    });
}

/// A store whose process ends after some steps.
fn mortal(cells: &MemoryCells, steps: u64) -> Store {
    let left = AtomicU64::new(steps + 1);
    let cells = cells.with_faults(move |_| {
        let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match before {
            Ok(1) if steps.is_multiple_of(2) => StepFault::AnswerLost,
            Ok(2..) => StepFault::Yield,
            _ => StepFault::NotSent,
        }
    });
    Store::new(cells, config())
}

/// Steps that were sent long ago and come when nobody waits for them: a mark, a pending record, a lock.
/// None has any effect.
#[test]
fn what_comes_late_means_nothing() {
    runtime().block_on(async {
        let cells = MemoryCells::new();
        let store = Store::new(cells.clone(), config());
        begin(&store).await;
        let seed = TxBuilder::new(1).pay_each(4, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let coin = |vout| OutPoint::new(seed.txid(), vout);
        let options = SpendOptions::at(201);
        let key = |txid| CellKey::Page { txid, page: 0 };
        let find = |key| {
            cells
                .all()
                .into_iter()
                .find(|(k, _)| *k == key)
                .map(|(_, cell)| cell)
        };
        let submit = async |tx: &Transaction| {
            let answer = store.spend_and_create(&[tx.clone().into()], &options).await;
            answer.unwrap()[0].clone()
        };
        let slot = async |vout| {
            store.outputs(&[coin(vout)]).await.unwrap()[0]
                .clone()
                .unwrap()
                .state
        };
        let attempt_of = |txid| match find(key(txid)).unwrap().body {
            Some(Body::Page(page)) => page.attempt,
            other => panic!("{other:?}"),
        };
        let late_mark = async |tx: &Transaction, attempt, vout| {
            let claim = Claim {
                parent: seed.txid(),
                page: 0,
                vout,
                mark: Mark {
                    by: SpentBy {
                        txid: tx.txid,
                        vin: 0,
                    },
                    attempt,
                },
                height: 201,
                coinbase_maturity: 100,
                ignore_locked: false,
                expected: None,
            };
            assert_eq!(cells.mark(&[claim]).await.unwrap(), [true], "it lands");
        };

        // Of a transaction that has given its outputs back since.
        let lost = TxBuilder::new(2).spend(coin(0)).pay(1).build();
        assert_eq!(submit(&lost).await, Ok(Applied::Now));
        let attempt = attempt_of(lost.txid);
        store.mark_conflicting(&[lost.txid]).await.unwrap();
        store.unspend(&[lost.txid]).await.unwrap();
        late_mark(&lost, attempt, 0).await;
        assert_eq!(slot(0).await, SlotState::Unspent);
        let rival = TxBuilder::new(3).spend(coin(0)).pay(1).build();
        assert_eq!(submit(&rival).await, Ok(Applied::Now));

        // Of one that was evicted, and of its record, which comes as pending.
        let evicted = TxBuilder::new(4).spend(coin(1)).pay(1).build();
        assert_eq!(submit(&evicted).await, Ok(Applied::Now));
        let mut pending = find(key(evicted.txid)).unwrap();
        let attempt = attempt_of(evicted.txid);
        store.remove(&[evicted.txid]).await.unwrap();
        late_mark(&evicted, attempt, 1).await;
        assert_eq!(slot(1).await, SlotState::Unspent);
        if let Some(Body::Page(page)) = &mut pending.body {
            page.phase = Phase::Pending;
        }
        let key_of_evicted = key(evicted.txid);
        let late = |key, expect, cell| Write {
            key,
            expect,
            cell: Some(cell),
        };
        let landed = cells.write(&[late(key_of_evicted, None, pending)]).await;
        assert_eq!(landed.unwrap(), [true]);
        assert_eq!(slot(1).await, SlotState::Unspent);
        let rival = TxBuilder::new(5).spend(coin(1)).pay(1).build();
        assert_eq!(submit(&rival).await, Ok(Applied::Now));
        assert!(matches!(
            submit(&evicted).await,
            Err(Verdict::AlreadySpent { .. })
        ));

        // Of a change whose intent is gone.
        let mut locked = find(key(seed.txid())).unwrap();
        let expect = Some(locked.stamp);
        locked.stamp = 1;
        locked.lock = Some(Lock {
            intent: 77,
            next: Next::Delete,
        });
        let landed = cells.write(&[late(key(seed.txid()), expect, locked)]).await;
        assert_eq!(landed.unwrap(), [true]);
        assert_eq!(slot(2).await, SlotState::Unspent);
        let last = TxBuilder::new(6).spend(coin(2)).pay(1).build();
        assert_eq!(submit(&last).await, Ok(Applied::Now));
        assert_tidy(&cells, "at the end");
    });
}

/// "What an unmined transaction spends stays", also where the spender becomes unmined after a pruning has
/// judged it, and before it has hold of what it removes: what was only read is looked at again.
#[test]
fn what_was_only_read_must_still_be_so() {
    runtime().block_on(async {
        let cells = MemoryCells::new();
        let store = Store::new(cells.clone(), config());
        begin(&store).await;
        let seed = TxBuilder::new(1).pay_each(1, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let coin = OutPoint::new(seed.txid(), 0);
        let spender = TxBuilder::new(2).spend(coin).pay(1).build();
        let new = [spender.clone().into()];
        store
            .spend_and_create(&new, &SpendOptions::at(201))
            .await
            .unwrap();
        let block = BlockHash::from_bytes([201; 32]);
        let mined = MinedIn {
            block: Some(block),
            height: 201,
            subtree_index: 0,
            on_longest_chain: true,
        };
        store.set_mined(&[spender.txid], &mined).await.unwrap()[0]
            .clone()
            .unwrap();
        let tip = Tip {
            height: 201,
            hash: block,
            median_time_past: 0,
        };
        store.set_tip(&tip).await.unwrap();
        let other = store.clone();
        let (txid, once) = (spender.txid, AtomicBool::new(false));
        let pruner = Store::new(
            cells.with_faults(move |key| {
                if matches!(key, CellKey::Intent(_)) && !once.swap(true, Ordering::Relaxed) {
                    // It has judged, and begins to lock.
                    let other = other.clone();
                    let unmine = move || {
                        runtime().block_on(async {
                            let done = other.unset_mined(&[txid], &block, 201).await;
                            assert_eq!(done.unwrap(), [Ok(Applied::Now)]);
                        });
                    };
                    std::thread::spawn(unmine).join().unwrap();
                }
                StepFault::None
            }),
            config(),
        );
        assert_eq!(pruner.prune(201).await.unwrap().records, 0);
        let records = store.records(&[seed.txid()], Fields::META).await.unwrap();
        assert!(records[0].is_some(), "an unmined transaction spends it");
        // And when it is mined again nothing needs it any more.
        store.set_mined(&[spender.txid], &mined).await.unwrap()[0]
            .clone()
            .unwrap();
        assert_eq!(store.prune(201).await.unwrap().records, 1);
    });
}
