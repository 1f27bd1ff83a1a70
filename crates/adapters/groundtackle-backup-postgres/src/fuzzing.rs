//! For the fuzz target and the corpus test: what must hold of any bytes that a server sends as `backup_manifest`.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::collections::HashMap;

use crate::manifest::{Came, compare};

/// Which files came, a line each: path, tab, length, tab, CRC-32C; after an empty line, the manifest. It is refused, or no file
/// and no byte can be missing, changed or added.
pub fn server_manifest(bytes: &[u8]) {
    let mut came = HashMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = rest.split_at(end);
        rest = after.get(1..).unwrap_or_default();
        if line.is_empty() {
            break;
        }
        let mut parts = line.split(|byte| *byte == b'\t');
        let number = |text: Option<&[u8]>| std::str::from_utf8(text?).ok()?.parse::<u64>().ok();
        let path = parts.next().unwrap_or_default();
        let (Some(bytes), Some(crc32c)) = (number(parts.next()), number(parts.next())) else {
            continue;
        };
        let crc32c = crc32c as u32;
        came.insert(path.to_vec(), Came { bytes, crc32c });
    }
    if compare(rest, &came).is_err() {
        return;
    }
    let extra = Came {
        bytes: 1,
        crc32c: 2,
    };
    let files: Vec<_> = came.keys().cloned().collect();
    for path in files {
        let is_log = path.starts_with(b"pg_wal/");
        let file = came.remove(&path).unwrap();
        assert!(is_log || compare(rest, &came).is_err(), "one less");
        let other = Came {
            bytes: file.bytes,
            crc32c: !file.crc32c,
        };
        came.insert(path.clone(), other);
        assert!(is_log || compare(rest, &came).is_err(), "one changed");
        came.insert(path, file);
    }
    came.insert(b"nobody/listed/it".to_vec(), extra);
    assert!(compare(rest, &came).is_err(), "one more");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/server_manifest");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            server_manifest(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
