//! Interleavings of processes over the same cells, step by step: one is held at a step while others run.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

#[path = "pending_races/reads.rs"]
mod reads;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use groundtackle_utxo_store::pending::{
    Body, Cell, CellKey, Cells, Guard, Lock, MemoryCells, Next, Page, PendingConfig,
    PendingUtxoStore, Phase, StepFault, Stored, Write,
};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, ConflictStore, Fields, MaintenanceStore, NewRecord,
    NewTransaction, OutPoint, Recovered, RetentionStore, Retryability, SlotState, SpendOptions,
    SpendStore, Tip, Txid, Verdict,
};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder};

type Store = PendingUtxoStore<MemoryCells>;

fn config() -> PendingConfig {
    let mut config = PendingConfig::default();
    config.patience = Duration::from_millis(2);
    config.retry = config
        .retry
        .with_max_attempts(5)
        .with_initial_delay(Duration::from_micros(1));
    config
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

async fn begun() -> (MemoryCells, Store) {
    let cells = MemoryCells::new();
    let store = Store::new(cells.clone(), config());
    let tip = Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 0,
    };
    store.set_tip(&tip).await.unwrap();
    (cells, store)
}

/// A process of its own that recovers, and is held before its first step on a cell.
struct Slow {
    process: JoinHandle<()>,
    go: Sender<()>,
}

impl Slow {
    /// Returns when it is held.
    fn recover(cells: &MemoryCells, held_at: CellKey) -> Self {
        let (reached, there) = channel();
        let (go, gate): (_, Receiver<()>) = channel();
        let (gate, once) = (Mutex::new(gate), AtomicBool::new(false));
        let cells = cells.with_faults(move |key| {
            if key == held_at && !once.swap(true, Ordering::Relaxed) {
                reached.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap();
            }
            StepFault::None
        });
        let store = Store::new(cells, config());
        let process = std::thread::spawn(move || {
            runtime().block_on(async {
                store.recover().await.unwrap();
            });
        });
        there.recv().unwrap();
        Self { process, go }
    }

    fn go_on(self) {
        self.go.send(()).unwrap();
        self.process.join().unwrap();
    }
}

/// Runs something in a process of its own, from within a step of another one.
fn beside<F: Future<Output = ()>>(call: impl FnOnce() -> F + Send + 'static) {
    let process = std::thread::spawn(move || runtime().block_on(call()));
    process.join().unwrap();
}

/// Cells of which those that matter meet with something, by the number of the step on them.
fn meeting(
    cells: &MemoryCells,
    matters: impl Fn(CellKey) -> bool + Send + Sync + 'static,
    meets: impl Fn(usize) -> StepFault + Send + Sync + 'static,
) -> MemoryCells {
    let steps = AtomicUsize::new(0);
    cells.with_faults(move |key| match matters(key) {
        true => meets(steps.fetch_add(1, Ordering::Relaxed)),
        false => StepFault::None,
    })
}

/// A store that lets others run before its step of a number on cells of its choice.
fn interrupted(
    cells: &MemoryCells,
    matters: impl Fn(CellKey) -> bool + Send + Sync + 'static,
    at: usize,
    interrupt: impl Fn() + Send + Sync + 'static,
    patience: Duration,
) -> Store {
    let cells = meeting(cells, matters, move |step| {
        if step == at {
            interrupt();
        }
        StepFault::None
    });
    let mut config = config();
    config.patience = patience;
    Store::new(cells, config)
}

/// A store to which the answer to its second step on cells of its choice is lost; others run before the third, and what
/// comes later meets with something.
fn overtaken(
    cells: &MemoryCells,
    matters: impl Fn(CellKey) -> bool + Send + Sync + 'static,
    others: impl Fn() + Send + Sync + 'static,
    later: StepFault,
) -> Store {
    let cells = meeting(cells, matters, move |step| match step {
        0 => StepFault::None,
        1 => StepFault::AnswerLost,
        2 => {
            others();
            StepFault::None
        }
        _ => later,
    });
    Store::new(cells, config())
}

