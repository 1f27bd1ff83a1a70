//! The format and the sorter: each check has a file that fails without it.

use std::fs;
use std::io::{self, Cursor, Read};

use groundtackle_chain::codec::{write_coin, write_script, write_varint};
use groundtackle_chain::decode::write_compact_size;
use groundtackle_chain::model::MAX_MONEY_SAT;
use groundtackle_chain::{BlockHash, DecodeError, Network, OutPoint, StoredCoin, TxOut, Txid};
use groundtackle_core::Retryability;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::error::{SnapshotError, SnapshotFormatError as Error};
use super::format::{
    MAX_COINS, MAX_TRANSACTION_BYTES, MAX_VOUT, SnapshotReader, SnapshotWriter, encode_transaction,
};
use super::sort::Sorter;
use super::{KNOWN_SNAPSHOTS, KnownSnapshot};
use crate::types::Coin;

const BLOCK: BlockHash = BlockHash::from_bytes([0x21; 32]);

fn coin(tag: u8, vout: u32) -> Coin {
    Coin {
        outpoint: OutPoint::new(Txid::from_bytes([tag; 32]), vout),
        output: TxOut {
            value_sat: 50 * u64::from(tag),
            script: vec![0x51, tag].into(),
        },
        height: 7,
        coinbase: true,
    }
}

/// A file of version 2 that claims `coins` coins and goes on with `body`.
fn v2(coins: u64, body: &[&[u8]]) -> Vec<u8> {
    [
        &b"utxo\xff\x02\x00"[..],
        &Network::Regtest.magic(),
        BLOCK.as_bytes(),
        &coins.to_le_bytes(),
        &body.concat(),
    ]
    .concat()
}

fn v1(coins: u64, body: &[&[u8]]) -> Vec<u8> {
    [BLOCK.as_bytes(), &coins.to_le_bytes()[..], &body.concat()].concat()
}

/// Index and coin as version 2 has them.
fn body(coin: &Coin) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_compact_size(&mut bytes, coin.outpoint.vout.into());
    bytes.extend(stored(coin));
    bytes
}

fn stored(coin: &Coin) -> Vec<u8> {
    let mut bytes = Vec::new();
    let stored = StoredCoin {
        height: coin.height,
        coinbase: coin.coinbase,
        output: coin.output.clone(),
    };
    write_coin(&mut bytes, &stored).unwrap();
    bytes
}

/// Height 7 of a coinbase, amount and script as they are.
fn raw(amount: u64, script: &[u8]) -> Vec<u8> {
    let mut bytes = vec![15];
    write_varint(&mut bytes, amount);
    bytes.extend_from_slice(script);
    bytes
}

fn read(file: &[u8]) -> Result<Vec<Vec<Coin>>, Error> {
    read_from(file)
}

fn read_from(source: impl Read) -> Result<Vec<Vec<Coin>>, Error> {
    let mut reader = SnapshotReader::new(source)?;
    let mut all = Vec::new();
    while let Some(coins) = reader.next_transaction()? {
        all.push(coins);
    }
    Ok(all)
}

fn write(transactions: &[Vec<Coin>]) -> Vec<u8> {
    let mut writer =
        SnapshotWriter::new(Cursor::new(Vec::new()), Network::Regtest, &BLOCK).unwrap();
    for coins in transactions {
        writer.add(coins).unwrap();
    }
    let (coins, file) = writer.finish().unwrap();
    assert_eq!(coins as usize, transactions.iter().map(Vec::len).sum());
    file.into_inner()
}

macro_rules! assert_refused {
    ($file:expr, $($error:tt)+) => {{
        let answer = read(&$file);
        assert!(matches!(answer, Err(Error::$($error)+)), "{answer:?}");
    }};
}

const A: [u8; 32] = [1; 32];

