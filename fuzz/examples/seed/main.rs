//! Cuts the seeds of the corpus out of the chain crate's real blocks, and out of what else the tests read. See README.md.

mod services;
mod stores;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::fs::Permissions;
use std::io::{Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::{Block, Transaction, hex::FromHex};
use groundtackle_backup_utxo::codec::encode_coins;
use groundtackle_backup_utxo::delta::{Cutter, Delta, encode_deltas, encode_parts};
use groundtackle_chain::codec::{write_coin, write_script};
use groundtackle_chain::{
    BlockFiles, BlockFilesConfig, BlockHash, BlockSource, BlockUndo, ChainBlock, Network, OutPoint,
    Script, StoredCoin, TxOut, Txid,
};
use groundtackle_core::ByteSize;
use groundtackle_utxo_store::snapshot::SnapshotWriter;
use groundtackle_utxo_store::{
    AlertStore, BlockStore, Coin, NewRecord, NewTransaction, SpendOptions, SpendStore, Tip,
};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig, fuzzing};

const MAX_SEED_BYTES: usize = 32 << 10;

fn main() {
    let first = first_blocks();
    let blocks: Vec<Block> = ["702861.raw", "367891/raw.zst", "testnet3/block928816.raw"]
        .map(|name| deserialize(&read(&format!("full-blocks/{name}"))).unwrap())
        .into();
    let coins = spent_coins();

    for height in [0, 1, 170, 546, 586] {
        save("block", format!("main-{height}"), &first[height]);
    }
    for (block, name) in blocks.iter().zip(["702861", "367891", "testnet3-928816"]) {
        save("block", format!("cut-{name}"), &serialize(&cut(block)));
    }

    let mut shapes = BTreeSet::new();
    for tx in blocks.iter().flat_map(|block| &block.txdata) {
        let witness = tx.input.iter().map(|input| input.witness.len()).max();
        let shape = (
            tx.input.len(),
            tx.output.len(),
            witness.unwrap_or_default().min(4),
        );
        let bytes = serialize(tx);
        if shape.0 <= 4 && shape.1 <= 4 && bytes.len() < 2_000 && shapes.insert(shape) {
            let name = format!("{}-inputs-{}-outputs-{}-items", shape.0, shape.1, shape.2);
            save("transaction", name, &bytes);
        }
    }
    save(
        "transaction",
        "many-inputs",
        &serialize(largest(&blocks, |tx| tx.input.len())),
    );
    save(
        "transaction",
        "many-outputs",
        &serialize(largest(&blocks, |tx| tx.output.len())),
    );

    let undo_file = read("mainnet-0-599/rev00000.dat");
    save("undo", "rev00000", &undo_file);
    let network = Network::Main;
    for record in groundtackle_chain::undo::undo_records(&undo_file, network)
        .flatten()
        .take(2)
    {
        save(
            "undo",
            format!("main-{}-bytes", record.undo.len()),
            record.undo,
        );
    }
    for count in [1, 8, 200] {
        let transactions = coins[..count * 2].chunks(2).map(<[_]>::to_vec).collect();
        let undo = BlockUndo { transactions }.encode().unwrap();
        save("undo", format!("866342-{count}-transactions"), &undo);
    }

    // A version stands after every height but 0.
    let at = |height| StoredCoin {
        height,
        ..coins[0].clone()
    };
    for height in [0, 1] {
        let mut bytes = Vec::new();
        write_coin(&mut bytes, &at(height)).unwrap();
        save("coin", format!("height-{height}"), &bytes);
    }
    let transactions = vec![vec![at(0), at(1)], vec![at(i32::MAX as u32)]];
    let undo = BlockUndo { transactions }.encode().unwrap();
    save("undo", "heights", &undo);

    // One of each length and beginning.
    let mut kinds: BTreeMap<_, &StoredCoin> = BTreeMap::new();
    for coin in &coins {
        let script = coin.output.script.as_bytes();
        kinds.entry((script.len(), script.first())).or_insert(coin);
    }
    for (number, coin) in kinds.values().enumerate() {
        let script = coin.output.script.as_bytes();
        save("script", format!("raw-{number}"), script);
        let mut short = Vec::new();
        write_script(&mut short, script);
        save("script", format!("compact-{number}"), &short);
        let mut bytes = Vec::new();
        write_coin(&mut bytes, coin).unwrap();
        save("coin", format!("866342-{number}"), &bytes);
    }
    for (number, block) in [0, 1].into_iter().enumerate() {
        let block: Block = deserialize(&first[block]).unwrap();
        let script = block.txdata[0].output[0].script_pubkey.as_bytes();
        save("script", format!("key-{number}"), script);
        let mut short = Vec::new();
        write_script(&mut short, script);
        save("script", format!("compact-key-{number}"), &short);
    }

    save_refused(&deserialize(&first[170]).unwrap());
    save_block_files(&first);
    save_records(&first);
    save_snapshots(&coins);
    save_listings();
    save_segments(&coins);
    stores::save_objects();
    services::save_gate();
    services::save_health();
    services::save_infos();
    services::save_rpc_answers();
}

