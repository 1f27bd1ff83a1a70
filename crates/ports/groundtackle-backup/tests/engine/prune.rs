//! Forgetting and pruning, beside whatever else is done to a repository.

use std::collections::HashSet;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::Poll;

use groundtackle_backup::{
    Entropy, Listing, MIN_GRACE, ObjectInfo, Outcome, Pack, PruneOptions, Pruned,
    TargetCapabilities, Upload, WRITER_LIMIT,
};

use super::retention::Random;
use super::*;

#[path = "trees.rs"]
mod trees;

const HOUR: Duration = Duration::from_secs(3_600);

/// Set by hand; of a host that is so far behind.
#[derive(Clone, Debug)]
struct Manual {
    now: Arc<Mutex<SystemTime>>,
    behind: Duration,
}

impl Manual {
    fn new() -> Self {
        Self {
            now: Arc::new(Mutex::new(UNIX_EPOCH + HOUR * 400_000)),
            behind: Duration::ZERO,
        }
    }

    fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }
}

impl Clock for Manual {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap() - self.behind
    }
}

#[derive(Debug)]
struct Seeded(Mutex<u64>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<()> {
        let mut seed = self.0.lock().unwrap();
        let mut random = Random(*seed);
        bytes.fill_with(|| random.below(256) as u8);
        *seed = random.0;
        Ok(())
    }
}

/// Where an actor is.
#[derive(Debug, Default)]
struct Gate {
    may_pass: bool,
    /// The call that it is about to make.
    at: Option<String>,
}

/// A target each of whose calls waits until the test lets it pass; and one whose removals can be denied.
#[derive(Clone, Debug)]
struct Gated {
    target: MemoryTarget,
    gate: Option<Arc<Mutex<Gate>>>,
    denies: bool,
}

impl Gated {
    async fn pass(&self, call: String) {
        let Some(gate) = &self.gate else { return };
        poll_fn(|_| {
            let mut gate = gate.lock().unwrap();
            if std::mem::take(&mut gate.may_pass) {
                gate.at = None;
                return Poll::Ready(());
            }
            gate.at = Some(call.clone());
            Poll::Pending
        })
        .await;
    }
}

#[derive(Debug)]
struct GatedUpload(Box<dyn Upload>, Gated);

#[async_trait]
impl Upload for GatedUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.write(bytes).await
    }
    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        self.1.pass("finish".into()).await;
        self.0.finish().await
    }
    async fn abort(self: Box<Self>) -> Result<()> {
        self.0.abort().await
    }
}

#[async_trait]
impl Target for Gated {
    fn capabilities(&self) -> TargetCapabilities {
        self.target.capabilities()
    }
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.pass(format!("put {key}")).await;
        self.target.put(key, body, condition, lock_until).await
    }
    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        self.pass(format!("upload {key}")).await;
        let upload = self.target.upload(key, lock_until).await?;
        Ok(Box::new(GatedUpload(upload, self.clone())))
    }
    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        self.pass(format!("read {key}")).await;
        self.target.read(key, range).await
    }
    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        self.pass(format!("info {key}")).await;
        self.target.info(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        self.pass(format!("list {prefix}")).await;
        self.target.list(prefix, after, limit).await
    }
    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        self.pass(format!("remove {key}")).await;
        match self.denies {
            true => Err(Error::Denied {
                backend: "gated",
                action: format!("removing {key}"),
            }),
            false => self.target.remove(key).await,
        }
    }
    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        self.target.lock(key, until).await
    }
    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        self.pass("remove_unfinished".into()).await;
        self.target.remove_unfinished(before).await
    }
}

/// A repository whose target has its own clock.
struct Kept {
    clock: Manual,
    entropy: Arc<Seeded>,
    place: Place,
    blocks: Vec<Block>,
    /// All that were ever listed, and the blocks that they lead to.
    listed: Vec<(Manifest, Block)>,
    forgotten: HashSet<Hex<16>>,
}

