//! Replays the fuzz target's corpus, without a fuzzer.

#![allow(clippy::unwrap_used)]

mod checks;

use std::fs;
use std::path::Path;

#[test]
fn segment() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/segment");
    if !corpus.is_dir() {
        eprintln!("SKIPPED: {} is not there", corpus.display());
        return;
    }
    let mut count = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        // Shown if the check fails.
        eprintln!("{}", path.display());
        checks::segment(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{} is empty", corpus.display());
}
