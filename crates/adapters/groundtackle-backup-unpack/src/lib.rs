#![doc = include_str!("../README.md")]

#[cfg(all(test, target_os = "linux"))]
#[path = "../tests/checks/mod.rs"]
mod checks;
mod error;
#[cfg(all(any(test, fuzzing), target_os = "linux"))]
#[doc(hidden)]
pub mod fuzzing;
mod hex;
mod manifest;
mod muhash;
mod plan;
mod sealed;
mod segment;
mod table;
#[cfg(target_os = "linux")]
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

pub use error::{Error, Result};
pub use hex::Hex;
pub use manifest::{Manifest, Position, SetSummary};
pub use plan::At;
pub use sealed::Identities;

use manifest::{Descriptor, Tombstone, Wrapping};
use muhash::MuHash;
use plan::Step;
use sealed::OpenPoint;
use segment::{Coin, Delta, decode_coins, decode_deltas};
use table::{Key, Table, key};

/// The longest signed object that is read.
const MAX_SIGNED_BYTES: u64 = 64 << 20;

/// Lines that are sorted in memory, in bytes.
const SORTED_BYTES: usize = 256 << 20;

/// The objects of a repository, each in a file whose path within a folder is its key.
#[derive(Debug)]
pub struct Repository {
    folder: PathBuf,
    points: Vec<Manifest>,
    /// Objects of those that are offered no more.
    forgotten: BTreeSet<String>,
    unusable: Vec<Error>,
    passed_over: Vec<Error>,
}

impl Repository {
    /// Reads what is signed, by one of these public keys.
    ///
    /// # Errors
    /// When there is no repository, or somebody else made it. Restore points that can't be used are no error yet: see
    /// [`unusable`](Self::unusable).
    pub fn open(folder: impl Into<PathBuf>, trusted: &[Hex<32>]) -> Result<Self> {
        let folder = folder.into();
        let object = "repository.json";
        let body = signed(&folder, object)?;
        let descriptor: Descriptor = manifest::open(object, &body, "repository", trusted)?;
        let place = folder.join("points");
        let mut objects = Vec::new();
        for entry in fs::read_dir(&place).map_err(Error::io(&place))? {
            let name = entry.map_err(Error::io(&place))?.file_name();
            // No part of a key begins with a dot.
            if !name.as_encoded_bytes().starts_with(b".") {
                objects.push(format!("points/{}", name.to_string_lossy()));
            }
        }
        objects.sort_unstable();
        let (mut points, mut unusable) = (Vec::new(), Vec::new());
        let mut passed_over = Vec::new();
        let mut forgotten = BTreeSet::new();
        for object in objects {
            let tombstone = object.replacen("points", "forgotten", 1);
            if folder.join(&tombstone).try_exists().unwrap_or(true) {
                let body = signed(&folder, &tombstone);
                let body =
                    body.and_then(|body| Tombstone::check(&tombstone, &body, trusted, &descriptor));
                match body {
                    Ok(()) => drop(forgotten.insert(object.clone())),
                    Err(error) => unusable.push(error),
                }
            }
            let body = signed(&folder, &object);
            match body.and_then(|body| Manifest::read(&object, &body, trusted, &descriptor)) {
                Ok(mut manifest) => {
                    for object in wrappings(&folder, &object)? {
                        let body = signed(&folder, &object);
                        let read =
                            |body: Vec<u8>| Wrapping::read(&object, &body, trusted, &descriptor);
                        match body.and_then(read) {
                            Ok(wrapping) => manifest.newer.push(wrapping.key),
                            Err(error) => passed_over.push(error),
                        }
                    }
                    points.push(manifest);
                }
                Err(error) => unusable.push(error),
            }
        }
        Ok(Self {
            folder,
            points,
            forgotten,
            unusable,
            passed_over,
        })
    }

    /// The restore points that can be used, oldest first.
    pub fn points(&self) -> &[Manifest] {
        &self.points
    }

