//! Drills of sets of numbers, whose digest is their sum: what is promised whatever the set is.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

#[path = "drill/schedule.rs"]
mod schedule;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_backup::{
    BackUp, BlockEntry, Clock, Content, DataKey, Direction, Drill, DrillChoice, DrillGround,
    DrillLevel, DrillOutcome, DrillSchedule, Drilled, Due, Entropy, Error, Evidence, Figures, Goal,
    Hex, HexBytes, KeyUnwrapping, KeyWrapping, Manifest, MemoryTarget, ObjectKey, Objectives,
    Position, Proof, PutIf, Repository, Result, Segment, SegmentInfo, SegmentWork, SetSummary,
    Share, SigningKey, Sink, Source, SourceEnd, SystemEntropy, Target, WrappedKey,
};
use groundtackle_backup_testkit::{Call, Fault, Faulty};
use sha2::Digest as _;

const LEVELS: [DrillLevel; 7] = [
    DrillLevel::Chain,
    DrillLevel::Presence,
    DrillLevel::Bytes,
    DrillLevel::Read,
    DrillLevel::Replay,
    DrillLevel::Load,
    DrillLevel::Serve,
];

const DAY: u64 = 86_400_000;

/// Opens nothing but what was wrapped under its name.
#[derive(Debug)]
struct Named(&'static str);

impl KeyWrapping for Named {
    fn wrap(&self, key: &DataKey) -> Result<WrappedKey> {
        Ok(WrappedKey {
            scheme: "test".into(),
            recipients: vec![self.0.into()],
            blob: HexBytes(key.expose().to_vec()),
        })
    }
}

impl KeyUnwrapping for Named {
    fn unwrap(&self, wrapped: &WrappedKey) -> Result<Option<DataKey>> {
        let key = wrapped.blob.0.clone().try_into().unwrap();
        Ok((wrapped.recipients == [self.0]).then(|| DataKey::from_bytes(key)))
    }
}

const READER: Named = Named("reader");

/// Stands still until somebody moves it; milliseconds.
#[derive(Clone, Debug)]
struct Still(Arc<AtomicU64>);

impl Still {
    fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Clock for Still {
    fn now(&self) -> SystemTime {
        at(self.0.load(Ordering::Relaxed))
    }
}

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

/// The same on every run.
#[derive(Debug)]
struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        for byte in bytes {
            let mut seed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (seed >> 56) as u8;
        }
        Ok(())
    }
}

fn summary(numbers: impl IntoIterator<Item = u64>) -> SetSummary {
    let (mut coins, mut sum) = (0, 0_u64);
    for number in numbers {
        (coins, sum) = (coins + 1, sum.wrapping_add(number));
    }
    let mut muhash = Hex([0; 32]);
    muhash.0[..8].copy_from_slice(&sum.to_le_bytes());
    SetSummary { coins, muhash }
}

/// Each block adds its height to the set.
fn block(height: u32) -> BlockEntry {
    let hash = |height: u32| {
        let mut hash = Hex([7; 32]);
        hash.0[..4].copy_from_slice(&height.to_le_bytes());
        hash
    };
    BlockEntry {
        position: Position {
            height,
            hash: hash(height),
            median_time_past: height * 600,
        },
        previous: hash(height.wrapping_sub(1)),
        set: summary(0..=u64::from(height)),
    }
}

/// A number a segment.
#[derive(Debug)]
struct Numbers {
    left: std::vec::IntoIter<(u64, Option<(u32, u32)>)>,
    end: SourceEnd,
}

impl Numbers {
    fn base(height: u32) -> Self {
        let BlockEntry { position, set, .. } = block(height);
        let numbers: Vec<_> = (0..=u64::from(height))
            .map(|number| (number, None))
            .collect();
        Self::new(
            numbers,
            Content::Base {
                epoch: Hex([1; 16]),
                position,
                set,
                muhash_state: HexBytes(Vec::new()),
                during: Vec::new(),
            },
        )
    }

