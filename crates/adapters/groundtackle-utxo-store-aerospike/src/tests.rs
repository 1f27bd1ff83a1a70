//! Cells in a server do as their specification in memory says.
#![allow(clippy::expect_used, clippy::panic, reason = "a test asserts")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use groundtackle_testkit_servers::{Aerospike, AerospikeOptions};
use groundtackle_utxo_store::pending::{
    Body, Cell, CellKey, Cells, Claim, Guard, Lock, Mark, MemoryCells, Next, PART_BYTES, Page,
    Phase, Slot, Step, Stored, Write,
};
use groundtackle_utxo_store::{Error, Retryability, SpentBy, TxOut, Txid};

use crate::AerospikeUtxoStoreConfig;
use crate::cells::{AerospikeCells, random};

const TXIDS: u8 = 4;

/// Past the test runner's capture.
fn skipped(why: &str) {
    writeln!(
        std::io::stderr(),
        "skipped: a test of cells: {why} (NOTHING WAS TESTED)"
    )
    .expect("standard error is open");
}

async fn cells() -> Option<AerospikeCells> {
    if !Aerospike::is_there() {
        skipped("no asd on the PATH, and no GROUNDTACKLE_TEST_AEROSPIKE");
        return None;
    }
    static NODE: std::sync::OnceLock<Aerospike> = std::sync::OnceLock::new();
    let node = NODE.get_or_init(|| Aerospike::find_or_start(&AerospikeOptions::default()));
    let config = AerospikeUtxoStoreConfig::new(node.url(&format!("cells-{:x}", random())));
    let cells = AerospikeCells::connect(&config.with_min_replicas(1)).await;
    Some(cells.expect("a store"))
}

fn txid(n: u8) -> Txid {
    Txid::from_bytes([n; 32])
}

const fn mark(n: u8, attempt: u64) -> Mark {
    Mark {
        by: SpentBy {
            txid: Txid::from_bytes([n; 32]),
            vin: 1,
        },
        attempt,
    }
}

fn page(attempt: u64, phase: Phase) -> Body {
    let slot = |vout: u32| {
        let slot = Slot {
            value_sat: u64::from(vout),
            script: Stored::Here(vec![vout as u8; 3]),
            mark: None,
            frozen: false,
            spendable_from: None,
        };
        (vout, slot)
    };
    Body::Page(Page {
        attempt,
        phase,
        guard: Guard::default(),
        unmined_since: Some(1),
        head: Some(Stored::Here(vec![1])),
        slots: (0..3).map(slot).collect(),
    })
}

const fn cell(stamp: u64, body: Body) -> Cell {
    Cell {
        stamp,
        lock: None,
        body: Some(body),
    }
}

fn claim(parent: u8, vout: u32, mark: Mark, script: &[u8]) -> Claim {
    Claim {
        parent: txid(parent),
        page: 0,
        vout,
        mark,
        height: 10,
        coinbase_maturity: 100,
        ignore_locked: false,
        expected: Some(TxOut {
            value_sat: u64::from(vout),
            script: script.to_vec().into(),
        }),
    }
}

/// Everything but the stamps, which each draws by itself where it changes one operation.
fn without_stamps(cells: Vec<Option<Cell>>) -> Vec<Option<Cell>> {
    let mut cells = cells;
    cells.iter_mut().flatten().for_each(|cell| cell.stamp = 0);
    cells
}