// What is refused, each for one reason.
fn save_refused(real: &Block) {
    let transaction = |name: &str, change: &dyn Fn(&mut Transaction)| {
        let mut tx = real.txdata[1].clone();
        change(&mut tx);
        save("transaction", format!("refused-{name}"), &serialize(&tx));
    };
    transaction("no-inputs", &|tx| tx.input.clear());
    transaction("null-input", &|tx| {
        tx.input.push(real.txdata[0].input[0].clone());
    });
    transaction("amount", &|tx| tx.output[1].value = bitcoin::Amount::MAX);
    transaction("sum", &|tx| {
        let max = bitcoin::Amount::MAX_MONEY;
        tx.output.iter_mut().for_each(|output| output.value = max);
    });
    let plain = serialize(&real.txdata[1]);
    let (version, body) = plain.split_at(4);
    let (body, lock_time) = body.split_at(body.len() - 4);
    for (name, parts) in [
        (
            "superfluous-witness",
            [version, &[0, 1], body, &[0], lock_time],
        ),
        ("unknown-flag", [version, &[0, 2], body, &[1, 0], lock_time]),
        (
            "long-count",
            [version, &[0xfd, 1, 0], &body[1..], &[], lock_time],
        ),
        ("trailing-byte", [version, body, lock_time, &[0], &[]]),
        ("cut", [version, body, &[], &[], &[]]),
    ] {
        save("transaction", format!("refused-{name}"), &parts.concat());
    }

    let block = |name: &str, change: &dyn Fn(&mut Block)| {
        let mut block = real.clone();
        change(&mut block);
        save("block", format!("refused-{name}"), &serialize(&block));
    };
    block("repeated", &|block| {
        block.txdata.extend(real.txdata.clone())
    });
    block("two-coinbases", &|block| {
        block.txdata[1] = real.txdata[0].clone()
    });
    block("no-coinbase", &|block| drop(block.txdata.remove(0)));
    block("no-transactions", &|block| block.txdata.clear());
}

const TOLERATE: u8 = 1;
const OBFUSCATE: u8 = 1 << 1;
const UP_TO: u8 = 1 << 2;
const AFTER: u8 = 1 << 3;
const MEND: u8 = 1 << 4;
const SPLIT: u8 = 1 << 5;
const MAIN: u8 = 1 << 6;
const FORGET: u8 = 1 << 7;