#[test]
fn a_header_says_version_network_block_and_count() {
    let file = v2(0, &[]);
    let header = *SnapshotReader::new(file.as_slice()).unwrap().header();
    assert_eq!(
        (header.version, header.network),
        (2, Some(Network::Regtest))
    );
    assert_eq!((header.block, header.coins), (BLOCK, 0));
    assert_eq!(read(&file).unwrap(), Vec::<Vec<Coin>>::new());
    assert_eq!(write(&[]), file);
    let header = *SnapshotReader::new(v1(9, &[]).as_slice()).unwrap().header();
    assert_eq!((header.version, header.network), (1, None));
    assert_eq!((header.block, header.coins), (BLOCK, 9));
    assert_refused!(
        [b"utxo\xff\x03\x00", &file[7..]].concat(),
        UnknownVersion { version: 3 }
    );
    assert_refused!(
        [b"utxo\xff\x01\x00", &file[7..]].concat(),
        UnknownVersion { version: 1 }
    );
    assert_refused!(
        [&file[..7], &[1, 2, 3, 4], &file[11..]].concat(),
        UnknownNetwork {
            magic: [1, 2, 3, 4]
        }
    );
}

#[test]
fn indexes_are_written_by_their_bytes_and_read_as_numbers() {
    let vouts = [0, 127, 128, 255, 256, 16_511, 16_512, 65_536, MAX_VOUT];
    let coins: Vec<_> = vouts.iter().map(|vout| coin(1, *vout)).collect();
    let file = write(&[coins.iter().rev().cloned().collect()]);
    // As LevelDB compares VARINT(vout): 255 is 80 7f, 16512 is 80 80 00, 256 is 81 00, 16511 is ff 7f.
    let written = [0, 127, 128, 255, 16_512, 256, 65_536, MAX_VOUT, 16_511];
    let bodies: Vec<_> = written.iter().map(|vout| body(&coin(1, *vout))).collect();
    assert_eq!(file, v2(9, &[&A, &[9], &bodies.concat()]));
    assert_eq!(read(&file).unwrap(), [coins]);
}

#[test]
fn version_1_has_an_outpoint_with_each_coin() {
    let (a, b, c) = (coin(1, 300), coin(1, 2), coin(2, 0));
    let one = |coin: &Coin| {
        [
            &coin.outpoint.txid.as_bytes()[..],
            &coin.outpoint.vout.to_le_bytes(),
            &stored(coin),
        ]
        .concat()
    };
    let file = v1(3, &[&one(&a), &one(&b), &one(&c)]);
    assert_eq!(
        read(&file).unwrap(),
        [vec![b.clone(), a.clone()], vec![c.clone()]]
    );
    assert_refused!(
        v1(3, &[&one(&a), &one(&c), &one(&a), &[0]]),
        TrailingBytes { .. }
    );
    assert_refused!(v1(2, &[&one(&a), &one(&a)]), RepeatedCoin { .. });
    assert_refused!(
        v1(3, &[&one(&a), &one(&b)]),
        Truncated { coins_left: 1, .. }
    );
    // The count ends it, whatever comes.
    assert_refused!(v1(1, &[&one(&a), &one(&b)]), TrailingBytes { .. });
    let null = [&A[..], &[0xff; 4], &stored(&a)].concat();
    assert_refused!(
        v1(1, &[&null]),
        VoutTooLarge {
            vout: 0xffff_ffff,
            offset: 72,
            ..
        }
    );
    for end in 0..file.len() {
        assert_refused!(file[..end], Truncated { .. });
    }
}

