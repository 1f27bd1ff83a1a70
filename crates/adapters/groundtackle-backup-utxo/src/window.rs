//! What blocks changed while a set was read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, Write};

use groundtackle_backup::{BlockEntry, Error, Hex, Result, Retryability, SetSummary};
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{BlockHash, Coin, OutPoint, SetDigest, Tip};

use crate::blocks::Known;
use crate::delta::{Cutter, Delta, DeltaPart, Overlay};
use crate::error::of_journal;
use crate::journal::{Epoch, Journal};
use crate::source::{SEGMENT_BYTES, position};

/// Which coins a scan has shown: those of before it began by 64 bits of a hash, in a file; later ones by name.
#[derive(Debug)]
pub(crate) struct Seen {
    height: u32,
    hasher: RandomState,
    file: BufWriter<File>,
    later: HashSet<OutPoint>,
}

fn failed(error: std::io::Error) -> Error {
    Error::backend(
        "the temporary folder",
        "noting which coins were read",
        Retryability::Permanent,
        error,
    )
}

impl Seen {
    /// By a scan that began at this height.
    pub(crate) fn new(height: u32) -> Result<Self> {
        Ok(Self {
            height,
            hasher: RandomState::new(),
            file: BufWriter::new(tempfile::tempfile().map_err(failed)?),
            later: HashSet::new(),
        })
    }

    pub(crate) fn add(&mut self, coins: &[Coin]) -> Result<()> {
        for coin in coins {
            if coin.height > self.height {
                self.later.insert(coin.outpoint);
            } else {
                let hash = self.hasher.hash_one(coin.outpoint).to_le_bytes();
                self.file.write_all(&hash).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Which of these it has shown.
    fn which(self, coins: &BTreeMap<OutPoint, Coin>) -> Result<HashSet<OutPoint>> {
        let before = coins.values().filter(|coin| coin.height <= self.height);
        let wanted: HashMap<_, _> = before
            .map(|coin| (self.hasher.hash_one(coin.outpoint), coin.outpoint))
            .collect();
        let mut shown = self.later;
        let mut file = self.file.into_inner().map_err(|e| failed(e.into_error()))?;
        file.rewind().map_err(failed)?;
        let mut reader = BufReader::new(file);
        let mut hash = [0; 8];
        loop {
            match reader.read_exact(&mut hash) {
                Ok(()) => shown.extend(wanted.get(&u64::from_le_bytes(hash))),
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(shown),
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// The blocks connected between a scan's beginning and its end.
#[derive(Debug)]
pub(crate) struct Window {
    end: SetDigest,
    tip: Tip,
    overlay: Overlay,
    blocks: Vec<Step>,
}

/// One of them, without its coins: these are in the overlay, and on their way into segments.
#[derive(Debug)]
struct Step {
    tip: Tip,
    previous: BlockHash,
    created: usize,
    spent: usize,
    /// From the set before to the set after.
    muhash: MuHash3072,
}

impl Step {
    fn of(delta: &Delta) -> Self {
        let mut muhash = MuHash3072::new();
        delta.forwards(&mut muhash);
        Self {
            tip: delta.tip,
            previous: delta.previous,
            created: delta.created.len(),
            spent: delta.spent.len(),
            muhash,
        }
    }
}

impl Window {
    /// Up to the block that `end` belongs to; and the segments of their changes.
    pub(crate) fn read(
        journal: &Journal,
        epoch: Epoch,
        began: &Tip,
        end: SetDigest,
    ) -> Result<(Self, Vec<Vec<DeltaPart>>)> {
        let again = |what: &str| {
            Error::backend(
                "the UTXO store",
                "reading the set",
                Retryability::Transient,
                what,
            )
        };
        let tip = end.tip.ok_or_else(|| again("it has no tip any more"))?;
        let chain = journal.chain(epoch, began.hash, tip.hash);
        let chain = chain.map_err(of_journal)?.ok_or_else(|| {
            again(
                "the journal does not lead from its first block to its last: the chain was reorganised meanwhile, or \
                 blocks are not journaled; do it again",
            )
        })?;
        let mut overlay = Overlay::of_scan();
        let mut cutter = Cutter::new(SEGMENT_BYTES);
        let (mut blocks, mut segments) = (Vec::new(), Vec::new());
        for delta in chain {
            let delta = delta.map_err(of_journal)?;
            overlay.forwards(&delta).map_err(|error| {
                Error::backend(
                    "the journal",
                    "replaying blocks",
                    Retryability::Permanent,
                    error,
                )
            })?;
            blocks.push(Step::of(&delta));
            segments.extend(cutter.push(delta));
        }
        segments.extend(cutter.finish());
        let window = Self {
            end,
            tip,
            overlay,
            blocks,
        };
        Ok((window, segments))
    }

    /// Coins created and spent.
    pub(crate) fn items(&self) -> u64 {
        self.blocks.iter().fold(0, |sum, block| {
            sum.saturating_add(block.created as u64)
                .saturating_add(block.spent as u64)
        })
    }

    /// What the set is at the end, if all that was read belongs together, and after each block on the way. `coins` were
    /// shown, of the digest `muhash`.
    pub(crate) fn settle(
        self,
        seen: Seen,
        coins: u64,
        mut muhash: MuHash3072,
    ) -> Result<(Known, Vec<BlockEntry>)> {
        let (removed, added) = self.overlay.into_parts();
        let seen = seen.which(&removed)?;
        let gone: Vec<_> = removed
            .values()
            .filter(|coin| seen.contains(&coin.outpoint))
            .collect();
        let came: Vec<_> = added
            .values()
            .filter(|coin| !seen.contains(&coin.outpoint) || removed.contains_key(&coin.outpoint))
            .collect();
        muhash.remove_all(gone.iter().map(|coin| coin_element(coin)));
        muhash.insert_all(came.iter().map(|coin| coin_element(coin)));
        let digest = muhash.digest();
        if digest != self.end.muhash {
            return Err(Error::backend(
                "the UTXO store",
                "reading the set",
                Retryability::Transient,
                "what was read, with what blocks changed meanwhile, has another digest than the store: do it again, and if \
                 that fails too, compare the store with a node",
            ));
        }
        let coins = coins
            .saturating_add(came.len() as u64)
            .saturating_sub(gone.len() as u64);
        let known = Known {
            position: position(&self.tip),
            set: SetSummary {
                coins,
                muhash: Hex(digest),
            },
            muhash,
        };
        // Backwards, since only the last set is known.
        let mut at = known.clone();
        let mut entries = Vec::new();
        let mut blocks = self.blocks.iter().rev().peekable();
        while let Some(block) = blocks.next() {
            entries.push(BlockEntry {
                position: at.position,
                previous: Hex(*block.previous.as_bytes()),
                set: at.set,
            });
            if let Some(before) = blocks.peek() {
                at.muhash.subtract(&block.muhash);
                at.settle(position(&before.tip), block.spent, block.created)?;
            }
        }
        entries.reverse();
        Ok((known, entries))
    }
}
