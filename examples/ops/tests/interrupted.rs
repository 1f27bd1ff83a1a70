//! Syncs that are cut off, by Ctrl-C and by kill -9.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockHash, BlockSource, ChainBlock};
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{BlockStore, Coin, MemoryUtxoStore, OutPoint};
use serde_json::Value;
use support::{Place, Ran, Random, answers, data, json_lines, number, signal};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(place: &Place, args: &[&str]) -> Child {
    let blocks = data();
    place
        .command(
            "sync",
            &[&["--blocks", blocks.to_str().unwrap()], args].concat(),
        )
        .spawn()
        .unwrap()
}

/// Reads a child's events until one of the name is there.
fn wait_for(lines: &mut impl BufRead, event: &str) -> Value {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "no {event} came");
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["event"] == event {
            return line;
        }
    }
}

#[test]
fn ctrl_c_finishes_the_block_and_the_next_sync_goes_on() {
    for name in ["-INT", "-TERM"] {
        let place = Place::new();
        let mut child = start(&place, &["--flush-every", "1"]);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        wait_for(&mut lines, "durable");
        // Asleep, it does not reach the end before the signal is there.
        signal(&child, "-STOP");
        signal(&child, name);
        signal(&child, "-CONT");
        let mut stdout = String::new();
        lines.read_to_string(&mut stdout).unwrap();
        let ran = Ran {
            stdout,
            ..child.wait_with_output().unwrap().into()
        };

        let ran = ran.exits(130).says(&[
            "stopping after the current block",
            "the store ends at height",
            "interrupted",
        ]);
        let stopped = ran.event("interrupted");
        let height = u32::try_from(stopped["height"].as_u64().unwrap()).unwrap();
        assert!(height < 599, "{ran:#?}");
        assert_eq!(place.stats()["bestblock"], stopped["bestblock"]);
        assert_eq!(
            place.sync_to(599).event("started")["first_height"],
            height + 1
        );
        assert_eq!(place.stats(), answers()[&599]);
    }
}

