//! How small coin segments are, and how fast: `cargo run --release -p groundtackle-benches --bin coins [COINS]`.
//!
//! The coins are those of `benches/src/coins.rs`. Everything runs on one thread; rates are of the raw bytes, the best of five.

#![allow(
    clippy::expect_used,
    reason = "a measurement that fails has nothing to say"
)]

use std::time::{Duration, Instant};
use std::{env, hint};

use groundtackle_backup_utxo::codec::{decode_coins, encode_coins, raw_bytes};
use groundtackle_benches::coins::{self, raw};
use groundtackle_chain::StoredCoin;
use groundtackle_chain::codec::{write_coin, write_varint};
use groundtackle_chain::decode::write_compact_size;
use groundtackle_utxo_store::Coin;

const SEGMENT_BYTES: usize = 4 << 20;
const RUNS: usize = 5;

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
    let coins = coins::some(count);
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
    let raw_segments: Vec<_> = segments.iter().map(|coins| raw(coins)).collect();
    let total: usize = raw_segments.iter().map(Vec::len).sum();
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

    println!("\n| | of raw | raw MB/s | back, raw MB/s |\n|---|---|---|---|");
    let line = |name: &str, bytes: usize, there: Option<Duration>, back: Option<Duration>| {
        let rate = |time: Option<Duration>| {
            time.map_or(String::new(), |time| {
                format!("{:.0}", total as f64 / 1e6 / time.as_secs_f64())
            })
        };
        println!(
            "| {name} | {:.4} | {} | {} |",
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
            hint::black_box(raw(coins));
        }
    });
    line("raw records", total, Some(copied), None);
    let compact: Vec<_> = segments.iter().map(|coins| snapshot(coins)).collect();
    line("snapshot records", size(&compact), None, None);
    for (what, plain) in [
        ("raw records", &raw_segments),
        ("snapshot records", &compact),
    ] {
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