#[tokio::test]
async fn what_was_written_is_written_again() {
    let Some(cells) = cells().await else {
        return;
    };
    let key = CellKey::head(txid(1));
    let write = |expect, stamp| Write {
        key,
        expect,
        cell: Some(cell(stamp, page(7, Phase::Pending))),
    };
    let stamp_of = async || {
        let read = cells.read(&[key]).await.expect("a cell");
        read[0].as_ref().map(|cell| cell.stamp)
    };
    // Created, and confirmed by its own stamp; one of another stamp is refused.
    assert_eq!(cells.write(&[write(None, 1)]).await.expect("done"), [true]);
    assert_eq!(cells.write(&[write(None, 1)]).await.expect("done"), [true]);
    assert_eq!(cells.write(&[write(None, 2)]).await.expect("done"), [false]);
    assert_eq!(stamp_of().await, Some(1));
    // Replaced, twice; what expects the old one and brings a third is refused.
    for _ in 0..2 {
        let done = cells.write(&[write(Some(1), 2)]).await;
        assert_eq!(done.expect("done"), [true]);
    }
    let done = cells.write(&[write(Some(1), 3)]).await;
    assert_eq!(done.expect("done"), [false]);
    assert_eq!(stamp_of().await, Some(2));
    // Stepped, and stepped again: the second leaves the stamp, since others may hold the cell by then.
    let step = |attempt, to| Step {
        txid: txid(1),
        attempt,
        to,
    };
    let steps = [step(6, Phase::Live)];
    assert_eq!(cells.step(&steps).await.expect("done"), [false]);
    let steps = [step(7, Phase::Live)];
    assert_eq!(cells.step(&steps).await.expect("done"), [true]);
    let stamp = stamp_of().await;
    assert_eq!(cells.step(&steps).await.expect("done"), [true]);
    assert_eq!(stamp_of().await, stamp);
    let steps = [step(7, Phase::Aborted)];
    assert_eq!(cells.step(&steps).await.expect("done"), [false]);
    // Nothing is deleted without a condition.
    let nothing = |key| Write {
        key,
        expect: None,
        cell: None,
    };
    let writes = [nothing(key), nothing(CellKey::Chain)];
    assert_eq!(cells.write(&writes).await.expect("done"), [false, true]);
    assert_eq!(stamp_of().await, stamp);
}

#[tokio::test]
async fn claims_on_long_scripts_fit() {
    let Some(cells) = cells().await else {
        return;
    };
    let script = |len: usize| vec![7; len];
    let mut body = page(7, Phase::Live);
    if let Body::Page(page) = &mut body {
        for (vout, slot) in &mut page.slots {
            let len = if *vout == 0 { PART_BYTES } else { 1_000 };
            slot.script = Stored::Here(script(len));
        }
    }
    let write = Write {
        key: CellKey::head(txid(1)),
        expect: None,
        cell: Some(cell(1, body)),
    };
    assert_eq!(cells.write(&[write]).await.expect("done"), [true]);
    // More than a filter can hold; a script that no cell can have; and what is right.
    let mut claims = vec![claim(1, 2, mark(9, 1), &script(PART_BYTES + 1))];
    claims.extend((10..30).map(|vout| claim(1, vout, mark(9, 1), &script(PART_BYTES))));
    claims.push(claim(1, 0, mark(9, 1), &script(PART_BYTES)));
    claims.push(claim(1, 1, mark(9, 1), &script(1_000)));
    let marked = cells.mark(&claims).await.expect("done");
    let right: Vec<_> = claims.iter().map(|claim| claim.vout < 2).collect();
    assert_eq!(marked, right);
}