impl Kept {
    async fn new(seed: u64) -> Self {
        let clock = Manual::new();
        let entropy = Arc::new(Seeded(Mutex::new(seed)));
        let target = MemoryTarget::with_clock(Arc::new(clock.clone()));
        let signer = SigningKey::random(&*entropy).unwrap();
        let shared = Arc::new(target.clone());
        let made = Repository::init(
            shared,
            "main",
            &signer,
            Arc::new(clock.clone()),
            entropy.clone(),
        );
        let repository = made.await.unwrap();
        Self {
            clock,
            entropy,
            place: Place {
                target,
                repository,
                signer,
            },
            blocks: chain(80, Vec::new(), 1),
            listed: Vec::new(),
            forgotten: HashSet::new(),
        }
    }

    /// The same repository through a target.
    async fn through(&self, target: Gated, behind: Duration) -> Repository {
        let mut clock = self.clock.clone();
        clock.behind = behind;
        let trust = Trust::new([self.place.signer.public()]).unwrap();
        let opened = Gate::opened(Repository::open(Arc::new(target.clone()), trust), &target);
        opened.await.with(Arc::new(clock), self.entropy.clone())
    }

    async fn back_up(&mut self, source: Numbers, at: usize) -> Hex<16> {
        self.clock.pass(HOUR);
        let manifest = self.place.back_up(source).await.unwrap();
        let name = manifest.point;
        self.listed.push((manifest, self.blocks[at].clone()));
        name
    }

    async fn base(&mut self, at: usize) -> Hex<16> {
        self.back_up(Numbers::base(&self.blocks[at].clone()), at)
            .await
    }

    async fn delta(&mut self, blocks: Range<usize>) -> Hex<16> {
        let part = self.blocks[blocks.start..=blocks.end].to_vec();
        self.back_up(Numbers::delta(&part), blocks.end).await
    }

    async fn forget(&mut self, points: &[Hex<16>]) -> u64 {
        let signer = &self.place.signer;
        let forgotten = self.place.repository.forget(points, signer).await.unwrap();
        self.forgotten.extend(points);
        forgotten
    }

    async fn prune(&self) -> Pruned {
        let options = PruneOptions::new().with_grace(MIN_GRACE);
        self.place.repository.prune(&options).await.unwrap()
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.place.objects().await.into_iter();
        let keys = objects.map(String::from);
        keys.filter(|key| key.starts_with(prefix)).collect()
    }

    /// All that were listed and not forgotten are there and can be restored; nothing else is offered.
    async fn assert_whole(&self, what: &str) {
        let points = self.place.repository.points().await.unwrap();
        assert!(points.unusable.is_empty(), "{what}: {points:?}");
        let offered: HashSet<_> = points.usable.iter().map(|point| point.point).collect();
        let known = self.listed.iter().map(|(manifest, _)| manifest.point);
        let wanted: HashSet<_> = known
            .filter(|name| !self.forgotten.contains(name))
            .collect();
        assert_eq!(offered, wanted, "{what}");
        for (manifest, block) in &self.listed {
            if offered.contains(&manifest.point) {
                self.assert_restores(&points, block, what).await;
            }
        }
    }

    async fn assert_restores(
        &self,
        points: &groundtackle_backup::Points,
        block: &Block,
        what: &str,
    ) {
        let at = At::Block(block.entry.position.hash);
        let plan = points.plan("set", at);
        let plan = plan.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut into = Into::default();
        let keys = Named("reader");
        let restored = self.place.repository.restore(&plan, &keys, &mut into, 1);
        restored
            .await
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(into.set, block.after, "{what}");
    }

    /// Once all graces are over nothing is there but what restore points need.
    async fn assert_ends_clean(&self, what: &str) {
        self.clock.pass(MIN_GRACE * 2);
        self.prune().await;
        self.assert_whole(what).await;
        let points = self.place.repository.points().await.unwrap();
        let present = points.usable.iter().chain(&points.forgotten);
        let packs = present.flat_map(|point| &point.packs);
        let packs: HashSet<_> = packs
            .map(|pack| String::from(Pack::key(&pack.id).unwrap()))
            .collect();
        let there: HashSet<_> = self.keys("packs/").await.into_iter().collect();
        assert_eq!(there, packs, "{what}");
        assert_eq!(self.keys("clock/").await, [""; 0], "{what}");
        assert_eq!(
            self.keys("forgotten/").await.len(),
            points.forgotten.len(),
            "{what}"
        );
        // Nothing is left to do.
        let needed = points.forgotten.len() as u64;
        let again = self.prune().await;
        assert_eq!((again.points, again.packs, again.needed), (0, 0, needed));
    }

