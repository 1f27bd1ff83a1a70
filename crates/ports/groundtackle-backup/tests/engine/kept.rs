//! A repository that is kept for days, and actors that work on it step by step.

use std::collections::HashSet;
use std::future::poll_fn;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::task::Poll;

use groundtackle_backup::{
    Entropy, Listing, MIN_GRACE, ObjectInfo, Outcome, Pack, PruneOptions, Pruned,
    TargetCapabilities, Upload, WRITER_LIMIT,
};

use super::retention::Random;
use super::*;

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// Set by hand; of a host that is so far behind.
#[derive(Clone, Debug)]
pub(crate) struct Manual {
    pub(crate) now: Arc<Mutex<SystemTime>>,
    pub(crate) behind: Duration,
}

impl Manual {
    pub(crate) fn new() -> Self {
        Self {
            now: Arc::new(Mutex::new(UNIX_EPOCH + HOUR * 400_000)),
            behind: Duration::ZERO,
        }
    }

    pub(crate) fn pass(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }
}

impl Clock for Manual {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap() - self.behind
    }
}

#[derive(Debug)]
pub(crate) struct Seeded(pub(crate) Mutex<u64>);

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
pub(crate) struct Gate {
    pub(crate) may_pass: bool,
    /// The call that it is about to make.
    pub(crate) at: Option<String>,
}

/// A target each of whose calls waits until the test lets it pass; and one whose removals can be denied.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gated {
    pub(crate) target: MemoryTarget,
    pub(crate) gate: Option<Arc<Mutex<Gate>>>,
    pub(crate) denies: bool,
    /// The next put of a lease is carried out, and its answer is lost.
    pub(crate) loses_answer: Arc<AtomicBool>,
    /// It looks before it writes, and no more.
    pub(crate) unconditional: bool,
}