#[test]
fn counts_must_fit() {
    let (a, b) = (body(&coin(1, 0)), body(&coin(1, 1)));
    assert_refused!(v2(1, &[&A, &[1], &a, &[0]]), TrailingBytes { .. });
    assert_refused!(v2(0, &[&A]), TrailingBytes { offset: 51 });
    assert_refused!(v2(2, &[&A, &[1], &a]), Truncated { coins_left: 1, .. });
    assert_refused!(
        v2(1, &[&A, &[2], &a, &b]),
        CoinsPerTransaction {
            claimed: 2,
            left: 1,
            offset: 83,
            ..
        }
    );
    assert_refused!(
        v2(1, &[&A, &[0], &[2; 32], &[1], &a]),
        CoinsPerTransaction { claimed: 0, .. }
    );
    // A claim takes no memory.
    let many = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_refused!(
        v2(u64::MAX, &[&A, &many, &a]),
        LargeTransaction { offset: 51, .. }
    );
    let most = [0xfe, 0, 0, 0x10, 0];
    assert_refused!(v2(u64::MAX, &[&A, &most, &a]), Truncated { .. });
    assert_refused!(
        v2(1, &[&A, &[0xfd, 1, 0], &a]),
        Number {
            source: DecodeError::NonMinimalNumber { .. },
            offset: 83,
            ..
        }
    );
}

#[test]
fn coins_must_be_such_as_bitcoin_core_has() {
    let file = |body: &[u8]| v2(1, &[&A, &[1], body]);
    let high = [&[0xfe, 1, 0, 0, 2][..], &stored(&coin(1, 0))].concat();
    assert_refused!(
        file(&high),
        VoutTooLarge {
            vout: 0x0200_0001,
            offset: 84,
            ..
        }
    );
    let long = [&[0xff, 0, 0, 0, 0, 1, 0, 0, 0][..], &stored(&coin(1, 0))].concat();
    assert_refused!(
        file(&long),
        VoutTooLarge {
            vout: 0x1_0000_0000,
            ..
        }
    );

    // 21 million coins, and one satoshi more.
    let richest = 1 + 10 * (21_000_000 * 100_000_000 / 1_000_000_000 - 1) + 9;
    let amount = |amount| [&[0][..], &raw(amount, &[7, 0x51])].concat();
    assert_eq!(
        read(&file(&amount(richest))).unwrap()[0][0]
            .output
            .value_sat,
        MAX_MONEY_SAT
    );
    let more = 1 + 10 * (9 * (MAX_MONEY_SAT / 10) + 1 - 1);
    assert_refused!(
        file(&amount(more)),
        Coin {
            source: DecodeError::NumberOutOfRange { .. },
            ..
        }
    );
    let height = [&[0][..], &[0xff; 11]].concat();
    assert_refused!(file(&height), Coin { offset: 85, .. });
    let off_curve = [&[0][..], &raw(0, &[4]), &[0xff; 32]].concat();
    assert_refused!(
        file(&off_curve),
        Coin {
            source: DecodeError::KeyNotOnCurve { .. },
            ..
        }
    );

    for script in [vec![], vec![0x51; 10_000]] {
        let coins = read(&file(&paying(&script))).unwrap();
        assert_eq!(coins[0][0].output.script.as_bytes(), script);
    }
    assert_refused!(file(&paying(&[0x6a])), Unspendable { .. });
    assert_refused!(file(&paying(&[0x51; 10_001])), Unspendable { .. });
    assert_refused!(
        file(&paying(&[0x51; 1 << 20])),
        Unspendable { offset: 85, .. }
    );
    // A script of 2^63 bytes.
    let mut claim = Vec::new();
    write_varint(&mut claim, 1 << 63);
    let claim = [&[0][..], &raw(1, &claim)].concat();
    assert_refused!(file(&claim), Truncated { .. });
    assert_refused!(
        file(&[claim, vec![0x51; 1 << 20]].concat()),
        Unspendable { .. }
    );
}

/// A coin of version 2 with this script.
fn paying(script: &[u8]) -> Vec<u8> {
    let mut short = Vec::new();
    write_script(&mut short, script);
    [&[0][..], &raw(1, &short)].concat()
}

#[test]
fn transactions_are_of_one_block_and_come_once() {
    let first = coin(1, 0);
    for change in [
        |coin: &mut Coin| coin.height = 8,
        |coin: &mut Coin| coin.coinbase = false,
    ] {
        let mut other = coin(1, 1);
        change(&mut other);
        let file = v2(2, &[&A, &[2], &body(&first), &body(&other)]);
        assert_refused!(file, MixedTransaction { .. });
    }
    let twice = v2(2, &[&A, &[2], &body(&first), &body(&first)]);
    assert_refused!(twice, RepeatedCoin { .. });
    let again = v2(2, &[&A, &[1], &body(&first), &A, &[1], &body(&coin(1, 1))]);
    assert_refused!(again, RepeatedTransaction { offset: 90, .. });
}