/// A store whose process ends after some steps, and whether it has.
fn mortal(cells: &MemoryCells, last: usize) -> (Store, Arc<AtomicBool>) {
    let died = Arc::new(AtomicBool::new(false));
    let dead = died.clone();
    let cells = meeting(
        cells,
        |_| true,
        move |step| match step < last {
            true => StepFault::None,
            false => {
                dead.store(true, Ordering::Relaxed);
                StepFault::NotSent
            }
        },
    );
    (Store::new(cells, config()), died)
}

const fn is_intent(key: CellKey) -> bool {
    matches!(key, CellKey::Intent(_))
}

/// Recovers in a process of its own.
fn recover_beside(cells: &MemoryCells) {
    let store = Store::new(cells.clone(), config());
    beside(move || async move {
        store.recover().await.unwrap();
    });
}

/// The answer to the writing of a head is lost; two others give the record up, and one of them is slow in
/// taking its marks back. What its owner does then is not touched by that.
#[test]
fn a_head_that_was_given_up_does_not_come_back() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seed = TxBuilder::new(1).pay_each(2, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let coin = OutPoint::new(seed.txid(), 0);
        let tx = TxBuilder::new(2).spend(coin).pay(1).build();
        let parent = CellKey::Page {
            txid: coin.txid,
            page: 0,
        };
        let slow = Arc::new(Mutex::new(None));
        let (place, into, steps) = (cells.clone(), slow.clone(), AtomicUsize::new(0));
        let owner = Store::new(
            cells.with_faults(move |_| match steps.fetch_add(1, Ordering::Relaxed) {
                0 => StepFault::AnswerLost,
                1 => {
                    *into.lock().unwrap() = Some(Slow::recover(&place, parent));
                    recover_beside(&place);
                    StepFault::None
                }
                _ => StepFault::None,
            }),
            config(),
        );
        let options = SpendOptions::at(201);
        let new = [NewTransaction::from(tx.clone())];
        let answers = owner.spend_and_create(&new, &options).await.unwrap();
        assert_eq!(answers, [Ok(Applied::Now)]);
        slow.lock().unwrap().take().unwrap().go_on();
        let view = store.outputs(&[coin]).await.unwrap()[0].clone().unwrap();
        assert!(
            matches!(view.state, SlotState::Spent(by) if by.txid == tx.txid),
            "{:?}",
            view.state
        );
        let rival = TxBuilder::new(3).spend(coin).pay(1).build();
        let rival = [NewTransaction::from(rival)];
        let answers = store.spend_and_create(&rival, &options).await.unwrap();
        assert!(answers[0].is_err(), "spent twice: {answers:?}");
    });
}

/// The same for an intent: two others give it up, and one is slow in taking its locks away.
#[test]
fn an_intent_that_was_given_up_does_not_come_back() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seeds = [1, 2].map(|tag| TxBuilder::new(tag).pay(1_000).seed(1));
        store.create(&seeds).await.unwrap();
        let txids: Vec<Txid> = seeds.iter().map(|seed| seed.txid()).collect();
        let first = *txids.iter().min().unwrap();
        let key = CellKey::Page {
            txid: first,
            page: 0,
        };
        let (place, slow) = (cells.clone(), Mutex::new(None));
        let (lost, pages) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let owner = Store::new(
            cells.with_faults(move |key_now| {
                let is_intent = matches!(key_now, CellKey::Intent(_));
                let lost_before = lost.load(Ordering::Relaxed);
                if is_intent && lost_before == 0 {
                    lost.store(1, Ordering::Relaxed);
                    return StepFault::AnswerLost;
                }
                if lost_before == 1 {
                    lost.store(2, Ordering::Relaxed);
                    *slow.lock().unwrap() = Some(Slow::recover(&place, key));
                    recover_beside(&place);
                }
                if lost_before == 2 && !is_intent {
                    pages.fetch_add(1, Ordering::Relaxed);
                }
                // It holds all locks, and commits.
                if is_intent && pages.load(Ordering::Relaxed) >= 2 {
                    slow.lock()
                        .unwrap()
                        .take()
                        .into_iter()
                        .for_each(Slow::go_on);
                }
                StepFault::None
            }),
            config(),
        );
        let answers = owner.set_locked(&txids, true).await.unwrap();
        assert_eq!(answers, [Ok(Applied::Now), Ok(Applied::Now)]);
        let records = store.records(&txids, Fields::META).await.unwrap();
        assert!(records.iter().flatten().all(|record| record.locked));
    });
}

