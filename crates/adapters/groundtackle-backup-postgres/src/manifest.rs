//! The server's own list of what its backup has: `backup_manifest`, versions 1 and 2 of the
//! [format](https://www.postgresql.org/docs/current/backup-manifest-format.html).

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use groundtackle_backup::Result;
use serde::Deserialize;

use crate::error::incomplete;

/// Its name in the tree.
pub(crate) const NAME: &[u8] = b"backup_manifest";

/// The longest one that is read, in bytes: of a million files.
pub(crate) const MAX_BYTES: u64 = 256 << 20;

/// What came of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Came {
    pub(crate) bytes: u64,
    pub(crate) crc32c: u32,
}

/// Where the server's log of changes is, which its list does not name.
const WAL: &[u8] = b"pg_wal/";

#[derive(Deserialize)]
struct Manifest<'a> {
    #[serde(rename = "PostgreSQL-Backup-Manifest-Version")]
    version: u32,
    #[serde(rename = "Files", borrow)]
    files: Vec<Listed<'a>>,
    #[serde(rename = "WAL-Ranges")]
    wal: Vec<Range>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(rename = "Path", borrow, default)]
    path: Option<Cow<'a, str>>,
    /// Hexadecimal, of a name that is no UTF-8.
    #[serde(rename = "Encoded-Path", borrow, default)]
    encoded: Option<Cow<'a, str>>,
    #[serde(rename = "Size")]
    bytes: u64,
    #[serde(rename = "Checksum-Algorithm", borrow, default)]
    algorithm: Option<Cow<'a, str>>,
    #[serde(rename = "Checksum", borrow, default)]
    checksum: Option<Cow<'a, str>>,
}

/// The changes that a server must apply before the files are a database.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Range {
    timeline: u32,
    #[serde(rename = "Start-LSN")]
    start: String,
    #[serde(rename = "End-LSN")]
    end: String,
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2)?;
        // A sign would be taken too.
        let pair = pair
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit())
            .then_some(pair)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

