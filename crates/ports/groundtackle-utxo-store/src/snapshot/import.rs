//! A file's set into a store.

use std::fs::File;
use std::path::{Path, PathBuf};

use groundtackle_chain::{BlockHash, Network, OutPoint};

use super::error::SnapshotError;
use super::export::{failed, in_file};
use super::format::{SnapshotHeader, SnapshotReader};
use super::known::KnownSnapshot;
use super::{SnapshotProgress, SnapshotStep, blocking};
use crate::digest::{HashSerialized3, coin_element};
use crate::ext::MuHashWorkers;
use crate::load::{self, Filling, PAGE_COINS};
use crate::store::UtxoStore;
use crate::types::{Coin, Tip};

type Result<T, E = SnapshotError> = std::result::Result<T, E>;

/// The digest that a file's set must have, internal order: Bitcoin Core displays it reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedDigest {
    /// `gettxoutsetinfo muhash`.
    Muhash([u8; 32]),
    /// `gettxoutsetinfo hash_serialized_3`, and `txoutset_hash` of `dumptxoutset`. Only for files with their
    /// transactions in order, as Bitcoin Core writes them.
    HashSerialized3([u8; 32]),
}

/// What a snapshot must be, and what it can't say of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// The network. Default: main net.
    pub network: Network,
    /// The digest. Default: what Bitcoin Core has built in for the file's block
    /// ([`KNOWN_SNAPSHOTS`](super::KNOWN_SNAPSHOTS)); without that there is no import.
    pub expected: Option<ExpectedDigest>,
    /// The block. No digest covers the one that the file names. Default: whatever the file names.
    pub block: Option<BlockHash>,
    /// The block's height, which is not in the file. Default: what is built in for the block, otherwise the
    /// highest coin's: the block's own coinbase is among the coins, since none can spend it yet. So it is needed
    /// only where that coinbase pays nobody.
    pub height: Option<u32>,
    /// For [`Tip::median_time_past`], in seconds since 1970, which is not in the file either. Default: 0; the
    /// first block connected brings its own.
    pub median_time_past: u32,
}

impl ImportOptions {
    /// For a snapshot of this network.
    pub fn new(network: Network) -> Self {
        Self {
            network,
            ..Self::default()
        }
    }
}

/// What [`import_snapshot`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// The block the set belongs to.
    pub tip: Tip,
    /// Coins in the set.
    pub coins: u64,
    /// Of these, how many an earlier, unfinished import had brought already.
    pub coins_before: u64,
    /// Transactions that the coins are of.
    pub transactions: u64,
    /// The digest of the set, computed over the file and over what a scan of the store finds; internal order.
    pub muhash: [u8; 32],
    /// The digest of the file's set, internal order; `None` where its transactions are not in order.
    pub hash_serialized_3: Option<[u8; 32]>,
}

/// A snapshot file whose header is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    path: PathBuf,
    header: SnapshotHeader,
    expected: ExpectedDigest,
    height: Option<u32>,
    median_time_past: u32,
}

impl SnapshotFile {
    /// Reads a file's header, and finds out what its set must be.
    ///
    /// # Errors
    /// When the file could not be read, is no snapshot, is of another network or block than asked for, or
    /// when there is no digest to compare it with.
    pub async fn open(path: &Path, options: &ImportOptions) -> Result<Self> {
        let (path, options) = (path.to_owned(), *options);
        blocking(move || Self::open_now(path, &options)).await
    }

    fn open_now(path: PathBuf, options: &ImportOptions) -> Result<Self> {
        let header = *reader(&path)?.header();
        let SnapshotHeader { block, .. } = header;
        let network = options.network;
        if let Some(found) = header.network.filter(|found| *found != network) {
            return Err(SnapshotError::WrongNetwork {
                file: path,
                wanted: network,
                found,
            });
        }
        // All blocks did at least this work; what is no snapshot mostly did not.
        if network
            .check_proof_of_work(&block, network.pow_limit_bits())
            .is_err()
        {
            return Err(SnapshotError::NotASnapshot {
                file: path,
                network,
                block,
            });
        }
        if let Some(wanted) = options.block.filter(|wanted| *wanted != block) {
            return Err(SnapshotError::WrongBlock {
                file: path,
                wanted,
                found: block,
            });
        }
        let known = KnownSnapshot::find(network, &block);
        let known_height = match block == network.genesis_hash() {
            true => Some(0),
            false => known.map(|known| known.height),
        };
        if let (Some(given), Some(height)) = (options.height, known_height)
            && given != height
        {
            return Err(SnapshotError::WrongHeight {
                block,
                given,
                because: format!("it is known to be at {height}"),
            });
        }
        let built_in = known.map(|known| ExpectedDigest::HashSerialized3(known.hash_serialized_3));
        let expected = options.expected.or(built_in);
        Ok(Self {
            path,
            header,
            expected: expected.ok_or(SnapshotError::NoDigest { block, network })?,
            height: known_height.or(options.height),
            median_time_past: options.median_time_past,
        })
    }

