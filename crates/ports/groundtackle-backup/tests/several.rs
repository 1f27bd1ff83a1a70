//! One repository on several targets, some of which fail.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    At, BackUp, BlockEntry, Content, CopyPolicy, DataKey, Direction, Error, Goal, Hex, HexBytes,
    KeyUnwrapping, KeyWrapping, Manifest, Member, MemoryTarget, ObjectKey, Pack, Position, PutIf,
    Repository, Result, Segment, SegmentInfo, SegmentWork, SetSummary, Several, SigningKey, Sink,
    Source, SourceEnd, SystemClock, SystemEntropy, Target, Trust, WrappedKey,
};
use groundtackle_backup_testkit::{Call, Fault, Faulty, TargetHarness, content};

struct SeveralHarness;

#[async_trait]
impl TargetHarness for SeveralHarness {
    type Target = Several;
    type Place = [MemoryTarget; 3];

    async fn place(&self) -> Self::Place {
        Default::default()
    }

    async fn open(&self, place: &Self::Place) -> Result<Several> {
        let members: Vec<_> = (0..)
            .zip(place)
            .map(|(number, target): (u32, _)| {
                Member::new(number.to_string(), Arc::new(target.clone()))
            })
            .collect();
        Several::new(members, CopyPolicy::All)
    }
}

groundtackle_backup_testkit::target_conformance!(SeveralHarness);

/// No secret at all: these tests are about places.
#[derive(Debug)]
struct Open;

impl KeyWrapping for Open {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "test".into(),
            recipients: Vec::new(),
            blob: HexBytes(key.expose().to_vec()),
        })
    }
}

impl KeyUnwrapping for Open {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        Ok(wrapped
            .blob
            .0
            .clone()
            .try_into()
            .ok()
            .map(DataKey::from_bytes))
    }
}

/// As many segments as the set at a height has coins, all of one byte's.
#[derive(Debug)]
struct Heights(Vec<u32>, usize);

const SEGMENT_BYTES: usize = 10_000;

fn position(height: u32) -> Position {
    let mut hash = Hex([7; 32]);
    hash.0[..4].copy_from_slice(&height.to_be_bytes());
    Position {
        height,
        hash,
        median_time_past: height,
    }
}

fn set(height: u32) -> SetSummary {
    SetSummary {
        coins: u64::from(height),
        muhash: Hex([height as u8; 32]),
    }
}

#[async_trait]
impl Source for Heights {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        let delta = self.0.len() > 1;
        let number = self.1 as u32;
        self.1 += 1;
        let heights = delta
            .then(|| self.0.get(self.1).copied())
            .flatten()
            .map(|at| (at, at));
        let more = if delta {
            heights.is_some()
        } else {
            number < self.0[0]
        };
        Ok(more.then(|| {
            let info = SegmentInfo {
                codec: "test".into(),
                items: 1,
                first: HexBytes(Vec::new()),
                last: HexBytes(Vec::new()),
                heights,
            };
            Box::new(move || {
                Ok(Segment {
                    info,
                    bytes: vec![number as u8; SEGMENT_BYTES],
                })
            }) as SegmentWork
        }))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        let epoch = Hex([1; 16]);
        let from = self.0[0];
        let muhash_state = HexBytes(Vec::new());
        let blocks: Vec<_> = self
            .0
            .windows(2)
            .map(|pair| BlockEntry {
                position: position(pair[1]),
                previous: position(pair[0]).hash,
                set: set(pair[1]),
            })
            .collect();
        let items = if blocks.is_empty() {
            u64::from(from)
        } else {
            blocks.len() as u64
        };
        let content = match blocks.is_empty() {
            true => Content::Base {
                epoch,
                position: position(from),
                set: set(from),
                muhash_state,
                during: Vec::new(),
            },
            false => Content::Delta {
                epoch,
                from: position(from),
                from_set: set(from),
                blocks,
                muhash_state,
            },
        };
        Ok(SourceEnd { content, items })
    }
}

/// Counts.
#[derive(Debug, Default)]
struct Count(u64);

#[async_trait]
impl Sink for Count {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
        Ok(())
    }
    async fn changes(&mut self, segment: Segment, _: Direction, _: (u32, u32)) -> Result<()> {
        assert_eq!(segment.bytes.len(), SEGMENT_BYTES);
        self.0 += 1;
        Ok(())
    }
    async fn base(&mut self, segment: Segment) -> Result<()> {
        assert!(segment.bytes.iter().all(|byte| *byte == segment.bytes[0]));
        self.0 += 1;
        Ok(())
    }
    async fn finish(&mut self, goal: &Goal) -> Result<SetSummary> {
        Ok(SetSummary {
            coins: self.0,
            muhash: goal.set.muhash,
        })
    }
}

