//! Blocks from files: Bitcoin Core's block files, raw blocks and hexadecimal text.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_core::ByteSize;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::decode::MAX_FRAMED_BLOCK_BYTES;
use crate::error::Error;
use crate::hash::BlockHash;
use crate::index::{self, Chain, MEDIAN_TIME_BLOCKS, Step};
use crate::layout::BlockFile;
use crate::model::{Block, ChainBlock};
use crate::network::Network;
use crate::source::BlockSource;

/// What [`BlockFiles`] reads, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BlockFilesConfig {
    /// The network. Default: main net.
    pub network: Network,
    /// Begin after this block. Default: begin with the genesis block.
    pub after: Option<StartAfter>,
    /// End with the block of this height; it is an error if the files end before. Default: end
    /// where the files end.
    pub to: Option<u32>,
    /// Refuse larger blocks. Default: 4 GiB - 1 byte, which is what the framing can say.
    pub max_block_size: ByteSize,
    /// Take a record that its file cuts short, or that is not filled yet, for the end of its
    /// file: for copies of a running node's directory. Default: false, which makes it an error.
    pub tolerate_partial_tail: bool,
}

impl Default for BlockFilesConfig {
    fn default() -> Self {
        Self {
            network: Network::default(),
            after: None,
            to: None,
            max_block_size: ByteSize::new(MAX_FRAMED_BLOCK_BYTES),
            tolerate_partial_tail: false,
        }
    }
}

impl BlockFilesConfig {
    /// The defaults for `network`.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            ..Self::default()
        }
    }
}

/// The block after which to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartAfter {
    /// The block's height.
    pub height: u32,
    /// The block's hash.
    pub hash: BlockHash,
    /// The header times of this block and the ones before it, oldest first, in seconds since
    /// 1970: ten, or all if the chain is shorter. Only used where the files don't have these
    /// headers themselves.
    #[serde(default)]
    pub previous_times: Vec<u32>,
}

/// The chain of most work in some files, in chain order.
///
/// Opening reads every header and passes over the bodies, because Bitcoin Core writes blocks in
/// the order of their arrival and keeps those that a reorganisation left. That takes about 300
/// bytes of memory a block, and 56 for each block to come afterwards. Each body is read when
/// its turn comes, one ahead of the caller: two blocks are in memory at a time.
///
/// Proof of work is checked against the target that each header claims, and that target against
/// the network's easiest. Whether it is the difficulty that the chain demands at that height is
/// not checked, nor are header times and signet's block signature: this reads what a trusted
/// node has validated. A node may also keep a branch that it refused; compare [`Self::tip`] with
/// the node's own if that matters.
pub struct BlockFiles {
    config: BlockFilesConfig,
    files: Arc<[BlockFile]>,
    // Descending, so that the next block is the last.
    steps: Vec<Step>,
    next_height: u32,
    // Of up to ten blocks before the next.
    times: VecDeque<u32>,
    tip: (u32, BlockHash),
    prefetched: Option<JoinHandle<Result<Option<Block>, Error>>>,
}

impl fmt::Debug for BlockFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockFiles")
            .field("config", &self.config)
            .field("files", &self.files.len())
            .field("next_height", &self.next_height)
            .field("tip", &self.tip)
            .finish_non_exhaustive()
    }
}

impl BlockFiles {
    /// Reads the headers of all blocks in `paths`, and chooses the chain.
    ///
    /// A directory stands for its `blk*.dat` files. A file may be a block file, obfuscated if
    /// `xor.dat` lies beside it; a raw block; or text with one block in hexadecimal a line. Which
    /// it is shows in its first bytes. The order of the files does not matter.
    ///
    /// Runs on tokio's threads for blocking work, and so needs a tokio runtime.
    ///
    /// # Errors
    /// [`Error`] if a file is no block file, if a header or the framing is damaged, or if no
    /// complete chain leads from the start to the end that was asked for.
    pub async fn open(paths: Vec<PathBuf>, config: BlockFilesConfig) -> Result<Self, Error> {
        spawn_blocking(move || {
            let files: Arc<[_]> = BlockFile::open_all(&paths, &config)?.into();
            let Chain {
                steps,
                next_height,
                times,
                tip,
            } = index::choose_chain(&files, &config)?;
            tracing::debug!(files = files.len(), blocks = steps.len(), "chose a chain");
            Ok(Self {
                config,
                files,
                steps,
                next_height,
                times,
                tip,
                prefetched: None,
            })
        })
        .await
        .map_err(|_| Error::Stopped)?
    }

    /// The height and hash of the last block that this source gives, or of the one it starts
    /// after if it gives none.
    pub const fn tip(&self) -> (u32, BlockHash) {
        self.tip
    }

    /// How many blocks are still to come.
    pub const fn remaining_blocks(&self) -> usize {
        self.steps.len()
    }

    fn read_ahead(&self) -> Option<JoinHandle<Result<Option<Block>, Error>>> {
        let step = *self.steps.last()?;
        let (files, height) = (Arc::clone(&self.files), self.next_height);
        // Only the last block of the files themselves can be half written.
        let may_be_partial = self.config.tolerate_partial_tail && self.steps.len() == 1;
        Some(spawn_blocking(move || {
            step.read(&files, height, may_be_partial)
        }))
    }
}

#[async_trait]
impl BlockSource for BlockFiles {
    async fn next_block(&mut self) -> Result<Option<ChainBlock>, Error> {
        if self.prefetched.is_none() {
            self.prefetched = self.read_ahead();
        }
        let Some(task) = &mut self.prefetched else {
            return Ok(None);
        };
        // The only await: a dropped future leaves the task where it is, for the next call.
        let read = task.await;
        self.prefetched = None;
        let Some(block) = read.map_err(|_| Error::Stopped)?? else {
            tracing::warn!(
                height = self.next_height,
                "the last block is not complete yet"
            );
            self.steps.clear();
            return Ok(None);
        };

        self.steps.pop();
        self.times.push_back(block.header.time);
        if self.times.len() > MEDIAN_TIME_BLOCKS {
            self.times.pop_front();
        }
        let height = self.next_height;
        self.next_height = height.saturating_add(1);
        self.prefetched = self.read_ahead();
        Ok(Some(ChainBlock {
            height,
            hash: block.hash,
            previous: block.header.previous,
            median_time_past: index::median(self.times.iter().copied()),
            coinbase_may_overwrite: self
                .config
                .network
                .coinbase_may_overwrite(height, &block.hash),
            transactions: block.transactions,
        }))
    }
}
