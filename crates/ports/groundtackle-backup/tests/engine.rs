//! Restore points of sets of numbers, whose digest is their sum: what the engine promises whatever the set is.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

#[path = "engine/damage.rs"]
mod damage;
#[path = "engine/interleaved.rs"]
mod interleaved;
#[path = "engine/kept.rs"]
mod kept;
#[path = "engine/lease.rs"]
mod lease;
#[path = "engine/prune.rs"]
mod prune;
#[path = "engine/rekey.rs"]
mod rekey;
#[path = "engine/retention.rs"]
mod retention;
#[path = "engine/roll_up.rs"]
mod roll_up;
#[path = "engine/tree_drills.rs"]
mod tree_drills;
#[path = "engine/trees.rs"]
mod trees;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    At, BackUp, BlockEntry, CheckDepth, Clock, Content, DataKey, Direction, Error, Goal, Hex,
    HexBytes, KeyUnwrapping, KeyWrapping, Manifest, MemoryTarget, ObjectKey, Plan, Position, PutIf,
    Repository, Result, Segment, SegmentInfo, SegmentWork, SetSummary, SigningKey, Sink, Source,
    SourceEnd, SystemEntropy, Target, Trust, WrappedKey,
};

const EPOCH: Hex<16> = Hex([1; 16]);

/// Opens nothing but what was wrapped under its name: the engine never sees how.
#[derive(Debug)]
struct Named(&'static str);

impl KeyWrapping for Named {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "test".into(),
            recipients: vec![self.0.into()],
            blob: HexBytes(key.expose().iter().rev().copied().collect()),
        })
    }
}

impl KeyUnwrapping for Named {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let mut key: [u8; 32] = wrapped.blob.0.clone().try_into().unwrap();
        key.reverse();
        let mine = wrapped.recipients == [self.0];
        Ok(mine.then(|| DataKey::from_bytes(key)))
    }
}

/// A second later each time.
#[derive(Debug, Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn summary(set: &BTreeSet<u64>) -> SetSummary {
    let mut muhash = Hex([0; 32]);
    let sum = set
        .iter()
        .fold(0_u64, |sum, number| sum.wrapping_add(*number));
    muhash.0[..8].copy_from_slice(&sum.to_le_bytes());
    SetSummary {
        coins: set.len() as u64,
        muhash,
    }
}

#[derive(Clone, Debug)]
struct Block {
    entry: BlockEntry,
    created: Vec<u64>,
    spent: Vec<u64>,
    after: BTreeSet<u64>,
}

/// A block that spends the lowest number and makes two.
fn block(before: Option<&Block>, branch: u64) -> Block {
    let height = before.map_or(0, |block| block.entry.position.height + 1);
    let mut after = before.map(|block| block.after.clone()).unwrap_or_default();
    let spent: Vec<_> = after.pop_first().into_iter().collect();
    let created = vec![
        u64::from(height) * 10 + branch,
        u64::from(height) * 10 + branch + 5,
    ];
    after.extend(&created);
    let mut hash = Hex([branch as u8; 32]);
    hash.0[..4].copy_from_slice(&height.to_le_bytes());
    Block {
        entry: BlockEntry {
            position: Position {
                height,
                hash,
                median_time_past: height * 600,
            },
            previous: before.map_or(Hex([0; 32]), |block| block.entry.position.hash),
            set: summary(&after),
        },
        created,
        spent,
        after,
    }
}

fn chain(length: u32, mut blocks: Vec<Block>, branch: u64) -> Vec<Block> {
    for _ in 0..length {
        let next = block(blocks.last(), branch);
        blocks.push(next);
    }
    blocks
}

/// Numbers, or the changes of blocks, some in each segment.
#[derive(Debug)]
struct Numbers {
    segments: std::vec::IntoIter<Segment>,
    end: Option<SourceEnd>,
    fails: Option<&'static str>,
}

fn numbers(set: &BTreeSet<u64>) -> Vec<Segment> {
    let all: Vec<_> = set.iter().copied().collect();
    let segments = all.chunks(3).map(|part| Segment {
        info: SegmentInfo {
            codec: "numbers".into(),
            items: part.len() as u64,
            first: HexBytes(part[0].to_be_bytes().into()),
            last: HexBytes(part[part.len() - 1].to_be_bytes().into()),
            heights: None,
        },
        bytes: serde_json::to_vec(part).unwrap(),
    });
    segments.collect()
}

