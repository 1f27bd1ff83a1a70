//! The chain of most work among headers in any order.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use k256::U256;

use crate::error::Error;
use crate::files::BlockFilesConfig;
use crate::hash::BlockHash;
use crate::layout::{BlockFile, Place};
use crate::model::{Block, BlockHeader};
use crate::pow::work;

/// A block's median time is that of so many blocks, its own included.
pub(crate) const MEDIAN_TIME_BLOCKS: usize = 11;

/// What is left to read.
#[derive(Debug)]
pub(crate) struct Chain {
    /// Descending by height.
    pub(crate) steps: Vec<Step>,
    /// The height of the last of `steps`.
    pub(crate) next_height: u32,
    /// The times of the blocks before, oldest first.
    pub(crate) times: VecDeque<u32>,
    /// The height and hash of the first of `steps`, or of the start.
    pub(crate) tip: (u32, BlockHash),
}

/// One block of the chosen chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    hash: BlockHash,
    place: Place,
}

impl Step {
    /// Reads the block's body; `None` as in [`BlockFile::read`].
    pub(crate) fn read(
        &self,
        files: &[BlockFile],
        height: u32,
        may_be_partial: bool,
    ) -> Result<Option<Block>, Error> {
        let Self {
            hash,
            place: Place { file, offset, .. },
        } = *self;
        let Some(file) = files.get(file) else {
            return Ok(None);
        };
        let path = || file.path.clone();
        let block = file
            .read(self.place, may_be_partial)
            .map_err(Error::io(&file.path))?
            .map_err(|source| Error::Body {
                file: path(),
                offset,
                height,
                hash,
                source,
            })?;
        match block {
            Some(block) if block.hash != hash => Err(Error::Changed {
                file: path(),
                offset,
                height,
                hash,
            }),
            block => Ok(block),
        }
    }
}

/// The median of some times, the later of two in the middle, as BIP 113 counts.
pub(crate) fn median(times: impl IntoIterator<Item = u32>) -> u32 {
    let mut times: Vec<u32> = times.into_iter().collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Reads all headers and chooses the chain of most work from the start that `config` names.
pub(crate) fn choose_chain(files: &[BlockFile], config: &BlockFilesConfig) -> Result<Chain, Error> {
    let mut index = Index::default();
    for (number, file) in files.iter().enumerate() {
        file.scan(number, config, |place, header| {
            let hash = header.hash();
            config
                .network
                .check_proof_of_work(&hash, header.bits)
                .map_err(|source| Error::ProofOfWork {
                    file: file.path.clone(),
                    offset: place.offset,
                    hash,
                    source,
                })?;
            index.add(hash, &header, place);
            Ok(())
        })?;
    }
    index.choose(files, config)
}

#[derive(Debug, Default)]
struct Index {
    records: Vec<Record>,
    by_hash: HashMap<BlockHash, usize>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    hash: BlockHash,
    previous: BlockHash,
    time: u32,
    bits: u32,
    place: Place,
}

// How a block relates to the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// The start, or descends from it.
    Descends,
    /// Shares an ancestor with the start, or is one.
    Connected,
    /// No path leads to the start.
    Elsewhere,
}

// A block's work and that of all its ancestors in the files.
#[derive(Clone, Copy, Debug)]
struct Link {
    work: U256,
    relation: Relation,
}

