//! What can only be tested from within: what lies on the disk.

use std::fs;
use std::path::Path;

use groundtackle_core::ByteSize;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{
    BlockHash, BlockStore, ChainBlock, Error, Fields, MaintenanceStore, MinedIn, NewRecord,
    OutPoint, ScanStore, Script, SpendStore, SpentBy, StatisticsOptions, Tip, Transaction, TxOut,
    Txid, UtxoStoreExt,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::config::{Durability, EmbeddedUtxoStoreConfig};
use crate::engine::MAX_VALUE_BYTES;
use crate::fuzzing;
use crate::record::{
    BlockUndo, CHUNK_OUTPUTS, Head, Inputs, Mined, Slot, TIP_KEY, TipState, Undo, chunk_of,
    decode_chunk, decode_head, decode_inputs, decode_tip, decode_undo, decode_unmined,
    encode_chunk, encode_head, encode_inputs, encode_tip, encode_undo, encoded, record_key, seal,
    skim, undo_key, unmined_key,
};
use crate::store::EmbeddedUtxoStore;

fn config() -> EmbeddedUtxoStoreConfig {
    EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1))
}

fn coinbase(number: u8, scripts: Vec<Vec<u8>>) -> NewRecord {
    let output = |script| TxOut {
        value_sat: 50,
        script: Script::from_bytes(script),
    };
    NewRecord::Coinbase {
        tx: Transaction {
            txid: Txid::from_bytes([number; 32]),
            inputs: Vec::new(),
            outputs: scripts.into_iter().map(output).collect(),
            lock_time: 0,
            size_bytes: 100,
            coinbase: true,
        },
        mined: MinedIn {
            block: None,
            height: 1,
            subtree_index: 0,
            on_longest_chain: true,
        },
    }
}

fn txid() -> impl Strategy<Value = Txid> {
    any::<[u8; 32]>().prop_map(Txid::from_bytes)
}

fn script() -> impl Strategy<Value = Script> {
    let x_of_g = vec![
        0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b,
        0x07, 0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8,
        0x17, 0x98,
    ];
    prop_oneof![
        vec(any::<u8>(), 0..80).boxed(),
        any::<[u8; 20]>()
            .prop_map(|hash| [&[0x76, 0xa9, 0x14], hash.as_slice(), &[0x88, 0xac]].concat())
            .boxed(),
        any::<[u8; 20]>()
            .prop_map(|hash| [&[0xa9, 0x14], hash.as_slice(), &[0x87]].concat())
            .boxed(),
        any::<[u8; 32]>()
            .prop_map(|x| [&[0x21, 3], x.as_slice(), &[0xac]].concat())
            .boxed(),
        Just([&[0x21, 2], x_of_g.as_slice(), &[0xac]].concat()).boxed(),
        // Off the curve: kept raw.
        any::<[u8; 64]>()
            .prop_map(|key| [&[0x41, 4], key.as_slice(), &[0xac]].concat())
            .boxed(),
        vec(any::<u8>(), 5000..5010).boxed(),
    ]
    .prop_map(Script::from_bytes)
}

fn spent_by() -> impl Strategy<Value = SpentBy> {
    (txid(), any::<u32>()).prop_map(|(txid, vin)| SpentBy { txid, vin })
}

fn slots(chunk: u32) -> impl Strategy<Value = Vec<Slot>> {
    let money = 0..=groundtackle_chain::model::MAX_MONEY_SAT;
    let slot = (
        money,
        script(),
        option::of(spent_by()),
        any::<bool>(),
        option::of(any::<u32>()),
    );
    proptest::collection::btree_map(0..CHUNK_OUTPUTS, slot, 0..6).prop_map(move |slots| {
        slots
            .into_iter()
            .map(
                |(offset, (value_sat, script, spent_by, frozen, spendable_from))| {
                    let output = TxOut { value_sat, script };
                    let slot = Slot::unspent(chunk * CHUNK_OUTPUTS + offset, &output);
                    assert_eq!(slot.output().unwrap(), output);
                    Slot {
                        spent_by,
                        frozen,
                        spendable_from,
                        ..slot
                    }
                },
            )
            .collect()
    })
}

fn mined() -> impl Strategy<Value = Mined> {
    (
        option::of(0..u32::MAX),
        any::<u32>(),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(block, height, subtree_index, on_longest_chain)| Mined {
            block,
            height,
            subtree_index,
            on_longest_chain,
        })
}