fn changes(blocks: &[Block]) -> Vec<Segment> {
    let segments = blocks.chunks(2).map(|part| {
        let text: Vec<_> = part
            .iter()
            .map(|block| (block.entry.position.height, &block.created, &block.spent))
            .collect();
        let height = |block: &Block| block.entry.position.height;
        Segment {
            info: SegmentInfo {
                codec: "changes".into(),
                items: part
                    .iter()
                    .map(|block| (block.created.len() + block.spent.len()) as u64)
                    .sum(),
                first: HexBytes(Vec::new()),
                last: HexBytes(Vec::new()),
                heights: Some((height(&part[0]), height(&part[part.len() - 1]))),
            },
            bytes: serde_json::to_vec(&text).unwrap(),
        }
    });
    segments.collect()
}

impl Numbers {
    /// In another epoch.
    fn since(mut self, other: u8) -> Self {
        match &mut self.end.as_mut().unwrap().content {
            Content::Base { epoch, .. } | Content::Delta { epoch, .. } => epoch.0 = [other; 16],
            _ => panic!("another content"),
        }
        self
    }

    fn new(segments: Vec<Segment>, content: Content) -> Self {
        let items = segments.iter().map(|segment| segment.info.items).sum();
        Self {
            segments: segments.into_iter(),
            end: Some(SourceEnd { content, items }),
            fails: None,
        }
    }

    fn base(at: &Block) -> Self {
        Self::read_during(&at.after, &[], at)
    }

    /// `seen` was read while `during` was connected.
    fn read_during(seen: &BTreeSet<u64>, during: &[Block], at: &Block) -> Self {
        let content = Content::Base {
            epoch: EPOCH,
            position: at.entry.position,
            set: at.entry.set,
            muhash_state: HexBytes(at.entry.set.muhash.0.into()),
            during: during.iter().map(|block| block.entry).collect(),
        };
        Self::new([changes(during), numbers(seen)].concat(), content)
    }

    /// The changes of all blocks but the first.
    fn delta(blocks: &[Block]) -> Self {
        let (from, blocks) = (blocks[0].entry, &blocks[1..]);
        let content = Content::Delta {
            epoch: EPOCH,
            from: from.position,
            from_set: from.set,
            blocks: blocks.iter().map(|block| block.entry).collect(),
            muhash_state: HexBytes(Vec::new()),
        };
        Self::new(changes(blocks), content)
    }
}

fn broken(what: &'static str) -> Error {
    Error::backend(
        "numbers",
        what,
        groundtackle_backup::Retryability::Transient,
        "gone",
    )
}

#[async_trait]
impl Source for Numbers {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        let Some(segment) = self.segments.next() else {
            return match self.fails {
                Some("next") => Err(broken("next")),
                _ => Ok(None),
            };
        };
        let fails = self.fails == Some("work") && self.segments.len() == 0;
        Ok(Some(Box::new(move || match fails {
            true => Err(broken("work")),
            false => Ok(segment),
        })))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        match self.fails {
            Some("finish") => Err(broken("finish")),
            _ => Ok(self.end.take().expect("it ends once")),
        }
    }
}

/// The set comes out of the changes first, as sinks that can't take back do it.
#[derive(Debug, Default)]
struct Into {
    added: BTreeSet<u64>,
    removed: BTreeSet<u64>,
    set: BTreeSet<u64>,
    based: bool,
}

#[async_trait]
impl Sink for Into {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
        Ok(())
    }

    async fn changes(
        &mut self,
        segment: Segment,
        direction: Direction,
        heights: (u32, u32),
    ) -> Result<()> {
        assert!(!self.based && segment.info.codec == "changes");
        let mut blocks: Vec<(u32, Vec<u64>, Vec<u64>)> =
            serde_json::from_slice(&segment.bytes).unwrap();
        if direction == Direction::Backwards {
            blocks.reverse();
        }
        for (height, mut created, mut spent) in blocks {
            if !(heights.0..=heights.1).contains(&height) {
                continue;
            }
            if direction == Direction::Backwards {
                (created, spent) = (spent, created);
            }
            for number in created {
                self.removed.remove(&number);
                self.added.insert(number);
            }
            for number in spent {
                self.added.remove(&number);
                self.removed.insert(number);
            }
        }
        Ok(())
    }

    async fn base(&mut self, segment: Segment) -> Result<()> {
        self.based = true;
        let numbers: Vec<u64> = serde_json::from_slice(&segment.bytes).unwrap();
        assert_eq!(numbers.len() as u64, segment.info.items);
        self.set.extend(
            numbers
                .iter()
                .filter(|number| !self.removed.contains(number)),
        );
        Ok(())
    }

    async fn finish(&mut self, _: &Goal) -> Result<SetSummary> {
        self.set.extend(&self.added);
        Ok(summary(&self.set))
    }
}