    /// A base and deltas behind it, of which some are forgotten at some time.
    async fn random(seed: u64, random: &mut Random) -> Self {
        let mut kept = Self::new(seed).await;
        let mut at = 0;
        kept.base(0).await;
        for _ in 0..2 + random.below(4) {
            let next = at + 1 + random.below(4) as usize;
            kept.delta(at..next).await;
            at = next;
            if random.below(3) == 0 {
                kept.base(at).await;
            }
            kept.forget_some(random).await;
            kept.clock.pass(HOUR * random.below(20) as u32);
        }
        kept
    }

    async fn forget_some(&mut self, random: &mut Random) {
        if random.below(2) == 0 {
            let chosen = self.one_of(random);
            // One at least stays.
            if self.forgotten.len() + 1 < self.listed.len() && !self.forgotten.contains(&chosen) {
                self.forget(&[chosen]).await;
            }
        }
    }

    fn one_of(&self, random: &mut Random) -> Hex<16> {
        self.listed[random.below(self.listed.len() as u64) as usize]
            .0
            .point
    }
}

impl Gate {
    /// Lets all calls of what opens a repository pass.
    async fn opened(
        opening: impl Future<Output = Result<Repository>>,
        target: &Gated,
    ) -> Repository {
        let mut opening = Box::pin(opening);
        poll_fn(|context| {
            loop {
                if let Some(gate) = &target.gate {
                    gate.lock().unwrap().may_pass = true;
                }
                match opening.as_mut().poll(context) {
                    Poll::Ready(opened) => return Poll::Ready(opened.unwrap()),
                    Poll::Pending => {}
                }
            }
        })
        .await
    }
}

/// What an actor has done.
enum Done {
    Listed(Box<Manifest>, Box<Block>),
    ListedTree,
    GaveUp,
    Forgot(Hex<16>),
    Pruned,
}

struct Actor {
    work: Option<Pin<Box<dyn Future<Output = Done> + Send>>>,
    gate: Arc<Mutex<Gate>>,
}

impl Actor {
    /// On to its next call of the target, or its end.
    async fn step(&mut self) -> Option<Done> {
        self.gate.lock().unwrap().may_pass = true;
        let Self { work, gate } = self;
        let running = work.as_mut().expect("it is under way");
        let done = poll_fn(|context| match running.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if gate.lock().unwrap().at.is_some() => Poll::Ready(None),
            // It waits for a thread.
            Poll::Pending => Poll::Pending,
        });
        let done = done.await;
        if done.is_some() {
            *work = None;
        }
        done
    }

    /// It has looked at its clock, and commits.
    fn commits(&self) -> bool {
        let gate = self.gate.lock().unwrap();
        gate.at
            .as_ref()
            .is_some_and(|at| at.starts_with("put points/"))
    }
}

fn signer_of(place: &Place, seed: u64) -> SigningKey {
    // The first that the entropy gave.
    let again = SigningKey::random(&Seeded(Mutex::new(seed))).unwrap();
    assert_eq!(again.public(), place.signer.public());
    again
}

