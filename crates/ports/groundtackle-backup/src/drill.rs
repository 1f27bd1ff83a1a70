//! Restores for practice: whether what was backed up comes back, as fast as it must.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::clock::unix_millis;
use crate::error::{Error, Result};
use crate::evidence::{
    DrillOutcome, DrillRecord, Evidence, Measured, Objectives, Proof, Reached, ReachedTree, Share,
    Subject, TOOL,
};
use crate::keys::{KeyUnwrapping, SigningKey};
use crate::manifest::{Manifest, TreeSummary};
use crate::plan::At;
use crate::reader::{CheckDepth, Checked, Restored};
use crate::repository::{Points, Repository, whole};
use crate::source::{Goal, Sink};
use crate::tree::TreeAt;

/// The longest reason that is kept, in characters.
const REASON_CHARS: usize = 1_000;

/// Objects that can't be used are named, so many at most.
const UNUSABLE_NAMED: usize = 16;

/// How far a drill goes, from the cheapest to the one that proves most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DrillLevel {
    /// Every manifest can be used, and restore points lead to what was chosen.
    Chain,
    /// Each object that it needs is there, as long as it was.
    Presence,
    /// Each of its bytes is what was written.
    Bytes,
    /// It can be decrypted, and the plaintext is what was sealed.
    Read,
    /// It is restored to where nothing is kept, and has the count and the digest that were backed up.
    #[default]
    Replay,
    /// It is restored into a place of its own, and answers there.
    Load,
    /// A service runs on what was restored, and answers.
    Serve,
}

impl DrillLevel {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Chain, "chain"),
        (Self::Presence, "presence"),
        (Self::Bytes, "bytes"),
        (Self::Read, "read"),
        (Self::Replay, "replay"),
        (Self::Load, "load"),
        (Self::Serve, "serve"),
    ];
}

impl fmt::Display for DrillLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(level, _)| level == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

impl FromStr for DrillLevel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = Self::ALL.iter().find(|(_, name)| *name == text);
        level.map(|(level, _)| *level).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            Error::invalid_request(format!(
                "{text:?} is no level of a drill; there are {names}"
            ))
        })
    }
}

/// What a drill restores. What chance chooses is in the evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DrillChoice {
    /// As [`At::Latest`].
    #[default]
    Latest,
    /// What a restore point leads to that chance chooses.
    Random,
    /// Any block at which a restore point knows the set, also of an abandoned branch, as chance chooses.
    RandomHeight,
    /// What the oldest restore point leads to: the next one that will go.
    Oldest,
    /// What this restore point leads to.
    Point(Hex<16>),
    /// As [`At::Height`].
    Height(u32),
    /// As [`At::Block`].
    Block(Hex<32>),
}

/// Where a drill restores to.
///
/// An adapter says no more than it does: [`reach`](Self::reach) is believed.
#[async_trait]
pub trait DrillGround: fmt::Debug + Send {
    /// The highest level that it is good for: [`DrillLevel::Replay`] if nothing is kept.
    fn reach(&self) -> DrillLevel;

    /// Where it restores to, if that lasts; without secrets. A drill refuses what its
    /// [`production`](Drill::production) lists, letter by letter, so the caller spells both alike.
    fn place(&self) -> Option<String>;

    /// An empty sink, once a drill.
    ///
    /// # Errors
    /// When there is none.
    async fn sink(&mut self) -> Result<Box<dyn Sink>>;

    /// From [`DrillLevel::Load`] on, after a restore that came out right: asks what was restored, at
    /// [`DrillLevel::Serve`] by way of a service that was started on it. What it found, at least one thing.
    ///
    /// # Errors
    /// When the answer is wrong, or there is none.
    async fn prove(&mut self, level: DrillLevel, goal: &Goal) -> Result<Vec<Proof>>;
}

/// Where a drill restores a tree of files to.
///
/// An adapter says no more than it does: [`reach`](Self::reach) is believed.
#[async_trait]
pub trait TreeGround: fmt::Debug + Send {
    /// The highest level that it is good for: [`DrillLevel::Replay`] if nothing is kept.
    fn reach(&self) -> DrillLevel;

    /// Where it restores to, if that lasts; without secrets.
    fn place(&self) -> Option<String>;