fn outpoints() -> impl Strategy<Value = Vec<OutPoint>> {
    vec(
        (txid(), any::<u32>()).prop_map(|(txid, vout)| OutPoint::new(txid, vout)),
        0..5,
    )
}

fn head() -> impl Strategy<Value = Head> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let numbers = (
        option::of(any::<u64>()),
        any::<u64>(),
        any::<u32>(),
        0..=chunk_of(u32::MAX),
    );
    let heights = (option::of(any::<u32>()), option::of(any::<u32>()));
    let inputs = prop_oneof![outpoints().prop_map(Inputs::Here), Just(Inputs::Apart)];
    (
        flags,
        numbers,
        heights,
        inputs,
        vec(mined(), 0..3),
        vec(txid(), 0..3),
    )
        .prop_map(
            |(flags, numbers, heights, inputs, mined_in, conflicting_children)| {
                let (coinbase, locked, conflicting) = flags;
                let (fee_sat, size_bytes, lock_time, last_chunk) = numbers;
                let (unmined_since, preserve_until) = heights;
                Head {
                    coinbase,
                    locked,
                    conflicting,
                    fee_sat,
                    size_bytes,
                    lock_time,
                    inputs,
                    mined_in,
                    unmined_since,
                    conflicting_children,
                    preserve_until,
                    last_chunk,
                }
            },
        )
}