#[test]
fn what_has_no_place_in_a_snapshot_is_not_written() {
    let refused = |change: &dyn Fn(&mut Coin)| {
        let mut coins = [coin(1, 0), coin(1, 1)];
        change(&mut coins[1]);
        encode_transaction(&mut Vec::new(), &coins, 0).unwrap_err()
    };
    for change in [
        |coin: &mut Coin| coin.outpoint.txid = Txid::from_bytes([2; 32]),
        |coin: &mut Coin| coin.height = 8,
        |coin: &mut Coin| coin.coinbase = false,
    ] {
        let error = refused(&change);
        assert!(matches!(error, Error::MixedTransaction { .. }), "{error}");
    }
    let error = refused(&|coin| coin.outpoint.vout = 0);
    assert!(matches!(error, Error::RepeatedCoin { .. }), "{error}");
    let error = refused(&|coin| coin.outpoint.vout = MAX_VOUT + 1);
    assert!(matches!(error, Error::VoutTooLarge { .. }), "{error}");
    let error = refused(&|coin| coin.output.value_sat = MAX_MONEY_SAT + 1);
    assert!(matches!(error, Error::Unencodable { .. }), "{error}");
    let high = Coin {
        height: 1 << 31,
        ..coin(1, 0)
    };
    let error = encode_transaction(&mut Vec::new(), &[high], 0).unwrap_err();
    assert!(matches!(error, Error::Unencodable { .. }), "{error}");
    for script in [vec![0x6a], vec![0; 10_001]] {
        let error = refused(&|coin| coin.output.script = script.clone().into());
        assert!(matches!(error, Error::Unspendable { .. }), "{error}");
    }
}

/// "It ends the reading": here nothing is left to read, and no coin is missing.
#[test]
fn what_failed_keeps_failing() {
    let file = v2(1, &[&A, &[1], &paying(&[0x6a])]);
    let mut reader = SnapshotReader::new(file.as_slice()).unwrap();
    let answer = reader.next_transaction();
    assert!(
        matches!(answer, Err(Error::Unspendable { .. })),
        "{answer:?}"
    );
    let answer = reader.next_transaction();
    assert!(matches!(answer, Err(Error::Failed)), "{answer:?}");
}

/// Gives a byte or a few at a time, and an error where there should be more.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.0.is_empty() {
            return Err(io::Error::other("gone"));
        }
        let most = buffer.len().min(1 + self.1 % 3);
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_failing_source_is_no_end() {
    let file = write(&[vec![coin(1, 0)]]);
    for end in 0..=file.len() {
        let answer = read_from(Slow(&file[..end], 0));
        assert!(
            matches!(answer, Err(Error::Io { offset, .. }) if offset == 0),
            "{answer:?}"
        );
    }
}

#[test]
fn memory_does_not_follow_the_file() {
    let transactions = |count: u32| {
        let one = |number: u32| {
            let mut coin = coin(1, number);
            coin.outpoint.txid = Txid::from_bytes(
                [[0; 28].as_slice(), &number.to_be_bytes()]
                    .concat()
                    .try_into()
                    .unwrap(),
            );
            coin.output.script = vec![0x51; 200].into();
            vec![coin]
        };
        (0..count).map(one).collect::<Vec<_>>()
    };
    let all = transactions(50_000);
    let file = write(&all);
    assert!(file.len() > 10_000_000);
    let mut reader = SnapshotReader::new(file.as_slice()).unwrap();
    for coins in &all {
        assert_eq!(reader.next_transaction().unwrap().as_ref(), Some(coins));
        assert!(reader.buffered_bytes() <= 128 << 10);
    }
    assert!(reader.next_transaction().unwrap().is_none());
    assert_eq!(reader.position(), file.len() as u64);
}

