use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::super::OUTPUTS_PER_PAGE;
use super::*;

const BACKEND: &str = "a test";

#[test]
fn what_no_page_can_have_is_refused() {
    let slot = Slot {
        value_sat: 1,
        script: Stored::Here(Vec::new()),
        mark: None,
        frozen: false,
        spendable_from: None,
    };
    let page = |vouts: [u32; 2]| {
        pack_body(&Body::Page(Page {
            attempt: 1,
            phase: Phase::Live,
            guard: Guard::default(),
            unmined_since: None,
            head: None,
            slots: vouts.map(|vout| (vout, slot.clone())).into(),
        }))
    };
    let last = OUTPUTS_PER_PAGE - 1;
    assert!(unpack_body(BACKEND, &page([0, last])).is_ok());
    assert!(unpack_body(BACKEND, &page([last, last + 1])).is_err());
    let head = |page| {
        let tx = groundtackle_chain::Transaction {
            txid: Txid::ZERO,
            inputs: Vec::new(),
            outputs: Vec::new(),
            lock_time: 0,
            size_bytes: 0,
            coinbase: false,
        };
        let record = crate::draft::ops::new_record(crate::UnspendableRule::Core, &tx);
        let pages = vec![page];
        unpack_head(BACKEND, Txid::ZERO, &pack_head(&Head { record, pages }))
    };
    assert!(head(page_of(u32::MAX)).is_ok());
    assert!(head(page_of(u32::MAX) + 1).is_err());
}

fn txid() -> impl Strategy<Value = Txid> {
    any::<[u8; 32]>().prop_map(Txid::from_bytes)
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        vec(any::<u8>(), 0..40).prop_map(Stored::Here),
        (any::<u64>(), any::<u64>()).prop_map(|(id, len)| Stored::Apart { id, len }),
    ]
}

fn mined() -> impl Strategy<Value = MinedIn> {
    (
        any::<Option<[u8; 32]>>(),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(block, height, subtree_index, on_longest_chain)| MinedIn {
            block: block.map(BlockHash::from_bytes),
            height,
            subtree_index,
            on_longest_chain,
        })
}

fn record() -> impl Strategy<Value = Record> {
    let numbers = (any::<Option<u64>>(), any::<u64>(), any::<u32>());
    let heights = (any::<Option<u32>>(), any::<Option<u32>>());
    let inputs = vec((txid(), any::<u32>()), 0..4);
    let lists = (inputs, vec(mined(), 0..3), vec(txid(), 0..3));
    (txid(), any::<[bool; 3]>(), numbers, heights, lists).prop_map(
        |(
            txid,
            [coinbase, locked, conflicting],
            (fee_sat, size_bytes, lock_time),
            heights,
            lists,
        )| Record {
            txid,
            coinbase,
            fee_sat,
            size_bytes,
            lock_time,
            inputs: lists
                .0
                .into_iter()
                .map(|(t, v)| OutPoint::new(t, v))
                .collect(),
            outputs: Vec::new(),
            mined_in: lists.1,
            unmined_since: heights.0,
            locked,
            conflicting,
            conflicting_children: lists.2,
            preserve_until: heights.1,
        },
    )
}

fn slot() -> impl Strategy<Value = Slot> {
    let mark = (txid(), any::<u32>(), any::<u64>());
    let mark = mark.prop_map(|(txid, vin, attempt)| Mark {
        by: SpentBy { txid, vin },
        attempt,
    });
    let mark = prop::option::of(mark);
    (
        any::<u64>(),
        stored(),
        mark,
        any::<bool>(),
        any::<Option<u32>>(),
    )
        .prop_map(|(value_sat, script, mark, frozen, spendable_from)| Slot {
            value_sat,
            script,
            mark,
            frozen,
            spendable_from,
        })
}

fn body() -> impl Strategy<Value = Body> {
    let phase = prop_oneof![
        Just(Phase::Pending),
        Just(Phase::Live),
        Just(Phase::Aborted)
    ];
    let guard = (any::<[bool; 3]>(), any::<Option<u32>>());
    let guard = guard.prop_map(|([coinbase, locked, conflicting], height)| Guard {
        coinbase,
        locked,
        conflicting,
        height,
    });
    let rest = (any::<Option<u32>>(), prop::option::of(stored()));
    let page = (
        any::<u64>(),
        phase,
        guard,
        rest,
        (
            0..=page_of(u32::MAX),
            btree_map(0..OUTPUTS_PER_PAGE, slot(), 0..4),
        )
            .prop_map(|(page, slots)| {
                let vout = |at| page * OUTPUTS_PER_PAGE + at;
                slots
                    .into_iter()
                    .map(|(at, slot)| (vout(at), slot))
                    .collect()
            }),
    );
    prop_oneof![
        (any::<Option<u32>>(), stored()).prop_map(|(due, bytes)| Body::Bytes { due, bytes }),
        page.prop_map(
            |(attempt, phase, guard, (unmined_since, head), slots)| Body::Page(Page {
                attempt,
                phase,
                guard,
                unmined_since,
                head,
                slots,
            })
        ),
    ]
}