struct Place {
    target: MemoryTarget,
    repository: Repository,
    signer: SigningKey,
}

impl Place {
    async fn new() -> Self {
        let target = MemoryTarget::new();
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let clock = Arc::new(Ticking::default());
        let shared = Arc::new(target.clone());
        let entropy = Arc::new(SystemEntropy);
        Repository::init(
            shared.clone(),
            "main",
            &signer,
            clock.clone(),
            entropy.clone(),
        )
        .await
        .unwrap();
        let trust = Trust::new([signer.public()]).unwrap();
        let repository = Repository::open(shared, trust).await.unwrap();
        Self {
            target,
            repository: repository.with(clock, entropy),
            signer,
        }
    }

    async fn back_up(&self, mut source: Numbers) -> Result<Manifest> {
        let how = BackUp {
            stream: "set",
            wrapping: &Named("reader"),
            signer: &self.signer,
            workers: 2,
        };
        self.repository.back_up(&mut source, &how).await
    }

    async fn points(&self) -> Vec<Manifest> {
        let points = self.repository.points().await.unwrap();
        assert!(points.unusable.is_empty(), "{points:?}");
        points.usable
    }

    async fn restore(&self, at: At) -> Result<(Goal, BTreeSet<u64>)> {
        let plan = Plan::find(&self.points().await, "set", at)?;
        let mut into = Into::default();
        let keys = Named("reader");
        let restored = self.repository.restore(&plan, &keys, &mut into, 2).await?;
        assert!(restored.passed_over.is_empty(), "{restored:?}");
        Ok((restored.goal, into.set))
    }

    async fn assert_restores(&self, block: &Block, at: At) {
        let (goal, set) = self.restore(at).await.unwrap();
        assert_eq!(goal.position, block.entry.position);
        assert_eq!(set, block.after, "{at:?}");
    }

    /// Every object, ascending.
    async fn objects(&self) -> Vec<ObjectKey> {
        let listing = self.target.list("", None, usize::MAX).await.unwrap();
        listing.objects.into_iter().map(|info| info.key).collect()
    }

    async fn body(&self, key: &ObjectKey) -> Vec<u8> {
        let bytes = self.target.info(key).await.unwrap().unwrap().bytes;
        self.target
            .read(key, 0..bytes)
            .await
            .unwrap()
            .unwrap()
            .into()
    }