/// Backs up what comes after a restore point that it finds, as a host does that a journal serves.
async fn write(
    repository: Repository,
    signer: SigningKey,
    blocks: Vec<Block>,
    mut random: Random,
) -> Done {
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &signer,
        workers: 1,
    };
    let began = repository.begin();
    let points = repository.points().await.unwrap().usable;
    let from = match random.below(4) {
        0 => None,
        1 => points.get(random.below(points.len().max(1) as u64) as usize),
        _ => points.last(),
    };
    let from = from.map(|point| point.content.position().unwrap().height as usize);
    let (mut source, at) = match from {
        Some(from) => {
            let to = from + 1 + random.below(3) as usize;
            (Numbers::delta(&blocks[from..=to]), to)
        }
        None => {
            let at = random.below(40) as usize;
            (Numbers::base(&blocks[at]), at)
        }
    };
    match repository.back_up_begun(began, &mut source, &how).await {
        Ok(manifest) => Done::Listed(Box::new(manifest), Box::new(blocks[at].clone())),
        Err(Error::TooSlow { .. }) => Done::GaveUp,
        Err(error) => panic!("{error:?}"),
    }
}

/// Step by step, in an order and at a pace that chance says.
async fn drive(kept: &mut Kept, mut actors: Vec<Actor>, random: &mut Random) -> Vec<Done> {
    let pace = [10, 40, 400][random.below(3) as usize];
    let mut since_check = Duration::ZERO;
    let mut all = Vec::new();
    while actors.iter().any(|actor| actor.work.is_some()) {
        let pass = match random.below(pace) {
            0 => HOUR * [1, 3, 9, 30][random.below(4) as usize],
            _ => Duration::ZERO,
        };
        // A put takes hours at most.
        since_check = match actors.iter().any(Actor::commits) {
            true => since_check + pass,
            false => Duration::ZERO,
        };
        if since_check < MIN_GRACE - WRITER_LIMIT {
            kept.clock.pass(pass);
        } else {
            since_check -= pass;
        }
        let running: Vec<_> = actors
            .iter_mut()
            .filter(|actor| actor.work.is_some())
            .collect();
        let chosen = random.below(running.len() as u64) as usize;
        let actor = running.into_iter().nth(chosen).unwrap();
        let Some(done) = actor.step().await else {
            continue;
        };
        if let Done::Forgot(point) = done {
            let there = kept.place.repository.points().await.unwrap();
            if !there.usable.iter().any(|other| other.point == point) {
                kept.forgotten.insert(point);
            }
        }
        all.push(done);
    }
    all
}

/// Two writers, one of them with a clock that is behind, somebody who forgets, and two prunes, step by step in an order that a
/// seed says, while hours and days pass.
#[tokio::test]
async fn prunes_beside_backups_lose_nothing() {
    let (mut listed, mut gave_up, mut pruned, mut removed) = (0, 0, 0, 0);
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut kept = Kept::random(seed, &mut random).await;
        let mut actors = Vec::new();
        for kind in 0..5 {
            let gate = Arc::new(Mutex::new(Gate::default()));
            let target = Gated {
                target: kept.place.target.clone(),
                gate: Some(gate.clone()),
                denies: false,
            };
            let behind = HOUR * if kind == 1 { 70 } else { 0 };
            let repository = kept.through(target, behind).await;
            let signer = signer_of(&kept.place, seed);
            let own = Random(random.below(u64::MAX >> 33));
            let forgets = kept.one_of(&mut random);
            let blocks = kept.blocks.clone();
            let work: Pin<Box<dyn Future<Output = Done> + Send>> = match kind {
                0 | 1 => Box::pin(write(repository, signer, blocks, own)),
                2 => Box::pin(async move {
                    repository.forget(&[forgets], &signer).await.ok();
                    Done::Forgot(forgets)
                }),
                _ => Box::pin(async move {
                    let options = PruneOptions::new().with_grace(MIN_GRACE);
                    repository.prune(&options).await.unwrap();
                    Done::Pruned
                }),
            };
            let work = Some(work);
            actors.push(Actor { work, gate });
        }
        let before = kept.keys("points/").await.len();
        for done in drive(&mut kept, actors, &mut random).await {
            match done {
                Done::Listed(manifest, block) => {
                    kept.listed.push((*manifest, *block));
                    listed += 1;
                }
                Done::GaveUp => gave_up += 1,
                Done::Pruned => pruned += 1,
                Done::ListedTree | Done::Forgot(_) => {}
            }
        }
        removed += before.saturating_sub(kept.keys("points/").await.len());
        let what = format!("seed {seed}");
        kept.assert_whole(&what).await;
        kept.assert_ends_clean(&what).await;
    }
    assert!(
        listed > 150 && gave_up > 50 && pruned == 400 && removed > 20,
        "{listed} {gave_up} {pruned} {removed}"
    );
}