/// The same steps, drawn by lot, on cells in memory and in the server.
#[tokio::test]
async fn cells_do_as_the_specification_says() {
    let Some(cells) = cells().await else {
        return;
    };
    let memory = MemoryCells::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let keys: Vec<_> = (0..TXIDS).map(|n| CellKey::head(txid(n))).collect();
    // Stamps differ where a step or a mark has drawn one; from here they are told apart by what wrote them.
    for round in 0..600_u64 {
        let (theirs, mine) = (
            memory.read(&keys).await.expect("cells"),
            cells.read(&keys).await.expect("cells"),
        );
        let stamps: BTreeMap<_, _> = keys
            .iter()
            .zip(theirs.iter().zip(&mine))
            .map(|(key, (a, b))| (*key, (a.as_ref(), b.as_ref())))
            .collect();
        let n = draw(u64::from(TXIDS)) as u8;
        let (attempt, vout) = (1 + draw(2), draw(4) as u32);
        let key = CellKey::head(txid(n));
        let (a, b) = stamps[&key];
        let (a, b) = (a.map(|cell| cell.stamp), b.map(|cell| cell.stamp));
        let kind = draw(8);
        let agree = match kind {
            0..=2 => {
                let phase = [Phase::Pending, Phase::Live, Phase::Aborted][draw(3) as usize];
                let body = page(attempt, phase);
                let lock = (draw(4) == 0).then(|| Lock {
                    intent: 5,
                    next: Next::Put(body.clone()),
                });
                let new = Cell {
                    lock,
                    ..cell(1_000 + round, body)
                };
                let (expect_a, expect_b) = match draw(4) {
                    0 => (None, None),
                    1 => (Some(round), Some(round)),
                    _ => (a, b),
                };
                let new = (draw(5) > 0).then_some(new);
                let write = |expect| Write {
                    key,
                    expect,
                    cell: new.clone(),
                };
                let mut agree = true;
                // Once more, as after a lost answer.
                for _ in 0..1 + draw(2) {
                    let a = memory.write(&[write(expect_a)]).await.expect("done");
                    let b = cells.write(&[write(expect_b)]).await.expect("done");
                    agree &= a == b;
                }
                agree
            }
            3..=4 => {
                let to = [Phase::Live, Phase::Aborted][draw(2) as usize];
                let steps = [Step {
                    txid: txid(n),
                    attempt,
                    to,
                }];
                let a = memory.step(&steps).await.expect("done");
                a == cells.step(&steps).await.expect("done")
            }
            5..=6 => {
                let claims = [
                    claim(n, vout, mark(20 + draw(2) as u8, 1), &[vout as u8; 3]),
                    claim(n, (vout + 1) % 4, mark(22, 1), &[vout as u8 + 1; 3]),
                ];
                let a = memory.mark(&claims).await.expect("done");
                a == cells.mark(&claims).await.expect("done")
            }
            _ => {
                let claims = [claim(n, vout, mark(20 + draw(2) as u8, 1), &[])];
                memory.unmark(&claims).await.expect("done");
                cells.unmark(&claims).await.expect("done");
                true
            }
        };
        assert!(agree, "round {round}, step {kind}: other answers");
        let a = without_stamps(memory.read(&keys).await.expect("cells"));
        let b = without_stamps(cells.read(&keys).await.expect("cells"));
        assert_eq!(a, b, "round {round}, step {kind}");
    }
}

/// What took too long is asked for in smaller pieces the next time.
#[tokio::test]
async fn a_list_that_takes_too_long_asks_for_less() {
    if !Aerospike::can_be_started() {
        return skipped("no asd on the PATH");
    }
    let mut node = Aerospike::start(&AerospikeOptions::default());
    let config = AerospikeUtxoStoreConfig::new(node.url("slow"))
        .with_min_replicas(1)
        .with_answer_timeout(Duration::from_millis(500));
    let cells = AerospikeCells::connect(&config).await.expect("a store");
    let write = Write {
        key: CellKey::head(txid(1)),
        expect: None,
        cell: Some(cell(1, page(7, Phase::Live))),
    };
    assert_eq!(cells.write(&[write]).await.expect("done"), [true]);
    assert_eq!(cells.unmined(None, 10).await.expect("a list").len(), 1);
    let before = cells.unmined_stretch.load(Ordering::Relaxed);
    node.freeze(0);
    let error = cells.unmined(None, 10).await.expect_err("nobody answers");
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    assert!(
        cells.unmined_stretch.load(Ordering::Relaxed) < before,
        "{error:?}"
    );
    node.thaw(0);
    assert_eq!(cells.unmined(None, 10).await.expect("a list").len(), 1);
}