type Place = Faulty<MemoryTarget>;

struct Places {
    all: Vec<Place>,
    signer: SigningKey,
}

/// Above what a busy machine takes for a call in memory.
const PATIENCE: Duration = Duration::from_secs(2);

impl Places {
    async fn new(count: u64) -> Self {
        let all: Vec<_> = (0..count)
            .map(|seed| Faulty::new(MemoryTarget::new(), seed))
            .collect();
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let places = Self { all, signer };
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let several = Arc::new(places.several(CopyPolicy::All));
        Repository::init(several, "main", &places.signer, clock, entropy)
            .await
            .unwrap();
        places
    }

    fn several(&self, policy: CopyPolicy) -> Several {
        let members: Vec<_> = (0..)
            .zip(&self.all)
            .map(|(number, place): (u32, _)| {
                Member::new(format!("place {number}"), Arc::new(place.clone()))
            })
            .collect();
        Several::new(members, policy)
            .unwrap()
            .with_patience(PATIENCE)
    }

    async fn open(&self, policy: CopyPolicy) -> Repository {
        self.opened(Arc::new(self.several(policy))).await
    }

    async fn opened(&self, target: Arc<dyn Target>) -> Repository {
        let trust = Trust::new([self.signer.public()]).unwrap();
        Repository::open(target, trust).await.unwrap()
    }

    async fn back_up(&self, repository: &Repository, heights: &[u32]) -> Result<Manifest> {
        let how = BackUp {
            stream: "set",
            wrapping: &Open,
            signer: &self.signer,
            workers: 1,
        };
        repository
            .back_up(&mut Heights(heights.to_vec(), 0), &how)
            .await
    }

    /// What any place lists can be restored from that place alone. How many each lists.
    async fn assert_whole(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for place in &self.all {
            place.heal();
            let alone = self.opened(Arc::new(place.clone())).await;
            let points = alone.points().await.unwrap();
            assert!(points.unusable.is_empty(), "{points:?}");
            for point in &points.usable {
                let end = point.content.position().unwrap();
                restore(&alone, At::Block(end.hash)).await.unwrap();
            }
            counts.push(points.usable.len());
        }
        counts
    }
}

async fn restore(repository: &Repository, at: At) -> Result<u32> {
    let points = repository.points().await?;
    let plan = points.plan("set", at)?;
    let restored = repository
        .restore(&plan, &Open, &mut Count::default(), 1)
        .await?;
    Ok(restored.goal.position.height)
}

const QUORUM: CopyPolicy = CopyPolicy::Quorum(NonZeroUsize::new(2).unwrap());

#[tokio::test]
async fn what_one_place_fails_to_take_it_gets_later_manifest_last() {
    let mut running = Vec::new();
    for (call, fault) in [
        (Call::Put, Fault::Fail),
        (Call::Put, Fault::LoseAnswer),
        (Call::Put, Fault::Hang),
        (Call::Upload, Fault::Fail),
        (Call::Upload, Fault::Hang),
        (Call::Write, Fault::Fail),
        (Call::Write, Fault::StopShort),
        (Call::Write, Fault::Hang),
        (Call::Finish, Fault::Full),
        (Call::Finish, Fault::LoseAnswer),
        (Call::Finish, Fault::HangAfter),
    ] {
        for policy in [CopyPolicy::Primary, QUORUM] {
            // Most of it is waiting.
            running.push(tokio::spawn(missed(call, fault, policy)));
        }
    }
    for one in running {
        one.await.unwrap();
    }
}