impl Gated {
    pub(crate) async fn pass(&self, call: String) {
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
pub(crate) struct GatedUpload(Box<dyn Upload>, Gated);

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
        let mut capabilities = self.target.capabilities();
        capabilities.conditional_put &= !self.unconditional;
        capabilities
    }
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.pass(format!("put {key}")).await;
        let put = self.target.put(key, body, condition, lock_until).await;
        let lost =
            key.as_str().starts_with("leases/") && self.loses_answer.swap(false, Ordering::Relaxed);
        match lost {
            true => Err(broken("put")),
            false => put,
        }
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
pub(crate) struct Kept {
    pub(crate) clock: Manual,
    pub(crate) entropy: Arc<Seeded>,
    pub(crate) place: Place,
    pub(crate) blocks: Vec<Block>,
    /// All that were ever listed, and the blocks that they lead to.
    pub(crate) listed: Vec<(Manifest, Block)>,
    pub(crate) forgotten: HashSet<Hex<16>>,
}

impl Kept {
    pub(crate) async fn new(seed: u64) -> Self {
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
    pub(crate) async fn through(&self, target: Gated, behind: Duration) -> Repository {
        let mut clock = self.clock.clone();
        clock.behind = behind;
        let trust = Trust::new([self.place.signer.public()]).unwrap();
        let opened = Gate::opened(Repository::open(Arc::new(target.clone()), trust), &target);
        opened.await.with(Arc::new(clock), self.entropy.clone())
    }

    pub(crate) async fn back_up(&mut self, source: Numbers, at: usize) -> Hex<16> {
        self.clock.pass(HOUR);
        let manifest = self.place.back_up(source).await.unwrap();
        let name = manifest.point;
        self.listed.push((manifest, self.blocks[at].clone()));
        name
    }

    pub(crate) async fn base(&mut self, at: usize) -> Hex<16> {
        self.back_up(Numbers::base(&self.blocks[at].clone()), at)
            .await
    }

    pub(crate) async fn delta(&mut self, blocks: Range<usize>) -> Hex<16> {
        let part = self.blocks[blocks.start..=blocks.end].to_vec();
        self.back_up(Numbers::delta(&part), blocks.end).await
    }

    pub(crate) async fn forget(&mut self, points: &[Hex<16>]) -> u64 {
        let signer = &self.place.signer;
        let forgotten = self.place.repository.forget(points, signer).await.unwrap();
        self.forgotten.extend(points);
        forgotten
    }

    pub(crate) async fn prune(&self) -> Pruned {
        let options = PruneOptions::new().with_grace(MIN_GRACE);
        self.place.repository.prune(&options).await.unwrap()
    }

    pub(crate) async fn keys(&self, prefix: &str) -> Vec<String> {
        let objects = self.place.objects().await.into_iter();
        let keys = objects.map(String::from);
        keys.filter(|key| key.starts_with(prefix)).collect()
    }

    /// All that were listed and not forgotten are there and can be restored; nothing else is offered.
    pub(crate) async fn assert_whole(&self, what: &str) {
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

    pub(crate) async fn assert_restores(
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
        let restored = restored.await;
        let restored = restored.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(restored.passed_over.is_empty(), "{what}: {restored:?}");
        assert_eq!(into.set, block.after, "{what}");
    }

    /// Once all graces are over nothing is there but what restore points need.
    pub(crate) async fn assert_ends_clean(&self, what: &str) {
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
    pub(crate) async fn random(seed: u64, random: &mut Random) -> Self {
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

    pub(crate) async fn forget_some(&mut self, random: &mut Random) {
        if random.below(2) == 0 {
            let chosen = self.one_of(random);
            // One at least stays.
            if self.forgotten.len() + 1 < self.listed.len() && !self.forgotten.contains(&chosen) {
                self.forget(&[chosen]).await;
            }
        }
    }

    pub(crate) fn one_of(&self, random: &mut Random) -> Hex<16> {
        self.listed[random.below(self.listed.len() as u64) as usize]
            .0
            .point
    }
}

impl Gate {
    /// Lets all calls of what opens a repository pass.
    pub(crate) async fn opened(
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
pub(crate) enum Done {
    Listed(Box<Manifest>, Box<Block>),
    ListedTree,
    GaveUp,
    Forgot(Hex<16>),
    Pruned,
}

pub(crate) struct Actor {
    pub(crate) work: Option<Pin<Box<dyn Future<Output = Done> + Send>>>,
    pub(crate) gate: Arc<Mutex<Gate>>,
}

impl Actor {
    /// On to its next call of the target, or its end.
    pub(crate) async fn step(&mut self) -> Option<Done> {
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
    pub(crate) fn commits(&self) -> bool {
        let gate = self.gate.lock().unwrap();
        gate.at
            .as_ref()
            .is_some_and(|at| at.starts_with("put points/"))
    }
}

pub(crate) fn signer_of(place: &Place, seed: u64) -> SigningKey {
    // The first that the entropy gave.
    let again = SigningKey::random(&Seeded(Mutex::new(seed))).unwrap();
    assert_eq!(again.public(), place.signer.public());
    again
}

/// Backs up what comes after a restore point that it finds, as a host does that a journal serves.
pub(crate) async fn write(
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
pub(crate) async fn drive(
    kept: &mut Kept,
    mut actors: Vec<Actor>,
    random: &mut Random,
) -> Vec<Done> {
    let pace = [10, 40, 400][random.below(3) as usize];
    // Each begins at another time: what one does first meets what another one does last.
    let begins: Vec<_> = actors.iter().map(|_| random.below(90)).collect();
    let mut steps = 0;
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
        steps += 1;
        let mut running: Vec<_> = actors.iter_mut().zip(&begins).collect();
        running.retain(|(actor, _)| actor.work.is_some());
        // Who comes later does not wait for nobody.
        let first = running.iter().map(|(_, begins)| **begins).min();
        steps = steps.max(first.unwrap_or_default());
        running.retain(|(_, begins)| **begins <= steps);
        let chosen = random.below(running.len() as u64) as usize;
        let (actor, _) = running.into_iter().nth(chosen).unwrap();
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