#[tokio::test]
async fn a_prune_killed_anywhere_goes_on() {
    let mut killed = 0;
    for seed in 0..200 {
        let mut random = Random(seed ^ 0xdead);
        let mut kept = Kept::random(seed, &mut random).await;
        kept.forget_some(&mut random).await;
        kept.forget_some(&mut random).await;
        kept.clock.pass(MIN_GRACE * random.below(3) as u32);
        let gate = Arc::new(Mutex::new(Gate::default()));
        let target = Gated {
            target: kept.place.target.clone(),
            gate: Some(gate.clone()),
            denies: false,
        };
        let repository = kept.through(target, Duration::ZERO).await;
        let work = Box::pin(async move {
            let options = PruneOptions::new().with_grace(MIN_GRACE);
            repository.prune(&options).await.unwrap();
            Done::Pruned
        });
        let mut actor = Actor {
            work: Some(work),
            gate,
        };
        for _ in 0..random.below(24) {
            if actor.step().await.is_some() {
                break;
            }
        }
        killed += usize::from(actor.work.is_some());
        drop(actor);
        let what = format!("seed {seed}");
        kept.assert_whole(&what).await;
        // What is still there of those forgotten is whole, too.
        let points = kept.place.repository.points().await.unwrap();
        for point in &points.forgotten {
            let found = kept.listed.iter().find(|(other, _)| other == point);
            kept.assert_restores(&points, &found.unwrap().1, &what)
                .await;
        }
        kept.assert_ends_clean(&what).await;
    }
    assert!(killed > 100, "{killed}");
}

#[tokio::test]
async fn what_was_forgotten_is_not_offered_and_goes_after_the_grace() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.delta(0..5).await;
    let third = kept.base(9).await;
    assert_eq!(kept.forget(&[first, second, first]).await, 2);
    assert_eq!(kept.forget(&[first]).await, 0);
    let points = kept.place.repository.points().await.unwrap();
    let names = |points: &[Manifest]| points.iter().map(|point| point.point).collect::<Vec<_>>();
    assert_eq!(names(&points.usable), [third]);
    assert_eq!(names(&points.forgotten), [first, second]);
    // They can still be had by the block's name.
    let block = kept.blocks[4].clone();
    kept.assert_restores(&points, &block, "forgotten").await;
    // Not the last one, though another one is.
    let plan = points.plan("set", At::Latest).unwrap();
    assert_eq!(plan.position.height, 9);

    // Before the grace is over nothing goes, and one comes back.
    let nothing = kept.prune().await;
    assert_eq!(nothing, Pruned::default());
    assert_eq!(kept.place.repository.unforget(&[second]).await.unwrap(), 1);
    assert_eq!(kept.place.repository.unforget(&[second]).await.unwrap(), 0);
    kept.forgotten.remove(&second);
    kept.clock.pass(MIN_GRACE * 3);
    // What it goes over stays.
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.needed), (0, 1));
    kept.assert_whole("one needs the other").await;

    kept.forget(&[second]).await;
    kept.clock.pass(MIN_GRACE * 3);
    let options = PruneOptions::new().dry_run();
    let all = kept.keys("").await;
    let would = kept.place.repository.prune(&options).await.unwrap();
    assert_eq!(kept.keys("").await, all);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs), (2, 2));
    assert!(pruned.bytes > 100);
    assert_eq!(would, pruned);
    kept.assert_ends_clean("all went").await;
    assert_eq!(kept.keys("points/").await.len(), 1);
    let error = kept.place.repository.unforget(&[first]).await.unwrap_err();
    assert!(error.to_string().contains("no restore point"), "{error}");
}