// The first four bytes mean what the check says.
fn save_block_files(first: &[Vec<u8>]) {
    let save = |name: &str, how: [u8; 4], content: &[u8]| {
        save("block_files", name, &[&how[..], content].concat());
    };
    let main = framed(Network::Main, &first[..12]);
    let regtest = framed(Network::Regtest, &first[1..15]);
    let payments = framed(Network::Regtest, &first[168..183]);
    save("main", [MAIN, 0, 0, 0], &main);
    save("main-up-to-5", [MAIN | UP_TO, 5, 0, 0], &main);
    save("main-in-two", [MAIN | OBFUSCATE | SPLIT, 0, 0, 146], &main);
    save("main-after-4", [MAIN | AFTER, 0, 4, 0], &main);
    save(
        "main-after-4-forgotten",
        [MAIN | AFTER | FORGET, 0, 4, 12],
        &main,
    );
    save(
        "main-tail",
        [MAIN | TOLERATE, 0, 0, 0],
        &main[..main.len() - 50],
    );
    save(
        "main-zeros",
        [MAIN | TOLERATE, 0, 0, 0],
        &[&main[..], &[0; 300]].concat(),
    );
    save("main-raw", [MAIN, 0, 0, 0], &first[0]);
    let lines: Vec<String> = first[..3].iter().map(|block| hex(block)).collect();
    save("main-hex", [MAIN, 0, 0, 0], lines.join("\r\n").as_bytes());
    save("regtest", [MEND, 0, 0, 0], &regtest);
    save(
        "regtest-after-1",
        [MEND | OBFUSCATE | AFTER, 0, 1, 0],
        &regtest,
    );
    save("regtest-payments", [MEND, 0, 0, 0], &payments);
}

fn framed(network: Network, blocks: &[Vec<u8>]) -> Vec<u8> {
    let frame = |block: &Vec<u8>| {
        let length = u32::try_from(block.len()).unwrap().to_le_bytes();
        [&network.magic()[..], &length, block].concat()
    };
    blocks.iter().flat_map(frame).collect()
}

// What a store keeps of real blocks, unmined and conflicting transactions, and frozen outputs.
fn save_records(first: &[Vec<u8>]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = EmbeddedUtxoStoreConfig::default()
        .with_cache(ByteSize::mib(8))
        .with_min_free(ByteSize::mib(1));
    let store = EmbeddedUtxoStore::open(folder.path().join("store"), config).unwrap();
    let blocks = folder.path().join("blk00000.dat");
    fs::write(&blocks, framed(Network::Main, &first[..184])).unwrap();
    runtime.block_on(async {
        let mut source = BlockFiles::open(vec![blocks], BlockFilesConfig::default())
            .await
            .unwrap();
        let mut connected: Vec<ChainBlock> = Vec::new();
        while let Some(block) = source.next_block().await.unwrap() {
            // Half of them come first by themselves.
            for tx in block.transactions.iter().skip(1).step_by(2) {
                let mut new = NewTransaction::from(tx.clone());
                new.fee_sat = (block.height % 2 == 0).then_some(1);
                let options = SpendOptions::at(block.height);
                let outcomes = store.spend_and_create(&[new], &options).await.unwrap();
                for outcome in outcomes {
                    outcome.unwrap();
                }
            }
            store.connect_block(&block).await.unwrap().unwrap();
            connected.push(block);
        }
        stores::save_cells(&[&connected[0..1], &connected[170..171]].concat());
        // As main net's two exceptions to BIP 30 do, this one replaces an unspent coinbase.
        let mut replacing = connected[183].clone();
        replacing.height += 1;
        replacing.previous = replacing.hash;
        replacing.hash = BlockHash::from_bytes([4; 32]);
        replacing.transactions = vec![connected[30].transactions[0].clone()];
        replacing.coinbase_may_overwrite = true;
        store.connect_block(&replacing).await.unwrap().unwrap();

        let coinbases: Vec<Txid> = connected.iter().map(|b| b.transactions[0].txid).collect();
        let frozen = [
            OutPoint::new(coinbases[20], 0),
            OutPoint::new(coinbases[21], 0),
        ];
        store.freeze(&frozen).await.unwrap();
        let mut tx = groundtackle_chain::Transaction {
            txid: Txid::from_bytes([1; 32]),
            inputs: (0..20)
                .map(|vout| OutPoint::new(Txid::from_bytes([2; 32]), vout))
                .collect(),
            outputs: (0..80_u8)
                .map(|number| TxOut {
                    value_sat: u64::from(number) * 1_000,
                    script: Script::from_bytes(vec![0x51, number]),
                })
                .collect(),
            lock_time: 9,
            size_bytes: 3_000,
            coinbase: false,
        };
        let conflicting = |tx: &groundtackle_chain::Transaction, fee_sat| NewRecord::Conflicting {
            tx: tx.clone(),
            fee_sat,
            unmined_since: 183,
        };
        let many = conflicting(&tx, Some(7));
        tx.txid = Txid::from_bytes([3; 32]);
        tx.inputs = vec![OutPoint::new(coinbases[22], 0)];
        tx.outputs.truncate(2);
        store.create(&[many, conflicting(&tx, None)]).await.unwrap();
    });

    // A few of each kind and length.
    let mut counts: BTreeMap<(u8, usize), u32> = BTreeMap::new();
    for record in fuzzing::records(&store).unwrap() {
        let count = counts.entry((record[0], record.len())).or_default();
        *count += 1;
        if *count <= 2 {
            let name = format!("kind-{}-{}-bytes-{count}", record[0], record.len());
            save("embedded_record", name, &record);
        }
    }
}