/// `16/B374D848` as one number.
fn position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text| u32::from_str_radix(text, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

/// Compares the server's list with what came: each file with its length and CRC-32C, nothing more, and all of the log of
/// changes that they need.
pub(crate) fn compare(manifest: &[u8], came: &HashMap<Vec<u8>, Came>) -> Result<()> {
    let unread = |_| incomplete("backup_manifest is not in the form of version 1 or 2");
    let manifest: Manifest<'_> = serde_json::from_slice(manifest).map_err(unread)?;
    if !matches!(manifest.version, 1 | 2) {
        return Err(incomplete(format!(
            "backup_manifest has version {}, and this program reads 1 and 2: use a newer one",
            manifest.version
        )));
    }
    let mut seen = HashSet::new();
    let mut logs = came.keys().filter(|path| path.starts_with(WAL)).count();
    for listed in &manifest.files {
        let path = match (&listed.path, &listed.encoded) {
            (Some(path), None) => Some(path.as_bytes().to_vec()),
            (None, Some(encoded)) => from_hex(encoded),
            _ => None,
        };
        let path = path.ok_or_else(|| incomplete("backup_manifest has a file without a path"))?;
        let shown = || String::from_utf8_lossy(&path).escape_debug().to_string();
        let found = came.get(&path);
        let found = found.ok_or_else(|| {
            incomplete(format!(
                "{}, which the server listed, did not come",
                shown()
            ))
        })?;
        if found.bytes != listed.bytes {
            return Err(incomplete(format!(
                "{} has {} bytes, and the server listed {}",
                shown(),
                found.bytes,
                listed.bytes
            )));
        }
        let sum = match listed.algorithm.as_deref() {
            Some("CRC32C") => listed.checksum.as_deref().and_then(from_hex),
            _ => None,
        };
        let sum = sum
            .ok_or_else(|| incomplete(format!("{} has no CRC-32C in backup_manifest", shown())))?;
        // Written as the server's memory has it: little-endian where PostgreSQL runs today.
        if sum != found.crc32c.to_le_bytes() {
            return Err(incomplete(format!(
                "{} has another CRC-32C than the server listed: it was damaged on the way",
                shown()
            )));
        }
        // One that counted twice would make up for one that was not listed.
        if !seen.insert(path.clone()) {
            return Err(incomplete(format!(
                "backup_manifest lists {} twice",
                shown()
            )));
        }
        // Whether a segment was archived is said by an empty file, which is listed.
        logs = logs.saturating_sub(usize::from(path.starts_with(WAL)));
    }
    let left = came.len().saturating_sub(seen.len());
    if left != logs {
        return Err(incomplete(format!(
            "{} files came that the server did not list",
            left.abs_diff(logs)
        )));
    }
    if manifest.wal.is_empty() {
        return Err(incomplete("backup_manifest names no write-ahead log"));
    }
    manifest
        .wal
        .iter()
        .try_for_each(|range| has_log(range, came))
}

/// Whether all segments of a range are there. They are of one length, a power of two, each.
fn has_log(range: &Range, came: &HashMap<Vec<u8>, Came>) -> Result<()> {
    let is_segment = |name: &[u8]| name.len() == 24 && name.iter().all(u8::is_ascii_hexdigit);
    let mut segments = came.iter().filter_map(|(path, came)| {
        let name = path.strip_prefix(WAL)?;
        is_segment(name).then_some(came.bytes)
    });
    let length = segments.next().filter(|length| length.is_power_of_two());
    let length = length.ok_or_else(|| incomplete("no segment of the write-ahead log came"))?;
    let ends = position(&range.start).zip(position(&range.end));
    let (start, end) = ends
        .filter(|(start, end)| start < end)
        .ok_or_else(|| incomplete("backup_manifest has a range of the log that is none"))?;
    let last = end.saturating_sub(1) / length;
    let in_one = (1_u64 << 32) / length;
    for segment in start / length..=last {
        let (high, low) = (
            segment.checked_div(in_one).unwrap_or_default(),
            segment.checked_rem(in_one).unwrap_or_default(),
        );
        let name = format!("{:08X}{high:08X}{low:08X}", range.timeline);
        let path = [WAL, name.as_bytes()].concat();
        if came.get(&path).map(|came| came.bytes) != Some(length) {
            return Err(incomplete(format!(
                "segment {name} of the write-ahead log, which the backup needs, did not come whole"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]
mod tests {
    use super::*;

    const MANIFEST: &str = r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "PG_VERSION", "Size": 3, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "64b25f2c" },
{ "Path": "pg_wal/archive_status/a.done", "Size": 0, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" },
{ "Encoded-Path": "ff2f61", "Size": 0, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/FF000028", "End-LSN": "1/1000100" }
],
"Manifest-Checksum": "00"}
"#;

    fn came() -> HashMap<Vec<u8>, Came> {
        let segment = Came {
            bytes: 16 << 20,
            crc32c: 7,
        };
        let crc32c = u32::from_le_bytes([0x64, 0xb2, 0x5f, 0x2c]);
        [
            (&b"PG_VERSION"[..], Came { bytes: 3, crc32c }),
            (
                b"\xff/a",
                Came {
                    bytes: 0,
                    crc32c: 0,
                },
            ),
            (
                b"pg_wal/archive_status/a.done",
                Came {
                    bytes: 0,
                    crc32c: 0,
                },
            ),
            (b"pg_wal/0000000100000000000000FF", segment),
            (b"pg_wal/000000010000000100000000", segment),
            (b"pg_wal/000000010000000100000001", segment),
        ]
        .map(|(path, came)| (path.to_vec(), came))
        .into()
    }

    #[test]
    fn what_came_is_what_was_listed() {
        compare(MANIFEST.as_bytes(), &came()).unwrap();
    }

    #[test]
    fn every_difference_is_found() {
        type Change = fn(&mut HashMap<Vec<u8>, Came>);
        let changes: [(Change, &str); 7] = [
            (
                |came| {
                    came.remove(&b"PG_VERSION"[..]);
                },
                "did not come",
            ),
            (
                |came| came.get_mut(&b"PG_VERSION"[..]).unwrap().bytes = 2,
                "2 bytes, and the server listed 3",
            ),
            (
                |came| came.get_mut(&b"PG_VERSION"[..]).unwrap().crc32c = 2,
                "damaged on the way",
            ),
            (
                |came| {
                    let empty = Came {
                        bytes: 0,
                        crc32c: 0,
                    };
                    came.insert(b"more".to_vec(), empty);
                },
                "1 files came that",
            ),
            (
                |came| {
                    came.remove(&b"pg_wal/000000010000000100000000"[..]);
                },
                "segment 000000010000000100000000",
            ),
            (
                |came| {
                    came.get_mut(&b"pg_wal/000000010000000100000001"[..])
                        .unwrap()
                        .bytes = 1 << 20
                },
                "did not come whole",
            ),
            (
                |came| came.retain(|path, _| !path.starts_with(b"pg_wal/0")),
                "no segment",
            ),
        ];
        for (change, says) in changes {
            let mut came = came();
            change(&mut came);
            let error = compare(MANIFEST.as_bytes(), &came).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_no_manifest_is_refused() {
        const OTHER: &str = r#"{ "Encoded-Path": "ff2f61", "Size": 0, "Last-Modified": "2026-01-01 00:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "00000000" }"#;
        // In the place of a file that came, so that the numbers of files are the same.
        let version = MANIFEST.lines().nth(2).unwrap();
        let listed_twice = version.trim_end_matches(',');
        for (from, to) in [
            ("\"Files\"", "\"Other\""),
            ("Version\": 1", "Version\": 3"),
            ("ff2f61", "ff2f6"),
            ("\"00000000\"", "\"+0000000\""),
            ("CRC32C", "SHA256"),
            ("0/FF000028", "0-FF000028"),
            ("0/FF000028", "2/FF000028"),
            ("\"Path\": \"PG_VERSION\", ", ""),
            (OTHER, listed_twice),
            ("],\n\"Manifest", "\n\"Manifest"),
        ] {
            let text = MANIFEST.replace(from, to);
            assert_ne!(text, MANIFEST, "{from}");
            assert!(compare(text.as_bytes(), &came()).is_err(), "{from}");
        }
        for end in 0..MANIFEST.len() - 2 {
            assert!(compare(&MANIFEST.as_bytes()[..end], &came()).is_err());
        }
    }
}