    /// Whether one of them was forgotten: it is not the latest, and is there only as long as others may need it.
    pub fn is_forgotten(&self, point: &Manifest) -> bool {
        self.forgotten.contains(&point.object())
    }

    /// Why others can't be used.
    pub fn unusable(&self) -> &[Error] {
        &self.unusable
    }

    /// Why wrapped keys are not looked at; others may open the same restore points.
    pub fn passed_over(&self) -> &[Error] {
        &self.passed_over
    }

    /// Writes the coins of a set as a table, once their number and MuHash are those that were signed: which block's it is,
    /// and they. `stream` may be left out where there is one.
    ///
    /// **Atomicity**: the file is there as a whole, or not at all; one that is there stays. Memory: what blocks changed
    /// between base and goal, a segment, and 256 MiB; the files without a name beside `out` take twice as much room.
    ///
    /// # Errors
    /// The first thing that is not as it was written. Any restore point that can't be used: what it would have said of
    /// the chain is not known.
    pub fn unpack(
        mut self,
        stream: Option<&str>,
        at: At,
        identities: &Identities,
        out: &Path,
    ) -> Result<(Position, SetSummary)> {
        if let Some(error) = self.unusable.pop() {
            return Err(error);
        }
        let name = stream.or(self.points.first().map(|first| &*first.stream));
        let mut points: Vec<_> = self
            .points
            .iter()
            .filter(|point| name == Some(&*point.stream))
            .collect();
        if stream.is_none() && points.len() < self.points.len() {
            return Err(Error::InvalidRequest(
                "there are several streams: name one".into(),
            ));
        }
        points.retain(|point| point.tree().is_none());
        if out.try_exists().map_err(Error::io(out))? {
            return Err(Error::InvalidRequest(format!(
                "{} is there already",
                out.display()
            )));
        }
        let folder = match out.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let mut offered = points.clone();
        offered.retain(|point| !self.is_forgotten(point));
        // What was forgotten counts where nothing else leads there.
        let found = match plan::find(&offered, &offered, at) {
            Err(Error::Unreachable(_)) => plan::find(&points, &offered, at),
            found => found,
        };
        let (base, steps, (position, set)) = found?;

        let base = OpenPoint::new(&self.folder, base, identities)?;
        let mut changes = Changes::new();
        for step in &steps {
            let point = OpenPoint::new(&self.folder, step.point, identities)?;
            replay(&point, step, &mut changes)?;
        }
        let mut table = Table::new(folder.into(), SORTED_BYTES);
        let (mut muhash, mut coins) = (MuHash::new(), 0_u64);
        let mut take = |coin: &Coin| {
            muhash.insert(coin);
            coins = coins.saturating_add(1);
            table.push(coin)
        };
        for entry in base
            .entries
            .iter()
            .filter(|entry| entry.info.heights.is_none())
        {
            let damaged = |detail| base.damaged(&entry.place, detail);
            let decoded = match &*entry.info.codec {
                "coins.1" => decode_coins(&base.read(entry)?).map_err(damaged)?,
                _ => return Err(damaged("its codec is unknown")),
            };
            if decoded.len() as u64 != entry.info.items {
                return Err(damaged("it has other coins than it says"));
            }
            let rest = decoded
                .iter()
                .filter(|coin| !changes.contains_key(&key(coin)));
            rest.into_iter().try_for_each(&mut take)?;
        }
        changes.values().flatten().try_for_each(take)?;
        differs("the number of coins", set.coins, coins)?;
        differs(
            "the MuHash of the set",
            set.muhash.reversed(),
            muhash.digest().reversed(),
        )?;

        let file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
        let mut writer = BufWriter::new(file);
        let twice = table.write(&mut writer).map_err(Error::io(out))?;
        differs("the number of outputs that came twice", 0, twice)?;
        let file = writer.into_inner().map_err(|error| error.into_error());
        file.and_then(|file| file.as_file().sync_all().map(|()| file))
            .and_then(|file| file.persist_noclobber(out).map_err(|error| error.error))
            .and_then(|_| sync_folder(folder))
            .map_err(Error::io(out))?;
        Ok((position, set))
    }
}