    /// Whether a place that the caller [named](Drill::production) is this one, or one that must be kept from what this one
    /// does: a directory that it lies in, or that lies in it. By default, whether they are spelt alike.
    fn touches(&self, production: &str) -> bool {
        self.place().is_some_and(|place| place == production)
    }

    /// Restores all of a restore point, once a drill; what came out, counted and digested from what was restored, not from
    /// what the manifest says.
    ///
    /// # Errors
    /// When it can't be restored, or is not what was backed up.
    async fn restore(
        &mut self,
        repository: &Repository,
        point: &Manifest,
        keys: &dyn KeyUnwrapping,
    ) -> Result<TreeSummary>;

    /// As [`DrillGround::prove`], of a tree.
    ///
    /// # Errors
    /// When the answer is wrong, or there is none.
    async fn prove(&mut self, level: DrillLevel, tree: &TreeSummary) -> Result<Vec<Proof>>;
}

/// A drill to hold.
#[derive(Debug)]
pub struct Drill<'a> {
    /// What was backed up.
    pub stream: &'a str,
    /// Who signs the evidence.
    pub signer: &'a SigningKey,
    /// How far to go.
    pub level: DrillLevel,
    /// What to restore.
    pub choice: DrillChoice,
    /// At [`DrillLevel::Bytes`] and [`DrillLevel::Read`], a part of all restore points of the stream, rather than all of
    /// what was chosen: see [`Share::of_day`].
    pub share: Option<Share>,
    /// What it has to keep to.
    pub objectives: Objectives,
    /// The height of the chain's tip, for the objective in blocks.
    pub tip: Option<u32>,
    /// Places that must not be restored to.
    pub production: Vec<String>,
    /// Whether a schedule asks for it, rather than a person.
    pub scheduled: bool,
    /// Who can read, from [`DrillLevel::Read`] on.
    pub keys: Option<&'a dyn KeyUnwrapping>,
    /// Where to restore a set to, from [`DrillLevel::Replay`] on.
    pub ground: Option<&'a mut dyn DrillGround>,
    /// Where to restore a tree of files to, from [`DrillLevel::Replay`] on.
    pub tree_ground: Option<&'a mut dyn TreeGround>,
    /// Segments opened at a time, each on a thread of its own.
    pub workers: usize,
}

impl<'a> Drill<'a> {
    /// A replay of the latest set, by a person, without objectives; give it [`keys`](Self::keys) and a
    /// [`ground`](Self::ground).
    pub fn new(stream: &'a str, signer: &'a SigningKey) -> Self {
        Self {
            stream,
            signer,
            level: DrillLevel::default(),
            choice: DrillChoice::default(),
            share: None,
            objectives: Objectives::default(),
            tip: None,
            production: Vec::new(),
            scheduled: false,
            keys: None,
            ground: None,
            tree_ground: None,
            workers: 2,
        }
    }
}

/// A drill that was held, whether it passed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a drill that failed is no error"]
#[non_exhaustive]
pub struct Drilled {
    /// What was found.
    pub evidence: Evidence,
    /// The same as it was signed and stored: see [`Evidence::read`].
    pub signed: Vec<u8>,
}

