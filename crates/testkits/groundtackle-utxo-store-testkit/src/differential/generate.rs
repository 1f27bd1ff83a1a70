//! Which sequences are tried.

use proptest::prelude::*;

use super::{Expected, Item, Pick, Rules, Step};

pub(super) fn sequence() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..48)
}

fn pick() -> impl Strategy<Value = Pick> {
    any::<u16>().prop_map(Pick)
}

fn picks() -> impl Strategy<Value = Vec<Pick>> {
    proptest::collection::vec(pick(), 1..4)
}

fn fresh() -> impl Strategy<Value = Item> {
    (proptest::collection::vec(pick(), 1..4), 0..5_u8)
        .prop_map(|(inputs, outputs)| Item::New { inputs, outputs })
}

fn items(fresh_weight: u32, known_weight: u32) -> impl Strategy<Value = Vec<Item>> {
    let item = prop_oneof![
        2 * fresh_weight => fresh(),
        2 * known_weight => pick().prop_map(Item::Known),
        1 => pick().prop_map(Item::Gone),
    ];
    proptest::collection::vec(item, 1..4)
}

fn rules() -> impl Strategy<Value = Rules> {
    (
        prop_oneof![6 => Just(0), 1 => -1..4_i8],
        prop_oneof![4 => Just(100), 1 => 0..3_u8],
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(ahead, maturity, ignore_locked, lock)| Rules {
            ahead,
            maturity,
            ignore_locked,
            lock,
        })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![
        20 => Just(Expected::Nothing),
        6 => Just(Expected::Right),
        2 => Just(Expected::Wrong),
        1 => Just(Expected::TooMany),
    ];
    let fee = proptest::option::weighted(0.3, any::<u8>());
    let near = || -3..4_i8;
    prop_oneof![
        20 => (items(6, 1), rules(), fee, expected).prop_map(|(items, rules, fee, expected)| {
            Step::Submit { items, rules, fee, expected }
        }),
        1 => (prop_oneof![2 => fresh(), 1 => pick().prop_map(Item::Known)], pick(), any::<bool>())
            .prop_map(|(tx, block, on)| Step::CreateCoinbase { tx, block, on }),
        2 => (any::<bool>(), 98..101_u8, 0..4_u8, any::<bool>())
            .prop_map(|(coinbase, age, outputs, again)| Step::Seed { coinbase, age, outputs, again }),
        4 => (items(5, 1), near()).prop_map(|(items, since)| Step::CreateConflicting { items, since }),
        4 => (picks(), rules()).prop_map(|(txids, rules)| Step::Spend { txids, rules }),
        4 => picks().prop_map(Step::Unspend),
        2 => picks().prop_map(Step::Remove),
        1 => Just(Step::SetTip),
        3 => (picks(), pick(), 0..2_u8, any::<bool>())
            .prop_map(|(txids, block, subtree, on)| Step::SetMined { txids, block, subtree, on }),
        2 => (picks(), pick(), near())
            .prop_map(|(txids, block, since)| Step::UnsetMined { txids, block, since }),
        3 => (picks(), pick(), any::<bool>())
            .prop_map(|(txids, block, on)| Step::SetLongestChain { txids, block, on }),
        16 => (
            items(1, 2),
            prop::bool::weighted(0.8),
            any::<u8>(),
            proptest::option::weighted(0.1, pick()),
            prop::bool::weighted(0.1),
        ).prop_map(|(items, whole, branch, coinbase, may_overwrite)| {
            Step::Connect { items, whole, branch, coinbase, may_overwrite }
        }),
        3 => pick().prop_map(Step::ConnectKnown),
        6 => Just(Step::Disconnect),
        1 => (pick(), pick()).prop_map(|(block, previous)| Step::DisconnectKnown(block, previous)),
        3 => picks().prop_map(Step::Freeze),
        2 => picks().prop_map(Step::Unfreeze),
        3 => (picks(), 0..4_u8, near())
            .prop_map(|(outputs, owner, ahead)| Step::Reassign { outputs, owner, ahead }),
        3 => (picks(), any::<bool>()).prop_map(|(txids, locked)| Step::SetLocked { txids, locked }),
        5 => picks().prop_map(Step::MarkConflicting),
        5 => picks().prop_map(Step::UnmarkConflicting),
        1 => picks().prop_map(Step::CounterConflicting),
        1 => picks().prop_map(Step::ConflictingChildren),
        2 => (picks(), near()).prop_map(|(txids, ahead)| Step::Preserve { txids, ahead }),
        6 => (-3..2_i8).prop_map(Step::Prune),
        1 => near().prop_map(Step::Unmined),
        1 => Just(Step::Recover),
        3 => Just(Step::Reopen),
    ]
}