async fn missed(call: Call, fault: Fault, policy: CopyPolicy) {
    let places = Places::new(3).await;
    let repository = places.open(policy).await;
    places.back_up(&repository, &[4]).await.unwrap();
    assert_eq!(places.assert_whole().await, [1, 1, 1]);
    let failing = &places.all[2];
    failing.fail_often(call, 1_000_000, fault);
    for from in [4, 5, 6] {
        places
            .back_up(&repository, &[from, from + 1])
            .await
            .unwrap();
    }
    let caught_up = repository.catch_up().await.unwrap();
    // What is there needs no second upload.
    let arrived = call == Call::Finish && fault != Fault::Full;
    assert_eq!(
        caught_up[2].error.is_none(),
        arrived,
        "{call:?} {fault:?}: {caught_up:?}"
    );
    // It lists nothing that it lacks; a lost answer may have been the last one.
    let listed = places.assert_whole().await;
    assert!(
        listed[..2] == [4, 4] && (listed[2] == 4) == arrived,
        "{call:?} {fault:?}: {listed:?}"
    );
    assert!(!repository.passed_over().is_empty() || failing.injected() > 0);

    let caught_up = repository.catch_up().await.unwrap();
    assert!(
        caught_up.iter().all(|one| one.error.is_none()),
        "{caught_up:?}"
    );
    assert_eq!(caught_up[2].points as usize, 4 - listed[2]);
    assert_eq!(places.assert_whole().await, [4, 4, 4]);
    places.back_up(&repository, &[7, 8]).await.unwrap();
    assert_eq!(places.assert_whole().await, [5, 5, 5]);
}

#[tokio::test]
async fn every_policy_asks_for_what_it_says() {
    // The first place, the last one, and two of them fail.
    for (policy, fine) in [
        (CopyPolicy::All, [false, false, false]),
        (QUORUM, [true, true, false]),
        (CopyPolicy::Primary, [false, true, true]),
    ] {
        for (failing, fine) in [vec![0], vec![2], vec![1, 2]].into_iter().zip(fine) {
            for fault in [Fault::Fail, Fault::Hang] {
                let places = Places::new(3).await;
                let repository = places.open(policy).await;
                for number in &failing {
                    places.all[*number].fail_often(None, 1_000_000, fault);
                }
                let made = places.back_up(&repository, &[3]).await;
                assert_eq!(
                    made.is_ok(),
                    fine,
                    "{policy:?} {failing:?} {fault:?}: {made:?}"
                );
                let listed = places.assert_whole().await;
                for (number, listed) in listed.into_iter().enumerate() {
                    let wanted = usize::from(fine && !failing.contains(&number));
                    assert_eq!(listed, wanted, "{policy:?} {failing:?} {fault:?}");
                }
            }
        }
    }
    for quorum in [1, 4] {
        let members: Vec<_> = ["a", "b", "c"]
            .map(|name| Member::new(name, Arc::new(MemoryTarget::new())))
            .into();
        let policy = CopyPolicy::Quorum(NonZeroUsize::new(quorum).unwrap());
        let error = Several::new(members, policy).unwrap_err();
        assert!(error.to_string().contains("more than half"), "{error}");
    }
}

#[tokio::test]
async fn damage_at_one_place_is_read_from_another_and_reported() {
    let places = Places::new(2).await;
    let repository = places.open(CopyPolicy::All).await;
    let base = places.back_up(&repository, &[6]).await.unwrap();
    let delta = places.back_up(&repository, &[6, 7]).await.unwrap();
    let reading = places.open(CopyPolicy::Reading).await;
    restore(&reading, At::Latest).await.unwrap();
    assert!(reading.passed_over().is_empty());
    // In the first place the base's pack is damaged and the delta's missing, in the second one the delta's manifest.
    let (first, second) = (places.all[0].inner(), places.all[1].inner());
    let key = Pack::key(&base.packs[0].id).unwrap();
    let length = base.packs[0].bytes;
    let mut body = first.read(&key, 0..length).await.unwrap().unwrap().to_vec();
    body[20_000] ^= 1;
    replace(first, &key, body).await;
    let gone = Pack::key(&delta.packs[0].id).unwrap();
    first.remove(&gone).await.unwrap().unwrap();
    let object = delta.object().unwrap();
    let length = second.info(&object).await.unwrap().unwrap().bytes;
    let manifest = second.read(&object, 0..length).await.unwrap().unwrap();
    replace(second, &object, b"{}".to_vec()).await;

    assert_eq!(restore(&reading, At::Latest).await.unwrap(), 7);
    let passed: Vec<_> = reading.passed_over();
    let said = |place: &str, what: &str| {
        passed
            .iter()
            .any(|one| one.place == place && one.error.contains(what))
    };
    assert!(said("place 0", "can't be decrypted"), "{passed:?}");
    assert!(said("place 0", "is missing"), "{passed:?}");
    // Where none has it, the error names it.
    places.all[1].inner().remove(&gone).await.unwrap().unwrap();
    let error = restore(&reading, At::Latest).await.unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
    // One of them is enough.
    replace(second, &object, manifest.to_vec()).await;
    places.all[0].fail_often(None, 1_000_000, Fault::Hang);
    let end = base.content.position().unwrap().hash;
    assert_eq!(
        restore(&places.open(CopyPolicy::Reading).await, At::Block(end))
            .await
            .unwrap(),
        6
    );
}