/// "Nothing was applied" is not said where one node refuses what others have done.
#[tokio::test]
async fn what_one_node_refuses_others_may_have_done() {
    if !Aerospike::can_be_started() {
        return skipped("no asd on the PATH");
    }
    let cluster = Aerospike::start(&AerospikeOptions {
        nodes: 3,
        data_mib: 512,
        ..AerospikeOptions::default()
    });
    let config = AerospikeUtxoStoreConfig::new(cluster.url("partly")).with_min_replicas(1);
    let cells = AerospikeCells::connect(&config).await.expect("a store");
    let refuse = async |refuse: [bool; 3], then: Option<Retryability>| {
        for (node, refuse) in refuse.into_iter().enumerate() {
            let command = format!(
                "set-config:context=namespace;namespace=test;reject-non-xdr-writes={refuse}"
            );
            let answer = cluster.info(node, &command).expect("an answer");
            assert!(answer.contains("ok"), "{answer}");
        }
        let probed = cells.probe().await;
        let retryability = probed.as_ref().err().map(Error::retryability);
        assert_eq!(retryability, then, "{probed:?}");
    };
    let doubt = Retryability::Indeterminate;
    let one = || refuse([true, false, false], Some(doubt));
    let none = || refuse([false; 3], None);
    let keys: Vec<_> = (0..60).map(|n| CellKey::head(txid(n))).collect();
    let writes = |expect: Option<u64>, stamp| -> Vec<_> {
        let write = |key: &CellKey| Write {
            key: *key,
            expect,
            cell: Some(cell(stamp, page(7, Phase::Pending))),
        };
        keys.iter().map(write).collect()
    };
    let stamps = async || {
        let read = cells.read(&keys).await.expect("cells");
        let stamps = read.into_iter().map(|cell| cell.map(|cell| cell.stamp));
        stamps.collect::<Vec<_>>()
    };
    // All refuse: nothing was applied, and that is said.
    refuse([true; 3], Some(Retryability::Transient)).await;
    let error = cells.write(&writes(None, 1)).await.expect_err("refused");
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    assert!(stamps().await.iter().all(Option::is_none));
    // One does.
    one().await;
    let error = cells.write(&writes(None, 1)).await.expect_err("refused");
    assert_eq!(error.retryability(), doubt, "{error:?}");
    assert!(error.to_string().contains("refuses writes"), "{error}");
    let there = stamps().await.iter().flatten().count();
    assert!((1..60).contains(&there), "{there}");
    none().await;
    assert_eq!(
        cells.write(&writes(None, 1)).await.expect("done"),
        [true; 60]
    );
    // Each other kind of step.
    let claims: Vec<_> = (0..60).map(|n| claim(n, 1, mark(99, 1), &[1; 3])).collect();
    let steps: Vec<_> = (0..60)
        .map(|n| Step {
            txid: txid(n),
            attempt: 7,
            to: Phase::Live,
        })
        .collect();
    one().await;
    let error = cells.step(&steps).await.expect_err("refused");
    assert_eq!(error.retryability(), doubt, "{error:?}");
    none().await;
    assert_eq!(cells.step(&steps).await.expect("done"), [true; 60]);
    one().await;
    let error = cells.mark(&claims).await.expect_err("refused");
    assert_eq!(error.retryability(), doubt, "{error:?}");
    none().await;
    assert_eq!(cells.mark(&claims).await.expect("done"), [true; 60]);
    one().await;
    let error = cells.unmark(&claims).await.expect_err("refused");
    assert_eq!(error.retryability(), doubt, "{error:?}");
    none().await;
    cells.unmark(&claims).await.expect("done");
    let read = cells.read(&keys).await.expect("cells");
    for cell in read.into_iter().flatten() {
        let Some(Body::Page(page)) = cell.body else {
            panic!("no page");
        };
        assert_eq!(page.phase, Phase::Live);
        assert!(page.slots.values().all(|slot| slot.mark.is_none()));
    }
}
