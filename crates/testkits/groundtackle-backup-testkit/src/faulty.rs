//! A target that fails on demand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use groundtackle_backup::{
    Error, Listing, Member, ObjectInfo, ObjectKey, Outcome, PutIf, Result, Retryability, Target,
    TargetCapabilities, Upload,
};

use crate::content::mix;

const BACKEND: &str = "faulty";

/// A call of a target, or of one of its uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Target::put`].
    Put,
    /// [`Target::upload`].
    Upload,
    /// [`Upload::write`].
    Write,
    /// [`Upload::finish`].
    Finish,
    /// [`Upload::abort`].
    Abort,
    /// [`Target::read`].
    Read,
    /// [`Target::info`].
    Info,
    /// [`Target::list`].
    List,
    /// [`Target::remove`].
    Remove,
    /// [`Target::lock`].
    Lock,
    /// [`Target::remove_unfinished`].
    RemoveUnfinished,
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Fails, and nothing was applied.
    Fail,
    /// Is applied, and the answer is lost.
    LoseAnswer,
    /// Is not applied, and there is never an answer.
    Hang,
    /// Is applied, and there is never an answer.
    HangAfter,
    /// The target has more to do than it can.
    Overload,
    /// There is no room left.
    Full,
    /// A read gets fewer bytes than asked for; a put or a write keeps fewer than it says.
    Truncate,
    /// One bit is another one: of what a read gets, of what a put or a write keeps.
    FlipBit,
    /// A listing is in another order.
    Reorder,
    /// A listing has one object less.
    Omit,
    /// A write passes on a part and fails, and nothing can follow.
    StopShort,
}

impl Fault {
    /// Whether it can happen to that call.
    pub const fn fits(self, call: Call) -> bool {
        match self {
            Self::Truncate | Self::FlipBit => {
                matches!(call, Call::Read | Call::Put | Call::Write)
            }
            Self::Reorder | Self::Omit => matches!(call, Call::List),
            Self::StopShort => matches!(call, Call::Write),
            Self::Full => matches!(call, Call::Put | Call::Upload | Call::Write | Call::Finish),
            Self::Fail | Self::LoseAnswer | Self::Hang | Self::HangAfter | Self::Overload => true,
        }
    }
}

/// When a fault comes.
#[derive(Debug)]
struct Plan {
    call: Option<Call>,
    fault: Fault,
    when: When,
}

#[derive(Debug)]
enum When {
    /// After so many more that it fits.
    Left(u64),
    /// By chance, so often in a million.
    PerMillion(u64),
}

#[derive(Debug)]
struct Plans {
    random: u64,
    plans: Vec<Plan>,
    calls: BTreeMap<Call, u64>,
    injected: u64,
}

/// A target around another one that fails on demand: at the n-th call, or by chance from a seed. Clones and uploads
/// share their faults and counts; without faults it does what the other one does.
#[derive(Debug)]
pub struct Faulty<T> {
    target: Arc<T>,
    plans: Arc<Mutex<Plans>>,
}

impl<T> Clone for Faulty<T> {
    fn clone(&self) -> Self {
        Self {
            target: self.target.clone(),
            plans: self.plans.clone(),
        }
    }
}

impl<T: Target> Faulty<T> {
    /// Around `target`, without faults yet. The seed decides where a bit is flipped, an object is omitted, and when what
    /// comes by chance comes.
    pub fn new(target: T, seed: u64) -> Self {
        let plans = Plans {
            random: seed,
            plans: Vec::new(),
            calls: BTreeMap::new(),
            injected: 0,
        };
        Self {
            target: Arc::new(target),
            plans: Arc::new(Mutex::new(plans)),
        }
    }

    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan(&self, call: Option<Call>, fault: Fault, when: When) {
        assert!(
            call.is_none_or(|call| fault.fits(call)),
            "{fault:?} can't happen to {call:?}"
        );
        self.plans().plans.push(Plan { call, fault, when });
    }

    /// Lets a fault come once: at the n-th call from now (1: the next) of this kind, or of any that it fits.
    ///
    /// # Panics
    /// Where it can't happen to such a call, or `nth` is 0.
    pub fn fail_at(&self, call: impl Into<Option<Call>>, nth: u64, fault: Fault) {
        assert!(nth > 0, "the first call is number 1");
        self.plan(call.into(), fault, When::Left(nth));
    }