/// A change to so many cells that their names lie in parts: its process ends at any step that has to do with
/// the intent or these parts, or another one does its work there.
#[test]
fn an_intent_whose_names_lie_in_parts_is_finished_by_anyone() {
    const CELLS: u64 = 3_700;
    runtime().block_on(async {
        let seeds: Vec<_> = (0..CELLS)
            .map(|tag| TxBuilder::new(tag).pay(1_000).seed(1))
            .collect();
        let txids: Vec<Txid> = seeds.iter().map(|seed| seed.txid()).collect();
        let mut parts = 0;
        for (at, others_help) in (0..).flat_map(|at| [(at, false), (at, true)]) {
            let (cells, store) = begun().await;
            let (place, steps) = (cells.clone(), Arc::new(AtomicUsize::new(0)));
            let (count, dead) = (steps.clone(), AtomicBool::new(false));
            let owner = Store::new(
                cells.with_faults(move |key| {
                    if dead.load(Ordering::Relaxed) {
                        return StepFault::NotSent;
                    }
                    let matters = matches!(key, CellKey::Intent(_) | CellKey::Part { .. });
                    if matters && count.fetch_add(1, Ordering::Relaxed) == at {
                        if others_help {
                            recover_beside(&place);
                        } else {
                            dead.store(true, Ordering::Relaxed);
                            return StepFault::NotSent;
                        }
                    }
                    StepFault::None
                }),
                config(),
            );
            let answers = owner.create(&seeds).await;
            if others_help {
                let answers = answers.unwrap();
                assert!(answers.iter().all(Result::is_ok), "helped at step {at}");
            }
            let recovered = store.recover().await;
            assert!(recovered.is_ok(), "step {at}: {recovered:?}");
            let records = store.records(&txids, Fields::META).await.unwrap();
            let there = records.iter().flatten().count();
            assert!(
                there == records.len() || there == 0 && !others_help,
                "step {at}: {there} records"
            );
            let left = cells.all().into_iter().map(|(key, _)| key);
            let left: Vec<_> = left
                .filter(|key| matches!(key, CellKey::Intent(_)))
                .collect();
            assert_eq!(left, [], "step {at}");
            if steps.load(Ordering::Relaxed) <= at {
                break;
            }
            parts = at;
        }
        assert!(parts >= 8, "{parts} steps");
    });
}

/// Undo data is found among thousands of lists: "the oldest blocks can't be taken back any more" holds
/// before the first record goes.
#[test]
fn pruning_finds_undo_data_among_many_lists() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let tip = store.tip().await.unwrap();
        let block = BlockBuilder::after(tip).build();
        store.connect_block(&block).await.unwrap().unwrap();
        let lists = (0..8_000).map(|id| Write {
            key: CellKey::Due { height: 201, id },
            expect: None,
            cell: Some(Cell {
                stamp: id + 1,
                lock: None,
                body: Some(Body::Bytes {
                    due: Some(201),
                    // A list of none.
                    bytes: Stored::Here(vec![1, 0, 0, 0, 0]),
                }),
            }),
        });
        cells.write(&lists.collect::<Vec<_>>()).await.unwrap();
        let seen = cells.clone();
        let (undo, broken) = (CellKey::Undo(block.hash), Arc::new(AtomicBool::new(false)));
        let (broke, first) = (broken.clone(), AtomicBool::new(false));
        let pruner = Store::new(
            cells.with_faults(move |key| {
                let has_undo = || seen.all().iter().any(|(key, _)| *key == undo);
                let is_list = matches!(
                    key,
                    CellKey::Due {
                        height: 201,
                        id: ..8_000
                    }
                );
                if is_list && !first.swap(true, Ordering::Relaxed) && has_undo() {
                    broke.store(true, Ordering::Relaxed);
                }
                StepFault::None
            }),
            config(),
        );
        assert_eq!(pruner.prune(201).await.unwrap().blocks, 1);
        assert!(
            !broken.load(Ordering::Relaxed),
            "a list before the undo data"
        );
    });
}