    /// What the file says of itself.
    pub const fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// The base block's height, once all coins are read.
    fn height(&self, highest: Option<(u32, OutPoint)>) -> Result<u32> {
        let block = self.header.block;
        match (self.height, highest) {
            (Some(given), Some((height, outpoint))) if given < height => {
                Err(SnapshotError::WrongHeight {
                    block,
                    given,
                    because: format!("the file has coin {outpoint} of height {height}"),
                })
            }
            (Some(height), _) | (None, Some((height, _))) => Ok(height),
            (None, None) => Err(SnapshotError::UnknownHeight { block }),
        }
    }

    fn compare(&self, checked: &Checked) -> Result<()> {
        let (digest, wanted, found) = match self.expected {
            ExpectedDigest::Muhash(wanted) => ("muhash", wanted, checked.muhash),
            ExpectedDigest::HashSerialized3(wanted) => {
                let found = checked
                    .hash_serialized_3
                    .ok_or_else(|| SnapshotError::NotInOrder {
                        file: self.path.clone(),
                    })?;
                ("hash_serialized_3", wanted, found)
            }
        };
        if wanted == found {
            return Ok(());
        }
        // Digests print reversed, as hashes do.
        let shown = |digest| BlockHash::from_bytes(digest).to_string();
        Err(SnapshotError::WrongDigest {
            file: self.path.clone(),
            digest,
            wanted: shown(wanted),
            found: shown(found),
        })
    }
}

/// Fills a store that is empty, or that an unfinished import of the same set left, with the set of a file.
/// `progress` is told how far it is.
///
/// The file is read twice. First every coin is checked and the digest is compared: a file that is damaged or
/// not what was expected leaves the store as it was. Then the store is marked as unfinished
/// ([`unfinished_copy`](crate::unfinished_copy)) and filled, and has no tip until a scan of it has the digest of
/// the file. As after a copy, blocks at or below the tip can't be disconnected.
///
/// **Atomicity**: none; what is there of it is marked. **Idempotency**, **cancel safety**: repeat it; records
/// that are there are not written again. Memory: a few thousand coins for each core, and those of one
/// transaction. Must run inside a tokio runtime.
///
/// # Errors
/// When the file could not be read or is not what it must be, and when the store could not answer. `Store` with
/// `InvalidRequest` for a store that holds something else, with `Corrupt` where its digest differs at the end:
/// it stays marked. A file that has the coins of one transaction in several places ends so: that alone is not
/// noticed before.
pub async fn import_snapshot(
    file: &SnapshotFile,
    to: &dyn UtxoStore,
    mut progress: impl FnMut(SnapshotProgress) + Send,
) -> Result<Imported> {
    let hash = file.header.block;
    load::begun(to, Filling::Import, &hash, file.height).await?;
    let checked = check(&file.path, &mut progress).await?;
    let height = file.height(checked.highest)?;
    file.compare(&checked)?;

    let tip = Tip {
        height,
        hash,
        median_time_past: file.median_time_past,
    };
    let coins_before = load_checked(file, to, &tip, &checked, &mut progress)
        .await
        .map_err(SnapshotError::after_effect)?;
    Ok(Imported {
        tip,
        coins: checked.coins,
        coins_before,
        transactions: checked.transactions,
        muhash: checked.muhash,
        hash_serialized_3: checked.hash_serialized_3,
    })
}

