//! Two whole blocks of main net, with every coin they spend, connect and disconnect, on each adapter.
//! The fixtures are those of `groundtackle-chain`; they are too large for a published crate.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a fixture that is not as it should be ends the test"
)]

use std::io::Read;
use std::path::Path;

use async_trait::async_trait;
use groundtackle_chain::{DecodeOptions, decode_block};
use groundtackle_testkit_servers::{Postgres, PostgresOptions};
use groundtackle_utxo_store::{ChainBlock, Coin, MemoryUtxoStore, OutPoint, Result, Script, TxOut};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_postgres::{PostgresUtxoStore, PostgresUtxoStoreConfig, Tls};
use groundtackle_utxo_store_testkit::{Harness, Subject, check_full_block};
use tempfile::TempDir;

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

struct EmbeddedHarness;

#[async_trait]
impl Harness for EmbeddedHarness {
    type Store = EmbeddedUtxoStore;
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        TempDir::new().unwrap()
    }

    async fn open(&self, place: &TempDir) -> Result<EmbeddedUtxoStore> {
        EmbeddedUtxoStore::open(
            place.path().join("store"),
            EmbeddedUtxoStoreConfig::default(),
        )
    }
}

struct PostgresHarness;

#[async_trait]
impl Harness for PostgresHarness {
    type Store = PostgresUtxoStore;
    type Place = Postgres;

    async fn place(&self) -> Postgres {
        Postgres::start(PostgresOptions::default())
    }

    async fn open(&self, place: &Postgres) -> Result<PostgresUtxoStore> {
        let config = PostgresUtxoStoreConfig::new(place.url())
            .with_tls(Tls::Off)
            .with_allow_unsafe_durability(true);
        PostgresUtxoStore::open(config).await
    }
}

fn read(block: u32, name: &str) -> Vec<u8> {
    let data = "../crates/ports/groundtackle-chain/tests/data/full-blocks";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(data);
    let file = std::fs::File::open(path.join(format!("{block}/{name}"))).unwrap();
    let mut bytes = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// A block, and what its inputs spend in the block's order. The coins are JSON: a list with an
/// object for each input but the coinbase's.
fn load(height: u32) -> (ChainBlock, Vec<Coin>) {
    let block = decode_block(&read(height, "raw.zst"), &DecodeOptions::default()).unwrap();
    let coins: Vec<serde_json::Value> =
        serde_json::from_slice(&read(height, "spent_utxos.zst")).unwrap();
    let inputs: Vec<OutPoint> = block
        .transactions
        .iter()
        .flat_map(|tx| tx.inputs.iter().copied())
        .collect();
    assert_eq!(coins.len(), inputs.len());
    let coin = |(outpoint, coin): (OutPoint, &serde_json::Value)| Coin {
        outpoint,
        output: TxOut {
            value_sat: coin["txout"]["value"].as_u64().unwrap(),
            script: script(coin["txout"]["script_pubkey"].as_str().unwrap()),
        },
        height: coin["creation_height"].as_u64().unwrap() as u32,
        coinbase: coin["is_coinbase"].as_bool().unwrap(),
    };
    let spent = inputs.into_iter().zip(&coins).map(coin).collect();
    let block = ChainBlock {
        height,
        hash: block.hash,
        previous: block.header.previous,
        median_time_past: block.header.time,
        transactions: block.transactions,
        coinbase_may_overwrite: false,
    };
    (block, spent)
}

fn script(hex: &str) -> Script {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
    bytes.into()
}

async fn comes_and_goes(height: u32, inputs: usize) {
    let (block, spent) = load(height);
    assert_eq!(spent.len(), inputs);
    check_full_block(&Subject::of(MemoryHarness).await, &block, &spent).await;
    check_full_block(&Subject::of(EmbeddedHarness).await, &block, &spent).await;
    check_full_block(&Subject::of(PostgresHarness).await, &block, &spent).await;
}

#[tokio::test]
async fn a_block_of_20817_inputs_comes_and_goes() {
    comes_and_goes(367_891, 20_817).await;
}

#[tokio::test]
async fn a_block_of_7972_inputs_comes_and_goes() {
    comes_and_goes(866_342, 7_972).await;
}