impl Index {
    fn add(&mut self, hash: BlockHash, header: &BlockHeader, place: Place) {
        // The same block may lie in the files twice.
        if let Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(self.records.len());
            let BlockHeader {
                previous,
                time,
                bits,
                ..
            } = *header;
            self.records.push(Record {
                hash,
                previous,
                time,
                bits,
                place,
            });
        }
    }

    fn get(&self, hash: &BlockHash) -> Option<(usize, &Record)> {
        let index = *self.by_hash.get(hash)?;
        Some((index, self.records.get(index)?))
    }

    // This block and its ancestors, as far as the files have them.
    fn ancestry(&self, hash: BlockHash) -> impl Iterator<Item = (usize, &Record)> {
        std::iter::successors(self.get(&hash), |(_, record)| self.get(&record.previous))
    }

    fn choose(mut self, files: &[BlockFile], config: &BlockFilesConfig) -> Result<Chain, Error> {
        let genesis = config.network.genesis_hash();
        let (height, start) = config
            .after
            .as_ref()
            .map_or((0, genesis), |after| (after.height, after.hash));
        let blocks = self.records.len();
        let known = self.by_hash.contains_key(&start);
        if !known {
            // The genesis block follows all zeros, which are no block.
            let followed = start != BlockHash::ZERO
                && self.records.iter().any(|record| record.previous == start);
            if config.after.is_none() || !followed {
                return Err(Error::StartNotFound {
                    blocks,
                    height,
                    hash: start,
                });
            }
            // Stands for the block that the files lack, so that its children have a parent.
            let place = Place {
                file: usize::MAX,
                offset: 0,
                bytes: 0,
            };
            self.add(start, &BlockHeader::default(), place);
        }
        if let Some((distance, _)) = self
            .ancestry(start)
            .enumerate()
            .find(|(_, (_, record))| record.hash == genesis)
            && distance as u64 != u64::from(height)
        {
            let actual = u32::try_from(distance).unwrap_or(u32::MAX);
            return Err(Error::StartHeight {
                hash: start,
                given: height,
                actual,
            });
        }

        let links = self.links(start);
        let tip = self.tip(&links, start, height)?;
        let mut steps: Vec<Step> = self
            .ancestry(tip)
            .take_while(|(_, record)| record.hash != start)
            .map(|(_, Record { hash, place, .. })| Step {
                hash: *hash,
                place: *place,
            })
            .collect();
        let mut next_height = height.saturating_add(1);
        if config.after.is_none() {
            steps.extend(self.get(&genesis).map(|(_, r)| Step {
                hash: genesis,
                place: r.place,
            }));
            next_height = 0;
        }
        let tip_height = u32::try_from(steps.len())
            .unwrap_or(u32::MAX)
            .saturating_add(next_height)
            .saturating_sub(1);

        let end = config.to.unwrap_or(tip_height);
        if config.to.is_none_or(|to| to > tip_height) {
            self.check_gap(files, &links, tip, tip_height)?;
        }
        if end > tip_height {
            return Err(Error::EndsEarly {
                height: tip_height,
                hash: tip,
                to: end,
            });
        }
        let excess = usize::try_from(tip_height - end)
            .unwrap_or(usize::MAX)
            .min(steps.len());
        steps.drain(..excess);

        let mut times = VecDeque::new();
        if let Some(after) = &config.after
            && !steps.is_empty()
        {
            let so_far = usize::try_from(height)
                .unwrap_or(usize::MAX)
                .saturating_add(1);
            let needed = so_far.min(MEDIAN_TIME_BLOCKS - 1);
            let in_files = self.ancestry(start).filter(|_| known).take(needed);
            times = in_files.map(|(_, record)| record.time).collect();
            if times.len() < needed {
                times = after
                    .previous_times
                    .iter()
                    .rev()
                    .take(needed)
                    .copied()
                    .collect();
            }
            if times.len() < needed {
                return Err(Error::UnknownTimes {
                    height,
                    needed,
                    found: times.len(),
                });
            }
            times.make_contiguous().reverse();
        }
        let tip = steps
            .first()
            .map_or((height, start), |step| (end, step.hash));
        Ok(Chain {
            steps,
            next_height,
            times,
            tip,
        })
    }

    // Sums the work of every block and its ancestors, in the order of `records`.
    fn links(&self, start: BlockHash) -> Vec<Link> {
        let root = self.ancestry(start).last().map(|(index, _)| index);
        let mut links: Vec<Option<Link>> = vec![None; self.records.len()];
        let mut last_work = (0, U256::ZERO);
        let mut unlinked = Vec::new();
        for record in &self.records {
            let mut below = None;
            for (index, record) in self.ancestry(record.hash) {
                below = links.get(index).copied().flatten();
                if below.is_some() {
                    break;
                }
                unlinked.push((index, record));
            }
            while let Some((index, record)) = unlinked.pop() {
                if last_work.0 != record.bits {
                    last_work = (record.bits, work(record.bits));
                }
                let relation = match below {
                    _ if record.hash == start => Relation::Descends,
                    Some(Link { relation, .. }) => relation,
                    None if Some(index) == root => Relation::Connected,
                    None => Relation::Elsewhere,
                };
                let work = below.map_or(U256::ZERO, |link| link.work);
                below = Some(Link {
                    work: work.saturating_add(&last_work.1),
                    relation,
                });
                if let Some(link) = links.get_mut(index) {
                    *link = below;
                }
            }
        }
        links.into_iter().flatten().collect()
    }

    // The last block of the chain of most work, which must descend from `start`.
    fn tip(&self, links: &[Link], start: BlockHash, height: u32) -> Result<BlockHash, Error> {
        // Of equal chains the first in the files is kept, as nodes do; so the last wins here.
        let best = |wanted: Relation| {
            self.records
                .iter()
                .zip(links)
                .rev()
                .filter(|(_, link)| link.relation == wanted)
                .max_by_key(|(_, link)| link.work)
                .map(|(record, link)| (link.work, record.hash))
        };
        let (most, tip) = best(Relation::Descends).unwrap_or((U256::ZERO, start));
        match best(Relation::Connected) {
            Some((work, tip)) if work > most => {
                let ours: HashMap<_, _> = self
                    .ancestry(start)
                    .zip(0_u32..)
                    .map(|((index, _), up)| (index, up))
                    .collect();
                let (up, fork_hash) = self
                    .ancestry(tip)
                    .find_map(|(index, record)| Some((*ours.get(&index)?, record.hash)))
                    .unwrap_or_default();
                let fork_height = height.saturating_sub(up);
                Err(Error::StaleStart {
                    height,
                    hash: start,
                    tip,
                    fork_height,
                    fork_hash,
                })
            }
            _ => Ok(tip),
        }
    }

    // A block can't be earlier than the median time of any block below it. So one that connects to
    // nothing and is later than the tip's median time may belong above the tip.
    fn check_gap(
        &self,
        files: &[BlockFile],
        links: &[Link],
        tip: BlockHash,
        height: u32,
    ) -> Result<(), Error> {
        let times = self.ancestry(tip).take(MEDIAN_TIME_BLOCKS);
        let median_time = median(
            times
                .map(|(_, record)| record.time)
                .filter(|time| *time > 0),
        );
        let above = self
            .records
            .iter()
            .zip(links)
            .filter(|(record, link)| {
                link.relation == Relation::Elsewhere && record.time > median_time
            })
            .min_by_key(|(record, _)| record.time)
            .and_then(|(record, _)| self.ancestry(record.hash).last());
        let Some((
            _,
            Record {
                previous, place, ..
            },
        )) = above
        else {
            return Ok(());
        };
        Err(Error::Gap {
            height,
            hash: tip,
            missing: *previous,
            file: files
                .get(place.file)
                .map(|file| file.path.clone())
                .unwrap_or_default(),
            offset: place.offset,
        })
    }
}
