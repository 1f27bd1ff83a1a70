//! How small coin segments are, and how fast: `cargo run --release -p groundtackle-benches --bin coins [COINS]`.
//!
//! The coins are made up, with the statistics of main net where they are known (coins of a transaction and length of a
//! script, from `gettxoutsetinfo` at heights 856,748 and 915,117), and guessed where they are not (mix of scripts within
//! that length, amounts, heights). Everything runs on one thread; rates are of the raw bytes, the best of five.

#![allow(
    clippy::expect_used,
    reason = "a measurement that fails has nothing to say"
)]

use std::time::{Duration, Instant};
use std::{env, hint};

use groundtackle_backup_utxo::codec::{decode_coins, encode_coins, raw_bytes};
use groundtackle_chain::codec::{write_coin, write_varint};
use groundtackle_chain::decode::write_compact_size;
use groundtackle_chain::{OutPoint, Script, StoredCoin, TxOut, Txid};
use groundtackle_utxo_store::Coin;

const SEGMENT_BYTES: usize = 4 << 20;
const RUNS: usize = 5;
const TIP: u64 = 915_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words
            .take(count.div_ceil(8))
            .flatten()
            .take(count)
            .collect()
    }

    /// One of the values by their weights.
    fn pick<T: Copy>(&mut self, weighted: &[(u64, T)]) -> T {
        let sum = weighted.iter().map(|(weight, _)| weight).sum();
        let mut at = self.below(sum);
        for (weight, value) in weighted {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *value,
            }
        }
        unreachable!("it is below the sum")
    }

    /// 27.6 bytes on average; main net has 27.2 and 28.3.
    fn script(&mut self) -> Vec<u8> {
        let (before, payload, after): (&[u8], usize, &[u8]) = self.pick(&[
            (330, (&[0x51, 0x20], 32, &[])),
            (300, (&[0x00, 0x14], 20, &[])),
            (262, (&[0x76, 0xa9, 0x14], 20, &[0x88, 0xac])),
            (90, (&[0xa9, 0x14], 20, &[0x87])),
            (8, (&[0x00, 0x20], 32, &[])),
            // One of three keys, and a key alone.
            (9, (&[0x51, 0x21], 102, &[0x53, 0xae])),
            (1, (&[0x41, 0x04], 64, &[0xac])),
        ]);
        [before, &self.bytes(payload), after].concat()
    }

    /// A guess: half of them dust of a few sizes, a few round ones, the rest anything.
    fn amount(&mut self) -> u64 {
        match self.below(100) {
            0..30 => 546,
            30..42 => 330,
            42..46 => 294,
            46..50 => 600 + self.below(400),
            50..58 => {
                (1 + self.below(50)) * self.pick(&[(3, 1_000), (3, 100_000), (2, 10_000_000)])
            }
            _ => {
                let bits = 10 + self.below(20);
                (1 << bits) + self.below(1 << bits)
            }
        }
    }

    /// A guess: half of them of the last 130,000 blocks.
    fn height(&mut self) -> u32 {
        let height = match self.below(2) {
            0 => TIP - self.below(130_000),
            _ => 100_000 + self.below(TIP - 100_000),
        };
        height as u32
    }

    /// 1.44 on average, as main net.
    fn coins_of_a_transaction(&mut self) -> u64 {
        let (least, more) = self.pick(&[
            (800, (1, 1)),
            (140, (2, 1)),
            (35, (3, 3)),
            (20, (6, 5)),
            (5, (11, 5)),
        ]);
        least + self.below(more)
    }
}

/// As a scan gives them: by identifier.
fn coins(count: usize) -> Vec<Coin> {
    let mut random = Random(1);
    let mut coins = Vec::with_capacity(count);
    let mut txids: Vec<Txid> = (0..count)
        .map(|_| Txid::from_bytes(random.bytes(32).try_into().expect("32")))
        .collect();
    txids.sort();
    for txid in txids {
        let height = random.height();
        let coinbase = random.below(500) == 0;
        let many = random.coins_of_a_transaction();
        let mut vout = random.pick(&[(5, 0), (4, 1), (1, 2)]);
        for _ in 0..many {
            let output = TxOut {
                value_sat: random.amount(),
                script: Script::from_bytes(random.script()),
            };
            coins.push(Coin {
                outpoint: OutPoint::new(txid, vout),
                output,
                height,
                coinbase,
            });
            vout += 1 + random.below(2) as u32;
        }
        if coins.len() >= count {
            break;
        }
    }
    coins
}

