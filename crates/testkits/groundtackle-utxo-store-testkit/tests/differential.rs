//! The generator reaches what it is there for.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]

use std::panic::catch_unwind;

use async_trait::async_trait;
use groundtackle_utxo_store::{Applied, MemoryUtxoStore, Result, forward_store};
use groundtackle_utxo_store_testkit::Harness;
use groundtackle_utxo_store_testkit::differential::{Differential, Pick, Step};

struct MemoryHarness;

#[async_trait]
impl Harness for MemoryHarness {
    type Store = MemoryUtxoStore;
    type Place = ();

    async fn place(&self) {}

    async fn open(&self, _place: &()) -> Result<MemoryUtxoStore> {
        Ok(MemoryUtxoStore::new())
    }
}

/// All that there are, `InBlock` with the one that only a block gets.
const VERDICTS: [&str; 24] = [
    "AlreadyExists",
    "AlreadySpent",
    "Conflicting",
    "ConflictingParent",
    "Frozen",
    "FrozenUntil",
    "Immature",
    "InvalidTransaction",
    "Locked",
    "MinedOnLongestChain",
    "MissingOutput",
    "MissingTransaction",
    "NoUndo",
    "NotConflicting",
    "NotFrozen",
    "NotMinedIn",
    "NotNext",
    "NotSpending",
    "NotTip",
    "OutputMismatch",
    "Pruned",
    "StillSpent",
    "InBlock Unconfirmed",
    "UnknownTransaction",
];

/// What changes something, and can find that nothing is left to change.
const CHANGES: [&str; 18] = [
    "ConnectBlock",
    "Create",
    "DisconnectBlock",
    "Freeze",
    "Preserve",
    "Reassign",
    "Remove",
    "SetLocked",
    "SetLongestChain",
    "SetMined",
    "Spend",
    "SpendAndCreate",
    "Unfreeze",
    "UnmarkConflicting",
    "UnsetMined",
    "Unspend",
    "MarkConflicting",
    "Prune",
];

#[test]
fn sequences_reach_every_verdict() {
    let coverage = Differential::new()
        .with(MemoryHarness)
        .run_sequences(512, 0);
    println!("{coverage}");
    for verdict in VERDICTS {
        let mut outcomes = coverage.outcomes.values();
        assert!(
            outcomes.any(|outcomes| outcomes.contains_key(verdict)),
            "no sequence got {verdict}"
        );
    }
    for operation in CHANGES {
        let outcomes = &coverage.outcomes[operation];
        let both = match operation {
            "MarkConflicting" => ["1 marked", "4 marked"],
            "Prune" => ["none", "some"],
            _ => ["Now", "Before"],
        };
        for outcome in both {
            let times = outcomes.get(outcome).copied().unwrap_or_default();
            assert!(times > 3, "{operation} was {outcome} {times} times");
        }
    }
}

/// Drops what it is told to freeze.
#[derive(Debug)]
struct Forgetful(MemoryUtxoStore);

impl Forgetful {
    fn inner(&self) -> &MemoryUtxoStore {
        &self.0
    }
}

macro_rules! forgetful {
    ($self:ident, chunked, freeze, $items:expr, |$part:ident| $call:expr) => {
        Ok(vec![Ok(Applied::Now); $items.len()])
    };
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

forward_store!([] Forgetful, inner, forgetful);

struct ForgetfulHarness;

#[async_trait]
impl Harness for ForgetfulHarness {
    type Store = Forgetful;
    type Place = ();

    async fn place(&self) {}

    async fn open(&self, _place: &()) -> Result<Forgetful> {
        Ok(Forgetful(MemoryUtxoStore::new()))
    }
}

#[test]
fn a_failure_is_one_step_to_paste() {
    let differs = || {
        Differential::new()
            .with(MemoryHarness)
            .with(ForgetfulHarness)
    };
    let failure = catch_unwind(|| differs().run_sequences(64, 0)).expect_err("it forgets");
    let text = failure.downcast::<String>().expect("a message");
    let step = "replay(&vec![Freeze(vec![Pick(0)])]);";
    assert!(text.contains(step), "{text}");
    catch_unwind(|| differs().replay(&[Step::Freeze(vec![Pick(0)])])).expect_err("as printed");
}