/// The answer to a commit is lost, and others carry it out meanwhile: it is not told as if it had not been, also
/// where the backend goes away then.
#[test]
fn a_commit_that_others_have_finished_is_no_failure() {
    runtime().block_on(async {
        for later in [StepFault::None, StepFault::Refused] {
            let (cells, store) = begun().await;
            let seeds = [1, 2].map(|tag| TxBuilder::new(tag).pay(1_000).seed(1));
            store.create(&seeds).await.unwrap();
            let txids: Vec<Txid> = seeds.iter().map(|seed| seed.txid()).collect();
            let place = cells.clone();
            let owner = overtaken(&cells, is_intent, move || recover_beside(&place), later);
            let error = owner.set_locked(&txids, true).await.unwrap_err();
            assert_eq!(error.retryability(), Retryability::Indeterminate);
            let records = store.records(&txids, Fields::META).await.unwrap();
            assert!(records.iter().flatten().all(|record| record.locked));
        }
    });
}

/// An owner whose record is given up before it marks leaves no mark.
#[test]
fn an_owner_that_comes_too_late_leaves_nothing() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seed = TxBuilder::new(1).pay_each(2, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let coin = |vout| OutPoint::new(seed.txid(), vout);
        let rival = TxBuilder::new(2).spend(coin(1)).pay(1).build();
        let rival = [NewTransaction::from(rival)];
        let tx = TxBuilder::new(3)
            .spend_all([coin(0), coin(1)])
            .pay(1)
            .build();
        let parent = CellKey::Page {
            txid: seed.txid(),
            page: 0,
        };
        let (place, marks) = (cells.clone(), AtomicUsize::new(0));
        let owner = Store::new(
            cells.with_faults(move |key| {
                if key == parent && marks.fetch_add(1, Ordering::Relaxed) == 0 {
                    recover_beside(&place);
                    let (other, rival) = (Store::new(place.clone(), config()), rival.clone());
                    let spend = move || {
                        runtime().block_on(async {
                            let options = SpendOptions::at(201);
                            let answers = other.spend_and_create(&rival, &options).await;
                            assert_eq!(answers.unwrap(), [Ok(Applied::Now)]);
                        });
                    };
                    std::thread::spawn(spend).join().unwrap();
                }
                StepFault::None
            }),
            config(),
        );
        let new = [NewTransaction::from(tx)];
        let answers = owner.spend_and_create(&new, &SpendOptions::at(201)).await;
        assert!(answers.unwrap()[0].is_err());
        let Some(Some(Body::Page(page))) = cells.read(&[parent]).await.unwrap()[0]
            .clone()
            .map(|cell| cell.body)
        else {
            panic!("no page");
        };
        assert_eq!(page.slots[&0].mark, None, "a mark is left");
    });
}

/// A thing that can't be recovered is told in the end, and does not stop the others.
#[test]
fn recovery_goes_on_after_what_it_cannot_read() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let intents = (0..8).map(|id| Write {
            key: CellKey::Intent(id),
            expect: None,
            cell: Some(Cell {
                stamp: id + 1,
                lock: None,
                body: Some(Body::Bytes {
                    due: None,
                    bytes: Stored::Here(b"nonsense".to_vec()),
                }),
            }),
        });
        let pages = (0..3_000_u32).map(|n| {
            let mut txid = [0; 32];
            txid[..4].copy_from_slice(&n.to_le_bytes());
            Write {
                key: CellKey::Page {
                    txid: Txid::from_bytes(txid),
                    page: 0,
                },
                expect: None,
                cell: Some(Cell {
                    stamp: 1,
                    lock: None,
                    body: Some(Body::Page(Page {
                        attempt: 7,
                        phase: Phase::Pending,
                        guard: Guard::default(),
                        unmined_since: None,
                        head: None,
                        slots: std::collections::BTreeMap::new(),
                    })),
                }),
            }
        });
        let writes: Vec<_> = intents.chain(pages).collect();
        cells.write(&writes).await.unwrap();
        let error = store.recover().await.unwrap_err();
        assert_eq!(error.retryability(), Retryability::Permanent);
        let pages = cells.all().into_iter().map(|(key, _)| key);
        let pages = pages.filter(|key| matches!(key, CellKey::Page { .. }));
        assert_eq!(pages.count(), 0);
    });
}