#[tokio::test]
async fn packs_of_a_backup_under_way_stay() {
    let mut kept = Kept::new(1).await;
    kept.base(0).await;
    let mut broken = Numbers::base(&kept.blocks[5]);
    broken.fails = Some("finish");
    kept.place.back_up(broken).await.unwrap_err();
    // What was open when it failed was no object yet; this one is.
    let key = Pack::key(&Hex([7; 16])).unwrap();
    let left = kept
        .place
        .target
        .put(&key, Bytes::from_static(b"left"), &PutIf::Absent, None);
    left.await.unwrap().unwrap();
    kept.clock.pass(MIN_GRACE - Duration::from_secs(1));
    assert_eq!(kept.prune().await.packs, 0);
    kept.clock.pass(Duration::from_secs(1));
    let pruned = kept.prune().await;
    assert_eq!((pruned.packs, pruned.bytes), (1, 4));
    kept.assert_whole("a pack was left").await;
}

#[tokio::test]
async fn a_slow_backup_gives_up() {
    let kept = Kept::new(1).await;
    let how = BackUp {
        stream: "set",
        wrapping: &Named("reader"),
        signer: &kept.place.signer,
        workers: 1,
    };
    for (hours, slow) in [(12, false), (13, true)] {
        let began = kept.place.repository.begin();
        kept.clock.pass(HOUR * hours);
        let mut source = Numbers::base(&kept.blocks[3]);
        let made = kept
            .place
            .repository
            .back_up_begun(began, &mut source, &how);
        assert_eq!(matches!(made.await, Err(Error::TooSlow { .. })), slow);
    }
    assert_eq!(kept.keys("points/").await.len(), 1);
}

/// A host whose clock is behind another one's.
#[tokio::test]
async fn what_is_made_last_is_the_last() {
    let mut kept = Kept::new(1).await;
    kept.base(0).await;
    let ahead = kept.delta(0..3).await;
    let target = Gated {
        target: kept.place.target.clone(),
        gate: None,
        denies: false,
    };
    let behind = kept.through(target, HOUR * 50).await;
    let how = |stream| BackUp {
        stream,
        wrapping: &Named("reader"),
        signer: &kept.place.signer,
        workers: 1,
    };
    // Nobody signed this one, so it is no time.
    let forged = format!("points/{:016x}-{}", u64::MAX, Hex([3; 16]));
    let key = ObjectKey::try_from(forged).unwrap();
    let put = kept
        .place
        .target
        .put(&key, Bytes::from_static(b"{}"), &PutIf::Absent, None);
    put.await.unwrap().unwrap();
    let mut source = Numbers::delta(&kept.blocks[1..=2]);
    let made = behind.back_up(&mut source, &how("set")).await.unwrap();
    let newest = &kept.listed.last().unwrap().0;
    assert_eq!(newest.point, ahead);
    assert_eq!(made.created_unix_millis, newest.created_unix_millis + 1);
    // Another stream has a time of its own.
    let mut source = Numbers::base(&kept.blocks[1]);
    let other = behind.back_up(&mut source, &how("other")).await.unwrap();
    assert!(other.created_unix_millis < newest.created_unix_millis);
    let points = behind.points().await.unwrap();
    let plan = points.plan("set", At::Latest).unwrap();
    assert_eq!(plan.position.height, 2);
}

#[tokio::test]
async fn what_can_not_be_removed_goes_later() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.delta(0..5).await;
    kept.base(9).await;
    kept.forget(&[first, second]).await;
    kept.clock.pass(MIN_GRACE * 2);
    // The delta can't go, so the base that it needs stays too.
    let object = kept.listed[1].0.object().unwrap();
    let until = kept.clock.now() + MIN_GRACE;
    kept.place
        .target
        .lock(&object, until)
        .await
        .unwrap()
        .unwrap();
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs, pruned.later), (0, 0, 1));
    let points = kept.place.repository.points().await.unwrap();
    let block = kept.blocks[5].clone();
    kept.assert_restores(&points, &block, "locked").await;

    kept.clock.pass(MIN_GRACE);
    let target = Gated {
        target: kept.place.target.clone(),
        gate: None,
        denies: true,
    };
    let denied = kept.through(target, Duration::ZERO).await;
    let pruned = denied.prune(&PruneOptions::new()).await.unwrap();
    assert_eq!((pruned.points, pruned.packs), (0, 0));
    assert!(pruned.later >= 2, "{pruned:?}");
    assert_eq!(kept.prune().await.points, 2);
    kept.assert_ends_clean("later").await;
}

