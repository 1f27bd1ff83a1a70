//! One repository on several targets: what is sealed once goes to all of them.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_core::Retryability;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::lease::LEASES;
use crate::manifest::POINTS;
use crate::patient::Patient;
use crate::prune::CLOCK;
use crate::repository::LISTED;
use crate::target::{
    Listing, ObjectInfo, ObjectKey, Outcome, PutIf, Refused, Target, TargetCapabilities, Upload,
};

const BACKEND: &str = "several targets";

/// How long a place may take for a call, unless said otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// Pieces of an upload that wait for a place: segments of some 4 MiB.
const SPOOLED_PIECES: usize = 4;

/// Events that are kept until somebody asks.
const KEPT_EVENTS: usize = 1_000;

/// How often others may come between while an exchange is copied.
const EXCHANGES: usize = 32;

/// One of several places.
#[derive(Clone, Debug)]
pub struct Member {
    name: Arc<str>,
    plain: Arc<dyn Target>,
    /// The same, with an end to each call.
    target: Arc<dyn Target>,
    /// Objects that it should have got since it was level.
    missed: Arc<Mutex<HashSet<ObjectKey>>>,
    /// Those of all of them.
    events: Events,
}

impl Member {
    /// A place, and what it is called in reports: no secrets.
    pub fn new(name: impl Into<Arc<str>>, target: Arc<dyn Target>) -> Self {
        Self {
            name: name.into(),
            plain: target.clone(),
            target,
            missed: Arc::default(),
            events: Events::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The place.
    pub fn target(&self) -> &Arc<dyn Target> {
        &self.target
    }

    fn missed(&self) -> MutexGuard<'_, HashSet<ObjectKey>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What any of them was passed over for.
    pub(crate) const fn events(&self) -> &Events {
        &self.events
    }

    /// It has all that it missed.
    pub(crate) fn is_level_now(&self) {
        self.missed().clear();
    }
}

/// How many places must have an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyPolicy {
    /// Every one.
    All,
    /// So many; at least half, and one more.
    Quorum(NonZeroUsize),
    /// The first one. What others missed they get by [`catch_up`](crate::Repository::catch_up).
    Primary,
    /// None is written: what any of them has can be read.
    Reading,
}

/// What a place could not do, where another one could.
#[derive(Debug)]
#[non_exhaustive]
pub struct PassedOver {
    /// The place.
    pub place: String,
    /// What it was asked for.
    pub what: String,
    /// Why it was passed over.
    pub error: String,
}

/// Events, the oldest of which go where nobody asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<std::collections::VecDeque<PassedOver>>>);

impl Events {
    pub(crate) fn push(&self, place: &str, what: impl Into<String>, error: &Error) {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() >= KEPT_EVENTS {
            events.pop_front();
        }
        events.push_back(PassedOver {
            place: place.into(),
            what: what.into(),
            error: error.to_string(),
        });
    }

    pub(crate) fn take(&self) -> Vec<PassedOver> {
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.drain(..).collect()
    }
}

/// Several places as one target. The first one decides conditions and has the leases; an object goes to all, and is written once
/// as many have it as the policy asks for.
///
/// A restore point's manifest goes to no place that missed one of its packs, or that lacks another restore point: so what a
/// place lists can be restored from that place alone, whatever becomes of the others.
#[derive(Clone, Debug)]
pub struct Several {
    members: Arc<[Member]>,
    policy: CopyPolicy,
    patience: Duration,
    events: Events,
}

impl Several {
    /// These places.
    ///
    /// # Errors
    /// `InvalidRequest` for fewer than one, two of one name, or a quorum that is not more than half of them, or more than all.
    pub fn new(members: impl Into<Vec<Member>>, policy: CopyPolicy) -> Result<Self> {
        let members = members.into();
        let names: HashSet<_> = members.iter().map(Member::name).collect();
        if members.is_empty() || names.len() < members.len() {
            return Err(Error::invalid_request(
                "name each of the several targets, and no two alike",
            ));
        }
        if let CopyPolicy::Quorum(quorum) = policy
            && !(members.len() / 2 + 1..=members.len()).contains(&quorum.get())
        {
            return Err(Error::invalid_request(format!(
                "a quorum of {quorum} of {} targets: it is more than half of them, so that any two have one in common",
                members.len()
            )));
        }
        let several = Self {
            members: members.into(),
            policy,
            patience: PATIENCE,
            events: Events::default(),
        };
        Ok(several.with_patience(PATIENCE))
    }