async fn replace(target: &MemoryTarget, key: &ObjectKey, body: Vec<u8>) {
    target.remove(key).await.unwrap().unwrap();
    let put = target
        .put(key, Bytes::from(body), &PutIf::Absent, None)
        .await;
    put.unwrap().unwrap();
}

#[tokio::test]
async fn an_empty_place_becomes_a_copy_and_damage_is_not_copied() {
    let mut places = Places::new(2).await;
    let repository = places.open(CopyPolicy::All).await;
    let base = places.back_up(&repository, &[6]).await.unwrap();
    places.back_up(&repository, &[6, 7]).await.unwrap();
    repository
        .forget(&[base.point], &places.signer)
        .await
        .unwrap();
    let key = Pack::key(&base.packs[0].id).unwrap();
    replace(
        places.all[0].inner(),
        &key,
        vec![0; base.packs[0].bytes as usize],
    )
    .await;
    places.all.push(Faulty::new(MemoryTarget::new(), 3));
    let repository = places.open(CopyPolicy::Primary).await;
    let caught_up = repository.catch_up().await.unwrap();
    assert!(
        caught_up.iter().all(|one| one.error.is_none()),
        "{caught_up:?}"
    );
    assert_eq!(caught_up[2].points, 2);
    let alone = places.opened(Arc::new(places.all[2].clone())).await;
    assert_eq!(restore(&alone, At::Latest).await.unwrap(), 7);
    let points = alone.points().await.unwrap();
    assert_eq!((points.usable.len(), points.forgotten.len()), (1, 1));
    // Another repository is not written over.
    let other = Places::new(1).await;
    places.all[1] = other.all[0].clone();
    let caught_up = places
        .open(CopyPolicy::Primary)
        .await
        .catch_up()
        .await
        .unwrap();
    let error = caught_up[1].error.as_ref().unwrap().to_string();
    assert!(error.contains("another repository"), "{error}");
}

#[tokio::test]
async fn one_that_hangs_holds_up_others_for_its_patience_and_no_more_is_spooled() {
    let places = Places::new(2).await;
    let several = places.several(CopyPolicy::Primary);
    places.all[1].fail_often(Call::Write, 1_000_000, Fault::Hang);
    let key = Pack::key(&Hex([3; 16])).unwrap();
    let began = std::time::Instant::now();
    let mut upload = several.upload(&key, None).await.unwrap();
    for number in 0..50 {
        upload.write(content(number, 0..100_000)).await.unwrap();
    }
    upload.finish().await.unwrap().unwrap();
    assert!(began.elapsed() < PATIENCE * 20, "{:?}", began.elapsed());
    assert_eq!(places.all[1].calls(Call::Write), 1);
    assert!(places.all[1].inner().info(&key).await.unwrap().is_none());
    assert_eq!(
        places.all[0]
            .inner()
            .info(&key)
            .await
            .unwrap()
            .unwrap()
            .bytes,
        5_000_000
    );
}

#[tokio::test]
async fn nothing_is_removed_while_a_place_is_away() {
    let places = Places::new(2).await;
    let repository = places.open(CopyPolicy::Primary).await;
    let base = places.back_up(&repository, &[6]).await.unwrap();
    places.back_up(&repository, &[7]).await.unwrap();
    repository
        .forget(&[base.point], &places.signer)
        .await
        .unwrap();
    let alone = groundtackle_backup::PruneOptions::new()
        .with_grace(Duration::ZERO)
        .nobody_else_writes();
    places.all[1].fail_often(Call::Remove, 1_000_000, Fault::Fail);
    repository.prune(&alone).await.unwrap_err();
    places.assert_whole().await;
    let pruned = repository.prune(&alone).await.unwrap();
    assert_eq!((pruned.points, pruned.packs), (1, 1));
    assert_eq!(places.assert_whole().await, [1, 1]);
    let reading = places.open(CopyPolicy::Reading).await;
    let error = reading.prune(&alone).await.unwrap_err();
    assert!(error.to_string().contains("reading only"), "{error}");
}