/// Writes what was checked. How many coins were there.
async fn load_checked(
    file: &SnapshotFile,
    to: &dyn UtxoStore,
    tip: &Tip,
    checked: &Checked,
    progress: &mut (impl FnMut(SnapshotProgress) + Send),
) -> Result<u64> {
    load::begin(to, Filling::Import, tip).await?;
    let (mut coins, mut coins_before) = (0, 0);
    let mut pages = Pages::open(&file.path).await?;
    while let Some(page) = pages.next().await? {
        coins_before += load::write(to, &page).await?;
        coins += page.len() as u64;
        progress(SnapshotProgress {
            step: SnapshotStep::Load,
            coins,
            total: Some(checked.coins),
        });
    }
    let hint = match checked.hash_serialized_3 {
        Some(_) => "",
        None => {
            "; the file's transactions are not in order, and where the coins of one are in several places, only the \
             first are loaded: take another file"
        }
    };
    load::finish(to, tip, checked.coins, &checked.muhash, hint).await?;
    Ok(coins_before)
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) coins: u64,
    pub(super) transactions: u64,
    pub(super) bytes: u64,
    pub(super) muhash: [u8; 32],
    /// `None` where the transactions are not in order.
    pub(super) hash_serialized_3: Option<[u8; 32]>,
    highest: Option<(u32, OutPoint)>,
}

/// Reads a whole file.
pub(super) async fn check(
    path: &Path,
    progress: &mut (impl FnMut(SnapshotProgress) + Send),
) -> Result<Checked> {
    let mut pages = Pages::open(path).await?;
    let total = Some(pages.coins_promised);
    let mut coins = 0;
    let mut muhash = MuHashWorkers::new();
    while let Some(page) = pages.next().await? {
        coins += page.len() as u64;
        muhash.add(page).await?;
        progress(SnapshotProgress {
            step: SnapshotStep::Check,
            coins,
            total,
        });
    }
    let seen = pages.seen;
    Ok(Checked {
        coins,
        transactions: seen.transactions,
        bytes: seen.bytes,
        muhash: muhash.finish().await?.digest(),
        hash_serialized_3: seen.serialized.map(HashSerialized3::finish),
        highest: seen.highest,
    })
}

/// A file's coins, some thousand at a time, each transaction whole.
struct Pages {
    path: PathBuf,
    coins_promised: u64,
    /// `None` while a thread has it.
    reader: Option<SnapshotReader<File>>,
    seen: Seen,
}

/// What was seen of a file so far.
#[derive(Clone, Debug)]
struct Seen {
    transactions: u64,
    bytes: u64,
    serialized: Option<HashSerialized3>,
    highest: Option<(u32, OutPoint)>,
}

impl Pages {
    async fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        blocking(move || {
            let reader = reader(&path)?;
            Ok(Self {
                path,
                coins_promised: reader.header().coins,
                reader: Some(reader),
                seen: Seen {
                    transactions: 0,
                    bytes: 0,
                    serialized: Some(HashSerialized3::new()),
                    highest: None,
                },
            })
        })
        .await
    }

    /// `None` at the end, and after an error.
    async fn next(&mut self) -> Result<Option<Vec<Coin>>> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(None);
        };
        let (path, mut seen) = (self.path.clone(), self.seen.clone());
        let (page, reader, seen) = blocking(move || {
            let mut page = Vec::new();
            while page.len() < PAGE_COINS {
                match reader.next_transaction().map_err(in_file(&path))? {
                    Some(coins) => {
                        seen.add(&coins);
                        page.extend(coins);
                    }
                    None => break,
                }
            }
            seen.bytes = reader.position();
            Ok((page, reader, seen))
        })
        .await?;
        self.reader = Some(reader);
        self.seen = seen;
        Ok((!page.is_empty()).then_some(page))
    }
}

impl Seen {
    fn add(&mut self, coins: &[Coin]) {
        self.transactions += 1;
        let Some(first) = coins.first() else { return };
        // All coins of a transaction have one height.
        if self.highest.is_none_or(|(height, _)| first.height > height) {
            self.highest = Some((first.height, first.outpoint));
        }
        if let Some(serialized) = &mut self.serialized
            && coins
                .iter()
                .any(|coin| serialized.update(&coin_element(coin)).is_err())
        {
            self.serialized = None;
        }
    }
}

fn reader(path: &Path) -> Result<SnapshotReader<File>> {
    let file = File::open(path).map_err(failed(path, "opening the file"))?;
    SnapshotReader::new(file).map_err(in_file(path))
}