    /// How long a place may take for a call, or for a piece of a large object, before it counts as failed. Default: two minutes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        let patient = |member: &Member| Member {
            target: Arc::new(Patient {
                target: member.plain.clone(),
                patience,
            }),
            events: self.events.clone(),
            ..member.clone()
        };
        self.members = self.members.iter().map(patient).collect();
        self.patience = patience;
        self
    }

    fn lead(&self) -> Result<&Member> {
        let lead = self.members.first();
        lead.ok_or_else(|| Error::invalid_request("there is no target"))
    }

    /// Those that must have written it; `Reading` writes nothing.
    fn are_enough(&self, written: &[bool]) -> bool {
        let count = written.iter().filter(|written| **written).count();
        match self.policy {
            CopyPolicy::All => count == self.members.len(),
            CopyPolicy::Quorum(quorum) => count >= quorum.get(),
            CopyPolicy::Primary => written.first() == Some(&true),
            CopyPolicy::Reading => false,
        }
    }

    /// Whether those who answered know of all that was ever written by the policy.
    fn know_all(&self, answered: &[bool]) -> bool {
        let count = answered.iter().filter(|answered| **answered).count();
        let all = self.members.len();
        match self.policy {
            CopyPolicy::All => count == all,
            CopyPolicy::Quorum(quorum) => count.saturating_add(quorum.get()) > all,
            CopyPolicy::Primary => answered.first() == Some(&true),
            CopyPolicy::Reading => count > 0,
        }
    }

    fn expect_writing(&self) -> Result<()> {
        match self.policy {
            CopyPolicy::Reading => Err(Error::invalid_request(
                "the targets were opened for reading only",
            )),
            _ => Ok(()),
        }
    }

    fn note(&self, member: &Member, what: &str, error: &Error) {
        self.events.push(&member.name, what, error);
    }

    /// The first answer that says something, or nothing, if enough say so.
    async fn first<'a, T>(
        &'a self,
        what: &str,
        call: impl Fn(&'a dyn Target) -> Call<'a, Option<T>> + Send + Sync,
    ) -> Result<Option<T>> {
        let (mut answered, mut failed) = (Vec::new(), None);
        for member in &*self.members {
            match call(&*member.target).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => answered.push(true),
                Err(error) => {
                    answered.push(false);
                    failed = Some((member, error));
                }
            }
        }
        match failed {
            Some((member, error)) if self.know_all(&answered) => {
                self.note(member, what, &error);
                Ok(None)
            }
            Some((_, error)) => Err(error),
            None => Ok(None),
        }
    }

    /// What all of them must do.
    async fn each<'a, T>(
        &'a self,
        call: impl Fn(&'a dyn Target) -> Call<'a, Outcome<T>> + Send + Sync,
    ) -> Result<Outcome<Vec<T>>> {
        self.expect_writing()?;
        let mut all = Vec::new();
        for member in &*self.members {
            match call(&*member.target).await? {
                Ok(done) => all.push(done),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(all))
    }

    /// Which of them have each restore point that any other one lists.
    async fn level(&self) -> Result<Vec<bool>> {
        let (mut lists, mut answered) = (Vec::new(), Vec::new());
        for member in &*self.members {
            let listing = async {
                let mut keys = HashSet::new();
                let mut after = None;
                loop {
                    let page = member.target.list(POINTS, after.as_ref(), LISTED).await?;
                    after = page.objects.last().map(|info| info.key.clone());
                    keys.extend(page.objects.into_iter().map(|info| info.key));
                    if !page.more || after.is_none() {
                        return Ok(keys);
                    }
                }
            };
            let listed = listing.await;
            answered.push(listed.is_ok());
            lists.push(listed);
        }
        if !self.know_all(&answered) {
            let failed = lists.into_iter().find_map(Result::err);
            return Err(failed.unwrap_or_else(|| Error::invalid_request("there is no target")));
        }
        let all: HashSet<_> = lists.iter().flatten().flatten().cloned().collect();
        let has_all = |list: &Result<HashSet<_>>| list.as_ref().is_ok_and(|list| *list == all);
        Ok(self
            .members
            .iter()
            .zip(&lists)
            .map(|(member, list)| has_all(list) && member.missed().is_empty())
            .collect())
    }

    /// What became of a write, from what each of them said.
    fn outcome(&self, what: String, answers: Vec<Result<ObjectInfo>>) -> Result<ObjectInfo> {
        let written: Vec<_> = answers.iter().map(Result::is_ok).collect();
        let enough = self.are_enough(&written);
        let (mut first, mut failed) = (None, None);
        let mut earliest = None;
        let mut may_be_there = false;
        for answer in answers {
            match answer {
                Ok(info) => {
                    earliest = earliest.min(Some(info.written)).or(Some(info.written));
                    may_be_there = true;
                    first.get_or_insert(info);
                }
                Err(error) => {
                    may_be_there |= error.retryability() == Retryability::Indeterminate;
                    failed.get_or_insert(error);
                }
            }
        }
        match (first, failed) {
            (Some(mut info), _) if enough => {
                // Where clocks differ, no object is older than it seems.
                if let (true, Some(earliest)) = (info.key.as_str().starts_with(CLOCK), earliest) {
                    info.written = earliest;
                }
                Ok(info)
            }
            (_, failed) => {
                let retryability = match may_be_there {
                    true => Retryability::Indeterminate,
                    false => Retryability::Transient,
                };
                let cause: Box<dyn std::error::Error + Send + Sync> = match failed {
                    Some(error) => error.into(),
                    None => "too few targets have it".into(),
                };
                Err(Error::backend(BACKEND, what, retryability, cause))
            }
        }
    }
}