    fn delta(from: u32, to: u32) -> Self {
        let heights = (from + 1)..=to;
        let numbers = heights.clone().map(|at| (u64::from(at), Some((at, at))));
        Self::new(
            numbers.collect(),
            Content::Delta {
                epoch: Hex([1; 16]),
                from: block(from).position,
                from_set: block(from).set,
                blocks: heights.map(block).collect(),
                muhash_state: HexBytes(Vec::new()),
            },
        )
    }

    fn new(numbers: Vec<(u64, Option<(u32, u32)>)>, content: Content) -> Self {
        let items = numbers.len() as u64;
        Self {
            left: numbers.into_iter(),
            end: SourceEnd { content, items },
        }
    }
}

#[async_trait]
impl Source for Numbers {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        Ok(self.left.next().map(|(number, heights)| {
            let info = SegmentInfo {
                codec: "number".into(),
                items: 1,
                first: HexBytes(Vec::new()),
                last: HexBytes(Vec::new()),
                heights,
            };
            let bytes = number.to_le_bytes().to_vec();
            Box::new(move || Ok(Segment { info, bytes })) as SegmentWork
        }))
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        Ok(self.end.clone())
    }
}

/// Where to, and how it behaves.
#[derive(Debug)]
struct Ground {
    reach: DrillLevel,
    place: Option<String>,
    /// What it finds; `None` is no answer.
    proofs: Option<usize>,
    /// How long a restore takes, by this clock.
    slow: Option<(Still, u64)>,
}

impl Ground {
    fn new() -> Self {
        Self {
            reach: DrillLevel::Serve,
            place: Some("scratch".into()),
            proofs: Some(1),
            slow: None,
        }
    }
}

#[derive(Debug)]
struct Into {
    set: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    slow: Option<(Still, u64)>,
}

#[async_trait]
impl Sink for Into {
    async fn begin(&mut self, _: &Goal) -> Result<()> {
        Ok(())
    }

    async fn changes(&mut self, segment: Segment, way: Direction, _: (u32, u32)) -> Result<()> {
        let number = u64::from_le_bytes(segment.bytes.try_into().unwrap());
        match way {
            Direction::Forwards => self.set.insert(number),
            Direction::Backwards => self.gone.insert(number),
        };
        Ok(())
    }

    async fn base(&mut self, segment: Segment) -> Result<()> {
        let number = u64::from_le_bytes(segment.bytes.try_into().unwrap());
        if !self.gone.contains(&number) {
            self.set.insert(number);
        }
        Ok(())
    }

    async fn finish(&mut self, _: &Goal) -> Result<SetSummary> {
        if let Some((clock, to)) = &self.slow {
            clock.set(*to);
        }
        Ok(summary(self.set.iter().copied()))
    }
}

#[async_trait]
impl DrillGround for Ground {
    fn reach(&self) -> DrillLevel {
        self.reach
    }

    fn place(&self) -> Option<String> {
        self.place.clone()
    }

    async fn sink(&mut self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Into {
            set: BTreeSet::new(),
            gone: BTreeSet::new(),
            slow: self.slow.clone(),
        }))
    }

    async fn prove(&mut self, level: DrillLevel, goal: &Goal) -> Result<Vec<Proof>> {
        let proof = Proof {
            what: format!("height at {level}"),
            found: goal.position.height.to_string(),
        };
        let proofs = self.proofs.map(|count| vec![proof; count]);
        proofs.ok_or_else(|| Error::invalid_request("the service does not answer"))
    }
}

struct Place {
    target: MemoryTarget,
    faulty: Faulty<MemoryTarget>,
    repository: Repository,
    signer: SigningKey,
    clock: Still,
}