    /// Lets a fault come by chance, so often in a million calls of this kind, or of any that it fits; 1,000,000: always.
    ///
    /// # Panics
    /// Where it can't happen to such a call.
    pub fn fail_often(&self, call: impl Into<Option<Call>>, per_million: u64, fault: Fault) {
        self.plan(call.into(), fault, When::PerMillion(per_million));
    }

    /// Forgets all faults that have not come yet.
    pub fn heal(&self) {
        self.plans().plans.clear();
    }

    /// How many calls of a kind there were, failed ones included.
    pub fn calls(&self, call: Call) -> u64 {
        self.plans().calls.get(&call).copied().unwrap_or_default()
    }

    /// How many faults came.
    pub fn injected(&self) -> u64 {
        self.plans().injected
    }

    /// The target inside, which does not fail.
    pub fn inner(&self) -> &T {
        &self.target
    }
}

impl Plans {
    fn random(&mut self, below: usize) -> usize {
        let below = below.max(1) as u64;
        usize::try_from(mix(&mut self.random) % below).expect("below a usize")
    }

    /// Counts a call, and says what goes wrong with it.
    fn next(&mut self, call: Call) -> Option<Fault> {
        *self.calls.entry(call).or_default() += 1;
        let mut found = None;
        for number in 0..self.plans.len() {
            let chance = mix(&mut self.random) % 1_000_000;
            let plan = &mut self.plans[number];
            if plan.call.is_some_and(|only| only != call) || !plan.fault.fits(call) {
                continue;
            }
            let now = match &mut plan.when {
                When::Left(left) => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
                When::PerMillion(often) => chance < *often,
            };
            if now && found.is_none() {
                found = Some((number, plan.fault));
            }
        }
        let (number, fault) = found?;
        if matches!(self.plans[number].when, When::Left(_)) {
            self.plans.remove(number);
        }
        self.injected += 1;
        Some(fault)
    }

    fn flip(&mut self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut changed = BytesMut::from(&bytes[..]);
        let at = self.random(bytes.len());
        changed[at] ^= 1 << self.random(8);
        changed.freeze()
    }

    fn cut(&mut self, bytes: &Bytes) -> Bytes {
        bytes.slice(..self.random(bytes.len()))
    }
}

fn shared(plans: &Mutex<Plans>) -> MutexGuard<'_, Plans> {
    plans.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(call: Call, retryability: Retryability, why: &'static str) -> Error {
    Error::backend(BACKEND, format!("{call:?}"), retryability, why)
}

/// Never answers.
async fn hang<T>() -> T {
    std::future::pending().await
}

/// What comes before a call: an error, or silence.
async fn before(call: Call, fault: Option<Fault>) -> Result<()> {
    match fault {
        Some(Fault::Fail) => Err(failed(call, Retryability::Transient, "made to fail")),
        Some(Fault::Overload) => Err(Error::Overloaded {
            backend: BACKEND,
            action: format!("{call:?}"),
        }),
        Some(Fault::Full) => Err(Error::Full {
            place: BACKEND.into(),
            source: "made to be full".into(),
        }),
        Some(Fault::Hang) => hang().await,
        _ => Ok(()),
    }
}

/// What becomes of its answer.
async fn after<T>(call: Call, fault: Option<Fault>, answer: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::LoseAnswer) => Err(failed(
            call,
            Retryability::Indeterminate,
            "the answer was made to be lost",
        )),
        Some(Fault::HangAfter) => hang().await,
        _ => answer,
    }
}

