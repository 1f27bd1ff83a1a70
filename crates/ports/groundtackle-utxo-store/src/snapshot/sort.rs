//! Puts encoded transactions in order with bounded memory: sorted runs in a file, merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::error::SnapshotError;

/// Read ahead of a run.
const MAX_READ_AHEAD: usize = 64 << 10;
const MIN_READ_AHEAD: usize = 4 << 10;

#[derive(Debug)]
pub(super) struct Sorter {
    /// Where to put what memory can't hold.
    folder: PathBuf,
    /// For transactions, in bytes; one more may come.
    memory: usize,
    bytes: Vec<u8>,
    /// Where each transaction in `bytes` begins and ends, and how many coins it has.
    transactions: Vec<(usize, usize, u64)>,
    /// Nameless: it goes with the process.
    spill: Option<File>,
    /// Where each run begins and ends in `spill`.
    runs: Vec<(u64, u64)>,
}

impl Sorter {
    pub(super) const fn new(folder: PathBuf, memory: usize) -> Self {
        Self {
            folder,
            memory,
            bytes: Vec::new(),
            transactions: Vec::new(),
            spill: None,
            runs: Vec::new(),
        }
    }

    /// Adds a transaction, which `encode` appends to the bytes it is given.
    pub(super) fn add(
        &mut self,
        coins: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let start = self.bytes.len();
        encode(&mut self.bytes)?;
        self.transactions.push((start, self.bytes.len(), coins));
        if self.held_bytes() >= self.memory {
            self.spill().map_err(failed(&self.folder))?;
        }
        Ok(())
    }

    /// Gives all transactions in order, with their number of coins.
    pub(super) fn merge(
        mut self,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        if self.spill.is_none() {
            self.sort();
            return self
                .transactions
                .iter()
                .try_for_each(|(start, end, coins)| {
                    each(*coins, self.bytes.get(*start..*end).unwrap_or_default())
                });
        }
        self.spill().map_err(failed(&self.folder))?;
        let Some(file) = self.spill.take() else {
            return Ok(());
        };
        let file = Arc::new(Mutex::new(file));
        let read_ahead = self.memory / self.runs.len().max(1);
        let read_ahead = read_ahead.clamp(MIN_READ_AHEAD, MAX_READ_AHEAD);
        let mut runs: Vec<_> = self
            .runs
            .iter()
            .map(|(next, end)| {
                let (file, next, end) = (Arc::clone(&file), *next, *end);
                BufReader::with_capacity(read_ahead, Run { file, next, end })
            })
            .collect();
        // The first of each run; the number of the run tells where the next one comes from.
        let mut heads = BinaryHeap::new();
        for (number, run) in runs.iter_mut().enumerate() {
            let head = read(run).map_err(failed(&self.folder))?;
            heads.extend(head.map(|(encoded, coins)| Reverse((encoded, coins, number))));
        }
        while let Some(Reverse((encoded, coins, number))) = heads.pop() {
            each(coins, &encoded)?;
            if let Some(run) = runs.get_mut(number) {
                let head = read(run).map_err(failed(&self.folder))?;
                heads.extend(head.map(|(encoded, coins)| Reverse((encoded, coins, number))));
            }
        }
        Ok(())
    }

    pub(super) const fn held_bytes(&self) -> usize {
        self.bytes.len() + size_of_val(self.transactions.as_slice())
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        // Each begins with its identifier.
        self.transactions
            .sort_unstable_by_key(|(start, end, _)| bytes.get(*start..*end).unwrap_or_default());
    }

    /// Writes what memory holds as a run.
    fn spill(&mut self) -> io::Result<()> {
        self.sort();
        let mut file = match self.spill.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.folder)?,
        };
        let begin = file.seek(SeekFrom::End(0))?;
        let mut out = BufWriter::new(&file);
        for (start, end, coins) in self.transactions.drain(..) {
            let encoded = self.bytes.get(start..end).unwrap_or_default();
            out.write_all(&coins.to_le_bytes())?;
            out.write_all(&(encoded.len() as u64).to_le_bytes())?;
            out.write_all(encoded)?;
        }
        out.flush()?;
        drop(out);
        self.bytes.clear();
        self.runs.push((begin, file.stream_position()?));
        self.spill = Some(file);
        Ok(())
    }
}

/// The next transaction of a run.
fn read(run: &mut BufReader<Run>) -> io::Result<Option<(Vec<u8>, u64)>> {
    if run.buffer().is_empty() && run.get_ref().next >= run.get_ref().end {
        return Ok(None);
    }
    let (mut coins, mut length) = ([0; 8], [0; 8]);
    run.read_exact(&mut coins)?;
    run.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut encoded = Vec::new();
    if run.take(length).read_to_end(&mut encoded)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((encoded, u64::from_le_bytes(coins))))
}

/// A part of the file that all runs share.
struct Run {
    file: Arc<Mutex<File>>,
    next: u64,
    end: u64,
}

impl Read for Run {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.next)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.next))?;
        let read = file.read(buffer)?;
        self.next += read as u64;
        Ok(read)
    }
}

fn failed(folder: &std::path::Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let file = folder.to_owned();
    move |source| SnapshotError::Io {
        file,
        doing: "sorting in this folder",
        source,
    }
}
