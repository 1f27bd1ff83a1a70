//! Connects what a node writes to its blocks folder; without one, main net blocks 0 to 599, which are built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use groundtackle_chain::{
    BlockFiles, BlockFilesConfig, BlockSource, Error as ChainError, StartAfter,
};
use groundtackle_health_check::{Observation, Reporter};
use groundtackle_utxo_store::{Tip, UtxoStore};

use crate::config::{Blocks, Config};
use crate::failure::{Failure, Result, While};
use crate::shutdown::Stop;

const DEMO: [(&str, &[u8]); 2] = [
    ("blk00000.dat", include_bytes!("../data/blk00000.dat")),
    ("blk00001.dat", include_bytes!("../data/blk00001.dat")),
];

/// While blocks are connected without a pause, health hears of it so often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Feeder {
    store: Arc<dyn UtxoStore>,
    folder: PathBuf,
    pace: Duration,
    config: Blocks,
    health: Reporter,
    stop: Stop,
}

impl Feeder {
    pub fn new(
        config: &mut Config,
        store: Arc<dyn UtxoStore>,
        health: Reporter,
        stop: Stop,
    ) -> Result<Self> {
        let (folder, pace) = match &config.blocks.folder {
            Some(folder) => (folder.clone(), Duration::ZERO),
            None => (demo(&config.data)?, config.blocks.demo_pace),
        };
        Ok(Self {
            store,
            folder,
            pace,
            config: std::mem::take(&mut config.blocks),
            health,
            stop,
        })
    }

    /// Until it is time to stop. What goes wrong is told, and tried again.
    pub async fn run(mut self) -> Result<()> {
        loop {
            let connected = self.connect().await;
            // What is connected is kept, however the round ended.
            let flushed = self.store.flush().await.when("making blocks durable");
            match connected.and(flushed) {
                Ok(()) => self.report().await,
                Err(failure) => {
                    tracing::warn!(error = %failure, "blocks can't be connected");
                    let seen = Observation::fail("blocks").with_detail(failure.to_string());
                    self.health.report(seen);
                }
            }
            if !self.stop.sleep(self.config.every).await {
                return Ok(());
            }
        }
    }

    async fn report(&self) {
        let tip = self.store.tip().await.ok().flatten();
        let height = tip.map_or_else(|| "no block yet".into(), |tip| format!("at {}", tip.height));
        self.health.report(Observation::pass().with_detail(height));
    }

    /// All that is there now.
    async fn connect(&mut self) -> Result<()> {
        let opening = self.open().await?;
        let Some(mut source) = opening else {
            return Ok(());
        };
        let (mut blocks, mut reported) = (0_u32, Instant::now());
        // Dropping the read is safe; connecting is never dropped.
        while let Some(read) = self.stop.or(source.next_block()).await {
            let Some(block) = read.when("reading the next block")? else {
                break;
            };
            let connecting = || format!("connecting block {} ({})", block.height, block.hash);
            let connected = self.store.connect_block(&block).await.when(connecting())?;
            // A verdict: the store is well, the block is not.
            connected.when(connecting())?;
            blocks = blocks.saturating_add(1);
            if blocks.is_multiple_of(self.config.flush_every.get()) {
                self.store.flush().await.when("making blocks durable")?;
            }
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                self.report().await;
            }
            if !self.pace.is_zero() && !self.stop.sleep(self.pace).await {
                break;
            }
        }
        if blocks > 0 {
            let tip = self.store.tip().await.when("reading the tip")?;
            tracing::info!(blocks, height = tip.map(|tip| tip.height), "connected");
        }
        Ok(())
    }

    /// What follows the store's tip, once blocks that left the chain of most work are taken back. None if it is time to stop.
    async fn open(&mut self) -> Result<Option<BlockFiles>> {
        loop {
            let tip = self.store.tip().await.when("reading the tip")?;
            let mut config = BlockFilesConfig::new(self.config.network);
            config.max_block_size = self.config.max_block_size;
            // The node may be writing.
            config.tolerate_partial_tail = true;
            config.after = tip.map(|tip| StartAfter {
                height: tip.height,
                hash: tip.hash,
                previous_times: Vec::new(),
            });
            let opening = BlockFiles::open(vec![self.folder.clone()], config);
            match (self.stop.or(opening).await, tip) {
                (None, _) => return Ok(None),
                (Some(Err(ChainError::StaleStart { fork_height, .. })), Some(tip)) => {
                    tracing::warn!(from = tip.height, to = fork_height, "reorganisation");
                    self.take_back(tip, fork_height).await?;
                }
                (Some(opened), _) => {
                    let reading = format_args!("reading blocks in {}", self.folder.display());
                    return opened.when(reading).map(Some);
                }
            }
        }
    }

    async fn take_back(&self, from: Tip, to: u32) -> Result<()> {
        let mut tip = Some(from);
        while let Some(Tip { height, hash, .. }) = tip.filter(|tip| tip.height > to) {
            let taking = || format!("taking block {height} ({hash}) back");
            let previous = self.store.previous_tip().await.when(taking())?;
            let previous = previous.ok_or_else(|| {
                Failure::of(format!(
                    "block {height} ({hash}) can't be taken back, its undo data is gone: restore a backup of an earlier height"
                ))
            })?;
            let disconnected = self.store.disconnect_block(&hash, &previous.hash).await;
            tip = disconnected.when(taking())?.when(taking())?.tip;
        }
        Ok(())
    }
}

/// The built-in blocks as files.
fn demo(data: &Path) -> Result<PathBuf> {
    let folder = data.join("demo-blocks");
    let write = || {
        fs::create_dir_all(&folder)?;
        DEMO.iter()
            .try_for_each(|(name, bytes)| fs::write(folder.join(name), bytes))
    };
    write().when(format_args!(
        "writing the demo's blocks to {}",
        folder.display()
    ))?;
    Ok(folder)
}