// Real coins under made-up identifiers: versions 2 and 1, and what is refused, each for one reason.
fn save_snapshots(spent: &[StoredCoin]) {
    let mut groups: Vec<Vec<Coin>> = Vec::new();
    for (tag, stored) in (1..).zip(spent.chunks(3).take(40)) {
        let coin = |(number, coin): (u32, &StoredCoin)| Coin {
            // Bytes and numbers order these apart.
            outpoint: OutPoint::new(Txid::from_bytes([tag; 32]), number * 8_256),
            output: coin.output.clone(),
            height: stored[0].height,
            coinbase: stored[0].coinbase,
        };
        groups.push((0..).zip(stored).map(coin).collect());
    }
    let block = BlockHash::from_bytes([1; 32]);
    let version_2 = |network, groups: &[Vec<Coin>]| {
        let mut writer = SnapshotWriter::new(Cursor::new(Vec::new()), network, &block).unwrap();
        for coins in groups {
            writer.add(coins).unwrap();
        }
        writer.finish().unwrap().1.into_inner()
    };
    for network in Network::ALL {
        let name = format!("{network}-empty");
        save("snapshot", name, &version_2(network, &[]));
    }
    let (main, few) = (Network::Main, &groups[..3]);
    let whole = version_2(main, few);
    save("snapshot", "main-few", &whole);
    save("snapshot", "main-many", &version_2(main, &groups));

    let mut version_1 = [block.as_bytes(), &9_u64.to_le_bytes()[..]].concat();
    for coin in few.iter().flatten() {
        version_1.extend(coin.outpoint.txid.as_bytes());
        version_1.extend(coin.outpoint.vout.to_le_bytes());
        let stored = StoredCoin {
            height: coin.height,
            coinbase: coin.coinbase,
            output: coin.output.clone(),
        };
        write_coin(&mut version_1, &stored).unwrap();
    }
    save("snapshot", "version-1", &version_1);

    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        save("snapshot", format!("refused-{name}"), &changed);
    };
    with("version-3", 5, &[3]);
    with("network", 7, &[0; 4]);
    with("count-low", 43, &[8]);
    with("count-high", 43, &[10]);
    with("count-of-transaction", 83, &[0]);
    save("snapshot", "refused-cut", &whole[..whole.len() / 2]);
    let again = [few, &few[2..]].concat();
    save("snapshot", "refused-repeated", &version_2(main, &again));
    // The writer refuses it too.
    let once = version_2(main, &[vec![few[0][0].clone()]]);
    let (head, coin) = once.split_at(84);
    let mut twice = [head, coin, coin].concat();
    (twice[43], twice[83]) = (2, 2);
    save("snapshot", "refused-coin-twice", &twice);
}