impl Place {
    async fn new() -> Self {
        let target = MemoryTarget::new();
        let faulty = Faulty::new(target.clone(), 1);
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let clock = Still(Arc::new(AtomicU64::new(1_000)));
        let entropy = Arc::new(Seeded(AtomicU64::new(5)));
        let repository = Repository::init(
            Arc::new(faulty.clone()),
            "main",
            &signer,
            Arc::new(clock.clone()),
            entropy,
        );
        Self {
            target,
            faulty,
            repository: repository.await.unwrap(),
            signer,
            clock,
        }
    }

    /// A base of 10, and what blocks 11 to 20 changed.
    async fn filled() -> Self {
        let place = Self::new().await;
        place.back_up(Numbers::base(10)).await;
        place.clock.set(2_000);
        place.back_up(Numbers::delta(10, 20)).await;
        place.clock.set(5_000);
        place
    }

    async fn back_up(&self, mut source: Numbers) -> Manifest {
        let how = BackUp {
            stream: "set",
            wrapping: &READER,
            signer: &self.signer,
            workers: 1,
        };
        self.repository.back_up(&mut source, &how).await.unwrap()
    }

    /// With an identity, and the ground that the level needs.
    async fn drill<'a>(
        &'a self,
        level: DrillLevel,
        ground: &'a mut Ground,
        change: impl FnOnce(&mut Drill<'a>),
    ) -> Result<Drilled> {
        let mut drill = Drill {
            level,
            keys: Some(&READER),
            ground: Some(ground),
            ..Drill::new("set", &self.signer)
        };
        change(&mut drill);
        self.repository.drill(drill).await
    }

    async fn holds<'a>(
        &'a self,
        level: DrillLevel,
        change: impl FnOnce(&mut Drill<'a>),
    ) -> Evidence {
        let ground = Box::leak(Box::new(Ground::new()));
        let drilled = self.drill(level, ground, change).await.unwrap();
        // What is given back is what is kept, and what anybody reads of it.
        let Drilled {
            evidence, signed, ..
        } = drilled;
        assert_eq!(self.body(&evidence.object).await, signed);
        let key = evidence.object.as_str();
        let read = Evidence::read(key, &signed, &[self.signer.public()]).unwrap();
        assert_eq!(read, evidence);
        assert_eq!(evidence.passed(), evidence.drill.reasons.is_empty());
        evidence
    }

    #[track_caller]
    fn says(&self, evidence: &Evidence, words: &[&str]) {
        assert_eq!(evidence.drill.outcome, DrillOutcome::Failed, "{evidence:?}");
        let reasons = evidence.drill.reasons.join("\n");
        for word in words {
            assert!(reasons.contains(word), "{word:?}: {reasons}");
        }
    }

    async fn kept(&self) -> Vec<Evidence> {
        let found = self.repository.evidence().await.unwrap();
        assert!(found.unusable.is_empty(), "{found:?}");
        found.usable
    }

    async fn objects(&self, prefix: &str) -> Vec<ObjectKey> {
        let listing = self.target.list(prefix, None, usize::MAX).await.unwrap();
        listing.objects.into_iter().map(|info| info.key).collect()
    }

    async fn body(&self, key: &ObjectKey) -> Vec<u8> {
        let bytes = self.target.info(key).await.unwrap().unwrap().bytes;
        let body = self.target.read(key, 0..bytes).await.unwrap();
        body.unwrap().into()
    }

    async fn put(&self, key: &ObjectKey, body: Vec<u8>) {
        self.target.remove(key).await.unwrap().unwrap();
        let put = self.target.put(key, body.into(), &PutIf::Absent, None);
        put.await.unwrap().unwrap();
    }

    async fn flip(&self, key: &ObjectKey) {
        let mut body = self.body(key).await;
        let middle = body.len() / 2;
        body[middle] ^= 1;
        self.put(key, body).await;
    }
}