#[cfg(target_os = "linux")]
impl Repository {
    /// Writes a tree of files into a new directory: the one made last, or that of a restore point. `stream` may be left out
    /// where there is one of trees. How many entries, and how many bytes of files.
    ///
    /// **Atomicity**: the directory is there as a whole, or not at all; what was not finished lies beside it, in one whose
    /// name ends in `.unfinished`. Contents are read back and compared; attributes are set. Memory: the listing, and some
    /// segments.
    ///
    /// # Errors
    /// The first thing that is not as it was written, or that may not be set. Any restore point that can't be used, unless
    /// one is named.
    pub fn unpack_tree(
        mut self,
        stream: Option<&str>,
        point: Option<&Hex<16>>,
        identities: &Identities,
        out: &Path,
    ) -> Result<(u64, u64)> {
        if let (Some(error), None) = (self.unusable.pop(), point) {
            return Err(error);
        }
        let all = self.points.iter();
        let trees = all.filter(|point| stream.is_none_or(|stream| point.stream == stream));
        let trees: Vec<_> = trees.filter(|point| point.tree().is_some()).collect();
        let other =
            |other: &&&Manifest| trees.first().map(|first| &first.stream) != Some(&other.stream);
        if point.is_none() && trees.iter().any(|tree| other(&tree)) {
            return Err(Error::InvalidRequest(
                "there are several streams: name one".into(),
            ));
        }
        let found = match point {
            Some(name) => trees.iter().find(|tree| tree.point == *name),
            None => {
                let offered = trees.iter().filter(|tree| !self.is_forgotten(tree));
                offered.max_by_key(|tree| tree.created_unix_millis)
            }
        };
        let found = found.and_then(|manifest| Some((*manifest, manifest.tree()?)));
        let (manifest, content) =
            found.ok_or_else(|| Error::Unreachable("there is no such tree of files".into()))?;
        let own = OpenPoint::new(&self.folder, manifest, identities)?;
        let mut points = BTreeMap::from([(content.number, own)]);
        for used in content.uses {
            let object = used.object();
            let other = self.points.iter().find(|other| other.object() == object);
            let other = other.ok_or(Error::Missing(object))?;
            let opened = OpenPoint::new(&self.folder, other, identities)?;
            points.insert(used.number, opened);
        }
        if fs::symlink_metadata(out).is_ok() {
            return Err(Error::InvalidRequest(format!(
                "{} is there already",
                out.display()
            )));
        }
        let mut unfinished = out.as_os_str().to_owned();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        fs::create_dir(&unfinished).map_err(Error::io(&unfinished))?;
        let sums = (content.entries, content.bytes);
        tree::Tree::new(points, content.number).write(&unfinished, content.blake3, sums)?;
        let folder = match out.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let synced = File::open(&unfinished).and_then(|root| Ok(rustix::fs::syncfs(root)?));
        synced
            .and_then(|()| fs::rename(&unfinished, out))
            .and_then(|()| sync_folder(folder))
            .map_err(Error::io(out))?;
        Ok(sums)
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
const fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

fn differs<T: PartialEq + ToString>(what: &'static str, wanted: T, found: T) -> Result<()> {
    match wanted == found {
        true => Ok(()),
        false => Err(Error::Differs(what, wanted.to_string(), found.to_string())),
    }
}

/// The objects that may have a restore point's key wrapped anew, the newest first.
fn wrappings(folder: &Path, point: &str) -> Result<Vec<String>> {
    let place = point.replacen("points", "keys", 1);
    let path = folder.join(&place);
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(&path))?,
    };
    let mut objects = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::io(&path))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            objects.push(format!("{place}/{}", name.to_string_lossy()));
        }
    }
    objects.sort_unstable_by(|a, b| b.cmp(a));
    Ok(objects)
}

