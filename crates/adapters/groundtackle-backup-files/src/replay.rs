//! A restore into nothing: whether a tree comes back, without a place for it.

use std::cell::RefCell;
use std::collections::HashMap;

use groundtackle_backup::{Error, Hex, KeyUnwrapping, Manifest, Repository, Result, TreeSummary};

use crate::error::{damaged, shown};
use crate::record::{Bytes, Entry, InOrder, Kind, Piece, What, parts};
use crate::restore::{Chunks, Listing, with_chunks};
use crate::walk::MAX_DEPTH;

/// What a hole reads as, so many bytes at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Reads all of a tree as a [`restore`](crate::restore) does, and keeps nothing: each file's content is put together, counted
/// and compared with its own digest, each entry is one that could be made in its place, and what came out is counted and
/// digested. What only a file system can refuse, such as an owner or an attribute, shows in no replay.
///
/// **Idempotency**: a read. **Cancel safety**: repeat it. Memory: some segments of 4 MiB, the indexes of what is read, and the
/// paths that hard links lead to.
///
/// # Errors
/// `WrongKey`, `Missing`, `Corrupt`. `Differs` for a file whose content is not what was backed up. Whether the whole is what
/// was signed is for the caller to compare: a [drill](groundtackle_backup::Repository::drill) does.
pub async fn replay(
    repository: &Repository,
    manifest: &Manifest,
    keys: &dyn KeyUnwrapping,
) -> Result<TreeSummary> {
    let reader = repository.open_tree(manifest, keys).await?;
    with_chunks(reader, |chunks| run(&RefCell::new(chunks))).await
}

fn run(chunks: &RefCell<Chunks>) -> Result<TreeSummary> {
    // What links lead to has to come before them.
    let mut linked = HashMap::new();
    let mut listing = Listing::begin(chunks)?;
    while let Some((entry, _)) = listing.entry()? {
        if let What::Link(to) = entry.what {
            linked.insert(to, false);
        }
    }
    let (mut in_order, mut digest) = (InOrder::default(), Box::<blake3::Hasher>::default());
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let mut listing = Listing::begin(chunks)?;
    while let Some((entry, pieces)) = listing.entry()? {
        let path = &*entry.path;
        let _ = parts(path)?;
        let is_directory = matches!(entry.what, What::Own(_, Kind::Directory));
        let placed = in_order.next(path, is_directory);
        placed.map_err(|why| damaged(&format!("{} {why}", shown(path))))?;
        if in_order.depth() > MAX_DEPTH.saturating_add(1) {
            return Err(damaged("its directories are too deep"));
        }
        match &entry.what {
            What::Link(to) if linked.get(to) != Some(&true) => {
                return Err(damaged(&format!(
                    "{} is a link to what is not there before it",
                    shown(path)
                )));
            }
            What::Own(_, Kind::File { bytes: wanted, .. }) => {
                content(chunks, &entry, &pieces)?;
                bytes = bytes.saturating_add(*wanted);
            }
            _ => {}
        }
        if let Some(there) = linked.get_mut(path) {
            *there = !is_directory;
        }
        digest.update(&entry.canonical());
        entries = entries.saturating_add(1);
    }
    if !in_order.has_root() {
        return Err(damaged("it has no root"));
    }
    Ok(TreeSummary {
        entries,
        bytes,
        blake3: Hex(*digest.finalize().as_bytes()),
    })
}

/// Puts a file together.
fn content(chunks: &RefCell<Chunks>, entry: &Entry, pieces: &[Piece]) -> Result<()> {
    let What::Own(_, Kind::File { bytes, blake3 }) = &entry.what else {
        return Ok(());
    };
    let (mut hasher, mut at) = (Box::<blake3::Hasher>::default(), 0_u64);
    for piece in pieces {
        let length = match piece {
            Piece::Hole(length) => *length,
            Piece::Chunk(chunk) => u64::from(chunk.bytes),
        };
        let next = at.checked_add(length).filter(|next| next <= bytes);
        at = next.ok_or_else(|| damaged("pieces longer than their file"))?;
        match piece {
            Piece::Chunk(chunk) => chunks.borrow_mut().with(chunk, |chunk| {
                hasher.update(chunk);
                Ok(())
            })?,
            Piece::Hole(length) => {
                let mut left = *length;
                while left > 0 {
                    chunks.borrow().is_wanted()?;
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
                    hasher.update(ZEROS.get(..now).unwrap_or_default());
                    left = left.saturating_sub(now as u64);
                }
            }
        }
    }
    if at != *bytes {
        return Err(damaged("pieces shorter than their file"));
    }
    let found = *hasher.finalize().as_bytes();
    match found == *blake3 {
        true => Ok(()),
        false => Err(Error::Differs {
            what: "a file of the tree",
            wanted: format!("{}: BLAKE3 {}", shown(&entry.path), Hex(*blake3)),
            found: Hex(found).to_string(),
        }),
    }
}
