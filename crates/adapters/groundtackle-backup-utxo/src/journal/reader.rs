use std::collections::HashSet;
use std::path::PathBuf;

use groundtackle_utxo_store::{BlockHash, Tip};

use super::error::JournalError;
use super::file::{EPOCH, Epoch, Folder, INTENT, exists};
use crate::delta::Delta;

/// A journal, to be read: beside the process that writes it, or without one.
///
/// ```
/// use groundtackle_backup_utxo::{Epoch, Journal, JournalError};
/// use groundtackle_utxo_store::BlockHash;
///
/// /// What blocks changed between a restore point, of that epoch, and the store's tip.
/// fn print(journal: &Journal, epoch: Epoch, point: BlockHash, tip: BlockHash) -> Result<(), JournalError> {
///     match journal.chain(epoch, point, tip)? {
///         Some(chain) => {
///             for delta in chain {
///                 println!("{}", delta?.tip.height);
///             }
///         }
///         None => println!("a new base is needed"),
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Journal {
    folder: Folder,
}

impl Journal {
    /// The journal in a folder, which [`Journaled::open`](super::Journaled::open) has created.
    ///
    /// # Errors
    /// `NotFound`, or when the file system fails.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let folder = Folder(folder.into());
        if !exists(&folder.path(EPOCH))? {
            return Err(JournalError::NotFound { path: folder.0 });
        }
        Ok(Self { folder })
    }

    /// The epoch now; `None` while it is just being changed.
    ///
    /// A base belongs to an epoch only if that was so before its scan began, and still is after its end.
    ///
    /// # Errors
    /// `Damaged`, or when the file system fails.
    pub fn epoch(&self) -> Result<Option<Epoch>, JournalError> {
        self.folder.read_epoch()
    }

    /// What leads from the set after block `from` to the set after block `to`, both of this epoch, in order; `None`
    /// where the journal does not lead there, so that a new base is needed. Before the genesis block is
    /// [`BlockHash::ZERO`].
    ///
    /// It is found from `to` downwards by the hashes of the blocks before, so what a reorganisation has left is never
    /// part of it. That reads the front of each file, and keeps 36 bytes for each block.
    ///
    /// # Errors
    /// `Damaged` for a file on the way, or when the file system fails.
    pub fn chain(
        &self,
        epoch: Epoch,
        from: BlockHash,
        to: BlockHash,
    ) -> Result<Option<Chain>, JournalError> {
        let from = HashSet::from([from]);
        let found = self.chain_from_any(epoch, &from, to)?;
        Ok(found.map(|(_, chain)| chain))
    }

    /// The same from the last of several blocks that leads there.
    pub(crate) fn chain_from_any(
        &self,
        epoch: Epoch,
        from: &HashSet<BlockHash>,
        to: BlockHash,
    ) -> Result<Option<(BlockHash, Chain)>, JournalError> {
        let mut blocks = Vec::new();
        let mut start = to;
        if !from.contains(&to) {
            let found = self
                .folder
                .deltas()?
                .find(|delta| delta.as_ref().map_or(true, |(_, hash)| *hash == to));
            let Some(mut at) = found.transpose()? else {
                return Ok(None);
            };
            loop {
                let (height, hash) = at;
                let head = self.folder.read_head(height, &hash)?;
                let Some(head) = head.filter(|head| head.epoch == epoch) else {
                    return Ok(None);
                };
                blocks.push(at);
                start = head.previous;
                if from.contains(&start) {
                    break;
                }
                match height.checked_sub(1) {
                    Some(below) => at = (below, head.previous),
                    None => return Ok(None),
                }
            }
        }
        let chain = Chain {
            folder: self.folder.clone(),
            epoch,
            at: start,
            blocks,
        };
        Ok(Some((start, chain)))
    }

    /// Whether the block that a store has as its tip is still to come: its delta is written right after it was connected.
    pub(crate) fn lags(&self, tip: &Tip) -> Result<bool, JournalError> {
        let delta = self.folder.delta_path(tip.height, &tip.hash);
        Ok(!exists(&delta)? && exists(&self.folder.path(INTENT))?)
    }

    /// Removes the deltas of blocks at this height and below, of every branch: those that no restore point needs any
    /// more. How many there were.
    ///
    /// # Errors
    /// When the file system fails; some may be gone then.
    pub fn forget_through(&self, height: u32) -> Result<u64, JournalError> {
        let mut removed = 0_u64;
        for delta in self.folder.deltas()? {
            let (at, hash) = delta?;
            if at <= height {
                self.folder.remove_delta(at, &hash)?;
                removed = removed.saturating_add(1);
            }
        }
        Ok(removed)
    }
}

/// The deltas of consecutive blocks, read one by one. After an error there are no more.
#[derive(Debug)]
pub struct Chain {
    folder: Folder,
    epoch: Epoch,
    at: BlockHash,
    /// Those that are left, the next one last.
    blocks: Vec<(u32, BlockHash)>,
}

impl Chain {
    /// Deltas that are left.
    pub const fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none is left.
    pub const fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn read(&self, height: u32, hash: &BlockHash) -> Result<Delta, JournalError> {
        let (head, delta) = self.folder.read_delta(height, hash)?;
        if head.epoch != self.epoch || delta.previous != self.at {
            let path = self.folder.delta_path(height, hash);
            return Err(JournalError::Changed { path });
        }
        Ok(delta)
    }
}

impl Iterator for Chain {
    type Item = Result<Delta, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (height, hash) = self.blocks.pop()?;
        let delta = self.read(height, &hash);
        if delta.is_err() {
            self.blocks.clear();
        }
        self.at = hash;
        Some(delta)
    }
}