/// A signed object, all of it.
fn signed(folder: &Path, object: &str) -> Result<Vec<u8>> {
    let path = folder.join(object);
    let file = File::open(&path).map_err(Error::of_object(object, &path))?;
    let mut body = Vec::new();
    let mut file = file.take(MAX_SIGNED_BYTES.saturating_add(1));
    file.read_to_end(&mut body).map_err(Error::io(&path))?;
    Error::unless(
        body.len() as u64 <= MAX_SIGNED_BYTES,
        object,
        "it is too long",
    )?;
    Ok(body)
}

/// What became of each output that a block on the way has changed: gone, or this coin. What a base says of it does not
/// count: it may have been read before or after.
type Changes = BTreeMap<Key, Option<Coin>>;

fn replay(point: &OpenPoint<'_>, step: &Step<'_>, changes: &mut Changes) -> Result<()> {
    let heights = step.blocks.iter().map(|block| block.position.height);
    let (Some(lowest), Some(highest)) = (heights.clone().min(), heights.max()) else {
        return Ok(());
    };
    let touches = |(first, last)| first <= highest && last >= lowest;
    let touched = point
        .entries
        .iter()
        .filter(|entry| entry.info.heights.is_some_and(touches));
    let mut entries: Vec<_> = touched.collect();
    if step.backwards {
        entries.reverse();
    }
    let mut blocks = step.blocks.iter();
    let mut parts: Vec<Delta> = Vec::new();
    for entry in entries {
        let damaged = |detail| point.damaged(&entry.place, detail);
        let mut deltas = match &*entry.info.codec {
            "deltas.1" => decode_deltas(&point.read(entry)?).map_err(damaged)?,
            _ => return Err(damaged("its codec is unknown")),
        };
        let coins = deltas
            .iter()
            .flat_map(|delta| delta.created.iter().chain(&delta.spent));
        if coins.count() as u64 != entry.info.items {
            return Err(damaged("it has other coins than it says"));
        }
        if step.backwards {
            deltas.reverse();
        }
        deltas.retain(|delta| (lowest..=highest).contains(&delta.height));
        for delta in deltas {
            let whole = if step.backwards {
                delta.part == 0
            } else {
                delta.last
            };
            parts.push(delta);
            if !whole {
                continue;
            }
            if step.backwards {
                parts.reverse();
            }
            let block = blocks
                .next()
                .ok_or_else(|| damaged("it has a block too many"))?;
            let at = &block.position;
            let fits = |(number, part): (u32, &Delta)| {
                part.part == number
                    && (part.hash, part.previous) == (at.hash.0, block.previous.0)
                    && (part.height, part.median_time_past) == (at.height, at.median_time_past)
            };
            let lasts: Vec<_> = parts.iter().rev().map(|part| part.last).collect();
            let ends = lasts.first() == Some(&true) && !lasts.iter().skip(1).any(|last| *last);
            if !ends || !(0..).zip(&parts).all(fits) {
                return Err(damaged("it has other blocks than the manifest says"));
            }
            apply(std::mem::take(&mut parts), step.backwards, changes);
        }
    }
    let whole = blocks.next().is_none() && parts.is_empty();
    Error::unless(
        whole,
        &step.point.object(),
        "it lacks changes that it lists",
    )
}

/// All parts of a block: first what goes, then what comes.
fn apply(parts: Vec<Delta>, backwards: bool, changes: &mut Changes) {
    let (mut gone, mut come) = (Vec::new(), Vec::new());
    for part in parts {
        gone.extend(part.spent);
        come.extend(part.created);
    }
    if backwards {
        std::mem::swap(&mut gone, &mut come);
    }
    changes.extend(gone.iter().map(|coin| (key(coin), None)));
    changes.extend(come.into_iter().map(|coin| (key(&coin), Some(coin))));
}
