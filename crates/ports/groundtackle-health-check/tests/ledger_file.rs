//! A ledger in a file, killed and damaged.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test asserts"
)]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use groundtackle_health_check::{Bucket, Error, FileLedger, LedgerEntry, LedgerStorage, Name};
use proptest::prelude::{ProptestConfig, prop_assert, prop_assert_eq, proptest};

const VICTIM: &str = "GROUNDTACKLE_TEST_LEDGER";

fn entry(minute: u32) -> LedgerEntry {
    let bucket = Bucket {
        good_millis: (minute % 60_000) as u16,
        ..Bucket::default()
    };
    LedgerEntry::Minute {
        objective: Name::try_from("available").unwrap(),
        minute,
        bucket,
    }
}

/// Opens it. A process that another test starts holds what is open here until it has begun, its locks too.
fn open(path: &Path) -> Result<FileLedger, Error> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match FileLedger::open(path) {
            Err(Error::LedgerInUse { .. }) if Instant::now() < until => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

fn all(ledger: &FileLedger) -> Vec<LedgerEntry> {
    let mut all = Vec::new();
    ledger.load(&mut |entry| all.push(entry)).unwrap();
    all
}

fn entries(numbers: impl IntoIterator<Item = u32>) -> Vec<LedgerEntry> {
    numbers.into_iter().map(entry).collect()
}

/// What the next test starts as a process of its own: it appends, says so, and never ends.
#[test]
fn victim() {
    let Ok(path) = env::var(VICTIM) else { return };
    let ledger = FileLedger::open(path).unwrap();
    let mut next = all(&ledger).len() as u32;
    let mut out = std::io::stdout();
    loop {
        ledger.append(&[entry(next)]).unwrap();
        next += 1;
        if next.is_multiple_of(50) {
            ledger.replace(&entries(0..next)).unwrap();
        }
        writeln!(out, "\nacknowledged {next}").unwrap();
        out.flush().unwrap();
    }
}

/// Appends until it is killed; returns how many entries it had acknowledged.
fn append_and_kill(path: &Path, after: u32) -> u32 {
    let mut victim = Command::new(env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut acknowledged = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let first: u32 = acknowledged.next().unwrap();
    let mut last = first;
    while last < first + after {
        last = acknowledged.next().unwrap();
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    acknowledged.last().unwrap_or(last)
}

#[test]
fn what_is_acknowledged_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    for round in 0..12 {
        let acknowledged = append_and_kill(&path, round * 7);
        let ledger = open(&path).unwrap();
        let found = all(&ledger);
        let count = found.len() as u32;
        assert!(
            count == acknowledged || count == acknowledged + 1,
            "{count} of {acknowledged} acknowledged"
        );
        assert_eq!(found, entries(0..count));
    }
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    let ledger = FileLedger::open(&path).unwrap();
    assert!(matches!(
        FileLedger::open(&path),
        Err(Error::LedgerInUse { .. })
    ));
    drop(ledger);
    open(&path).unwrap();
}

#[test]
fn what_is_no_ledger_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger");
    for bytes in [&b""[..], b"notes", b"GTHLDG\x00\x02 of a newer version"] {
        fs::write(&path, bytes).unwrap();
        assert!(
            matches!(open(&path), Err(Error::LedgerDamaged { offset: 0, .. })),
            "{bytes:?}"
        );
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Cut anywhere: what was appended before the cut is there, whole, and more can be appended.
    #[test]
    fn a_torn_tail_is_cut_off(batches in proptest::collection::vec(1..4u32, 1..12), cut in 0.0..1.0f64, zeros in 0..40usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = open(&path).unwrap();
        let head = fs::metadata(&path).unwrap().len();
        let (mut count, mut whole) = (0, vec![(head, 0)]);
        for batch in batches {
            ledger.append(&entries(count..count + batch)).unwrap();
            count += batch;
            whole.push((fs::metadata(&path).unwrap().len(), count));
        }
        drop(ledger);
        let bytes = fs::read(&path).unwrap();
        let cut = head as usize + ((bytes.len() - head as usize) as f64 * cut) as usize;
        let mut torn = bytes[..cut].to_vec();
        torn.extend(std::iter::repeat_n(0, zeros));
        fs::write(&path, &torn).unwrap();
        // A byte that was cut off may have been zero, too.
        let same = torn.iter().zip(&bytes).take_while(|(a, b)| a == b).count() as u64;
        let kept = whole.iter().rev().find(|(end, _)| *end <= same).unwrap().1;
        match open(&path) {
            Ok(ledger) => {
                prop_assert_eq!(all(&ledger), entries(0..kept));
                ledger.append(&entries(kept..kept + 2)).unwrap();
                drop(ledger);
                prop_assert_eq!(all(&open(&path).unwrap()), entries(0..kept + 2));
            }
            Err(Error::LedgerDamaged { .. }) => prop_assert!(zeros > 0, "a cut alone is no damage"),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    /// A bit that flips before the last frame is an error that says where, and nothing is changed.
    #[test]
    fn damage_in_the_middle_is_named(at in 0.0..1.0f64, bit in 0..8u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let ledger = open(&path).unwrap();
        for batch in 0..6 {
            ledger.append(&entries(batch * 3..batch * 3 + 3)).unwrap();
        }
        let before_last = fs::metadata(&path).unwrap().len();
        ledger.append(&entries(18..20)).unwrap();
        drop(ledger);
        let mut bytes = fs::read(&path).unwrap();
        let at = (before_last as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        match open(&path) {
            Err(Error::LedgerDamaged { offset, .. }) => {
                prop_assert!(offset <= at as u64);
                prop_assert_eq!(fs::read(&path).unwrap(), bytes);
            }
            // A length that now reaches beyond the end can't be told from a frame that was being written.
            Ok(ledger) => {
                let found = all(&ledger);
                prop_assert!(found.len() < 20 && found == entries(0..found.len() as u32));
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}