fn tip() -> impl Strategy<Value = Tip> {
    (any::<u32>(), any::<[u8; 32]>(), any::<u32>()).prop_map(|(height, hash, median_time_past)| {
        Tip {
            height,
            hash: BlockHash::from_bytes(hash),
            median_time_past,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_survive_the_disk(txid in txid(), head in head(), first in slots(0), later in slots(7)) {
        let (head_again, slots_again) = decode_head(&txid, &encoded(|out| encode_head(out, &txid, &head, &first))).unwrap();
        prop_assert_eq!(&head_again, &head);
        prop_assert_eq!(slots_again, first);
        prop_assert_eq!(decode_chunk(&txid, 7, &encoded(|out| encode_chunk(out, &txid, 7, &later))).unwrap(), later);
    }

    #[test]
    fn skimming_sees_what_decoding_does(txid in txid(), head in head(), first in slots(0), later in slots(7)) {
        let all = |chunk, value: &[u8], origin| {
            let mut seen = Vec::new();
            let (origin, more) = skim(txid, chunk, value, origin, |_, slot| {
                seen.push((slot.vout, slot.output()?, slot.spent_by));
                Ok(true)
            })
            .unwrap();
            assert!(more);
            (origin, seen)
        };
        let expected = |slots: &[Slot]| {
            let slots = slots.iter().filter(|_| head.confirmed_height().is_some());
            slots.map(|slot| (slot.vout, slot.output().unwrap(), slot.spent_by)).collect::<Vec<_>>()
        };
        let (origin, seen) = all(0, &encoded(|out| encode_head(out, &txid, &head, &first)), None);
        prop_assert_eq!((origin.txid, origin.height, origin.coinbase), (txid, head.confirmed_height(), head.coinbase));
        prop_assert_eq!(seen, expected(&first));
        let (_, seen) = all(7, &encoded(|out| encode_chunk(out, &txid, 7, &later)), Some(origin));
        prop_assert_eq!(seen, expected(&later));
    }

    #[test]
    fn inputs_survive_the_disk(txid in txid(), inputs in outpoints()) {
        prop_assert_eq!(decode_inputs(&txid, &encoded(|out| encode_inputs(out, &txid, &inputs))).unwrap(), inputs);
    }

    #[test]
    fn undo_data_survive_the_disk(
        previous in option::of(tip()),
        block in 0..u32::MAX,
        created in vec(txid(), 0..3),
        existed in vec((txid(), option::of(any::<u32>()), option::of(mined()), option::of(any::<u64>())), 0..3),
        replaced in option::of((head(), slots(0), slots(1))),
    ) {
        let created = created.into_iter().map(|txid| (txid, Undo::Created));
        let existed = existed.into_iter().map(|(txid, unmined_since, entry, fee_sat)| {
            let entry = entry.map(|entry| Mined { block: Some(block), on_longest_chain: false, ..entry });
            (txid, Undo::Existed { unmined_since, entry, fee_sat })
        });
        let transactions = created.chain(existed).collect();
        let replaced = replaced.map(|(head, first, second)| {
            (Head { last_chunk: 1, ..head }, first.into_iter().chain(second).collect())
        });
        let undo = BlockUndo { previous, transactions, replaced };
        let key = undo_key(9, &BlockHash::ZERO);
        prop_assert_eq!(decode_undo(&key, Some(block), &encoded(|out| encode_undo(out, &key, &undo))).unwrap(), undo);
    }

    #[test]
    fn a_flipped_bit_is_found(txid in txid(), head in head(), slots in slots(0), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = encoded(|out| encode_head(out, &txid, &head, &slots));
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let error = decode_head(&txid, &bytes).unwrap_err();
        prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error);
        prop_assert!(error.to_string().contains(&txid.to_string()), "{}", error);
    }

    #[test]
    fn a_record_under_another_key_is_found(txid in txid(), other in txid(), head in head(), slots in slots(0)) {
        prop_assume!(txid != other);
        prop_assert!(decode_head(&other, &encoded(|out| encode_head(out, &txid, &head, &slots))).is_err());
        prop_assert!(decode_chunk(&txid, 1, &encoded(|out| encode_chunk(out, &txid, 2, &[]))).is_err());
    }

    #[test]
    fn any_bytes(kind in 0_u8..8, bytes in vec(any::<u8>(), 0..300)) {
        fuzzing::record(&[&[kind], bytes.as_slice()].concat());
    }
}

/// Replays the fuzz target's corpus, without a fuzzer.
#[test]
fn embedded_record() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/embedded_record");
    if !corpus.is_dir() {
        eprintln!("SKIPPED: {} is not there", corpus.display());
        return;
    }
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        // Shown if the check fails.
        eprintln!("{}", path.display());
        fuzzing::record(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
}

#[test]
fn the_tip_survives_the_disk() {
    let tip = Tip {
        height: 7,
        hash: BlockHash::from_bytes([3; 32]),
        median_time_past: 99,
    };
    let mut muhash = groundtackle_utxo_store::digest::MuHash3072::new();
    muhash.insert(b"element");
    let state = TipState {
        tip: Some(tip),
        muhash: Some(muhash.clone()),
        next_block: 12,
    };
    let again = decode_tip(&encoded(|out| encode_tip(out, &state))).unwrap();
    assert_eq!((again.tip, again.next_block), (Some(tip), 12));
    assert_eq!(again.muhash.unwrap().digest(), muhash.digest());
}

fn plain_head(last_chunk: u32) -> Head {
    Head {
        coinbase: true,
        locked: false,
        conflicting: false,
        fee_sat: None,
        size_bytes: 100,
        lock_time: 0,
        inputs: Inputs::Here(Vec::new()),
        mined_in: Vec::new(),
        unmined_since: None,
        conflicting_children: Vec::new(),
        preserve_until: None,
        last_chunk,
    }
}

/// Changes a value and makes its checksum fit again.
fn forged(key: &[u8], mut value: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    value.truncate(value.len() - 4);
    change(&mut value);
    encoded(|out| seal(out, key, |out| out.extend(value)))
}

/// Taken for none, an open store would answer with that of the empty set.
#[test]
fn a_digest_that_is_none_is_corrupt() {
    let state = TipState::new(false);
    let value = forged(TIP_KEY, encoded(|out| encode_tip(out, &state)), |value| {
        value.extend([0; MuHash3072::STATE_BYTES]);
    });
    let error = decode_tip(&value).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn undo_data_with_other_chunks_than_their_head_says_are_corrupt() {
    let key = undo_key(9, &BlockHash::ZERO);
    let undo = BlockUndo {
        previous: None,
        transactions: Vec::new(),
        replaced: Some((plain_head(0), Vec::new())),
    };
    let value = forged(
        &key,
        encoded(|out| encode_undo(out, &key, &undo)),
        |value| {
            // The last chunk's number, and chunks without slots.
            assert!(value.ends_with(&[0, 0]));
            value.truncate(value.len() - 2);
            value.extend([1, 0, 0]);
        },
    );
    let error = decode_undo(&key, None, &value).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

/// Another version may have put them there.
#[test]
fn unknown_flags_are_corrupt() {
    let key = undo_key(9, &BlockHash::ZERO);
    let undo = |existed| BlockUndo {
        previous: None,
        transactions: vec![(
            Txid::ZERO,
            if existed {
                Undo::Existed {
                    unmined_since: None,
                    entry: None,
                    fee_sat: None,
                }
            } else {
                Undo::Created
            },
        )],
        replaced: None,
    };
    // No tip, one transaction and its identifier stand before its flags; the last byte says
    // whether a record was replaced.
    for (existed, at, wrong) in [(true, 34, 0x11), (false, 34, 2), (false, 35, 2)] {
        let value = encoded(|out| encode_undo(out, &key, &undo(existed)));
        decode_undo(&key, None, &value).unwrap();
        let value = forged(&key, value, |value| value[at] = wrong);
        let error = decode_undo(&key, None, &value).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
    let key = unmined_key(&Txid::ZERO);
    decode_unmined(&key, &[0, 0, 0, 9, 1]).unwrap();
    let error = decode_unmined(&key, &[0, 0, 0, 9, 2]).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn a_chunk_above_the_last_output_is_corrupt() {
    let last = chunk_of(u32::MAX);
    decode_head(
        &Txid::ZERO,
        &encoded(|out| encode_head(out, &Txid::ZERO, &plain_head(last), &[])),
    )
    .unwrap();
    for chunk in [last + 1, u32::MAX] {
        let value = encoded(|out| encode_head(out, &Txid::ZERO, &plain_head(chunk), &[]));
        let error = decode_head(&Txid::ZERO, &value).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_swapped_record_is_never_believed() {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedUtxoStore::open(folder.path().join("store"), config()).unwrap();
    store
        .create(&[coinbase(1, vec![vec![0x51]]), coinbase(2, vec![vec![0x52]])])
        .await
        .unwrap();
    let (one, two) = (Txid::from_bytes([1; 32]), Txid::from_bytes([2; 32]));
    let engine = store.engine();
    let snapshot = engine.snapshot();
    let value = engine
        .get(&snapshot, &record_key(&two, 0))
        .unwrap()
        .unwrap();
    let mut change = engine.change();
    change.put(&record_key(&one, 0), 0, |out| {
        out.extend_from_slice(value.bytes());
    });
    change.commit(true).unwrap();
    let error = store.records(&[one], Fields::ALL).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    assert!(store.output(OutPoint::new(one, 0)).await.is_err());
    assert!(store.record(two).await.unwrap().is_some());
}

/// The engine takes a page of its journal that a power failure lost for a torn end only if no value
/// covers it whole.
#[tokio::test]
async fn long_values_lie_in_parts_and_go_with_them() {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedUtxoStore::open(folder.path().join("store"), config()).unwrap();
    let long = vec![0x51; 9_999];
    store
        .create(&[coinbase(1, vec![long.clone(), vec![0x52]])])
        .await
        .unwrap();
    let one = Txid::from_bytes([1; 32]);
    assert!(store.longest_value().unwrap() <= MAX_VALUE_BYTES + 1);
    let output = store.output(OutPoint::new(one, 0)).await.unwrap().unwrap();
    assert_eq!(output.output.script.as_bytes(), long);
    // Rewritten shorter: the parts that are not needed go.
    let keys = store.key_count().unwrap();
    store
        .set_mined(
            &[one],
            &MinedIn {
                block: None,
                height: 1,
                subtree_index: 0,
                on_longest_chain: false,
            },
        )
        .await
        .unwrap();
    assert_eq!(
        store.key_count().unwrap(),
        keys + 1,
        "one unmined entry more, no part left behind"
    );
    store.remove(&[one]).await.unwrap();
    assert_eq!(
        store.key_count().unwrap(),
        1,
        "only the tip and its digest are left"
    );
}

#[tokio::test]
async fn a_store_that_was_being_created_is_created() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    drop(EmbeddedUtxoStore::open(&path, config()).unwrap());
    let header = path.join("FORMAT");
    let text = fs::read_to_string(&header).unwrap();
    fs::remove_dir_all(path.join("data")).unwrap();
    let error = EmbeddedUtxoStore::open(&path, config()).unwrap_err();
    assert!(
        matches!(error, Error::Corrupt { .. }),
        "a store that was ready lost its data: {error:?}"
    );
    // Killed after each file that the engine makes, in its order; the last one has all but `ready`.
    let engine = ["", "lock", "keyspaces/0", "0.jnl", "version"];
    for made in 0..=engine.len() {
        fs::write(&header, text.replace("ready", "creating")).unwrap();
        fs::remove_dir_all(path.join("data")).ok();
        for name in &engine[..made] {
            let made = path.join("data").join(name);
            match *name {
                "" | "keyspaces/0" => fs::create_dir_all(made).unwrap(),
                _ => drop(fs::File::create_new(made).unwrap()),
            }
        }
        let error = EmbeddedUtxoStore::open(&path, config().with_create(false)).unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
        let store = EmbeddedUtxoStore::open(&path, config()).unwrap();
        assert_eq!(store.tip().await.unwrap(), None);
        assert_eq!(fs::read_to_string(&header).unwrap(), text);
        let error = EmbeddedUtxoStore::open(&path, config()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_being_created_is_in_use() {
    let folder = TempDir::new().unwrap();
    let creating = fs::File::open(folder.path()).unwrap();
    creating.lock().unwrap();
    let error = EmbeddedUtxoStore::open(folder.path(), config()).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    drop(creating);
    EmbeddedUtxoStore::open(folder.path(), config()).unwrap();
}

#[tokio::test]
async fn a_refused_block_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let store = EmbeddedUtxoStore::open(folder.path().join("store"), config()).unwrap();
    let keys = store.key_count().unwrap();
    let block = ChainBlock {
        height: 5,
        hash: BlockHash::from_bytes([5; 32]),
        previous: BlockHash::from_bytes([4; 32]),
        median_time_past: 0,
        transactions: Vec::new(),
        coinbase_may_overwrite: false,
    };
    store.connect_block(&block).await.unwrap().unwrap_err();
    assert_eq!(store.key_count().unwrap(), keys);
    store.flush().await.unwrap();
    assert_eq!(store.digest().await.unwrap().tip, None);
}

/// What the engine has moved from its memory to files outlives a power failure, and what its journal had since
/// the last sync does not: tip, digest and records must be of one moment all the same.
#[tokio::test]
async fn a_power_failure_after_a_flush_leaves_one_moment() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store");
    let config = config()
        .with_durability(Durability::Block)
        .with_write_buffer(ByteSize::mib(1));
    let store = EmbeddedUtxoStore::open(&path, config.clone()).unwrap();
    let tip = Tip {
        height: 200,
        hash: BlockHash::from_bytes([200; 32]),
        median_time_past: 1,
    };
    store.set_tip(&tip).await.unwrap();
    let journal = path.join("data/0.jnl");
    let synced = fs::read(&journal).unwrap();
    // Several: then the engine has long taken note of the first ones.
    let flushed = || {
        let keyspaces = fs::read_dir(path.join("data/keyspaces")).unwrap();
        let mut tables = keyspaces.map(|keyspace| keyspace.unwrap().path().join("tables"));
        tables.any(|tables| fs::read_dir(tables).is_ok_and(|tables| tables.count() > 3))
    };
    let mut number = 0_u32;
    while !flushed() {
        assert!(
            number < 100_000,
            "the engine never writes its memory to a file"
        );
        let records: Vec<_> = (number..number + 100)
            .map(|number| {
                let mut txid = [7; 32];
                txid[..4].copy_from_slice(&number.to_le_bytes());
                let script = Script::from_bytes(vec![0x51; 200]);
                NewRecord::Seed {
                    txid: Txid::from_bytes(txid),
                    coinbase: false,
                    height: 1,
                    outputs: vec![(
                        0,
                        TxOut {
                            value_sat: 5,
                            script,
                        },
                    )],
                }
            })
            .collect();
        store.create(&records).await.unwrap();
        number += 100;
    }

    let copy = folder.path().join("copy");
    copy_folder(&path, &copy);
    let mut journal = fs::read(copy.join("data/0.jnl")).unwrap();
    let end = synced.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(journal[..end] == synced[..end] && journal.len() >= synced.len());
    journal[end..].fill(0);
    fs::write(copy.join("data/0.jnl"), journal).unwrap();
    let copy = EmbeddedUtxoStore::open(&copy, config).unwrap();
    let digest = copy.digest().await.unwrap();
    assert_eq!(digest.tip, Some(tip));
    let statistics = copy.statistics(StatisticsOptions::default()).await.unwrap();
    assert!(statistics.txouts > 0, "what was flushed is there");
    assert_eq!(statistics.muhash, Some(digest.muhash));
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