/// Identifier, index, height and coinbase, amount, length of the script in two bytes, script.
fn raw(coins: &[Coin]) -> Vec<u8> {
    let mut out = Vec::new();
    for coin in coins {
        let script = coin.output.script.as_bytes();
        out.extend_from_slice(coin.outpoint.txid.as_bytes());
        out.extend_from_slice(&coin.outpoint.vout.to_le_bytes());
        out.extend_from_slice(&(coin.height << 1 | u32::from(coin.coinbase)).to_le_bytes());
        out.extend_from_slice(&coin.output.value_sat.to_le_bytes());
        out.extend_from_slice(&(script.len() as u16).to_le_bytes());
        out.extend_from_slice(script);
    }
    out
}

/// As Bitcoin Core's snapshot file has them.
fn snapshot(coins: &[Coin]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in coins.chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid) {
        out.extend_from_slice(group.first().expect("one").outpoint.txid.as_bytes());
        write_compact_size(&mut out, group.len() as u64);
        for coin in group {
            write_varint(&mut out, coin.outpoint.vout.into());
            let stored = StoredCoin {
                height: coin.height,
                coinbase: coin.coinbase,
                output: coin.output.clone(),
            };
            write_coin(&mut out, &stored).expect("a usual coin");
        }
    }
    out
}

fn best(mut work: impl FnMut()) -> Duration {
    let time = |()| {
        let begin = Instant::now();
        work();
        begin.elapsed()
    };
    std::iter::repeat_n((), RUNS).map(time).min().expect("some")
}

fn main() {
    let count = env::args()
        .nth(1)
        .map_or(1_000_000, |text| text.parse().expect("a number"));
    let coins = coins(count);
    let mut segments: Vec<&[Coin]> = Vec::new();
    let mut rest = coins.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fit = rest.iter().take_while(|coin| {
            bytes += raw_bytes(coin);
            bytes <= SEGMENT_BYTES
        });
        let (segment, later) = rest.split_at(fit.count().max(1));
        segments.push(segment);
        rest = later;
    }
    let raw: Vec<_> = segments.iter().map(|coins| raw(coins)).collect();
    let total: usize = raw.iter().map(Vec::len).sum();
    assert_eq!(total, coins.iter().map(raw_bytes).sum::<usize>());
    let transactions = coins
        .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        .count();
    println!(
        "{} coins, {:.2} of a transaction, scripts of {:.1} bytes, {total} raw bytes, {} segments",
        coins.len(),
        coins.len() as f64 / transactions as f64,
        total as f64 / coins.len() as f64 - 50.0,
        segments.len()
    );

    println!(
        "{:<34} {:>7} {:>10} {:>10}",
        "", "of raw", "MB/s", "back MB/s"
    );
    let line = |name: &str, bytes: usize, there: Option<Duration>, back: Option<Duration>| {
        let rate = |time: Option<Duration>| {
            time.map_or(String::new(), |time| {
                format!("{:.0}", total as f64 / 1e6 / time.as_secs_f64())
            })
        };
        println!(
            "{name:<34} {:>7.4} {:>10} {:>10}",
            bytes as f64 / total as f64,
            rate(there),
            rate(back)
        );
    };
    let size = |all: &[Vec<u8>]| all.iter().map(Vec::len).sum::<usize>();

    let columnar: Vec<_> = segments
        .iter()
        .map(|coins| encode_coins(coins).expect("it fits"))
        .collect();
    for (bytes, coins) in columnar.iter().zip(&segments) {
        assert_eq!(decode_coins(bytes).expect("its own"), *coins);
    }
    let there = best(|| {
        for coins in &segments {
            hint::black_box(encode_coins(coins).expect("it fits"));
        }
    });
    let back = best(|| {
        for bytes in &columnar {
            hint::black_box(decode_coins(bytes).expect("its own"));
        }
    });
    line("columns", size(&columnar), Some(there), Some(back));
    let copied = best(|| {
        for coins in &segments {
            hint::black_box(self::raw(coins));
        }
    });
    line("raw records", total, Some(copied), None);
    let compact: Vec<_> = segments.iter().map(|coins| snapshot(coins)).collect();
    line("snapshot records", size(&compact), None, None);
    for (what, plain) in [("raw records", &raw), ("snapshot records", &compact)] {
        for level in [1, 3] {
            let compress = || -> Vec<_> {
                let mut compressor = zstd::bulk::Compressor::new(level).expect("a level");
                plain
                    .iter()
                    .map(|bytes| compressor.compress(bytes).expect("room"))
                    .collect()
            };
            let packed = compress();
            let there = best(|| {
                hint::black_box(compress());
            });
            let back = best(|| {
                for (bytes, plain) in packed.iter().zip(plain) {
                    hint::black_box(zstd::bulk::decompress(bytes, plain.len()).expect("its own"));
                }
            });
            line(
                &format!("zstd -{level} of {what}"),
                size(&packed),
                Some(there),
                Some(back),
            );
        }
    }
}
