//! What the rows of a table of backups are made of.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::BoxError;
use crate::machine::{children_cpu, peak_rss_mib, process_cpu, reset_peak_rss};

/// As much as a backup and what it is made of take in memory and in the page cache.
const TOUCHED_BYTES: usize = 3 << 30;

/// What one of them took.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one.
    pub what: String,
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of all threads and processes.
    pub cpu: f64,
    /// Of the repository, or what was added to it.
    pub bytes: u64,
    /// Ours alone: the others' are their own.
    pub peak_rss_mib: Option<u64>,
}

/// Prints a table; `ours` is what the others are compared with.
pub fn print(title: &str, rows: &[Row], ours: Option<&Row>) {
    println!("\n| {title} | wall s | CPU s | MB | peak RSS MiB | times ours |");
    println!("|---|---|---|---|---|---|");
    for row in rows {
        let rss = row.peak_rss_mib.map_or("-".into(), |mib| mib.to_string());
        let times = ours.map_or("-".into(), |ours| format!("{:.2}", row.wall / ours.wall));
        let megabytes = row.bytes as f64 / 1e6;
        println!(
            "| {} | {:.2} | {:.2} | {megabytes:.1} | {rss} | {times} |",
            row.what, row.wall, row.cpu
        );
    }
}

/// Bytes of all files below.
///
/// # Errors
/// When one of them can't be looked at.
pub fn size(path: &Path) -> Result<u64, BoxError> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}

/// Takes a round's rows in: of each the faster one stays.
pub fn keep_best(rows: &mut Vec<Row>, round: Vec<Row>) {
    for row in round {
        match rows.iter_mut().find(|best| best.what == row.what) {
            Some(best) if row.wall < best.wall => *best = row,
            Some(_) => {}
            None => rows.push(row),
        }
    }
}

/// From a moment on.
#[derive(Debug)]
pub struct Measured {
    wall: Instant,
    cpu: f64,
    children: f64,
}

impl Measured {
    /// Begins, with memory that was touched a moment ago: a virtual machine may get it at the first touch, from a host that
    /// takes seconds for each gigabyte, and gives back what it does not use. Whoever came first would pay for all.
    ///
    /// # Errors
    /// When the system does not say what a process takes.
    pub fn begin() -> Result<Self, BoxError> {
        drop(std::hint::black_box(vec![1_u8; TOUCHED_BYTES]));
        reset_peak_rss()?;
        Ok(Self {
            cpu: process_cpu()?,
            children: children_cpu()?,
            wall: Instant::now(),
        })
    }

    /// Ends.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn end(self, what: &str) -> Result<Row, BoxError> {
        let wall = self.wall.elapsed().as_secs_f64();
        let own = process_cpu()? - self.cpu;
        let children = children_cpu()? - self.children;
        Ok(Row {
            what: what.into(),
            wall,
            cpu: own + children,
            bytes: 0,
            peak_rss_mib: (children <= own).then(peak_rss_mib).transpose()?,
        })
    }
}