/// Nobody can tell a lock on a cell that was not there from one that is sent again: where its fate is not known,
/// the whole change begins anew, so that a late one belongs to an intent that is given up.
#[test]
fn a_lock_that_may_come_late_belongs_to_no_change() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seed = TxBuilder::new(1).pay_each(1, 1_000).seed(1);
        store.create(std::slice::from_ref(&seed)).await.unwrap();
        let tx = TxBuilder::new(2).spend(OutPoint::new(seed.txid(), 0));
        let made = NewRecord::Conflicting {
            tx: tx.pay(1).build(),
            fee_sat: None,
            unmined_since: 201,
        };
        let key = CellKey::head(made.txid());
        let (intents, lost) = (
            Arc::new(Mutex::new(Vec::new())),
            Arc::new(AtomicUsize::new(0)),
        );
        let (seen, losses) = (intents.clone(), lost.clone());
        let place = cells.clone();
        let owner = Store::new(
            cells.with_faults(move |at| {
                if let CellKey::Intent(id) = at {
                    seen.lock().unwrap().push(id);
                }
                // The second step on the cell is the lock; the first one reads it.
                let is_lock = at == key
                    && place
                        .all()
                        .iter()
                        .any(|(k, _)| matches!(k, CellKey::Intent(_)));
                match is_lock && losses.fetch_add(1, Ordering::Relaxed) == 0 {
                    true => StepFault::NotSent,
                    false => StepFault::None,
                }
            }),
            config(),
        );
        let answers = owner.create(std::slice::from_ref(&made)).await.unwrap();
        assert_eq!(answers, [Ok(Applied::Now)]);
        assert!(lost.load(Ordering::Relaxed) > 0, "no lock was lost");
        let first = intents.lock().unwrap()[0];
        assert!(
            intents.lock().unwrap().iter().any(|id| *id != first),
            "one intent"
        );
        // Evicted; and then the lost lock comes, of a change that would make it again.
        store.remove(&[made.txid()]).await.unwrap()[0]
            .clone()
            .unwrap();
        let page = Page {
            attempt: 7,
            phase: Phase::Live,
            guard: Guard::default(),
            unmined_since: None,
            head: None,
            slots: std::collections::BTreeMap::new(),
        };
        let late = Cell {
            stamp: 7,
            lock: Some(Lock {
                intent: first,
                next: Next::Put(Body::Page(page)),
            }),
            body: None,
        };
        let write = Write {
            key,
            expect: None,
            cell: Some(late),
        };
        assert_eq!(cells.write(&[write]).await.unwrap(), [true]);
        assert_eq!(
            store.records(&[made.txid()], Fields::META).await.unwrap(),
            [None]
        );
        let again = store.create(std::slice::from_ref(&made)).await.unwrap();
        assert_eq!(again, [Ok(Applied::Now)]);
    });
}

