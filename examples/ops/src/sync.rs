//! Connecting blocks from files.

use std::time::Instant;

use groundtackle_chain::{
    BlockFiles, BlockFilesConfig, BlockHash, BlockSource, Error as ChainError, StartAfter,
};
use groundtackle_utxo_store::{Tip, UtxoStore};
use serde::Serialize;

use crate::SyncOptions;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::{Progress, Report};
use crate::rewind;

/// What `--json` prints while a sync goes on.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event {
    /// The store is open and whole; its tip is at this height.
    Opened {
        height: Option<u32>,
    },
    /// Blocks from `first_height` on will be connected.
    Started {
        first_height: u32,
        blocks: usize,
    },
    /// The store's blocks left the chain of most work, and were taken back.
    Reorganised {
        from: Tip,
        to: Option<Tip>,
        blocks: u64,
    },
    /// Everything up to here outlives a crash.
    Durable {
        height: u32,
        bestblock: BlockHash,
    },
    Synced(Summary),
    Interrupted(Summary),
    Failed(Summary),
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Summary {
    height: Option<u32>,
    bestblock: Option<BlockHash>,
    blocks: u64,
    transactions: u64,
    spent: u64,
    created: u64,
    seconds: f64,
    blocks_per_second: f64,
}

#[derive(Debug)]
struct Done {
    began: Instant,
    blocks: u64,
    transactions: u64,
    spent: u64,
    created: u64,
}

pub async fn run(
    store: &dyn UtxoStore,
    options: &SyncOptions,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let height = store.tip().await?.map(|tip| tip.height);
    report.json(&Event::Opened { height })?;
    let mut done = Done {
        began: Instant::now(),
        blocks: 0,
        transactions: 0,
        spent: 0,
        created: 0,
    };
    let result = connect(store, options, report, interrupt, &mut done).await;
    let ended = end(store, report, &result, done).await;
    result.and(ended)
}

/// Keeps what is connected, however the work ended, and tells of it.
async fn end(store: &dyn UtxoStore, report: Report, result: &Result<()>, done: Done) -> Result<()> {
    let tip = checkpoint(store, report).await?;
    let seconds = done.began.elapsed().as_secs_f64();
    let Done {
        blocks,
        transactions,
        spent,
        created,
        ..
    } = done;
    let summary = Summary {
        height: tip.map(|tip| tip.height),
        bestblock: tip.map(|tip| tip.hash),
        blocks,
        transactions,
        spent,
        created,
        seconds,
        blocks_per_second: blocks as f64 / seconds,
    };
    report.json(&match result {
        Ok(()) => Event::Synced(summary),
        Err(Failure::Interrupted) => Event::Interrupted(summary),
        Err(_) => Event::Failed(summary),
    })?;
    report.text(&if blocks == 0 {
        "no block was connected".into()
    } else {
        format!(
            "{blocks} blocks with {transactions} transactions connected in {seconds:.2} s: \
             {:.0} blocks/s, {:.0} transactions/s, {spent} outputs spent, {created} created",
            summary.blocks_per_second,
            transactions as f64 / seconds,
        )
    })?;
    report.text(&match tip {
        Some(Tip { height, hash, .. }) => {
            format!("the store ends at height {height} with block {hash}")
        }
        None => "the store is empty".into(),
    })
}

/// Finds the blocks that follow the store's tip; takes back what has left the chain of most work.
async fn open(
    store: &dyn UtxoStore,
    options: &SyncOptions,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<BlockFiles> {
    loop {
        let tip = store.tip().await?;
        let mut config = BlockFilesConfig::new(options.network);
        config.to = options.to;
        config.max_block_size = options.max_block_size;
        config.tolerate_partial_tail = options.partial_tail;
        config.after = tip.map(|tip| StartAfter {
            height: tip.height,
            hash: tip.hash,
            previous_times: Vec::new(),
        });
        let opened = interrupt
            .or(BlockFiles::open(options.blocks.clone(), config))
            .await?;
        match (opened, tip) {
            (Err(ChainError::StaleStart { fork_height, .. }), Some(from)) => {
                let blocks = u64::from(from.height.saturating_sub(fork_height));
                report.text(&format!(
                    "reorganisation: block {} ({}) left the chain of most work; \
                     taking {blocks} blocks back, to height {fork_height}",
                    from.height, from.hash
                ))?;
                let to = rewind::take_back(store, fork_height, interrupt).await?.tip;
                report.json(&Event::Reorganised { from, to, blocks })?;
            }
            (source, _) => return Ok(source?),
        }
    }
}

async fn connect(
    store: &dyn UtxoStore,
    options: &SyncOptions,
    report: Report,
    interrupt: &mut Interrupt,
    done: &mut Done,
) -> Result<()> {
    let mut source = open(store, options, report, interrupt).await?;
    // The speed is that of connecting.
    done.began = Instant::now();
    let total = source.remaining_blocks();
    let mut progress = Progress::new("connected", total as u64);
    // Dropping the read is safe; connecting is never dropped.
    while let Some(block) = interrupt.or(source.next_block()).await?? {
        if done.blocks == 0 {
            report.json(&Event::Started {
                first_height: block.height,
                blocks: total,
            })?;
        }
        let (height, hash) = (block.height, block.hash);
        let connected = store
            .connect_block(&block)
            .await
            .map_err(|source| Failure::Connect { height, source })?
            .map_err(|source| Failure::Refused {
                height,
                hash,
                source,
            })?;
        done.blocks += 1;
        done.transactions += block.transactions.len() as u64;
        done.spent += connected.spent.len() as u64;
        done.created += connected.created_outputs;
        progress.block(height);
        if done.blocks.is_multiple_of(options.flush_every.get().into()) {
            checkpoint(store, report).await?;
        }
    }
    Ok(())
}

async fn checkpoint(store: &dyn UtxoStore, report: Report) -> Result<Option<Tip>> {
    store.flush().await?;
    let tip = store.tip().await?;
    if let Some(Tip {
        height,
        hash: bestblock,
        ..
    }) = tip
    {
        report.json(&Event::Durable { height, bestblock })?;
    }
    Ok(tip)
}