// Listings of trees: of real files, and of one of each kind.
fn save_listings() {
    let real = fuzz().join("../crates/ports/groundtackle-chain/tests/data");
    let [listing, root] = groundtackle_backup_files::fuzzing::listed(&real).unwrap();
    save("listing", "real-files", &listing);
    save("listing", "real-root", &root);

    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let [empty, _] = groundtackle_backup_files::fuzzing::listed(folder.path()).unwrap();
    save("listing", "empty", &empty);
    fs::create_dir_all(path("a/deep/er")).unwrap();
    fs::create_dir(path("a-b")).unwrap();
    fs::write(path("a/text"), "some text").unwrap();
    fs::write(path("a/nothing"), "").unwrap();
    fs::write(path("hole"), vec![0; 1 << 20]).unwrap();
    // Several chunks of what nothing repeats.
    let mut noise = 1_u64;
    let mut next = || {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        noise.to_be_bytes()[0]
    };
    let large: Vec<u8> = (0..3 << 20).map(|_| next()).collect();
    fs::write(path("a/large"), large).unwrap();
    fs::hard_link(path("a/text"), path("a/deep/same")).unwrap();
    symlink("../nowhere", path("a/dangling")).unwrap();
    symlink("/", path("out")).unwrap();
    let odd = OsStr::from_bytes(b"no \xff UTF-8\n");
    fs::write(folder.path().join(odd), "x").unwrap();
    drop(UnixListener::bind(path("socket")).unwrap());
    let modes = [
        (OsStr::new("a"), 0o1777),
        (OsStr::new("a/deep"), 0o700),
        (OsStr::new("a/deep/er"), 0o2555),
        (OsStr::new("a-b"), 0o750),
        (OsStr::new("a/large"), 0o4755),
        (OsStr::new("a/nothing"), 0o644),
        (OsStr::new("a/text"), 0o600),
        (OsStr::new("hole"), 0o000),
        (odd, 0o644),
        (OsStr::new(""), 0o755),
    ];
    for (name, mode) in modes {
        fs::set_permissions(folder.path().join(name), Permissions::from_mode(mode)).unwrap();
    }
    let [all, root] = groundtackle_backup_files::fuzzing::listed(folder.path()).unwrap();
    save("listing", "each-kind", &all);
    save("listing", "each-kind-root", &root);
    save("listing", "cut", &all[..all.len() / 2]);
    save("listing", "cut-root", &root[..root.len() - 1]);
    let mut changed = all.clone();
    changed[1] = b'z';
    save("listing", "refused-kind", &changed);
    save("listing", "twice", &[&all[..], &all[1..]].concat());
}

// Segments of a backup: coins with and without packed planes, deltas whole and in parts.
fn save_segments(spent: &[StoredCoin]) {
    let coin = |(number, coin): (usize, &StoredCoin)| Coin {
        outpoint: OutPoint::new(
            Txid::from_bytes([(number / 3) as u8; 32]),
            (number % 3) as u32,
        ),
        output: coin.output.clone(),
        height: coin.height,
        coinbase: coin.coinbase,
    };
    let coins: Vec<_> = spent.iter().take(300).enumerate().map(coin).collect();
    let coins_segment = |name: &str, coins: &[Coin]| {
        save("segment", name, &encode_coins(coins).unwrap());
    };
    coins_segment("coins-none", &[]);
    coins_segment("coins-few", &coins[..5]);
    coins_segment("coins-packed", &coins);
    let mut largest = coins[..4].to_vec();
    largest[0].output.value_sat = u64::MAX;
    largest[1].output.value_sat = 10_000_000_000_000_000_000;
    largest[2].height = u32::MAX;
    largest[3].outpoint.vout = u32::MAX;
    coins_segment("coins-largest", &largest);
    let mut scripts: BTreeMap<_, Coin> = BTreeMap::new();
    for coin in &coins {
        let script = coin.output.script.as_bytes();
        let first = script.first().copied();
        scripts.insert((script.len(), first), coin.clone());
    }
    coins_segment("coins-scripts", &scripts.into_values().collect::<Vec<_>>());

    let block = |number: u8| BlockHash::from_bytes([number; 32]);
    let deltas: Vec<_> = (1..4_u8)
        .zip(coins.chunks(100))
        .map(|(number, coins)| Delta {
            tip: Tip {
                height: number.into(),
                hash: block(number),
                median_time_past: 600 * u32::from(number),
            },
            previous: block(number - 1),
            created: coins[..60].to_vec(),
            spent: coins[60..].to_vec(),
        })
        .collect();
    let small = Delta {
        created: deltas[0].created[..5].to_vec(),
        spent: deltas[0].spent[..3].to_vec(),
        ..deltas[0].clone()
    };
    stores::save_journal(&small);
    save("segment", "deltas-none", &encode_deltas(&[]).unwrap());
    save("segment", "deltas-three", &encode_deltas(&deltas).unwrap());
    let mut cutter = Cutter::new(3_000);
    let segments = deltas.into_iter().flat_map(|delta| cutter.push(delta));
    let segments: Vec<_> = segments.collect();
    for (number, parts) in segments.iter().take(4).enumerate() {
        let bytes = encode_parts(parts).unwrap();
        save("segment", format!("deltas-part-{number}"), &bytes);
    }
    save(
        "segment",
        "deltas-parts",
        &encode_parts(&segments.concat()).unwrap(),
    );

    let whole = encode_coins(&coins[..5]).unwrap();
    let with = |name: &str, at: usize, bytes: &[u8]| {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        save("segment", format!("refused-{name}"), &changed);
    };
    with("kind", 0, b"E");
    with("version", 1, &[2]);
    with("count", 2, &[0xff; 4]);
    with("runs", 6, &[9]);
    with("planes", 10, &[9]);
    with("coding", 11, &[3]);
    save("segment", "refused-cut", &whole[..whole.len() / 2]);
}

