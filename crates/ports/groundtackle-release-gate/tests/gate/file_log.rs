//! The log in a file: nothing that was acknowledged is lost, and nothing that was not is in the way.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use groundtackle_release_gate::{Error, FileLog, Head, Retryability, Verified};
use tempfile::TempDir;

use crate::log::{decision_entry, entries, signer};

fn place() -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("gate.log");
    (folder, path)
}

fn head(path: &Path) -> PathBuf {
    path.with_extension("log.head")
}

fn open(path: &Path) -> FileLog {
    FileLog::open(path, signer(), &[]).unwrap().0
}

fn read(path: &Path) -> Verified {
    FileLog::read(path, &[signer().public()]).unwrap()
}

fn append_bytes(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Of one record, as it lies in a file.
fn line() -> Vec<u8> {
    let (_folder, path) = place();
    open(&path).append(decision_entry()).unwrap();
    fs::read(path).unwrap()
}

#[test]
fn what_is_appended_is_read_and_gone_on_with() {
    let (_folder, path) = place();
    let (log, empty) = FileLog::open(&path, signer(), &[]).unwrap();
    assert_eq!((empty.records.len(), empty.head), (0, Head::EMPTY));
    assert_eq!(read(&path).records.len(), 0);
    let all: Vec<_> = entries().into_iter().chain([decision_entry()]).collect();
    for (number, entry) in all.iter().enumerate() {
        let head = log.append(entry.clone()).unwrap();
        assert_eq!(head.records, number as u64 + 1);
        assert_eq!(read(&path).head, head);
    }
    drop(log);
    let (log, verified) = FileLog::open(&path, signer(), &[]).unwrap();
    let found: Vec<_> = verified
        .records
        .into_iter()
        .map(|record| record.entry)
        .collect();
    assert_eq!(found, all);
    log.append(decision_entry()).unwrap();
    assert_eq!(read(&path).records.len(), all.len() + 1);
}

#[test]
fn what_a_crash_left_is_cut_off_or_counts_if_it_is_whole() {
    let (_folder, path) = place();
    let log = open(&path);
    log.append(decision_entry()).unwrap();
    let before = (fs::read(&path).unwrap(), fs::read(head(&path)).unwrap());
    log.append(decision_entry()).unwrap();
    let after = fs::read(&path).unwrap();
    drop(log);
    let line = after.len() - before.0.len();
    for kept in [0, 1, line / 2, line - 1, line] {
        fs::write(&path, &after[..before.0.len() + kept]).unwrap();
        fs::write(head(&path), &before.1).unwrap();
        let whole = 1 + usize::from(kept == line);
        assert_eq!(read(&path).records.len(), whole, "{kept}");
        let (log, verified) = FileLog::open(&path, signer(), &[]).unwrap();
        assert_eq!(verified.records.len(), whole, "{kept}");
        log.append(decision_entry()).unwrap();
        assert_eq!(read(&path).records.len(), whole + 1, "{kept}");
    }
}

#[test]
fn records_that_were_cut_off_are_missed() {
    let (_folder, path) = place();
    let log = open(&path);
    log.append(decision_entry()).unwrap();
    let one = fs::read(&path).unwrap();
    log.append(decision_entry()).unwrap();
    for left in [&[][..], &one] {
        fs::write(&path, left).unwrap();
        for refused in [
            FileLog::read(&path, &[signer().public()]).unwrap_err(),
            FileLog::open(&path, signer(), &[]).unwrap_err(),
            log.append(decision_entry()).unwrap_err(),
        ] {
            assert!(matches!(refused, Error::BrokenLog { .. }), "{refused}");
        }
    }
    assert_eq!(fs::read(&path).unwrap(), one, "it is left as it is");
}

#[test]
fn a_head_that_is_missing_or_somebody_elses_is_refused() {
    let (_folder, path) = place();
    let log = open(&path);
    log.append(decision_entry()).unwrap();
    let head = head(&path);
    let sealed = fs::read(&head).unwrap();
    fs::remove_file(&head).unwrap();
    for refused in [
        FileLog::read(&path, &[signer().public()]).unwrap_err(),
        FileLog::open(&path, signer(), &[]).unwrap_err(),
        log.append(decision_entry()).unwrap_err(),
    ] {
        let said = refused.to_string();
        assert!(
            said.contains("gate.log.head is missing: bring it back"),
            "{said}"
        );
    }
    assert!(!head.exists());
    let (_other, elsewhere) = place();
    let stranger = groundtackle_release_gate::Signer::from_seed(&[8; 32]);
    FileLog::open(&elsewhere, stranger, &[]).unwrap();
    fs::copy(elsewhere.with_extension("log.head"), &head).unwrap();
    let refused = log.append(decision_entry()).unwrap_err();
    assert!(matches!(refused, Error::Untrusted { .. }), "{refused}");
    fs::write(&head, sealed).unwrap();
    assert_eq!(log.append(decision_entry()).unwrap().records, 2);
}

/// Two that have it open take turns, and who reads meanwhile sees no half of an append.
#[test]
fn two_writers_and_a_reader_take_turns() {
    const EACH: usize = 30;
    let (_folder, path) = place();
    let logs = [open(&path), open(&path)];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = logs
            .iter()
            .map(|log| {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        log.append(decision_entry()).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut least = 0;
            while !done.load(Ordering::Relaxed) {
                let seen = read(&path).records.len();
                assert!(seen >= least);
                least = seen;
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(read(&path).records.len(), 2 * EACH);
}

/// After an append of which nobody knows, the next one reads what is there.
#[test]
fn after_a_failure_it_goes_on_with_what_is_on_disk() {
    let (_folder, path) = place();
    let log = open(&path);
    log.append(decision_entry()).unwrap();
    // The head can't be replaced: the record is there, and nobody was told.
    let new = path.with_extension("log.head.new");
    fs::create_dir(&new).unwrap();
    let failed = log.append(decision_entry()).unwrap_err();
    assert_eq!(failed.retryability(), Retryability::Indeterminate);
    fs::remove_dir(&new).unwrap();
    assert_eq!(log.append(decision_entry()).unwrap().records, 3);
    assert_eq!(read(&path).records.len(), 3);
    // Another process' half line.
    append_bytes(&path, &line()[..20]);
    assert_eq!(log.append(decision_entry()).unwrap().records, 4);
    assert_eq!(read(&path).records.len(), 4);
}
