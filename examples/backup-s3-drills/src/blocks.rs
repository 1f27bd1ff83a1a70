//! What a node writes to its blocks folder; without one, main net blocks 0 to 199, some in each round.

use std::fs;

use groundtackle_chain::{BlockFiles, BlockFilesConfig, BlockSource, StartAfter};
use groundtackle_utxo_store::UtxoStore;

use crate::failure::{Failure, Result, While};
use crate::settings::Settings;

const DEMO: &[u8] = include_bytes!("../data/blk00000.dat");
const DEMO_BLOCKS_A_ROUND: u32 = 50;

/// Connects what is there and not in the store. How many.
pub async fn connect(store: &dyn UtxoStore, settings: &Settings) -> Result<u32> {
    let network = settings.network.parse();
    let mut config = BlockFilesConfig::new(
        network.map_err(|_| Failure::Config("BACKUP_NETWORK is no network".into()))?,
    );
    let tip = store.tip().await.when("reading the tip")?;
    config.after = tip.map(|tip| StartAfter {
        height: tip.height,
        hash: tip.hash,
        previous_times: Vec::new(),
    });
    // The node may be writing.
    config.tolerate_partial_tail = true;
    let demo = tempfile::tempdir().when("making a temporary folder")?;
    let folder = settings
        .blocks
        .clone()
        .unwrap_or_else(|| demo.path().into());
    if settings.blocks.is_none() {
        let next = tip.map_or(0, |tip| tip.height.saturating_add(1));
        config.to = Some(next.saturating_add(DEMO_BLOCKS_A_ROUND - 1));
        fs::write(demo.path().join("blk00000.dat"), DEMO).when("writing the demo's blocks")?;
    }
    let reading = || format!("reading blocks in {}", folder.display());
    let mut source = BlockFiles::open(vec![folder.clone()], config)
        .await
        .when(reading())?;
    let mut blocks = 0;
    while let Some(block) = source.next_block().await.when(reading())? {
        let connecting = || format!("connecting block {} ({})", block.height, block.hash);
        let connected = store.connect_block(&block).await.when(connecting())?;
        connected.when(connecting())?;
        blocks += 1;
    }
    store.flush().await.when("making blocks durable")?;
    Ok(blocks)
}