type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

fn behind(member: &Member) -> Error {
    Error::invalid_request(format!(
        "{} lacks what other targets have: catch up first",
        member.name
    ))
}

#[deny(clippy::missing_trait_methods)]
/// Puts at a place what was put in exchange at the first one, or what has been there since: somebody else may come between, at each
/// place in another order, and what the first one has is right.
async fn follow(
    lead: &Member,
    target: &Arc<dyn Target>,
    key: &ObjectKey,
    (put, body): (&ObjectInfo, Bytes),
    lock_until: Option<SystemTime>,
) -> Result<Outcome<ObjectInfo>> {
    let (mut tag, mut body) = (put.tag.clone(), body);
    for _ in 0..EXCHANGES {
        let own = target.info(key).await?;
        let own = own.map_or(PutIf::Absent, |info| PutIf::Unchanged(info.tag));
        let here = target.put(key, body.clone(), &own, lock_until).await?;
        let Some(now) = lead.target.info(key).await? else {
            // Whoever removes it may have been here before.
            drop(target.remove(key).await?);
            return Ok(Ok(put.clone()));
        };
        if let (Ok(here), true) = (here, now.tag == tag) {
            return Ok(Ok(here));
        }
        if let Some(read) = lead.target.read(key, 0..now.bytes).await? {
            (tag, body) = (now.tag, read);
        }
    }
    Err(Error::backend(
        BACKEND,
        format!("copying {key}"),
        Retryability::Transient,
        "it is exchanged faster than it can be copied",
    ))
}

#[async_trait]
impl Target for Several {
    /// What all of them can do.
    fn capabilities(&self) -> TargetCapabilities {
        let mut all = TargetCapabilities::new(BACKEND);
        let members = &self.members;
        let each = || members.iter().map(|member| member.target.capabilities());
        all.conditional_put = each().all(|one| one.conditional_put);
        all.object_lock = each().all(|one| one.object_lock);
        all.max_object_bytes = each().map(|one| one.max_object_bytes).min().unwrap_or(0);
        all
    }