#[tokio::test]
async fn what_is_not_understood_stops_a_prune() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.base(9).await;
    kept.forget(&[first]).await;
    kept.clock.pass(MIN_GRACE * 2);
    let object = kept.listed[1].0.object().unwrap();
    let body = kept.place.body(&object).await;
    kept.place.put(&object, body[1..].to_vec()).await;
    let options = PruneOptions::new();
    let error = kept.place.repository.prune(&options).await.unwrap_err();
    assert!(error.to_string().contains(object.as_str()), "{error}");
    assert_eq!(kept.keys("points/").await.len(), 2);
    assert_eq!(kept.keys("packs/").await.len(), 2);
    // Whoever does not want it says so.
    kept.forget(&[second]).await;
    let prune = kept.place.repository.prune(&options).await;
    prune.unwrap_err();
    kept.clock.pass(MIN_GRACE * 2);
    let pruned = kept.prune().await;
    assert_eq!((pruned.points, pruned.packs), (2, 2));
}

#[tokio::test]
async fn tombstones_are_believed_only_from_the_trusted() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    let second = kept.base(9).await;
    let stranger = SigningKey::random(&SystemEntropy).unwrap();
    let error = kept.place.repository.forget(&[first], &stranger).await;
    assert!(error.unwrap_err().to_string().contains("not among those"));
    let error = kept
        .place
        .repository
        .forget(&[first, Hex([5; 16])], &kept.place.signer)
        .await;
    assert!(error.unwrap_err().to_string().contains("no restore point"));
    assert_eq!(kept.keys("forgotten/").await.len(), 0);

    // Another one's, a damaged one, and a forged one.
    kept.forget(&[first]).await;
    let tombstone = ObjectKey::try_from(kept.keys("forgotten/").await[0].clone()).unwrap();
    let good = kept.place.body(&tombstone).await;
    let of_second = kept.listed[1].0.object().unwrap();
    let others = of_second.as_str().replace("points/", "forgotten/");
    let others = ObjectKey::try_from(others).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let forged = text.replace("\"sig\":\"", "\"sig\":\"AAAA");
    for (key, body) in [
        (&others, good.clone()),
        (&tombstone, good[1..].to_vec()),
        (&tombstone, forged.into_bytes()),
    ] {
        kept.place.put(key, body).await;
        let points = kept.place.repository.points().await.unwrap();
        assert!(
            points.unusable.iter().any(|(object, _)| object == key),
            "{points:?}"
        );
        assert!(points.usable.iter().any(|point| point.point == second));
        kept.clock.pass(MIN_GRACE * 2);
        let plain = PruneOptions::new().dry_run();
        let would = kept.place.repository.prune(&plain).await.unwrap();
        assert_eq!(would.points, u64::from(*key == others));
    }
    // A good one takes its place.
    assert_eq!(kept.forget(&[first, second]).await, 2);
    let points = kept.place.repository.points().await.unwrap();
    assert!(points.unusable.is_empty() && points.usable.is_empty());
}

#[tokio::test]
async fn a_short_grace_needs_a_word() {
    let mut kept = Kept::new(1).await;
    let first = kept.base(0).await;
    kept.base(9).await;
    kept.forget(&[first]).await;
    let short = PruneOptions::new().with_grace(Duration::ZERO);
    let error = kept.place.repository.prune(&short).await.unwrap_err();
    assert!(error.to_string().contains("nobody else writes"), "{error}");
    let alone = short.nobody_else_writes();
    let pruned = kept.place.repository.prune(&alone).await.unwrap();
    assert_eq!((pruned.points, pruned.packs), (1, 1));
    kept.assert_ends_clean("alone").await;
}