#[test]
fn ctrl_c_ends_the_search_for_blocks() {
    let place = Place::new();
    let pipe = place.file("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    // Nobody ever writes there.
    let mut child = place
        .command("sync", &["--blocks", pipe.to_str().unwrap()])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    wait_for(&mut lines, "opened");
    signal(&child, "-INT");
    assert_eq!(wait_for(&mut lines, "interrupted")["height"], Value::Null);
    Ran::from(child.wait_with_output().unwrap()).exits(130);
    place.sync_to(9);
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let place = Place::new();
    // A full pipe that nobody reads: the program hangs at its first line.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&[b'\n'; 1 << 16]).unwrap();
    let blocks = data();
    let mut command = place.command("sync", &["--blocks", blocks.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::from(writer)).spawn().unwrap();
    let begin = Instant::now();
    while !fs::read_to_string(place.store().join("FORMAT"))
        .is_ok_and(|text| text.contains("state ready"))
    {
        assert!(begin.elapsed() < PATIENCE, "no store was made");
        thread::sleep(Duration::from_millis(1));
    }
    signal(&child, "-INT");
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains("once more to stop at once"), "{line}");
    assert_eq!(child.try_wait().unwrap(), None);
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    place.sync_to(599);
    assert_eq!(place.stats(), answers()[&599]);
}

/// For each height the block's hash, and the digest's state from which its text follows.
struct Chain(Vec<(String, MuHash3072)>);

impl Chain {
    /// From the in-memory store, block by block.
    async fn read() -> Self {
        let mut source = BlockFiles::open(vec![data()], BlockFilesConfig::default())
            .await
            .unwrap();
        let store = MemoryUtxoStore::new();
        let mut set = MuHash3072::new();
        let mut chain = Vec::new();
        while let Some(block) = source.next_block().await.unwrap() {
            let connected = store.connect_block(&block).await.unwrap().unwrap();
            created(&block)
                .iter()
                .for_each(|coin| set.insert(&coin_element(coin)));
            connected
                .spent
                .iter()
                .for_each(|coin| set.remove(&coin_element(coin)));
            chain.push((block.hash.to_string(), set.clone()));
        }
        Self(chain)
    }

    fn muhash(&self, height: usize) -> String {
        BlockHash::from_bytes(self.0[height].1.digest()).to_string()
    }
}

fn created(block: &ChainBlock) -> Vec<Coin> {
    if block.height == 0 {
        return Vec::new();
    }
    let outputs = block.transactions.iter().flat_map(|tx| {
        (0..)
            .zip(&tx.outputs)
            .map(move |(vout, output)| (tx, OutPoint::new(tx.txid, vout), output))
    });
    outputs
        .filter(|(_, _, output)| !output.script.is_unspendable())
        .map(|(tx, outpoint, output)| Coin {
            outpoint,
            output: output.clone(),
            height: block.height,
            coinbase: tx.coinbase,
        })
        .collect()
}

/// `GROUNDTACKLE_TEST_KILLS` says how often; every reopened store must be at a block boundary of the
/// chain, not below what the killed process had called durable, and the next sync must begin right
/// above it.
#[tokio::test]
async fn kill_9_at_any_time_loses_nothing_durable_and_repeats_nothing() {
    let chain = Chain::read().await;
    assert_eq!(
        chain.muhash(599),
        answers()[&599]["muhash"].as_str().unwrap()
    );
    let kills = number("GROUNDTACKLE_TEST_KILLS", 20);
    let mut random = Random::new(2009);
    let mut place = Place::new();
    // The tip that the last reopening found, if a sync has begun on it.
    let mut tip: Option<u64> = None;
    let mut tally = BTreeMap::<&str, u32>::new();

    for kill in 0..kills {
        // Durable after each block, or a few, or so many that the kill mostly comes before.
        let every = [1, 7, 100][random.below(3) as usize];
        let mut child = start(&place, &["--flush-every", &every.to_string()]);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // At once, after some time, or after some events: while opening, connecting, or ending.
        match random.below(8) {
            0 => {}
            1 | 2 => thread::sleep(Duration::from_micros(random.below(100_000))),
            _ => {
                for _ in 0..random.below(300 / every + 3) {
                    if stdout.read_line(&mut text).unwrap() == 0 {
                        break;
                    }
                }
            }
        }
        child.kill().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        child.wait().unwrap();

        let events = json_lines(&text);
        let seen = |event: &str| events.iter().find(|line| line["event"] == event);
        let next = tip.map_or(0, |height| height + 1);
        if let Some(opened) = seen("opened") {
            assert_eq!(
                opened["height"],
                tip.map_or(Value::Null, Value::from),
                "kill {kill}"
            );
        }
        if let Some(started) = seen("started") {
            assert_eq!(
                started["first_height"], next,
                "kill {kill}: not right above the tip"
            );
        }
        let durable = events
            .iter()
            .filter(|line| line["event"] == "durable")
            .filter_map(|line| line["height"].as_u64());
        let durable = durable.max().max(tip);

        let ran = place.utxo("stats", &[]);
        if ran.code == Some(66) {
            // Killed before there was a store.
            assert_eq!(durable, None, "kill {kill}: {ran:#?}");
            *tally.entry("before there was a store").or_default() += 1;
            continue;
        }
        let stats = ran.exits(0).answer();
        let height = stats["height"].as_u64();
        assert!(
            height >= durable,
            "kill {kill}: {durable:?} was durable, and {stats} is left"
        );
        match height {
            None => assert_eq!(stats["txouts"], 0, "kill {kill}"),
            Some(height) => {
                let at = usize::try_from(height).unwrap();
                assert_eq!(stats["bestblock"], chain.0[at].0.as_str(), "kill {kill}");
                assert_eq!(
                    stats["muhash"],
                    chain.muhash(at),
                    "kill {kill}: height {height}"
                );
            }
        }
        let when = match (seen("synced"), seen("started"), seen("opened")) {
            (Some(_), _, _) => "after the end",
            (_, Some(_), _) => "while connecting",
            (_, _, Some(_)) => "while searching for blocks",
            _ => "while opening",
        };
        *tally.entry(when).or_default() += 1;
        tip = height;
        if height == Some(599) {
            place = Place::new();
            tip = None;
        }
    }
    println!("{kills} kills: {tally:?}");
    assert!(
        kills < 20 || tally.contains_key("while connecting"),
        "{tally:?}"
    );
    place.sync_to(599);
    assert_eq!(place.stats(), answers()[&599]);
}