#[tokio::test]
async fn each_level_passes_and_says_what_it_did() {
    let place = Place::filled().await;
    let points = place.repository.points().await.unwrap().usable;
    for level in LEVELS {
        let evidence = place.holds(level, |drill| drill.scheduled = true).await;
        let drill = &evidence.drill;
        assert_eq!(drill.outcome, DrillOutcome::Passed, "{drill:?}");
        assert_eq!((drill.level, drill.scheduled), (level, true));
        assert_eq!(drill.chosen.unwrap().position, block(20).position);
        assert_eq!(drill.chosen.unwrap().set, block(20).set);
        let restores = level >= DrillLevel::Replay;
        assert_eq!(drill.restored.is_some(), restores);
        assert_eq!(drill.measured.recovery_millis, restores.then_some(0));
        assert_eq!(drill.measured.recovery_point_age_millis, Some(3_000));
        assert_eq!(drill.proofs.len(), usize::from(level >= DrillLevel::Load));
        assert_eq!(drill.place.is_some(), restores);
        let looked = match level {
            DrillLevel::Presence => (2, false, 0),
            DrillLevel::Bytes => (2, true, 0),
            // A number a segment: 11 of the base, 10 of the changes.
            DrillLevel::Read => (2, true, 21),
            _ => (0, false, 0),
        };
        let checked = drill.checked;
        assert_eq!((checked.packs, checked.bytes > 0, checked.segments), looked);
        // What it was about, so that anybody can compare.
        for (subject, point) in evidence.subjects.iter().zip(&points) {
            let key = point.object().unwrap();
            let sha256 = sha2::Sha256::digest(place.body(&key).await);
            assert_eq!(subject.name, key.as_str());
            assert_eq!(subject.digest.sha256, Hex(sha256.into()));
        }
        assert_eq!(evidence.subjects.len(), points.len());
        let parsed: DrillLevel = level.to_string().parse().unwrap();
        assert_eq!(parsed, level);
    }
    assert_eq!(place.kept().await.len(), LEVELS.len());
    assert!("all".parse::<DrillLevel>().is_err());
    // It needs the base alone.
    let base = place
        .holds(DrillLevel::Replay, |drill| {
            drill.choice = DrillChoice::Height(10)
        })
        .await;
    assert!(base.passed());
    assert_eq!(base.subjects.len(), 1);
}

/// From which level on it is noticed, and what is said.
#[tokio::test]
async fn damage_fails_with_evidence() {
    use DrillLevel::{Bytes, Chain, Presence, Read, Replay};
    let levels = [Chain, Presence, Bytes, Read, Replay];
    let table: [(&str, &[DrillLevel], [&str; 2]); 6] = [
        ("flip", &[Bytes, Read, Replay], ["packs/", "damaged"]),
        (
            "lose",
            &[Presence, Bytes, Read, Replay],
            ["packs/", "missing"],
        ),
        (
            "cut",
            &[Presence, Bytes, Read, Replay],
            ["packs/", "damaged"],
        ),
        ("lie", &[Replay], ["MuHash", "differs"]),
        ("forge", &levels, ["points/", "not signed by a trusted key"]),
        ("gap", &levels, ["no restore point", "set"]),
    ];
    for (damage, noticed, words) in table {
        let place = Place::filled().await;
        let pack = &place.objects("packs/").await[0];
        let points = place.objects("points/").await;
        match damage {
            "flip" => place.flip(pack).await,
            "lose" => place.target.remove(pack).await.unwrap().unwrap(),
            "cut" => {
                let mut body = place.body(pack).await;
                body.pop();
                place.put(pack, body).await;
            }
            "lie" => {
                let mut points = place.repository.points().await.unwrap().usable;
                let mut last = points.pop().unwrap();
                let Content::Delta { blocks, .. } = &mut last.content else {
                    panic!("{last:?}");
                };
                blocks.last_mut().unwrap().set.muhash.0[9] ^= 1;
                let body = last.sign(&place.signer).unwrap();
                place.put(&last.object().unwrap(), body).await;
            }
            "forge" => {
                let stranger = SigningKey::random(&SystemEntropy).unwrap();
                let mut forged = place.repository.points().await.unwrap().usable.remove(0);
                forged.point.0[0] ^= 1;
                let body = forged.sign(&stranger).unwrap();
                place.put(&forged.object().unwrap(), body).await;
            }
            _ => {
                for point in points {
                    place.target.remove(&point).await.unwrap().unwrap();
                }
            }
        }
        for level in levels {
            let evidence = place.holds(level, |_| ()).await;
            match noticed.contains(&level) {
                true => place.says(&evidence, &words),
                false => assert!(evidence.passed(), "{damage} at {level}: {evidence:?}"),
            }
            if damage == "gap" {
                assert_eq!(evidence.subjects[0].name, "repository.json");
                let descriptor = place.objects("repository.json").await.remove(0);
                let sha256 = sha2::Sha256::digest(place.body(&descriptor).await);
                assert_eq!(evidence.subjects[0].digest.sha256, Hex(sha256.into()));
            }
        }
        assert_eq!(place.kept().await.len(), levels.len());
    }
}