/// What an intent names lies in parts where it is much, its values too.
#[test]
fn an_intent_is_small() {
    runtime().block_on(async {
        let (cells, begun) = begun().await;
        let seed = TxBuilder::new(1).pay_each(1, 1_000_000).seed(1);
        begun.create(std::slice::from_ref(&seed)).await.unwrap();
        let wide = TxBuilder::new(2).spend(OutPoint::new(seed.txid(), 0));
        let mut wide = wide.pay_each(20 * 512, 1).build();
        for output in &mut wide.outputs {
            output.script = vec![1; 300].into();
        }
        let (place, seen) = (cells.clone(), Arc::new(AtomicUsize::new(0)));
        let found = seen.clone();
        let head = CellKey::head(wide.txid);
        let store = Store::new(
            cells.with_faults(move |at| {
                let all = if at == head { place.all() } else { Vec::new() };
                for (key, cell) in all {
                    if matches!(key, CellKey::Intent(_)) {
                        found.fetch_add(1, Ordering::Relaxed);
                        let Some(Body::Bytes {
                            bytes: Stored::Here(bytes),
                            ..
                        }) = cell.body
                        else {
                            panic!("no intent");
                        };
                        assert!(bytes.len() < 100, "{} bytes", bytes.len());
                    }
                }
                StepFault::None
            }),
            config(),
        );
        assert_eq!(
            store
                .spend_and_create(&[wide.clone().into()], &SpendOptions::at(201))
                .await
                .unwrap(),
            [Ok(Applied::Now)]
        );
        assert!(seen.load(Ordering::Relaxed) > 0);
        let scripts = |cells: &MemoryCells| {
            let all = cells.all().into_iter();
            all.filter(|(key, _)| matches!(key, CellKey::Part { .. }))
                .count()
        };
        assert!(scripts(&cells) >= 20 * 512);
        assert_eq!(
            store.remove(&[wide.txid]).await.unwrap(),
            [Ok(Applied::Now)]
        );
        assert_eq!(scripts(&cells), 0, "parts are left");
    });
}

