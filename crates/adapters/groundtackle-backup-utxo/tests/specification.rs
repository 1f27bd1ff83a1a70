//! A reader of segments that knows nothing but `docs/backup-format.md`, with another decoder of zstd.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::io::Read;

use groundtackle_backup_utxo::codec::encode_coins;
use groundtackle_backup_utxo::delta::{Delta, encode_deltas};
use groundtackle_utxo_store::{BlockHash, Coin, OutPoint, Script, Tip, TxOut, Txid};

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn u32(&mut self) -> usize {
        u32::from_le_bytes(self.take(4).try_into().unwrap()) as usize
    }

    fn hashes(&mut self, n: usize) -> Vec<[u8; 32]> {
        (0..n).map(|_| self.take(32).try_into().unwrap()).collect()
    }

    fn numbers(&mut self, n: usize) -> Vec<u64> {
        let mut numbers = vec![0; n];
        let planes = self.take(1)[0];
        for k in 0..planes {
            if n == 0 {
                break;
            }
            let plane = match self.take(1)[0] {
                0 => self.take(n).to_vec(),
                1 => vec![self.take(1)[0]; n],
                2 => {
                    let length = self.u32();
                    let mut plane = Vec::new();
                    let mut frame = self.take(length);
                    let mut decoder = ruzstd::decoding::StreamingDecoder::new(&mut frame).unwrap();
                    decoder.read_to_end(&mut plane).unwrap();
                    drop(decoder);
                    assert!(frame.is_empty());
                    assert_eq!(plane.len(), n);
                    plane
                }
                other => panic!("{other}"),
            };
            for (number, byte) in numbers.iter_mut().zip(plane) {
                *number |= u64::from(byte) << (8 * k);
            }
        }
        numbers
    }

    fn coins(&mut self) -> Vec<Coin> {
        let (count, runs) = (self.u32(), self.u32());
        let run_lengths = self.numbers(runs);
        let txids = self.hashes(runs);
        let heights = self.numbers(runs);
        let indexes = self.numbers(count);
        let zeros = self.numbers(count);
        let amounts = self.numbers(count);
        let kinds = self.numbers(count);
        let raw = kinds.iter().filter(|kind| **kind == 0).count();
        let mut lengths = self.numbers(raw).into_iter();
        let runs = run_lengths.iter().enumerate();
        let run_of = runs.flat_map(|(run, length)| (0..=*length).map(move |_| run));
        let coins = run_of.enumerate().map(|(i, run)| {
            let script = match kinds[i] {
                0 => self.take(lengths.next().unwrap() as usize).to_vec(),
                1 => [&[0x76, 0xa9, 0x14], self.take(20), &[0x88, 0xac]].concat(),
                2 => [&[0xa9, 0x14], self.take(20), &[0x87]].concat(),
                3 => [&[0x21, 0x02], self.take(32), &[0xac]].concat(),
                4 => [&[0x21, 0x03], self.take(32), &[0xac]].concat(),
                5 => [&[0x41, 0x04], self.take(64), &[0xac]].concat(),
                6 => [&[0x00, 0x14], self.take(20)].concat(),
                7 => [&[0x00, 0x20], self.take(32)].concat(),
                8 => [&[0x51, 0x20], self.take(32)].concat(),
                other => panic!("{other}"),
            };
            Coin {
                outpoint: OutPoint::new(Txid::from_bytes(txids[run]), indexes[i] as u32),
                output: TxOut {
                    value_sat: amounts[i] * 10_u64.pow(zeros[i] as u32),
                    script: Script::from_bytes(script),
                },
                height: (heights[run] >> 1) as u32,
                coinbase: heights[run] & 1 == 1,
            }
        });
        let coins: Vec<_> = coins.collect();
        assert_eq!(coins.len(), count);
        coins
    }

    /// Whole ones only.
    fn deltas(&mut self) -> Vec<Delta> {
        let count = self.u32();
        let hashes = self.hashes(count);
        let previous = self.hashes(count);
        let heights = self.numbers(count);
        let times = self.numbers(count);
        assert!(self.numbers(count).iter().all(|number| *number == 0));
        assert!(self.numbers(count).iter().all(|last| *last == 1));
        let created_counts = self.numbers(count);
        let spent_counts = self.numbers(count);
        let mut created = self.coins().into_iter();
        let mut spent = self.coins().into_iter();
        let delta = |i: usize| Delta {
            tip: Tip {
                height: heights[i] as u32,
                hash: BlockHash::from_bytes(hashes[i]),
                median_time_past: times[i] as u32,
            },
            previous: BlockHash::from_bytes(previous[i]),
            created: created.by_ref().take(created_counts[i] as usize).collect(),
            spent: spent.by_ref().take(spent_counts[i] as usize).collect(),
        };
        (0..count).map(delta).collect()
    }
}