    fn copies(&self) -> &[Member] {
        &self.members
    }

    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        condition: &PutIf,
        lock_until: Option<SystemTime>,
    ) -> Result<Outcome<ObjectInfo>> {
        self.expect_writing()?;
        let lead = self.lead()?;
        let what = format!("putting {key}");
        if key.as_str().starts_with(LEASES) {
            let put = lead.target.put(key, body, condition, lock_until);
            return put.await;
        }
        let level = match key.as_str().starts_with(POINTS) {
            true => self.level().await?,
            false => vec![true; self.members.len()],
        };
        // Before anything is listed anywhere.
        if !self.are_enough(&level) {
            let missing = self.members.iter().zip(&level).find(|(_, level)| !**level);
            let missing = missing.map_or(lead, |(member, _)| member);
            return Err(behind(missing));
        }
        let mut answers = Vec::new();
        for (number, (member, level)) in self.members.iter().zip(level).enumerate() {
            if !level {
                answers.push(Err(behind(member)));
                continue;
            }
            let target = &member.target;
            let putting = async {
                if let (PutIf::Unchanged(_), Some(Ok(put))) = (condition, answers.first()) {
                    return follow(lead, target, key, (put, body.clone()), lock_until).await;
                }
                match target.put(key, body.clone(), condition, lock_until).await? {
                    // Brought level meanwhile.
                    Err(Refused::Exists { .. }) if number > 0 && !answers.is_empty() => {
                        let there = target.info(key).await?;
                        let there = there.filter(|info| info.bytes == body.len() as u64);
                        there.map(Ok).ok_or_else(|| {
                            Error::corrupt(key.as_str(), "another one of its name is there")
                        })
                    }
                    put => Ok(put),
                }
            };
            match putting.await {
                Ok(Ok(info)) => answers.push(Ok(info)),
                Ok(Err(refused)) if number == 0 => return Ok(Err(refused)),
                Ok(Err(refused)) => {
                    let error = Error::invalid_request(refused.to_string());
                    answers.push(Err(error));
                }
                Err(error) => {
                    // It decides.
                    let decides = self.policy == CopyPolicy::Primary
                        || matches!(condition, PutIf::Unchanged(_));
                    if number == 0 && decides {
                        return Err(error);
                    }
                    member.missed().insert(key.clone());
                    answers.push(Err(error));
                }
            }
        }
        let failed = answers.iter().zip(&*self.members);
        for (answer, member) in failed {
            if let Err(error) = answer {
                self.note(member, &what, error);
            }
        }
        self.outcome(what, answers).map(Ok)
    }

    async fn upload(
        &self,
        key: &ObjectKey,
        lock_until: Option<SystemTime>,
    ) -> Result<Box<dyn Upload>> {
        self.expect_writing()?;
        let mut lanes = Vec::new();
        for member in &*self.members {
            let began = member.target.upload(key, lock_until);
            lanes.push(began.await.map(Lane::new));
        }
        let upload = SeveralUpload {
            several: self.clone(),
            key: key.clone(),
            lanes,
            bytes: 0,
        };
        upload.expect_enough()?;
        Ok(Box::new(upload))
    }

    async fn read(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<Bytes>> {
        let what = format!("reading {key}");
        let range = &range;
        if key.as_str().starts_with(LEASES) {
            let lead = self.lead()?;
            return lead.target.read(key, range.clone()).await;
        }
        self.first(&what, |target| {
            let (key, range) = (key.clone(), range.clone());
            Box::pin(async move { target.read(&key, range).await })
        })
        .await
    }

    async fn info(&self, key: &ObjectKey) -> Result<Option<ObjectInfo>> {
        let what = format!("looking at {key}");
        if key.as_str().starts_with(LEASES) {
            let lead = self.lead()?;
            return lead.target.info(key).await;
        }
        self.first(&what, |target| {
            let key = key.clone();
            Box::pin(async move { target.info(&key).await })
        })
        .await
    }

    /// What any of them lists; of an object that several have, what the first one says.
    async fn list(&self, prefix: &str, after: Option<&ObjectKey>, limit: usize) -> Result<Listing> {
        let what = format!("listing {prefix}");
        let mut merged = BTreeMap::<ObjectKey, ObjectInfo>::new();
        let (mut answered, mut failed) = (Vec::new(), None);
        // What lies behind the end of a page is not known yet.
        let (mut more, mut known_to) = (false, None::<ObjectKey>);
        for member in &*self.members {
            let page = member.target.list(prefix, after, limit);
            match page.await {
                Ok(page) => {
                    answered.push(true);
                    if let (true, Some(last)) = (page.more, page.objects.last()) {
                        more = true;
                        let last = last.key.clone();
                        known_to = Some(known_to.map_or(last.clone(), |known| known.min(last)));
                    }
                    for info in page.objects {
                        merged.entry(info.key.clone()).or_insert(info);
                    }
                }
                Err(error) => {
                    answered.push(false);
                    failed = Some((member, error));
                }
            }
        }
        if let Some((member, error)) = failed {
            if !self.know_all(&answered) {
                return Err(error);
            }
            self.note(member, &what, &error);
        }
        let known = |info: &ObjectInfo| known_to.as_ref().is_none_or(|to| info.key <= *to);
        let mut objects: Vec<_> = merged.into_values().filter(known).collect();
        if objects.len() > limit.max(1) {
            objects.truncate(limit.max(1));
            more = true;
        }
        Ok(Listing { objects, more })
    }

    async fn remove(&self, key: &ObjectKey) -> Result<Outcome<()>> {
        let removed = self.each(|target| {
            let key = key.clone();
            Box::pin(async move { target.remove(&key).await })
        });
        Ok(removed.await?.map(drop))
    }

    async fn lock(&self, key: &ObjectKey, until: SystemTime) -> Result<Outcome<()>> {
        let locked = self.each(|target| {
            let key = key.clone();
            Box::pin(async move { target.lock(&key, until).await })
        });
        Ok(locked.await?.map(drop))
    }

    async fn remove_unfinished(&self, before: SystemTime) -> Result<u64> {
        let removed = self
            .each(|target| Box::pin(async move { target.remove_unfinished(before).await.map(Ok) }));
        Ok(removed.await?.map_or(0, |all| all.iter().sum()))
    }
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
}