/// A block comes through though others change its records all the time.
#[test]
fn a_block_comes_through() {
    runtime().block_on(async {
        let (cells, _) = begun().await;
        let mut config = config();
        config.patience = Duration::from_secs(1);
        let store = Store::new(cells, config);
        let seeds: Vec<_> = (0..100)
            .map(|n| TxBuilder::new(n).pay_each(1, 1_000).seed(1))
            .collect();
        store.create(&seeds).await.unwrap();
        let spend =
            |n: usize| TxBuilder::new(1_000 + n as u64).spend(OutPoint::new(seeds[n].txid(), 0));
        let spenders: Vec<_> = (0..100).map(|n| spend(n).pay(1).build()).collect();
        let new: Vec<_> = spenders.iter().cloned().map(NewTransaction::from).collect();
        store
            .spend_and_create(&new, &SpendOptions::at(201))
            .await
            .unwrap();
        let tip = store.tip().await.unwrap();
        let all: Vec<_> = spenders.iter().collect();
        let block = BlockBuilder::after(tip).with(&all).build();
        let over = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (0..4)
            .map(|task| {
                let (store, over, begun) = (store.clone(), over.clone(), begun.clone());
                let txids: Vec<_> = spenders
                    .iter()
                    .skip(task * 20)
                    .map(|tx| tx.txid)
                    .take(30)
                    .collect();
                tokio::spawn(async move {
                    let mut calls = 0;
                    while !over.load(Ordering::Relaxed) {
                        let pair = [txids[calls % 30], txids[(calls + 7) % 30]];
                        // It may be that others are always faster.
                        let _ = store.set_locked(&pair, calls % 2 == 0).await;
                        calls += 1;
                        begun.fetch_add(usize::from(calls == 1), Ordering::Relaxed);
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        while begun.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        let connected = store.connect_block(&block).await.unwrap();
        over.store(true, Ordering::Relaxed);
        assert!(connected.is_ok(), "{connected:?}");
        for other in others {
            other.await.unwrap();
        }
    });
}

/// One who helps has written an intent again, and not read yet what it names, when its owner is done.
#[test]
fn what_an_intent_names_goes_after_it() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seeds: Vec<_> = (0..3_700)
            .map(|tag| TxBuilder::new(tag).pay(1_000).seed(1))
            .collect();
        let helper: Arc<Mutex<Option<Slow>>> = Arc::default();
        let (place, slow) = (cells.clone(), helper.clone());
        let help = move || {
            let all = place.all().into_iter().map(|(key, _)| key);
            let part = all
                .into_iter()
                .find(|key| matches!(key, CellKey::Part { .. }));
            *slow.lock().unwrap() = Some(Slow::recover(&place, part.unwrap()));
        };
        // It is written, committed, read, and deleted.
        let owner = interrupted(&cells, is_intent, 3, help, Duration::from_secs(60));
        let answers = owner.create(&seeds).await.unwrap();
        assert!(answers.iter().all(Result::is_ok));
        helper.lock().unwrap().take().unwrap().go_on();
        assert_eq!(store.recover().await.unwrap(), Recovered::default());
        let left = cells.all().into_iter().map(|(key, _)| key);
        let left: Vec<_> = left
            .filter(|key| matches!(key, CellKey::Intent(_) | CellKey::Part { .. }))
            .collect();
        assert_eq!(left, []);
    });
}

/// A change whose answer was lost, and on which another one has built, is not made a second time.
#[test]
fn what_others_have_built_on_is_not_repeated() {
    runtime().block_on(async {
        for later in [StepFault::None, StepFault::Refused] {
            let (cells, store) = begun().await;
            let seed = TxBuilder::new(1).pay_each(2, 1_000).seed(1);
            store.create(std::slice::from_ref(&seed)).await.unwrap();
            let coin = OutPoint::new(seed.txid(), 0);
            let head = CellKey::head(seed.txid());
            // It is read, written, and written again.
            let other = store.clone();
            let unfreeze = move || {
                let other = other.clone();
                beside(move || async move {
                    assert_eq!(other.unfreeze(&[coin]).await.unwrap(), [Ok(Applied::Now)]);
                });
            };
            let owner = overtaken(&cells, move |key| key == head, unfreeze, later);
            let error = owner.freeze(&[coin]).await.unwrap_err();
            assert_eq!(error.retryability(), Retryability::Indeterminate);
            let now = store.outputs(&[coin]).await.unwrap()[0].clone().unwrap();
            assert_eq!(now.state, SlotState::Unspent);

            // And so with a transaction that was removed: its head is written, and made live.
            let tx = TxBuilder::new(2).spend(coin).pay(1).build();
            let (other, txid) = (store.clone(), tx.txid);
            let remove = move || {
                let other = other.clone();
                beside(move || async move {
                    assert_eq!(other.remove(&[txid]).await.unwrap(), [Ok(Applied::Now)]);
                });
            };
            let head = CellKey::head(txid);
            let owner = overtaken(&cells, move |key| key == head, remove, later);
            let new = [NewTransaction::from(tx)];
            let answers = owner.spend_and_create(&new, &SpendOptions::at(201)).await;
            let error = answers.unwrap_err();
            assert_eq!(error.retryability(), Retryability::Indeterminate);
            assert_eq!(store.records(&[txid], Fields::META).await.unwrap(), [None]);
        }
    });
}

/// Who locks a record waits for those who are about to spend its outputs.
#[test]
fn a_lock_comes_before_a_spender_or_after_it() {
    runtime().block_on(async {
        let (cells, store) = begun().await;
        let seeds = [1, 2].map(|tag| TxBuilder::new(tag).pay_each(1, 1_000).seed(1));
        store.create(&seeds).await.unwrap();
        let [first, second] = [0, 1].map(|n: usize| OutPoint::new(seeds[n].txid(), 0));
        store.freeze(&[second]).await.unwrap();
        let other = store.clone();
        let lock = move || {
            let other = other.clone();
            beside(move || async move {
                let locked = other.set_locked(&[first.txid], true).await.unwrap();
                assert_eq!(locked, [Ok(Applied::Now)]);
                assert_eq!(other.unfreeze(&[second]).await.unwrap(), [Ok(Applied::Now)]);
            });
        };
        let parent = CellKey::head(second.txid);
        let late = interrupted(
            &cells,
            move |key| key == parent,
            0,
            lock,
            Duration::from_secs(1),
        );
        let tx = TxBuilder::new(3).spend_all([first, second]).pay(1).build();
        let new = [NewTransaction::from(tx)];
        let answers = late
            .spend_and_create(&new, &SpendOptions::at(201))
            .await
            .unwrap();
        assert!(
            matches!(answers[0], Err(Verdict::Locked { .. })),
            "{answers:?}"
        );
    });
}
