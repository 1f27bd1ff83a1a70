//! Coins as lines of a table, sorted by way of files.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Lines, Seek, Write};
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::hex::Hex;
use crate::segment::Coin;

/// The first line.
const HEAD: &str = "txid,vout,height,coinbase,value_sat,script_hex";

/// An identifier, then an index with its highest byte first.
pub(crate) type Key = [u8; 36];

pub(crate) fn key(coin: &Coin) -> Key {
    let mut key = [0; 36];
    let bytes = coin.txid.into_iter().chain(coin.vout.to_be_bytes());
    key.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    key
}

/// Lines, each after its key's 72 hexadecimal digits: some in memory, the others in files without a name, sorted.
#[derive(Debug)]
pub(crate) struct Table {
    folder: PathBuf,
    memory_bytes: usize,
    lines: Vec<String>,
    bytes: usize,
    runs: Vec<Lines<BufReader<File>>>,
}

impl Table {
    /// With files in this folder.
    pub(crate) const fn new(folder: PathBuf, memory_bytes: usize) -> Self {
        Self {
            folder,
            memory_bytes,
            lines: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, coin: &Coin) -> Result<()> {
        let (key, txid, coinbase) = (Hex(key(coin)), Hex(coin.txid).reversed(), coin.coinbase);
        let mut line = format!("{key}{txid},{},{},", coin.vout, coin.height);
        // Into a string it can't fail.
        let _ = write!(line, "{},{},", u8::from(coinbase), coin.value_sat);
        let _ = coin
            .script
            .iter()
            .try_for_each(|byte| write!(line, "{byte:02x}"));
        self.bytes = self.bytes.saturating_add(line.capacity());
        self.lines.push(line);
        match self.bytes < self.memory_bytes {
            true => Ok(()),
            false => self.spill().map_err(Error::io(&self.folder)),
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        self.bytes = 0;
        self.lines.sort_unstable();
        let mut run = BufWriter::new(tempfile::tempfile_in(&self.folder)?);
        for line in self.lines.drain(..) {
            writeln!(run, "{line}")?;
        }
        let mut run = run.into_inner()?;
        run.rewind()?;
        self.runs.push(BufReader::new(run).lines());
        Ok(())
    }

    /// Writes all lines in order. How many outputs came twice.
    pub(crate) fn write(mut self, to: &mut impl Write) -> io::Result<u64> {
        self.spill()?;
        writeln!(to, "{HEAD}")?;
        let mut heap = BinaryHeap::new();
        let mut due: Vec<_> = (0..self.runs.len()).collect();
        let (mut before, mut twice) = (String::new(), 0_u64);
        loop {
            for index in due.drain(..) {
                let next = self.runs.get_mut(index).and_then(Iterator::next);
                heap.extend(next.transpose()?.map(|line| Reverse((line, index))));
            }
            let Some(Reverse((line, index))) = heap.pop() else {
                return Ok(twice);
            };
            let (key, text) = line.split_at_checked(72).unwrap_or_default();
            twice = twice.saturating_add((key == before).into());
            writeln!(to, "{text}")?;
            key.clone_into(&mut before);
            due.push(index);
        }
    }
}

#[cfg(test)]
mod tests;