/// Counts what is read of it.
struct Counted<R>(R, std::rc::Rc<std::cell::Cell<u64>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

/// "At most 1,048,576 in 64 MiB of the file", however long the file and whatever it claims.
#[test]
fn memory_does_not_follow_a_transaction() {
    let endless = |header: Vec<u8>, coin: Vec<u8>, most: u64| {
        let read = std::rc::Rc::default();
        let coins = coin.repeat(1 + 100_000 / coin.len());
        let source = Counted(header.chain(Forever(&coins, 0)), std::rc::Rc::clone(&read));
        let answer = SnapshotReader::new(source).unwrap().next_transaction();
        let refused = matches!(answer, Err(Error::LargeTransaction { .. }));
        assert!(refused, "{:?}", answer.map(|_| "coins"));
        assert!(read.get() < most + (128 << 10), "{}", read.get());
    };
    // Of the least size, and all the same.
    let coin = [&[0][..], &raw(0, &[6])].concat();
    let claim = |claimed: u32| [&A[..], &[0xfe], &claimed.to_le_bytes()].concat();
    endless(v2(u64::MAX, &[&claim(MAX_COINS as u32 + 1)]), coin, 0);
    endless(
        v2(u64::MAX, &[&claim(MAX_COINS as u32)]),
        paying(&[0x51; 10_000]),
        MAX_TRANSACTION_BYTES,
    );
    let outpoint = [&A[..], &[0; 4]].concat();
    let small = [&outpoint[..], &raw(0, &[6])].concat();
    let most = MAX_COINS * small.len() as u64;
    assert!(most < MAX_TRANSACTION_BYTES);
    endless(v1(u64::MAX, &[]), small, most);
    let large = [&outpoint[..], &paying(&[0x51; 10_000])[1..]].concat();
    endless(v1(u64::MAX, &[]), large, MAX_TRANSACTION_BYTES);
}

/// The bytes again and again.
struct Forever<'a>(&'a [u8], usize);

impl Read for Forever<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = (&self.0[self.1..]).read(buffer)?;
        self.1 = (self.1 + read) % self.0.len();
        Ok(read)
    }
}

#[test]
fn what_bitcoin_core_has_built_in_is_found_by_its_block() {
    for known in &KNOWN_SNAPSHOTS {
        assert_eq!(
            KnownSnapshot::find(known.network, &known.block),
            Some(known)
        );
        let limit = known.network.pow_limit_bits();
        assert_eq!(
            known.network.check_proof_of_work(&known.block, limit),
            Ok(())
        );
        for other in Network::ALL
            .into_iter()
            .filter(|other| *other != known.network)
        {
            assert_eq!(KnownSnapshot::find(other, &known.block), None);
        }
    }
    let last = KnownSnapshot::find(
        Network::Main,
        &"0000000000000000000147034958af1652b2b91bba607beacc5e72a56f0fb5ee"
            .parse()
            .unwrap(),
    );
    assert_eq!(last.unwrap().height, 935_000);
}