// The coinbase and so many of the next transactions as keep the block small.
fn cut(block: &Block) -> Block {
    let mut cut = block.clone();
    let mut bytes = 0;
    cut.txdata.retain(|tx| {
        bytes += tx.total_size();
        bytes < MAX_SEED_BYTES / 2
    });
    cut.header.merkle_root = cut.compute_merkle_root().unwrap();
    cut
}

fn largest(blocks: &[Block], size: impl Fn(&Transaction) -> usize) -> &Transaction {
    let small = |tx: &&Transaction| tx.total_size() < MAX_SEED_BYTES;
    let all = blocks.iter().flat_map(|block| &block.txdata);
    all.filter(small).max_by_key(|tx| size(tx)).unwrap()
}

fn first_blocks() -> Vec<Vec<u8>> {
    let files = [
        read("mainnet-0-599/blk00000.dat"),
        read("mainnet-0-599/blk00001.dat"),
    ]
    .concat();
    let mut rest = files.as_slice();
    let mut blocks = Vec::new();
    while rest.starts_with(&Network::Main.magic()) {
        let size = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        blocks.push(rest[8..8 + size].to_vec());
        rest = &rest[8 + size..];
    }
    blocks
}

fn spent_coins() -> Vec<StoredCoin> {
    let json = read("full-blocks/866342/spent_utxos.zst");
    let coins: Vec<serde_json::Value> = serde_json::from_slice(&json).unwrap();
    let coin = |coin: &serde_json::Value| StoredCoin {
        height: coin["creation_height"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap(),
        coinbase: coin["is_coinbase"].as_bool().unwrap(),
        output: TxOut {
            value_sat: coin["txout"]["value"].as_u64().unwrap(),
            script: Vec::from_hex(coin["txout"]["script_pubkey"].as_str().unwrap())
                .unwrap()
                .into(),
        },
    };
    coins.iter().map(coin).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(name: &str) -> Vec<u8> {
    let bytes = fs::read(
        fuzz()
            .join("../crates/ports/groundtackle-chain/tests/data")
            .join(name),
    );
    let bytes = bytes.unwrap();
    if !name.ends_with(".zst") {
        return bytes;
    }
    let mut plain = Vec::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes.as_slice()).unwrap();
    decoder.read_to_end(&mut plain).unwrap();
    plain
}

fn save(target: &str, name: impl AsRef<str>, bytes: &[u8]) {
    assert!(
        bytes.len() <= MAX_SEED_BYTES,
        "{target}/{} is too large",
        name.as_ref()
    );
    let folder = fuzz().join("corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{}.seed", name.as_ref())), bytes).unwrap();
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