#[tokio::test]
async fn what_is_asked_wrongly_fails_with_evidence() {
    let place = Place::filled().await;
    let stranger = Named("somebody else");
    let load = DrillLevel::Load;
    let evidence = place
        .holds(load, |drill| drill.keys = Some(&stranger))
        .await;
    place.says(&evidence, &["no identity at hand", "reader"]);
    let evidence = place.holds(load, |drill| drill.keys = None).await;
    place.says(&evidence, &["needs an identity"]);
    let evidence = place.holds(load, |drill| drill.ground = None).await;
    place.says(&evidence, &["no ground"]);
    let production = vec!["elsewhere".into(), "scratch".into()];
    let evidence = place
        .holds(load, |drill| drill.production = production.clone())
        .await;
    place.says(&evidence, &["scratch is production"]);
    assert_eq!(evidence.drill.place.as_deref(), Some("scratch"));
    assert_eq!(evidence.drill.restored, None);
    // It restores nothing there.
    let evidence = place
        .holds(DrillLevel::Read, |drill| drill.production = production)
        .await;
    assert!(evidence.passed());
    let evidence = place
        .holds(load, |drill| {
            drill.choice = DrillChoice::Point(Hex([9; 16]))
        })
        .await;
    place.says(&evidence, &["no restore point 0909"]);
    let evidence = place.holds(load, |drill| drill.stream = "other").await;
    place.says(&evidence, &["no restore point of \"other\""]);

    for (change, words) in [
        (
            (|ground| ground.reach = DrillLevel::Replay) as fn(&mut Ground),
            "level replay at most",
        ),
        (|ground| ground.proofs = Some(0), "nothing is proven"),
        (|ground| ground.proofs = None, "does not answer"),
    ] {
        let mut ground = Ground::new();
        change(&mut ground);
        let drilled = place.drill(load, &mut ground, |_| ()).await.unwrap();
        place.says(&drilled.evidence, &[words]);
    }
    // A target that does not answer, as long as it takes evidence.
    place.faulty.fail_at(Call::List, 1, Fault::Fail);
    let evidence = place.holds(load, |_| ()).await;
    assert!(!evidence.passed());

    // Without evidence it is an error.
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let kept = place.kept().await.len();
    let refused = place.repository.drill(Drill::new("set", &stranger)).await;
    assert!(matches!(refused, Err(Error::InvalidRequest { .. })));
    place.faulty.fail_at(Call::Put, 1, Fault::Fail);
    let lost = place.drill(load, &mut Ground::new(), |_| ()).await;
    assert!(lost.is_err());
    assert_eq!(place.kept().await.len(), kept);
    // Kept, though the target did not say so.
    place.faulty.fail_at(Call::Put, 1, Fault::LoseAnswer);
    let drilled = place.drill(load, &mut Ground::new(), |_| ()).await;
    let evidence = drilled.unwrap().evidence;
    assert!(place.kept().await.contains(&evidence));
}