fn transactions() -> impl Strategy<Value = Vec<Vec<Coin>>> {
    let script = prop_oneof![
        vec(any::<u8>(), 0..40).prop_filter("spendable", |script| script.first() != Some(&0x6a)),
        any::<[u8; 20]>().prop_map(|hash| [&[0x76, 0xa9, 0x14], &hash[..], &[0x88, 0xac]].concat()),
        any::<[u8; 32]>().prop_map(|x| [&[0x21, 2], &x[..], &[0xac]].concat()),
        (0_usize..10_001).prop_map(|length| vec![0x51; length]),
    ];
    let output = (0..=MAX_MONEY_SAT, script).prop_map(|(value_sat, script)| TxOut {
        value_sat,
        script: script.into(),
    });
    let vout = prop_oneof![0_u32..5, 0..=MAX_VOUT];
    let outputs = btree_map(vout, output, 1..6);
    let transaction = (0_u32..1 << 31, any::<bool>(), outputs);
    btree_map(any::<[u8; 32]>(), transaction, 0..6).prop_map(|all| {
        let coins =
            |(txid, (height, coinbase, outputs)): (_, (_, _, std::collections::BTreeMap<_, _>))| {
                let coin = |(vout, output)| Coin {
                    outpoint: OutPoint::new(Txid::from_bytes(txid), vout),
                    output,
                    height,
                    coinbase,
                };
                outputs.into_iter().map(coin).collect()
            };
        all.into_iter().map(coins).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { fork: false, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_comes_back(transactions in transactions()) {
        let file = write(&transactions);
        prop_assert_eq!(read(&file).unwrap(), transactions);
    }

    /// "Outside bytes never panic", and none is taken for another: what is cut short is an error, and a
    /// flipped bit is one, or shows in the header or the coins, which the digest is made of.
    #[test]
    fn damage_shows(transactions in transactions(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let file = write(&transactions);
        let at = at.index(file.len());
        prop_assert!(read(&file[..at]).is_err());
        let mut flipped = file.clone();
        flipped[at] ^= 1_u8 << bit;
        if let Ok(other) = read(&flipped) {
            let header = |file: &[u8]| *SnapshotReader::new(file).unwrap().header();
            prop_assert!(header(&flipped) != header(&file) || other != transactions);
        }
    }

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in vec(any::<u8>(), 0..300), coins in 0_u64..4) {
        let _ = read(&bytes);
        let _ = read(&v2(coins, &[&bytes]));
    }

    /// Whatever memory there is, all come once and in order.
    #[test]
    fn sorting_keeps_all(
        txids in btree_set(any::<[u8; 32]>(), 0..200).prop_map(Vec::from_iter).prop_shuffle(),
        memory in prop_oneof![Just(1), 1_usize..10_000, Just(usize::MAX)],
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(folder.path().to_owned(), memory);
        for (number, txid) in txids.iter().enumerate() {
            let length = number * 37 % 5_000;
            sorter.add(number as u64, |bytes| {
                bytes.extend_from_slice(txid);
                bytes.extend(vec![txid[0]; length]);
                Ok(())
            }).unwrap();
            prop_assert!(sorter.held_bytes() < memory.max(2));
        }
        // Nothing is left behind, whatever happens next.
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut sorted: Vec<_> = txids.iter().enumerate().map(|(number, txid)| (*txid, number)).collect();
        sorted.sort_unstable();
        let mut sorted = sorted.into_iter();
        sorter.merge(|coins, encoded| {
            let (txid, number) = sorted.next().expect("no more than came");
            assert_eq!(coins, number as u64);
            assert_eq!(encoded[..32], txid);
            assert_eq!(encoded[32..], vec![txid[0]; number * 37 % 5_000]);
            Ok(())
        }).unwrap();
        prop_assert_eq!(sorted.next(), None);
    }
}

#[test]
fn after_an_effect_no_error_says_that_nothing_was_applied() {
    let io = SnapshotError::Io {
        file: "a".into(),
        doing: "reading",
        source: io::ErrorKind::Other.into(),
    };
    let overloaded = crate::Error::overloaded("a", "b").into();
    for error in [io, overloaded] {
        assert_eq!(error.retryability(), Retryability::Transient);
        assert_eq!(
            error.after_effect().retryability(),
            Retryability::Indeterminate
        );
    }
    let corrupt = SnapshotError::Store(crate::Error::corrupt("a", "b", "c")).after_effect();
    assert!(matches!(
        corrupt,
        SnapshotError::Store(crate::Error::Corrupt { .. })
    ));
}

#[test]
fn a_folder_that_is_gone_ends_the_sorting() {
    let folder = tempfile::tempdir().unwrap().path().join("gone");
    let mut sorter = Sorter::new(folder.clone(), 1);
    let error = sorter.add(1, |bytes| {
        bytes.push(0);
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(folder.to_str().unwrap()), "{error}");
}