impl Repository {
    /// Holds a drill, and keeps signed evidence of it in the repository: also of one that failed, whatever the reason.
    ///
    /// **Atomicity**: the evidence is there or not; what the ground holds is the caller's to remove. **Idempotency**: none;
    /// each call is another drill. **Cancel safety**: a drill that is dropped leaves no evidence, so that it counts as not
    /// held. A time limit is the caller's: drop it. Memory: as of a restore.
    ///
    /// # Errors
    /// `InvalidRequest` for a signer who is not trusted. When the evidence could not be stored. All else is a
    /// [reason](DrillRecord::reasons).
    pub async fn drill(&self, mut drill: Drill<'_>) -> Result<Drilled> {
        self.expect_trusted(drill.signer)?;
        let mut id = Hex::default();
        self.entropy.fill(&mut id.0)?;
        let started = self.clock.now();
        let mut held = Held {
            subjects: Vec::new(),
            record: DrillRecord {
                id,
                repository: self.descriptor.repository,
                network: self.descriptor.network.clone(),
                stream: drill.stream.into(),
                level: drill.level,
                share: drill.share,
                choice: Some(drill.choice),
                scheduled: drill.scheduled,
                started_unix_millis: unix_millis(started),
                finished_unix_millis: 0,
                place: None,
                chosen: None,
                restored: None,
                chosen_tree: None,
                restored_tree: None,
                checked: Checked::default(),
                proofs: Vec::new(),
                measured: Measured::default(),
                objectives: drill.objectives,
                outcome: DrillOutcome::Passed,
                reasons: Vec::new(),
                tool: TOOL.into(),
            },
        };
        let done = Box::pin(self.hold(&mut drill, started, &mut held)).await;
        let finished = self.clock.now();
        let Held {
            mut subjects,
            mut record,
        } = held;
        record.finished_unix_millis = unix_millis(finished);
        match done {
            Ok(()) if record.restored.is_some() || record.restored_tree.is_some() => {
                // A clock that went back has measured nothing.
                let took = finished.duration_since(started).ok();
                record.measured.recovery_millis =
                    took.and_then(|took| u64::try_from(took.as_millis()).ok());
            }
            Ok(()) => {}
            Err(error) => record.reasons.push(reason(&error)),
        }
        let missed = drill.objectives.missed(drill.level, &record.measured);
        record.reasons.extend(missed);
        if !record.reasons.is_empty() {
            record.outcome = DrillOutcome::Failed;
        }
        if subjects.is_empty() {
            subjects.push(self.descriptor_as_subject());
        }
        let kept = self.keep(subjects, record, drill.signer).await?;
        let (evidence, signed) = kept.ok_or_else(|| {
            Error::invalid_request(
                "there is evidence of that name, which was drawn at random: the randomness is not",
            )
        })?;
        Ok(Drilled { evidence, signed })
    }

