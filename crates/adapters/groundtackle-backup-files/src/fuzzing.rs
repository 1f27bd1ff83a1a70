//! For the fuzz target and the corpus test: what must hold of any bytes that are taken for a listing, or for the segment that
//! says where one is.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use groundtackle_backup::Result;

use crate::chunks::{Cutter, OF_FILES, root_bytes, root_chunks};
use crate::config::Globs;
use crate::error::of;
use crate::record::{
    Attributes, Bytes, ChunkAt, Entry, InOrder, Kind, Piece, What, order, parts, put_pieces,
};
use crate::walk::Walk;

const LISTING: u8 = 0;
const ROOT: u8 = 1;

/// Takes a byte that says what the bytes after it are: entries of a listing, or a root.
pub fn listing(bytes: &[u8]) {
    match bytes.split_first() {
        Some((&LISTING, body)) => entries(body),
        Some((&ROOT, body)) => root(body),
        _ => {}
    }
}

/// There is one form of each entry, it is as long as it is, and what a listing may have is in order and in its place.
fn entries(mut body: &[u8]) {
    let mut in_order = InOrder::default();
    // What was taken, and whether it is a directory.
    let mut taken: Vec<(Vec<u8>, bool)> = Vec::new();
    loop {
        let before = body;
        let Ok(Some((entry, pieces))) = body.entry() else {
            return;
        };
        let own = before.get(..before.len() - body.len()).unwrap();
        assert_eq!(encoded(&entry, &pieces), own);
        for cut in [1, own.len() / 2, own.len() - 1] {
            let mut cut = own.get(..cut).unwrap();
            assert!(cut.entry().is_err(), "{entry:?}");
        }
        let Ok(found) = parts(&entry.path) else {
            continue;
        };
        let found: Vec<_> = found.collect();
        assert_eq!(found.join(&b'/'), entry.path);
        let leads_out = |part: &&[u8]| part.is_empty() || part.contains(&0) || *part == b"..";
        assert!(!found.iter().any(leads_out));
        let is_directory = matches!(entry.what, What::Own(_, Kind::Directory));
        if in_order.next(&entry.path, is_directory).is_err() {
            continue;
        }
        match taken.last() {
            Some((last, _)) => assert!(order(last, &entry.path).is_lt()),
            None => assert!(entry.path.is_empty() && is_directory),
        }
        if let Some((_, within)) = found.split_last() {
            let parent = (within.join(&b'/'), true);
            assert!(taken.contains(&parent), "{entry:?} is in no directory");
            assert_eq!(in_order.depth(), found.len() + usize::from(is_directory));
        }
        taken.push((entry.path, is_directory));
    }
}

fn encoded(entry: &Entry, pieces: &[Piece]) -> Vec<u8> {
    let mut out = entry.canonical();
    match entry.what {
        What::Own(_, Kind::File { .. }) => put_pieces(&mut out, pieces),
        _ => assert!(pieces.is_empty()),
    }
    out
}

fn root(body: &[u8]) {
    let Ok(chunks) = root_chunks(body) else {
        return;
    };
    assert_eq!(root_bytes(&chunks).unwrap(), body);
    let (_, cut) = body.split_last().unwrap();
    assert!(root_chunks(cut).is_err());
    assert!(root_chunks(&[body, &[0]].concat()).is_err());
}

/// The listing of a directory, and the root that leads to it, as [`listing`] takes them. Owners and times are those of no
/// machine, and files all lie in one segment.
///
/// # Errors
/// When the directory can't be read.
pub fn listed(directory: &Path) -> Result<[Vec<u8>; 2]> {
    let path = directory.as_os_str().as_encoded_bytes();
    let opened = File::open(directory).map_err(of("opening", path))?;
    let mut walk = Walk::new(OwnedFd::from(opened), Globs::default());
    let (mut all, mut at) = (vec![LISTING], 0_u32);
    while let Some(mut found) = walk.next()? {
        let path = found.entry.path.clone();
        let mut pieces = Vec::new();
        if let What::Own(attributes, kind) = &mut found.entry.what {
            anonymous(attributes);
            if let (Kind::File { bytes, blake3 }, Some(mut file)) = (kind, found.file) {
                let mut content = Vec::new();
                file.read_to_end(&mut content)
                    .map_err(of("reading", &path))?;
                *bytes = content.len() as u64;
                *blake3 = *blake3::hash(&content).as_bytes();
                pieces = cut(&content, &mut at)?;
            }
        }
        all.extend(encoded(&found.entry, &pieces));
    }
    let chunk = |bytes: usize| ChunkAt {
        number: 0,
        ordinal: 0,
        offset: at,
        bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    };
    let root = root_bytes(&[chunk(all.len().saturating_sub(1))])?;
    Ok([all, [vec![ROOT], root].concat()])
}

fn anonymous(attributes: &mut Attributes) {
    (attributes.uid, attributes.gid) = (1000, 1000);
    attributes.mtime = (1_600_000_000, 123_456_789);
    // Those of a machine's own are left out.
    let kept: BTreeMap<_, _> = attributes.xattrs.drain(..).collect();
    let own = kept
        .into_iter()
        .filter(|(name, _)| name.starts_with(b"user."));
    attributes.xattrs = own.collect();
}

/// Chunks one after the other; what has nothing but zeros is a hole.
fn cut(content: &[u8], at: &mut u32) -> Result<Vec<Piece>> {
    if !content.is_empty() && content.iter().all(|byte| *byte == 0) {
        return Ok(vec![Piece::Hole(content.len() as u64)]);
    }
    let mut pieces = Vec::new();
    let mut keep = |chunk: &[u8]| {
        let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        pieces.push(Piece::Chunk(ChunkAt {
            number: 0,
            ordinal: 0,
            offset: *at,
            bytes,
        }));
        *at = at.saturating_add(bytes);
        Ok(())
    };
    let mut cutter = Cutter::new(OF_FILES);
    cutter.push(content, &mut keep)?;
    cutter.finish(&mut keep)?;
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/listing");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            listing(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }

    /// Each bit of a real listing, and of a root.
    #[test]
    fn a_bit_flipped() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for real in listed(&here).unwrap() {
            listing(&real);
            for bit in 8..real.len() * 8 {
                let mut flipped = real.clone();
                *flipped.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
                listing(&flipped);
            }
        }
    }
}