fn key() -> impl Strategy<Value = CellKey> {
    prop_oneof![
        (txid(), any::<u32>()).prop_map(|(txid, page)| CellKey::Page { txid, page }),
        Just(CellKey::Chain),
        any::<[u8; 32]>().prop_map(|block| CellKey::Undo(BlockHash::from_bytes(block))),
        (any::<u32>(), any::<u64>()).prop_map(|(height, id)| CellKey::Due { height, id }),
        any::<u64>().prop_map(CellKey::Intent),
        (any::<u64>(), any::<u32>()).prop_map(|(id, part)| CellKey::Part { id, part }),
    ]
}

proptest! {
    #[test]
    fn values_read_as_they_were_written(
        record in record(),
        pages in btree_set(1..=page_of(u32::MAX), 0..4),
        body in body(),
        keys in vec(key(), 0..5),
        (state, stored, lists) in (0..3_u8, stored(), any::<[Vec<(u64, u64)>; 3]>()),
    ) {
        let head = Head { record, pages: pages.into_iter().collect() };
        let packed = pack_head(&head);
        prop_assert_eq!(unpack_head(BACKEND, head.record.txid, &packed).unwrap(), head.clone());
        let other = Txid::from_bytes([0x5a; 32]);
        let wrong = unpack_head(BACKEND, other, &packed).unwrap_err();
        let wrong = matches!(wrong, Error::WrongRecord { .. });
        prop_assert!(wrong, "another record was believed");
        for short in 0..packed.len() {
            prop_assert!(unpack_head(BACKEND, head.record.txid, &packed[..short]).is_err());
        }
        let packed = pack_body(&body);
        prop_assert_eq!(unpack_body(BACKEND, &packed).unwrap(), body);
        for short in 0..packed.len() {
            prop_assert!(unpack_body(BACKEND, &packed[..short]).is_err());
        }
        for key in &keys {
            prop_assert_eq!(CellKey::from_bytes(&key.to_bytes()), Some(*key));
        }
        let [dropped, new, old] = lists;
        let contents = Contents { keys, dropped, new, old };
        prop_assert_eq!(unpack_contents(BACKEND, &pack_contents(&contents)).unwrap(), contents);
        let state = [IntentState::Preparing, IntentState::Committed, IntentState::Aborted][usize::from(state)];
        let intent = Intent { state, contents: stored };
        prop_assert_eq!(unpack_intent(BACKEND, &pack_intent(&intent)).unwrap(), intent);
        let undo = BlockUndo {
            height: head.record.lock_time,
            previous: None,
            transactions: vec![
                (head.record.txid, Undo::Created),
                (other, Undo::Existed {
                    unmined_since: head.record.unmined_since,
                    entry: head.record.mined_in.first().copied(),
                    fee_sat: head.record.fee_sat,
                }),
            ],
            replaced_coinbase: Some(Box::new(head.record)),
        };
        prop_assert_eq!(unpack_undo(BACKEND, &pack_undo(&undo)).unwrap(), undo);
    }

    #[test]
    fn any_bytes_are_judged(bytes in vec(any::<u8>(), 0..300), body in body(), flip in any::<(prop::sample::Index, u8)>()) {
        let mut with_format = vec![FORMAT];
        with_format.extend(&bytes);
        let mut flipped = pack_body(&body);
        let at = flip.0.index(flipped.len());
        flipped[at] ^= flip.1;
        for bytes in [&bytes, &with_format, &flipped] {
            let _ = unpack_body(BACKEND, bytes);
            let _ = unpack_undo(BACKEND, bytes);
            let _ = unpack_chain(BACKEND, bytes);
            let _ = unpack_txids(BACKEND, bytes);
            let _ = unpack_contents(BACKEND, bytes);
            let _ = unpack_intent(BACKEND, bytes);
            let _ = unpack_head(BACKEND, Txid::ZERO, bytes);
            let _ = CellKey::from_bytes(bytes);
        }
    }
}