    async fn hold(
        &self,
        drill: &mut Drill<'_>,
        started: SystemTime,
        held: &mut Held,
    ) -> Result<()> {
        let record = &mut held.record;
        let restores = drill.level >= DrillLevel::Replay;
        if let Some(ground) = drill.ground.as_deref().filter(|_| restores) {
            record.place = ground.place();
            let is_place = |production: &str| ground.place().is_some_and(|at| at == production);
            may_restore_to(ground.place(), &drill.production, is_place)?;
            reaches(ground.reach(), drill.level)?;
        }
        if let Some(ground) = drill.tree_ground.as_deref().filter(|_| restores) {
            record.place = record.place.take().or_else(|| ground.place());
            may_restore_to(ground.place(), &drill.production, |production| {
                ground.touches(production)
            })?;
            reaches(ground.reach(), drill.level)?;
        }
        let mut points = self.points().await?;
        record.reasons.extend(
            points
                .unusable
                .iter()
                .take(UNUSABLE_NAMED)
                .map(|(_, error)| reason(error)),
        );
        points.usable.retain(|point| point.stream == drill.stream);
        let mine = &points.usable;
        if let Some(latest) = mine.iter().max_by_key(|point| point.created_unix_millis) {
            let age = unix_millis(started).saturating_sub(latest.created_unix_millis);
            record.measured.recovery_point_age_millis = Some(age);
            let height = latest.content.position().map(|position| position.height);
            record.measured.recovery_point_blocks = drill
                .tip
                .zip(height)
                .map(|(tip, height)| tip.saturating_sub(height));
        }
        let (plan, tree, needed) = match mine.iter().any(|point| point.content.is_tree()) {
            true => {
                let tree = self.choose_tree(drill.choice, &points, drill.stream)?;
                (None, Some(Box::new(tree.clone())), points.needs(tree)?)
            }
            false => {
                let at = self.choose(drill.choice, mine)?;
                let plan = points.plan(drill.stream, at)?;
                let needed = plan.points();
                (Some(plan), None, needed)
            }
        };
        let chosen = plan.as_ref().map(|plan| Reached {
            position: plan.position,
            set: plan.set,
        });
        record.chosen = chosen;
        let chosen_tree = tree.as_ref().and_then(|tree| {
            let point = tree.point;
            tree.content.tree().map(|tree| ReachedTree { point, tree })
        });
        record.chosen_tree = chosen_tree;
        // Only these levels read what others need as well.
        let share = drill
            .share
            .filter(|_| matches!(drill.level, DrillLevel::Bytes | DrillLevel::Read));
        let is_needed = |point: &Manifest| needed.contains(&point.point);
        let mut mine = points.usable;
        mine.retain(|point| share.is_some() || is_needed(point));
        mine.extend(points.forgotten.into_iter().filter(is_needed));
        for point in &mine {
            held.subjects.push(self.subject(point).await?);
        }
        let no_keys = || Error::invalid_request("the drill needs an identity that reads");
        let depth = match (drill.level, drill.keys) {
            (DrillLevel::Chain, _) => return Ok(()),
            (DrillLevel::Presence, _) => CheckDepth::Presence,
            (DrillLevel::Bytes, _) => CheckDepth::Bytes,
            (_, Some(keys)) => CheckDepth::Read(keys),
            (_, None) => return Err(no_keys()),
        };
        if drill.level < DrillLevel::Replay {
            for point in &mine {
                let found = self.check_share(point, depth, share, drill.workers).await?;
                let all = &mut record.checked;
                all.packs = all.packs.saturating_add(found.packs);
                all.bytes = all.bytes.saturating_add(found.bytes);
                all.segments = all.segments.saturating_add(found.segments);
            }
            return Ok(());
        }
        let keys = drill.keys.ok_or_else(no_keys)?;
        if let (Some(tree), Some(chosen)) = (tree, chosen_tree) {
            let ground = drill.tree_ground.as_mut().ok_or_else(|| {
                Error::invalid_request(
                    "the stream is a tree of files, and the drill has no ground for trees to restore to",
                )
            })?;
            let found = ground.restore(self, &tree, keys).await?;
            expect_tree(&chosen.tree, &found)?;
            record.restored_tree = chosen_tree;
            return match drill.level >= DrillLevel::Load {
                true => proven(record, ground.prove(drill.level, &found).await),
                false => Ok(()),
            };
        }
        let Some(plan) = plan else { return Ok(()) };
        let ground = drill
            .ground
            .as_mut()
            .ok_or_else(|| Error::invalid_request("the drill has no ground to restore to"))?;
        let mut sink = ground.sink().await?;
        let Restored { goal, passed_over } =
            self.restore(&plan, keys, &mut *sink, drill.workers).await?;
        drop(sink);
        record.restored = chosen;
        // It came back, and what the next one may need is damaged.
        record.reasons.extend(passed_over.iter().map(reason));
        match drill.level >= DrillLevel::Load {
            true => proven(record, ground.prove(drill.level, &goal).await),
            false => Ok(()),
        }
    }