impl<T: Target> Faulty<T> {
    fn next(&self, call: Call) -> Option<Fault> {
        self.plans().next(call)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: Target> Target for Faulty<T> {
    fn capabilities(&self) -> TargetCapabilities {
        self.target.capabilities()
    }

    fn copies(&self) -> &[Member] {
        self.target.copies()
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        let fault = self.next(Call::Put);
        before(Call::Put, fault).await?;
        let kept = match fault {
            Some(Fault::Truncate) => self.plans().cut(&body),
            Some(Fault::FlipBit) => self.plans().flip(body.clone()),
            _ => body.clone(),
        };
        let mut answer = self.target.put(key, kept, condition, lock_until).await;
        if let Ok(Ok(info)) = &mut answer {
            info.bytes = body.len() as u64;
        }
        after(Call::Put, fault, answer).await
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        let fault = self.next(Call::Upload);
        before(Call::Upload, fault).await?;
        let answer = self.target.upload(key, lock_until).await;
        let upload = after(Call::Upload, fault, answer).await?;
        Ok(Box::new(FaultyUpload {
            upload,
            plans: self.plans.clone(),
            said: 0,
            stopped: false,
        }))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let fault = self.next(Call::Read);
        before(Call::Read, fault).await?;
        let answer = self.target.read(key, range).await;
        let answer = answer.map(|bytes| {
            bytes.map(|bytes| match fault {
                Some(Fault::Truncate) => self.plans().cut(&bytes),
                Some(Fault::FlipBit) => self.plans().flip(bytes),
                _ => bytes,
            })
        });
        after(Call::Read, fault, answer).await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let fault = self.next(Call::Info);
        before(Call::Info, fault).await?;
        after(Call::Info, fault, self.target.info(key).await).await
    }

    async fn list(
        &self,
        prefix: &str,
        after_key: Option<&ObjectKey>,
        limit: usize,
    ) -> Result<Listing> {
        let fault = self.next(Call::List);
        before(Call::List, fault).await?;
        let mut answer = self.target.list(prefix, after_key, limit).await;
        if let Ok(Listing { objects, .. }) = &mut answer
            && !objects.is_empty()
        {
            let at = self.plans().random(objects.len());
            match fault {
                Some(Fault::Reorder) => {
                    objects.reverse();
                    objects.rotate_left(at);
                }
                Some(Fault::Omit) => drop(objects.remove(at)),
                _ => {}
            }
        }
        after(Call::List, fault, answer).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let fault = self.next(Call::Remove);
        before(Call::Remove, fault).await?;
        after(Call::Remove, fault, self.target.remove(key).await).await
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        let fault = self.next(Call::Lock);
        before(Call::Lock, fault).await?;
        after(Call::Lock, fault, self.target.lock(key, until).await).await
    }

    async fn remove_unfinished(&self, before_time: SystemTime) -> Result<u64> {
        let fault = self.next(Call::RemoveUnfinished);
        before(Call::RemoveUnfinished, fault).await?;
        let answer = self.target.remove_unfinished(before_time).await;
        after(Call::RemoveUnfinished, fault, answer).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn Upload>,
    plans: Arc<Mutex<Plans>>,
    said: u64,
    stopped: bool,
}

impl FaultyUpload {
    fn refuse_after_stop(&self, call: Call) -> Result<()> {
        if self.stopped {
            return Err(failed(
                call,
                Retryability::Permanent,
                "an earlier write was made to stop short",
            ));
        }
        Ok(())
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let fault = shared(&self.plans).next(Call::Write);
        self.refuse_after_stop(Call::Write)?;
        before(Call::Write, fault)
            .await
            .inspect_err(|_| self.stopped = true)?;
        self.said += bytes.len() as u64;
        let kept = match fault {
            Some(Fault::Truncate | Fault::StopShort) => shared(&self.plans).cut(&bytes),
            Some(Fault::FlipBit) => shared(&self.plans).flip(bytes),
            _ => bytes,
        };
        let answer = self.upload.write(kept).await;
        if fault == Some(Fault::StopShort) {
            self.stopped = true;
            return Err(failed(
                Call::Write,
                Retryability::Indeterminate,
                "made to stop short",
            ));
        }
        let answer = after(Call::Write, fault, answer).await;
        self.stopped |= answer.is_err();
        answer
    }

    async fn finish(self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        let fault = shared(&self.plans).next(Call::Finish);
        self.refuse_after_stop(Call::Finish)?;
        before(Call::Finish, fault).await?;
        let mut answer = self.upload.finish().await;
        if let Ok(Ok(info)) = &mut answer {
            info.bytes = self.said;
        }
        after(Call::Finish, fault, answer).await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let fault = shared(&self.plans).next(Call::Abort);
        before(Call::Abort, fault).await?;
        after(Call::Abort, fault, self.upload.abort().await).await
    }
}