    async fn put(&self, key: &ObjectKey, body: Vec<u8>) {
        self.target.remove(key).await.unwrap().unwrap();
        let put = self
            .target
            .put(key, Bytes::from(body), &PutIf::Absent, None);
        put.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn any_height_comes_from_one_base_forwards_and_backwards() {
    let blocks = chain(40, Vec::new(), 1);
    for base in [0, 13, 20, 39] {
        let place = Place::new().await;
        for first in (0..39).step_by(7) {
            let part = &blocks[first..=(first + 7).min(39)];
            place.back_up(Numbers::delta(part)).await.unwrap();
        }
        place.back_up(Numbers::base(&blocks[base])).await.unwrap();
        // The base is the last restore point, and not the last block.
        let tip = blocks.last().unwrap().entry.position.hash;
        for block in &blocks {
            let position = block.entry.position;
            place.assert_restores(block, At::Block(position.hash)).await;
            if position.height <= base as u32 {
                place
                    .assert_restores(block, At::Height(position.height))
                    .await;
            }
        }
        assert!(place.restore(At::Block(tip)).await.is_ok());
        place.assert_restores(&blocks[base], At::Latest).await;
    }
}

#[tokio::test]
async fn an_abandoned_branch_is_never_the_chain() {
    let place = Place::new().await;
    let old = chain(20, Vec::new(), 1);
    place.back_up(Numbers::base(&old[0])).await.unwrap();
    place.back_up(Numbers::delta(&old)).await.unwrap();
    // Block 9 is in the middle of a restore point.
    let new = chain(25, old[..10].to_vec(), 2);
    place.back_up(Numbers::delta(&new[9..])).await.unwrap();
    place.back_up(Numbers::base(&new[34])).await.unwrap();
    for block in &new {
        place
            .assert_restores(block, At::Height(block.entry.position.height))
            .await;
    }
    place.assert_restores(&new[34], At::Latest).await;
    // By its name it is there; from the base on the other branch, too.
    for block in &old {
        place
            .assert_restores(block, At::Block(block.entry.position.hash))
            .await;
    }
    let first = place.points().await[0].clone();
    place
        .target
        .remove(&first.object().unwrap())
        .await
        .unwrap()
        .unwrap();
    for block in new.iter().chain(&old) {
        place
            .assert_restores(block, At::Block(block.entry.position.hash))
            .await;
    }
}

#[tokio::test]
async fn a_base_read_while_blocks_came_is_exact() {
    let blocks = chain(30, Vec::new(), 1);
    // What a scan saw of each number: before, after, or in between.
    for seed in 0..50_u64 {
        let place = Place::new().await;
        let (first, last) = (&blocks[10], &blocks[20]);
        let both: BTreeSet<u64> = first.after.union(&last.after).copied().collect();
        let met = |number: &u64| (number ^ seed).count_ones().is_multiple_of(2);
        let stays = |number: &u64| first.after.contains(number) && last.after.contains(number);
        let seen: BTreeSet<_> = both.into_iter().filter(|n| stays(n) || met(n)).collect();
        let source = Numbers::read_during(&seen, &blocks[11..=20], last);
        place.back_up(source).await.unwrap();
        place.back_up(Numbers::delta(&blocks[20..])).await.unwrap();
        for block in &blocks[10..] {
            // Its own set is not known at the block before the first one.
            if block.entry.position.height > 10 {
                place
                    .assert_restores(block, At::Height(block.entry.position.height))
                    .await;
            }
        }
        let error = place.restore(At::Height(9)).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    }
}

/// Something else than blocks changed the set: what was before is reached from before, and what is after from after.
#[tokio::test]
async fn epochs_are_not_mixed() {
    let place = Place::new().await;
    let before = chain(20, Vec::new(), 1);
    place.back_up(Numbers::base(&before[0])).await.unwrap();
    place.back_up(Numbers::delta(&before)).await.unwrap();
    // A number was exchanged at the tip.
    let mut tip = before[19].clone();
    tip.after.pop_last();
    tip.after.insert(1_000_000);
    tip.entry.set = summary(&tip.after);
    let after = chain(10, vec![tip], 1);
    place
        .back_up(Numbers::base(&after[0]).since(2))
        .await
        .unwrap();
    place
        .back_up(Numbers::delta(&after).since(2))
        .await
        .unwrap();
    for block in after.iter().chain(&before[..19]) {
        place
            .assert_restores(block, At::Height(block.entry.position.height))
            .await;
        place
            .assert_restores(block, At::Block(block.entry.position.hash))
            .await;
    }
}

/// A set found where nobody watched is followed by what is known of the block since, whichever epoch was seen last elsewhere.
#[tokio::test]
async fn a_block_is_what_was_known_of_it_last() {
    let place = Place::new().await;
    let blocks = chain(6, Vec::new(), 1);
    let mut other = blocks[3].clone();
    other.after.insert(1_000_000);
    other.entry.set = summary(&other.after);
    let hash = blocks[3].entry.position.hash;
    place.back_up(Numbers::base(&other).since(0)).await.unwrap();
    place.back_up(Numbers::base(&blocks[3])).await.unwrap();
    place
        .back_up(Numbers::base(&blocks[5]).since(0))
        .await
        .unwrap();
    place.assert_restores(&blocks[3], At::Block(hash)).await;
}

/// What is signed, but is not as this format has it.
#[tokio::test]
async fn signed_manifests_are_checked_too() {
    let place = Place::new().await;
    let mut many = block(None, 1);
    many.after = (0..12_300).collect();
    many.entry.set = summary(&many.after);
    let manifest = place.back_up(Numbers::base(&many)).await.unwrap();
    assert_eq!(manifest.index.len(), 2);
    place.assert_restores(&many, At::Latest).await;
    let object = manifest.object().unwrap();

    let mut changed = manifest.clone();
    changed.index.reverse();
    place
        .put(&object, changed.sign(&place.signer).unwrap())
        .await;
    let error = place.restore(At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");

    for (network, format) in [("test", 1), ("main", 0), ("main", 2)] {
        let mut changed = manifest.clone();
        (changed.network, changed.format) = (network.into(), format);
        place
            .put(&object, changed.sign(&place.signer).unwrap())
            .await;
        let points = place.repository.points().await.unwrap();
        assert!(points.usable.is_empty());
        match &points.unusable[..] {
            [(_, Error::NewerFormat { found: 2, .. })] => assert_eq!(format, 2),
            [(_, Error::Corrupt { .. })] => assert!(format < 2),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_not_linked_is_not_reached() {
    let place = Place::new().await;
    let blocks = chain(30, Vec::new(), 1);
    let error = place.restore(At::Latest).await.unwrap_err();
    assert!(error.to_string().contains("no restore point"), "{error}");
    place.back_up(Numbers::base(&blocks[3])).await.unwrap();
    // What block 4 changed is in none.
    place.back_up(Numbers::delta(&blocks[4..10])).await.unwrap();
    let error = place.restore(At::Height(7)).await.unwrap_err();
    assert!(error.to_string().contains("blocks between"), "{error}");
    place.back_up(Numbers::base(&blocks[12])).await.unwrap();
    let error = place.restore(At::Height(3)).await.unwrap_err();
    let mut name = blocks[3].entry.position.hash;
    name.0.reverse();
    assert!(error.to_string().contains(&name.to_string()), "{error}");
    place
        .assert_restores(&blocks[3], At::Block(blocks[3].entry.position.hash))
        .await;
    let error = place.restore(At::Block(Hex([9; 32]))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    // Another set's points don't count.
    let plan = Plan::find(&place.points().await, "other", At::Latest);
    assert!(plan.is_err());
}

#[tokio::test]
async fn a_source_that_is_not_whole_is_not_listed() {
    let place = Place::new().await;
    let blocks = chain(10, Vec::new(), 1);
    for fails in ["next", "work", "finish"] {
        let mut source = Numbers::base(&blocks[9]);
        source.fails = Some(fails);
        let error = place.back_up(source).await.unwrap_err();
        assert!(error.to_string().contains(fails), "{error}");
        assert!(place.points().await.is_empty());
    }
    let mut source = Numbers::base(&blocks[9]);
    source.end.as_mut().unwrap().items += 1;
    let error = place.back_up(source).await.unwrap_err();
    assert!(matches!(error, Error::Incomplete { .. }), "{error:?}");
    assert!(place.points().await.is_empty());
}

/// Each flipped bit of a whole repository is found, and restores nothing wrong.
#[tokio::test]
async fn every_flipped_bit_is_found() {
    let place = Place::new().await;
    let blocks = chain(6, Vec::new(), 1);
    place.back_up(Numbers::base(&blocks[2])).await.unwrap();
    place.back_up(Numbers::delta(&blocks[2..])).await.unwrap();
    let whole = place.points().await;
    let keys = Named("reader");
    let (mut flips, mut seed) = (0_u64, 7_u64);
    for key in place.objects().await {
        let body = place.body(&key).await;
        for round in 0..2_500 {
            let depth = match round % 2 {
                0 => CheckDepth::Bytes,
                _ => CheckDepth::Read(&keys),
            };
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % (body.len() * 8);
            let mut damaged = body.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            place.put(&key, damaged).await;
            let trust = Trust::new([place.signer.public()]).unwrap();
            let opened = Repository::open(Arc::new(place.target.clone()), trust).await;
            let found = match opened {
                Err(_) => true,
                Ok(repository) => {
                    let points = repository.points().await.unwrap();
                    let mut found = !points.unusable.is_empty();
                    for manifest in &points.usable {
                        assert!(whole.contains(manifest));
                        found |= repository.check(manifest, depth, 1).await.is_err();
                    }
                    found
                }
            };
            // What a hint says of the signer changes nothing of what is signed, and JSON has more than one spelling.
            let harmless = !key.as_str().starts_with("packs/") && !found;
            assert!(found || harmless, "bit {at} of {key}");
            if harmless {
                assert_eq!(place.points().await, whole);
                assert!(place.restore(At::Latest).await.is_ok());
            }
            flips += 1;
        }
        place.put(&key, body).await;
    }
    assert!(flips >= 10_000, "{flips}");
    assert!(place.restore(At::Latest).await.is_ok());
}

#[tokio::test]
async fn lost_and_cut_objects_are_named() {
    let place = Place::new().await;
    let blocks = chain(6, Vec::new(), 1);
    let manifest = place.back_up(Numbers::base(&blocks[5])).await.unwrap();
    let objects = place.objects().await;
    let pack = objects
        .iter()
        .find(|key| key.as_str().starts_with("packs/"))
        .unwrap();
    let body = place.body(pack).await;
    let keys = Named("reader");
    let depths = [
        CheckDepth::Presence,
        CheckDepth::Bytes,
        CheckDepth::Read(&keys),
    ];
    for depth in depths {
        let checked = place.repository.check(&manifest, depth, 2).await.unwrap();
        assert_eq!(checked.packs, 1);
    }
    place.put(pack, body[..body.len() - 1].to_vec()).await;
    for depth in depths {
        let error = place
            .repository
            .check(&manifest, depth, 2)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        assert!(error.to_string().contains(pack.as_str()), "{error}");
    }
    place.target.remove(pack).await.unwrap().unwrap();
    for depth in depths {
        let error = place
            .repository
            .check(&manifest, depth, 2)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Missing { .. }), "{error:?}");
        assert!(error.to_string().contains(pack.as_str()), "{error}");
    }
    let error = place.restore(At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
}

#[tokio::test]
async fn only_keys_and_signers_that_are_known_count() {
    let place = Place::new().await;
    let blocks = chain(6, Vec::new(), 1);
    place.back_up(Numbers::base(&blocks[5])).await.unwrap();
    let plan = Plan::find(&place.points().await, "set", At::Latest).unwrap();
    let mut into = Into::default();
    let stranger = Named("somebody else");
    let restored = place.repository.restore(&plan, &stranger, &mut into, 1);
    let error = restored.await.unwrap_err();
    assert!(matches!(error, Error::WrongKey { .. }), "{error:?}");
    assert!(error.to_string().contains("reader"), "{error}");
    assert!(into.set.is_empty());

    let forger = SigningKey::random(&SystemEntropy).unwrap();
    let trust = Trust::new([forger.public()]).unwrap();
    let shared = Arc::new(place.target.clone());
    let error = Repository::open(shared.clone(), trust).await.unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    assert!(Trust::new([]).is_err());
    // A manifest by somebody else is seen, and not used.
    let mut forged = place.points().await[0].clone();
    forged.point.0[0] ^= 1;
    let object = forged.object().unwrap();
    place.put(&object, forged.sign(&forger).unwrap()).await;
    let points = place.repository.points().await.unwrap();
    assert_eq!(points.usable.len(), 1);
    assert!(
        matches!(points.unusable[..], [(_, Error::Untrusted { .. })]),
        "{points:?}"
    );
    // Nor one in another's place.
    let real = &points.usable[0];
    place
        .put(&object, place.body(&real.object().unwrap()).await)
        .await;
    let points = place.repository.points().await.unwrap();
    assert!(
        matches!(points.unusable[..], [(_, Error::Corrupt { .. })]),
        "{points:?}"
    );
    place.target.remove(&object).await.unwrap().unwrap();

    let mut how = Numbers::base(&blocks[5]);
    let unknown = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &forger,
        workers: 1,
    };
    let error = place
        .repository
        .back_up(&mut how, &unknown)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    let again = Repository::init(
        shared,
        "main",
        &place.signer,
        Arc::new(Ticking::default()),
        Arc::new(SystemEntropy),
    );
    assert!(matches!(again.await, Err(Error::InvalidRequest { .. })));
}

/// A sink that got less, or more, than there was is no success.
#[tokio::test]
async fn what_came_out_is_compared() {
    #[derive(Debug)]
    struct Lossy(Into);
    #[async_trait]
    impl Sink for Lossy {
        async fn begin(&mut self, goal: &Goal) -> Result<()> {
            self.0.begin(goal).await
        }
        async fn changes(&mut self, _: Segment, _: Direction, _: (u32, u32)) -> Result<()> {
            Ok(())
        }
        async fn base(&mut self, segment: Segment) -> Result<()> {
            self.0.base(segment).await
        }
        async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
            self.0.finish(goal).await
        }
    }
    let place = Place::new().await;
    let blocks = chain(9, Vec::new(), 1);
    place.back_up(Numbers::base(&blocks[5])).await.unwrap();
    place.back_up(Numbers::delta(&blocks[5..])).await.unwrap();
    let plan = Plan::find(&place.points().await, "set", At::Latest).unwrap();
    let mut sink = Lossy(Into::default());
    let restored = place
        .repository
        .restore(&plan, &Named("reader"), &mut sink, 1);
    let error = restored.await.unwrap_err();
    assert!(matches!(error, Error::Differs { .. }), "{error:?}");
}