#[tokio::test]
async fn objectives_are_kept_or_it_fails() {
    let place = Place::filled().await;
    let objectives = Objectives {
        recovery_time: Some(Duration::from_secs(60)),
        recovery_point_age: Some(Duration::from_secs(3)),
        recovery_point_blocks: Some(5),
    };
    // By the clock alone: it stands at 5,000.
    let table: [(u64, Option<u32>, &[&str]); 7] = [
        (65_000, Some(25), &[]),
        (65_001, Some(25), &["time to recover is 60.001s"]),
        (4_999, Some(25), &["time to recover is not known"]),
        (5_000, Some(26), &["6 blocks, and at most 5"]),
        (5_000, Some(3), &[]),
        (5_000, None, &["from the tip is not known"]),
        (90_000, Some(90), &["time to recover", "blocks"]),
    ];
    for (ends, tip, words) in table {
        place.clock.set(5_000);
        let mut ground = Ground::new();
        ground.slow = Some((place.clock.clone(), ends));
        let change = |drill: &mut Drill<'_>| (drill.objectives, drill.tip) = (objectives, tip);
        let drilled = place.drill(DrillLevel::Replay, &mut ground, change).await;
        let evidence = drilled.unwrap().evidence;
        assert_eq!(evidence.drill.reasons.len(), words.len(), "{evidence:?}");
        assert!(evidence.drill.restored.is_some());
        match words {
            [] => assert!(evidence.passed(), "{evidence:?}"),
            words => place.says(&evidence, words),
        }
    }
    place.clock.set(5_001);
    let with = |drill: &mut Drill<'_>| (drill.objectives, drill.tip) = (objectives, Some(20));
    let evidence = place.holds(DrillLevel::Chain, with).await;
    // A look at the chain is no restore; the age counts.
    place.says(&evidence, &["age of the last restore point is 3.001s"]);
    assert_eq!(evidence.drill.reasons.len(), 1);
    // A restore that failed has not been in time.
    place.flip(&place.objects("packs/").await[0]).await;
    let evidence = place.holds(DrillLevel::Replay, with).await;
    place.says(&evidence, &["damaged", "time to recover is not known"]);

    let text = serde_json::to_string(&objectives).unwrap();
    assert!(text.contains(r#""recovery_time":"1m""#), "{text}");
    let read: Objectives = serde_json::from_str(r#"{"recovery_time": "1m"}"#).unwrap();
    assert_eq!(read.recovery_time, objectives.recovery_time);
    assert!(serde_json::from_str::<Objectives>(r#"{"recover": "1m"}"#).is_err());
}

#[tokio::test]
async fn shares_cover_everything_in_a_cycle() {
    let place = Place::filled().await;
    // The latest, which needs nothing else.
    place.back_up(Numbers::base(5)).await;
    let of = NonZeroU32::new(7).unwrap();
    let (mut segments, mut packs, mut bytes) = (0, 0, 0);
    for day in 100..107 {
        let share = Some(Share::of_day(at(day * DAY + 5), of));
        let evidence = place
            .holds(DrillLevel::Read, |drill| drill.share = share)
            .await;
        assert!(evidence.passed(), "{evidence:?}");
        let drill = &evidence.drill;
        assert_eq!(drill.share, share);
        assert_eq!(evidence.subjects.len(), 3);
        assert!((1..=9).contains(&drill.checked.segments), "{drill:?}");
        segments += drill.checked.segments;
        packs += drill.checked.packs;
        bytes += drill.checked.bytes;
    }
    // Each day looks whether all packs are there.
    assert_eq!((segments, packs), (11 + 10 + 6, 3 * 7));
    let mut all = 0;
    for key in place.objects("packs/").await {
        all += place.body(&key).await.len() as u64;
    }
    assert_eq!(bytes, all);
    // Damage is found within the cycle.
    let pack = place.objects("packs/").await.remove(1);
    place.flip(&pack).await;
    let mut failed = 0;
    for day in 0..7 {
        let share = Some(Share::of_day(at(day * DAY), of));
        let evidence = place
            .holds(DrillLevel::Bytes, |drill| drill.share = share)
            .await;
        failed += usize::from(!evidence.passed());
    }
    assert_eq!(failed, 1);
}

#[tokio::test]
async fn chance_chooses_all_there_is() {
    let place = Place::filled().await;
    let points = place.repository.points().await.unwrap().usable;
    let mut chosen = Vec::new();
    for choice in [DrillChoice::Random, DrillChoice::RandomHeight] {
        let mut heights = BTreeSet::new();
        for _ in 0..200 {
            let evidence = place
                .holds(DrillLevel::Replay, |drill| drill.choice = choice)
                .await;
            assert!(evidence.passed(), "{evidence:?}");
            assert_eq!(evidence.drill.choice, Some(choice));
            heights.insert(evidence.drill.chosen.unwrap().position.height);
        }
        chosen.push(heights.into_iter().collect::<Vec<_>>());
    }
    assert_eq!(chosen, [vec![10, 20], (10..=20).collect::<Vec<_>>()]);
    for (choice, height) in [
        (DrillChoice::Latest, 20),
        (DrillChoice::Oldest, 10),
        (DrillChoice::Point(points[0].point), 10),
        (DrillChoice::Point(points[1].point), 20),
        (DrillChoice::Height(13), 13),
        (DrillChoice::Block(block(17).position.hash), 17),
    ] {
        let evidence = place
            .holds(DrillLevel::Chain, |drill| drill.choice = choice)
            .await;
        let position = evidence.drill.chosen.unwrap().position;
        assert_eq!(position, block(height).position);
    }
}

#[tokio::test]
async fn evidence_is_verified_without_the_repository() {
    let place = Place::filled().await;
    let drilled = place
        .drill(DrillLevel::Load, &mut Ground::new(), |_| ())
        .await
        .unwrap();
    let (key, signed) = (drilled.evidence.object.clone(), drilled.signed);
    let trusted = [Hex([0; 32]), place.signer.public()];
    let read = |bytes: &[u8]| Evidence::read(key.as_str(), bytes, &trusted);
    assert_eq!(read(&signed).unwrap(), drilled.evidence);
    // As in-toto has it.
    let envelope: serde_json::Value = serde_json::from_slice(&signed).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    // Every bit: either it is refused, or it says the same (a hint of the signer, or another spelling).
    let (mut refused, mut same) = (0_u32, 0_u32);
    for at in 0..signed.len() * 8 {
        let mut damaged = signed.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        match read(&damaged) {
            Ok(evidence) => {
                assert_eq!(evidence, drilled.evidence, "bit {at}");
                same += 1;
            }
            Err(error) => {
                let named = error.to_string().contains(key.as_str());
                assert!(named, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10 * same, "{refused} {same}");

    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let error = Evidence::read(key.as_str(), &signed, &[stranger.public()]).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    let other = key.as_str().replace("drills/0", "drills/1");
    let error = Evidence::read(&other, &signed, &trusted).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    // A manifest is no evidence, nor is evidence a manifest.
    let point = place.objects("points/").await.remove(0);
    assert!(read(&place.body(&point).await).is_err());
    assert!(Manifest::read(key.as_str(), &signed, &trusted).is_err());

    // By somebody else in the repository, and of another one.
    let forged = drilled.evidence.sign(&stranger).unwrap();
    place.put(&key, forged).await;
    let found = place.repository.evidence().await.unwrap();
    assert!(found.usable.is_empty());
    assert!(matches!(found.unusable[..], [(_, Error::Untrusted { .. })]));
    let mut other = drilled.evidence.clone();
    other.drill.repository.0[0] ^= 1;
    place.put(&key, other.sign(&place.signer).unwrap()).await;
    let found = place.repository.evidence().await.unwrap();
    assert!(matches!(found.unusable[..], [(_, Error::Corrupt { .. })]));
}