/// An upload to one place, by a task of its own, so that a slow one does not hold up others until its spool is full.
#[derive(Debug)]
struct Lane {
    pieces: mpsc::Sender<Piece>,
    task: JoinHandle<Result<Option<Outcome<ObjectInfo>>>>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Lane {
    fn new(mut upload: Box<dyn Upload>) -> Self {
        let (pieces, mut waiting) = mpsc::channel(SPOOLED_PIECES);
        let task = tokio::spawn(async move {
            while let Some(piece) = waiting.recv().await {
                match piece {
                    Piece::Bytes(bytes) => upload.write(bytes).await?,
                    Piece::End => return upload.finish().await.map(Some),
                }
            }
            // Given up.
            upload.abort().await?;
            Ok(None)
        });
        Self { pieces, task }
    }

    /// Why it takes no more.
    async fn failed(mut self, name: &str) -> Error {
        if !self.task.is_finished() {
            return Error::backend(
                BACKEND,
                format!("{name}: writing"),
                Retryability::Indeterminate,
                "it is too slow",
            );
        }
        match (&mut self.task).await {
            Ok(Err(error)) => error,
            _ => Error::invalid_request(format!("{name} stopped taking bytes")),
        }
    }
}

#[derive(Debug)]
struct SeveralUpload {
    several: Several,
    key: ObjectKey,
    lanes: Vec<Result<Lane>>,
    bytes: u64,
}

impl SeveralUpload {
    fn expect_enough(&self) -> Result<()> {
        let open: Vec<_> = self.lanes.iter().map(Result::is_ok).collect();
        if self.several.are_enough(&open) {
            return Ok(());
        }
        let failed = self.lanes.iter().find_map(|lane| lane.as_ref().err());
        Err(Error::backend(
            BACKEND,
            format!("writing {}", self.key),
            failed.map_or(Retryability::Permanent, Error::retryability),
            failed.map_or_else(String::new, ToString::to_string),
        ))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl Upload for SeveralUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        let several = self.several.clone();
        for (lane, member) in self.lanes.iter_mut().zip(&*several.members) {
            let Ok(open) = lane else { continue };
            let piece = Piece::Bytes(bytes.clone());
            if open
                .pieces
                .send_timeout(piece, several.patience)
                .await
                .is_err()
            {
                let stopped = std::mem::replace(lane, Err(behind(member)));
                if let Ok(stopped) = stopped {
                    *lane = Err(stopped.failed(&member.name).await);
                }
            }
        }
        self.expect_enough()
    }

    async fn finish(mut self: Box<Self>) -> Result<Outcome<ObjectInfo>> {
        let several = self.several.clone();
        let what = format!("finishing {}", self.key);
        let mut answers = Vec::new();
        for (number, lane) in std::mem::take(&mut self.lanes).into_iter().enumerate() {
            let answer = match lane {
                Err(error) => Err(error),
                Ok(mut lane) => {
                    // One after the other: where the first one refuses, no other one has it. Who takes no more says why.
                    drop(lane.pieces.send_timeout(Piece::End, several.patience).await);
                    match (&mut lane.task).await {
                        Ok(Ok(Some(Ok(info)))) if info.bytes == self.bytes => Ok(info),
                        Ok(Ok(Some(Ok(info)))) => Err(Error::corrupt(
                            self.key.as_str(),
                            format!(
                                "{} bytes were sent, and {} are there",
                                self.bytes, info.bytes
                            ),
                        )),
                        Ok(Ok(Some(Err(refused)))) if number == 0 => return Ok(Err(refused)),
                        Ok(Ok(Some(Err(refused)))) => {
                            Err(Error::invalid_request(refused.to_string()))
                        }
                        Ok(Ok(None)) => Err(Error::invalid_request("it was given up")),
                        Ok(Err(error)) => Err(error),
                        Err(error) => Err(crate::writer::stopped(error)),
                    }
                }
            };
            answers.push(answer);
        }
        for (answer, member) in answers.iter().zip(&*several.members) {
            if let Err(error) = answer {
                member.missed().insert(self.key.clone());
                several.note(member, &what, error);
            }
        }
        several.outcome(what, answers).map(Ok)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        for lane in std::mem::take(&mut self.lanes).into_iter().flatten() {
            let mut lane = lane;
            let (closed, _) = mpsc::channel(1);
            lane.pieces = closed;
            (&mut lane.task).await.map_err(crate::writer::stopped)??;
        }
        Ok(())
    }
}