    /// Among restore points of trees, which have no blocks.
    fn choose_tree<'p>(
        &self,
        choice: DrillChoice,
        points: &'p Points,
        stream: &str,
    ) -> Result<&'p Manifest> {
        let mine = &points.usable;
        let chosen = match choice {
            DrillChoice::Latest => None,
            DrillChoice::Oldest => mine.iter().min_by_key(|point| point.created_unix_millis),
            DrillChoice::Random => mine.get(self.below(mine.len())?),
            DrillChoice::Point(name) => return points.tree(stream, TreeAt::Point(name)),
            DrillChoice::RandomHeight | DrillChoice::Height(_) | DrillChoice::Block(_) => {
                return Err(Error::invalid_request(
                    "a tree of files has no blocks: choose latest, oldest, random or a restore point",
                ));
            }
        };
        let chosen = chosen.map_or(TreeAt::Latest, |point| TreeAt::Point(point.point));
        points.tree(stream, chosen)
    }

    fn choose(&self, choice: DrillChoice, points: &[Manifest]) -> Result<At> {
        let end = |point: Option<&Manifest>| {
            let block = point.and_then(|point| point.content.position());
            block.map(|block| At::Block(block.hash))
        };
        let chosen = match choice {
            DrillChoice::Latest => Some(At::Latest),
            DrillChoice::Height(height) => Some(At::Height(height)),
            DrillChoice::Block(hash) => Some(At::Block(hash)),
            DrillChoice::Oldest => end(points.iter().min_by_key(|point| point.created_unix_millis)),
            DrillChoice::Random => end(points.get(self.below(points.len())?)),
            DrillChoice::Point(name) => {
                let point = points.iter().find(|point| point.point == name);
                let block = end(point).ok_or_else(|| Error::Unreachable {
                    what: format!("there is no restore point {name} of that stream"),
                })?;
                Some(block)
            }
            DrillChoice::RandomHeight => {
                let own = points.iter().filter_map(|point| point.content.position());
                let blocks = points.iter().flat_map(|point| point.content.blocks());
                // In an order that is no accident.
                let blocks: BTreeMap<_, _> = own
                    .chain(blocks.map(|block| &block.position))
                    .map(|block| ((block.height, block.hash), block.hash))
                    .collect();
                let mut blocks = blocks.into_values();
                blocks.nth(self.below(blocks.len())?).map(At::Block)
            }
        };
        // Planning says that there is no restore point.
        Ok(chosen.unwrap_or(At::Latest))
    }

    /// A random number below `bound`, as evenly as some 64 bits are.
    fn below(&self, bound: usize) -> Result<usize> {
        let mut bytes = [0; 8];
        self.entropy.fill(&mut bytes)?;
        let number = u64::from_le_bytes(bytes).checked_rem(bound as u64);
        // What is below a usize fits.
        Ok(usize::try_from(number.unwrap_or_default()).unwrap_or_default())
    }

    /// The digest of the very bytes that say what the manifest says.
    async fn subject(&self, manifest: &Manifest) -> Result<Subject> {
        let key = manifest.object()?;
        let body = whole(&*self.target, &key).await?;
        let body = body.ok_or_else(|| Error::Missing {
            object: key.to_string(),
            needed_by: "it was there when the drill began".into(),
        })?;
        match Manifest::read(key.as_str(), &body, &self.trust.0)? == *manifest {
            true => Ok(Subject::of(key.as_str(), &body)),
            false => Err(Error::corrupt(
                key.as_str(),
                "it has changed during the drill",
            )),
        }
    }
}

/// What is known of a drill so far.
#[derive(Debug)]
struct Held {
    subjects: Vec<Subject>,
    record: DrillRecord,
}

fn may_restore_to(
    place: Option<String>,
    production: &[String],
    is_at: impl Fn(&str) -> bool,
) -> Result<()> {
    match production.iter().find(|production| is_at(production)) {
        Some(found) => Err(Error::invalid_request(format!(
            "{} is production, and no drill restores there: name a place of its own",
            match place {
                Some(place) if place != *found => format!("{place}, by way of {found},"),
                _ => found.clone(),
            }
        ))),
        None => Ok(()),
    }
}

fn reaches(reach: DrillLevel, level: DrillLevel) -> Result<()> {
    match reach < level {
        true => Err(Error::invalid_request(format!(
            "the ground is good for level {reach} at most, and {level} is asked for"
        ))),
        false => Ok(()),
    }
}

fn expect_tree(wanted: &TreeSummary, found: &TreeSummary) -> Result<()> {
    let pairs = [
        (
            "the number of entries of the tree",
            wanted.entries.to_string(),
            found.entries.to_string(),
        ),
        (
            "the number of bytes in files",
            wanted.bytes.to_string(),
            found.bytes.to_string(),
        ),
        (
            "the BLAKE3 of the tree",
            wanted.blake3.to_string(),
            found.blake3.to_string(),
        ),
    ];
    match pairs.into_iter().find(|(_, wanted, found)| wanted != found) {
        Some((what, wanted, found)) => Err(Error::Differs {
            what,
            wanted,
            found,
        }),
        None => Ok(()),
    }
}

/// What was asked of what was restored, and not nothing.
fn proven(record: &mut DrillRecord, found: Result<Vec<Proof>>) -> Result<()> {
    match found {
        Ok(proofs) if proofs.is_empty() => Err(Error::invalid_request(
            "nothing was asked of what was restored, so nothing is proven",
        )),
        Ok(proofs) => {
            record.proofs = proofs;
            Ok(())
        }
        Err(error) => {
            // Not recovered, as long as it does not answer.
            (record.restored, record.restored_tree) = (None, None);
            Err(error)
        }
    }
}

/// An error with its causes, on one line.
fn reason(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.chars().take(REASON_CHARS).collect()
}
