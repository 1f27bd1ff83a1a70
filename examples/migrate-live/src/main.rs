//! A service that connects blocks, and goes on while its store is migrated.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use groundtackle_chain::hash::to_hex;
use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, Network};
use groundtackle_utxo_store::{BlockHash, ChainBlock};
use migrate_live::{Blocks, Error, Live, Migration, Options, Phase, Result, StoreUrl};

/// Main net blocks 0 to 199.
const DEMO: &[u8] = include_bytes!("../data/blk00000.dat");

/// Migrates a UTXO store while blocks come.
#[derive(Debug, Parser)]
struct Args {
    /// The store that serves.
    #[arg(long, default_value = "embedded:migrate-live-data/old")]
    from: StoreUrl,
    /// An empty store.
    #[arg(long, default_value = "embedded:migrate-live-data/new")]
    to: StoreUrl,
    /// The journal of the store that serves.
    #[arg(long, default_value = "migrate-live-data/journal")]
    journal: PathBuf,
    /// The migration's own folder.
    #[arg(long, default_value = "migrate-live-data/migration")]
    work: PathBuf,
    /// Blocks of a node, as files; main net 0 to 199 otherwise.
    #[arg(long)]
    blocks: Option<PathBuf>,
    /// Milliseconds from block to block.
    #[arg(long, default_value_t = 50)]
    pace_millis: u64,
    /// Blocks below the tip that the new store is filled with.
    #[arg(long, default_value_t = 6)]
    depth: u32,
    /// Switch back to the old store at the end.
    #[arg(long, conflicts_with = "retire")]
    back: bool,
    /// Leave the old store behind at the end: there is no way back.
    #[arg(long)]
    retire: bool,
}

/// All blocks, in memory: in your service this asks the node.
#[derive(Debug)]
struct Chain {
    blocks: Vec<ChainBlock>,
    places: HashMap<BlockHash, usize>,
}

impl Chain {
    async fn read(folder: Option<PathBuf>) -> Result<Self, Box<dyn std::error::Error>> {
        let own = std::env::temp_dir().join(format!("migrate-live-{}", std::process::id()));
        let paths = match folder {
            Some(folder) => vec![folder],
            None => {
                std::fs::create_dir_all(&own)?;
                std::fs::write(own.join("blk00000.dat"), DEMO)?;
                vec![own.clone()]
            }
        };
        let mut files = BlockFiles::open(paths, BlockFilesConfig::new(Network::Main)).await?;
        let mut blocks = Vec::new();
        while let Some(block) = files.next_block().await? {
            blocks.push(block);
        }
        if own.exists() {
            std::fs::remove_dir_all(own)?;
        }
        let hashes = blocks.iter().map(|block| block.hash);
        let places = hashes.zip(0..).collect();
        Ok(Self { blocks, places })
    }
}

#[async_trait]
impl Blocks for Chain {
    async fn block(&self, hash: &BlockHash) -> Result<ChainBlock> {
        let place = self.places.get(hash);
        let block = place.and_then(|place| self.blocks.get(*place));
        block
            .cloned()
            .ok_or_else(|| Error::Refused(format!("there is no block {hash}")))
    }
}

/// What the service does all the time, whatever store it has.
async fn serve(
    live: Arc<Live>,
    chain: Arc<Chain>,
    pace: Duration,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let tip = live.store().await?.tip().await?;
    let next = tip
        .and_then(|tip| chain.places.get(&tip.hash))
        .map_or(0, |place| place + 1);
    for block in chain.blocks.iter().skip(next) {
        live.store().await?.connect_block(block).await??;
        tokio::time::sleep(pace).await;
    }
    Ok(())
}

fn shown(mut muhash: [u8; 32]) -> String {
    muhash.reverse();
    to_hex(&muhash)
}

async fn migrate(args: Args) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let chain = Chain::read(args.blocks.clone())
        .await
        .map_err(|error| error.to_string())?;
    let chain = Arc::new(chain);
    let options = Options {
        depth_blocks: args.depth,
        poll: Duration::from_millis(200),
        ..Options::default()
    };
    let (from, to) = (&args.from, &args.to);
    let migration = Migration::open(from, &args.journal, to, &args.work, chain.clone(), options);
    let mut migration = migration.await?;
    println!("open: {:?}", migration.phase());
    let pace = Duration::from_millis(args.pace_millis);
    let mut service = tokio::spawn(serve(migration.live(), chain, pace));
    while migration.live().store().await?.tip().await?.is_none() {
        if service.is_finished() {
            return service.await?;
        }
        tokio::time::sleep(pace).await;
    }

    println!("copying {from} to {to}");
    migration.copy().await?;
    println!("copied");
    let (tip, _) = migration.follow().await?;
    println!("following: both are at height {}", tip.height);
    let switch = async |migration: &mut Migration| {
        println!("switching");
        let switched = migration.switch_over().await?;
        println!(
            "switched: {:?} at height {}, {} unmined carried over, calls waited {} ms, muhash {}",
            migration.phase(),
            switched.tip.height,
            switched.unmined,
            switched.pause.as_millis(),
            shown(switched.muhash)
        );
        Ok::<_, Error>(())
    };
    if migration.phase() == Phase::OldServes {
        switch(&mut migration).await?;
    }
    // Until the service has no more blocks, and then once more.
    let ended = loop {
        tokio::select! {
            ended = &mut service => break ended,
            () = tokio::time::sleep(pace) => drop(migration.follow().await?),
        }
    };
    ended??;
    if args.back {
        switch(&mut migration).await?;
    }
    let (tip, muhash) = migration.follow().await?;
    println!(
        "both are at height {} ({}), muhash {}",
        tip.height,
        tip.hash,
        shown(muhash)
    );
    if args.retire {
        migration.retire()?;
        println!("retired: {from} is left behind");
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = migrate(Args::parse()).await else {
        return ExitCode::SUCCESS;
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    eprintln!("migrate-live: {text}");
    ExitCode::FAILURE
}