/// Of every kind, and enough of them for packed planes.
fn coins(count: u32) -> Vec<Coin> {
    let script = |number: u32| {
        let tag = number.wrapping_mul(0x9e37_79b1).to_le_bytes().repeat(16);
        match number % 10 {
            0 => [&[0x76, 0xa9, 0x14], &tag[..20], &[0x88, 0xac]].concat(),
            1 => [&[0xa9, 0x14], &tag[..20], &[0x87]].concat(),
            2 => [&[0x21, 0x02], &tag[..32], &[0xac]].concat(),
            3 => [&[0x21, 0x03], &tag[..32], &[0xac]].concat(),
            4 => [&[0x41, 0x04], &tag[..64], &[0xac]].concat(),
            5 => [&[0x00, 0x14], &tag[..20]].concat(),
            6 => [&[0x00, 0x20], &tag[..32]].concat(),
            7 => [&[0x51, 0x20], &tag[..32]].concat(),
            8 => vec![0x51; number as usize % 300],
            _ => Vec::new(),
        }
    };
    let coin = |number: u32| Coin {
        outpoint: OutPoint::new(Txid::from_bytes([(number / 3) as u8; 32]), number % 700),
        output: TxOut {
            value_sat: [546, 0, u64::MAX, 5_000_000_000, u64::from(number) * 1_000]
                [number as usize % 5],
            script: Script::from_bytes(script(number)),
        },
        height: [0, u32::MAX, 800_000 + number][number as usize / 3 % 3],
        coinbase: (number / 6).is_multiple_of(2),
    };
    (0..count).map(coin).collect()
}

#[test]
fn an_independent_reader_reads_coin_segments() {
    for count in [0, 1, 2, 10, 63, 64, 1_000, 20_000] {
        let coins = coins(count);
        let segment = encode_coins(&coins).unwrap();
        let mut bytes = Bytes(&segment);
        assert_eq!(bytes.take(2), b"C\x01");
        assert_eq!(bytes.coins(), coins);
        assert!(bytes.0.is_empty());
    }
}

#[test]
fn an_independent_reader_reads_delta_segments() {
    let coins = coins(3_000);
    let deltas: Vec<_> = (0..300_u32)
        .zip(coins.chunks(10))
        .map(|(height, coins)| Delta {
            tip: Tip {
                height,
                hash: BlockHash::from_bytes([height as u8; 32]),
                median_time_past: 600 * height,
            },
            previous: BlockHash::from_bytes([(height as u8).wrapping_sub(1); 32]),
            created: coins[..(height % 11) as usize].to_vec(),
            spent: coins[(height % 7) as usize..].to_vec(),
        })
        .collect();
    for count in [0, 1, 300] {
        let segment = encode_deltas(&deltas[..count]).unwrap();
        let mut bytes = Bytes(&segment);
        assert_eq!(bytes.take(2), b"D\x01");
        assert_eq!(bytes.deltas(), deltas[..count]);
        assert!(bytes.0.is_empty());
    }
}
