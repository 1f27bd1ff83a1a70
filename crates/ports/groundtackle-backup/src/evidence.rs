//! What drills found: signed, and kept in the repository that they were about.

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bytes_as_text::Hex;
use crate::clock::unix_millis;
use crate::drill::{DrillChoice, DrillLevel};
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::keys::SigningKey;
use crate::manifest::{FORMAT, MAX_MANIFEST_BYTES, Manifest, Position, SetSummary, TreeSummary};
use crate::reader::Checked;
use crate::repository::{DESCRIPTOR, Repository, verdict, whole};
use crate::target::{ObjectKey, PutIf, Refused};

/// The media type of a signed statement: <https://github.com/in-toto/attestation/blob/main/spec/v1/envelope.md>.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Before the version.
const PREDICATE: &str = "https://github.com/groundtackle/groundtackle/restore-drill/v";

/// What evidence's keys begin with.
pub(crate) const DRILLS: &str = "drills/";

pub(crate) const TOOL: &str = concat!("groundtackle ", env!("CARGO_PKG_VERSION"));

/// What a drill was about: an object, and the SHA-256 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The object's key: a manifest's, or the descriptor's where no restore point was found.
    pub name: String,
    /// Its digest.
    pub digest: SubjectDigest,
}

/// As in-toto names digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubjectDigest {
    /// Of all bytes of the object.
    pub sha256: Hex<32>,
}

impl Subject {
    pub(crate) fn of(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            digest: SubjectDigest {
                sha256: sha256(bytes),
            },
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> Hex<32> {
    Hex(Sha256::digest(bytes).into())
}

/// How a drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DrillOutcome {
    /// All was found to be right, within the objectives.
    Passed,
    /// Something was not: the reasons say what.
    Failed,
    /// It was not held.
    Missed,
}

/// Which part of what there is was read, so that some drills together read all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Which part, from 0; `of` and above begin anew.
    pub part: u32,
    /// Into how many parts all is divided.
    pub of: NonZeroU32,
}

impl Share {
    /// The day's part: `of` days in a row are all parts.
    pub fn of_day(day: SystemTime, of: NonZeroU32) -> Self {
        let days = unix_millis(day) / 86_400_000;
        // What is left of a number of 32 bits has no more.
        let part = u32::try_from(days % u64::from(of.get())).unwrap_or_default();
        Self { part, of }
    }

    /// Whether the part has a pack or a segment, by its number in its restore point. Nothing that is added or removed
    /// elsewhere moves it into another part.
    pub(crate) const fn has(self, point: &Hex<16>, number: u64) -> bool {
        let [a, b, c, d, e, f, g, h, ..] = point.0;
        let name = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let of = self.of.get() as u64;
        name.wrapping_add(number) % of == self.part as u64 % of
    }
}

/// What a restore must keep to. `None` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Objectives {
    /// The longest that a drill with a restore may take, from its first request to its last proof. Judged at
    /// [`DrillLevel::Replay`] and above. Text: `"4h"`, `"90m"`.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub recovery_time: Option<Duration>,
    /// How old the last restore point may be when the drill begins. By the clocks of those who wrote it and of this host.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::optional")]
    pub recovery_point_age: Option<Duration>,
    /// How many blocks the last restore point may be behind the chain's tip.
    pub recovery_point_blocks: Option<u32>,
}

/// What a drill measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// How long it took to restore and to prove, in milliseconds; `None` without a restore that came to its end, or when
    /// the clock went back.
    pub recovery_millis: Option<u64>,
    /// How old the last restore point was, in milliseconds; 0 if it was made later by the writer's clock.
    pub recovery_point_age_millis: Option<u64>,
    /// Blocks from the last restore point to the tip that was named; 0 if it is no earlier.
    pub recovery_point_blocks: Option<u32>,
}

impl Objectives {
    /// What was missed, each in a phrase. What could not be measured counts as missed.
    pub fn missed(&self, level: DrillLevel, measured: &Measured) -> Vec<String> {
        let judge = |wanted: Option<Duration>, found: Option<u64>, what: &str| {
            let wanted = wanted?;
            match found.map(Duration::from_millis) {
                Some(found) if found <= wanted => None,
                Some(found) => Some(format!(
                    "{what} is {found:?}, and at most {wanted:?} is the objective"
                )),
                None => Some(format!(
                    "{what} is not known, and at most {wanted:?} is the objective"
                )),
            }
        };
        let restores = level >= DrillLevel::Replay;
        let time = self.recovery_time.filter(|_| restores);
        let blocks = self.recovery_point_blocks.and_then(|wanted| {
            let what = "the distance of the last restore point from the tip";
            match measured.recovery_point_blocks {
                Some(found) if found <= wanted => None,
                Some(found) => Some(format!(
                    "{what} is {found} blocks, and at most {wanted} is the objective"
                )),
                None => Some(format!(
                    "{what} is not known, and at most {wanted} blocks is the objective"
                )),
            }
        });
        let time = judge(time, measured.recovery_millis, "the time to recover");
        let age = measured.recovery_point_age_millis;
        let age = judge(
            self.recovery_point_age,
            age,
            "the age of the last restore point",
        );
        [time, age, blocks].into_iter().flatten().collect()
    }
}

/// A set at a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// The block.
    pub position: Position,
    /// The set there.
    pub set: SetSummary,
}

/// A tree of files at a restore point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReachedTree {
    /// The restore point.
    pub point: Hex<16>,
    /// The tree there.
    pub tree: TreeSummary,
}

/// What the one who held the drill found beyond count and digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// What was asked.
    pub what: String,
    /// The answer. No secrets: it is kept in clear.
    pub found: String,
}

/// What is signed of a drill. In clear in the repository, so without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRecord {
    /// Its name, random; of a missed one, the same whoever notices it.
    pub id: Hex<16>,
    /// The repository.
    pub repository: Hex<16>,
    /// Its network.
    pub network: String,
    /// What was backed up.
    pub stream: String,
    /// How far it went, or was to go.
    pub level: DrillLevel,
    /// Which part was read, if not all.
    pub share: Option<Share>,
    /// How it chose; `None` for one that was not held.
    pub choice: Option<DrillChoice>,
    /// Whether a schedule asked for it, rather than a person.
    pub scheduled: bool,
    /// When it began, in milliseconds since 1970; of a missed one, when it was due.
    pub started_unix_millis: u64,
    /// When it ended; of a missed one, when it was no longer in time.
    pub finished_unix_millis: u64,
    /// Where it restored to, if that lasts.
    pub place: Option<String>,
    /// What was chosen, as it was backed up.
    pub chosen: Option<Reached>,
    /// What came out of the restore: counted and digested, and the same as was backed up.
    pub restored: Option<Reached>,
    /// What was chosen of a stream of trees, as it was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_tree: Option<ReachedTree>,
    /// What came out of the restore of a tree, the same as was backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_tree: Option<ReachedTree>,
    /// What was looked at without a restore.
    pub checked: Checked,
    /// What was found beyond that.
    pub proofs: Vec<Proof>,
    /// Times and distances.
    pub measured: Measured,
    /// What they had to keep to.
    pub objectives: Objectives,
    /// How it ended.
    pub outcome: DrillOutcome,
    /// Why it failed; none if it passed.
    pub reasons: Vec<String>,
    /// The software that held it.
    pub tool: String,
}

/// What a drill found, and what it was about: an in-toto statement in a DSSE envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Evidence {
    /// Its key in the repository.
    pub object: ObjectKey,
    /// The restore points, by the bytes of their manifests.
    pub subjects: Vec<Subject>,
    /// What was found.
    pub drill: DrillRecord,
}

/// <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement<T> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: T,
}

pub(crate) fn object(drill: &DrillRecord) -> Result<ObjectKey> {
    format!("{DRILLS}{:016x}-{}", drill.finished_unix_millis, drill.id).try_into()
}

impl Evidence {
    /// Whether all was right.
    pub fn passed(&self) -> bool {
        self.drill.outcome == DrillOutcome::Passed
    }

    /// As it is written.
    ///
    /// # Errors
    /// None that is known; serialisation says that it may.
    pub fn sign(&self, by: &SigningKey) -> Result<Vec<u8>> {
        let statement = Statement {
            kind: STATEMENT_TYPE.into(),
            subject: self.subjects.clone(),
            predicate_type: format!("{PREDICATE}{FORMAT}"),
            predicate: &self.drill,
        };
        envelope::seal(PAYLOAD_TYPE, &statement, by)
    }

    /// Reads it, if one of `trusted` signed it: without a repository, so also from an archive. `object` is the key that it
    /// was written under.
    ///
    /// # Errors
    /// `Corrupt`, `Untrusted`, `NewerFormat`.
    pub fn read(object: &str, bytes: &[u8], trusted: &[Hex<32>]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "_type")]
            kind: String,
            #[serde(rename = "predicateType")]
            predicate_type: String,
        }
        let payload = Envelope::read(object, bytes)?.open(object, PAYLOAD_TYPE, trusted)?;
        let corrupt = |error: serde_json::Error| Error::corrupt(object, error.to_string());
        // The version first: a newer one may have keys that this one does not know.
        let kind: Kind = serde_json::from_slice(&payload).map_err(corrupt)?;
        let version = kind.predicate_type.strip_prefix(PREDICATE);
        match version.and_then(|version| version.parse::<u32>().ok()) {
            Some(FORMAT) if kind.kind == STATEMENT_TYPE => {}
            Some(found) if found > FORMAT => {
                return Err(Error::NewerFormat {
                    object: object.into(),
                    found,
                    supported: FORMAT,
                });
            }
            _ => return Err(Error::corrupt(object, "it is a statement of another kind")),
        }
        let statement: Statement<DrillRecord> =
            serde_json::from_slice(&payload).map_err(corrupt)?;
        let drill = statement.predicate;
        let key = self::object(&drill)?;
        if key.as_str() != object {
            return Err(Error::corrupt(
                object,
                "it is the evidence of another drill",
            ));
        }
        Ok(Self {
            object: key,
            subjects: statement.subject,
            drill,
        })
    }
}

/// What [`Repository::evidence`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct EvidenceFound {
    /// What trusted signers say, oldest first.
    pub usable: Vec<Evidence>,
    /// Objects in their place that can't be used, and why: damaged, or signed by nobody who is trusted.
    pub unusable: Vec<(ObjectKey, Error)>,
}

impl Repository {
    /// Reads the evidence of every drill.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// When the target could not answer. What can't be used is no error: see [`EvidenceFound`].
    pub async fn evidence(&self) -> Result<EvidenceFound> {
        let mut found = EvidenceFound::default();
        for info in self.list_all(DRILLS).await? {
            let read = match whole(&*self.target, &info.key).await {
                // Removed since it was listed.
                Ok(None) => continue,
                Ok(Some(body)) => self.own_evidence(&info.key, &body),
                Err(error) => Err(error),
            };
            match verdict(read)? {
                Ok(evidence) => found.usable.push(evidence),
                Err(error) => found.unusable.push((info.key, error)),
            }
        }
        Ok(found)
    }

    fn own_evidence(&self, key: &ObjectKey, body: &[u8]) -> Result<Evidence> {
        let evidence = Evidence::read(key.as_str(), body, &self.trust.0)?;
        match evidence.drill.repository == self.descriptor.repository {
            true => Ok(evidence),
            false => Err(Error::corrupt(
                key.as_str(),
                "it belongs to another repository",
            )),
        }
    }

    /// What a drill is about where no restore point was found.
    pub(crate) fn descriptor_as_subject(&self) -> Subject {
        Subject {
            name: DESCRIPTOR.into(),
            digest: SubjectDigest {
                sha256: self.descriptor_sha256,
            },
        }
    }

    /// Signs and stores it; `None` where that very drill has evidence.
    pub(crate) async fn keep(
        &self,
        subjects: Vec<Subject>,
        drill: DrillRecord,
        signer: &SigningKey,
    ) -> Result<Option<(Evidence, Vec<u8>)>> {
        let evidence = Evidence {
            object: object(&drill)?,
            subjects,
            drill,
        };
        let body = evidence.sign(signer)?;
        if body.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid_request(format!(
                "evidence of {} bytes could not be read again",
                body.len()
            )));
        }
        let put = self
            .target
            .put(&evidence.object, body.clone().into(), &PutIf::Absent, None);
        match put.await {
            Ok(Ok(_)) => Ok(Some((evidence, body))),
            Ok(Err(Refused::Exists { .. })) => Ok(None),
            Ok(Err(refused)) => Err(Error::invalid_request(refused.to_string())),
            // Its answer may be what was lost.
            Err(error) => match whole(&*self.target, &evidence.object).await {
                Ok(Some(found)) if found == body => Ok(Some((evidence, body))),
                _ => Err(error),
            },
        }
    }

    /// Writes down that a drill was missed, if one was: once for each period without a drill, whoever notices it, and
    /// however often.
    ///
    /// **Atomicity**: the evidence is there or not. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// `InvalidRequest` for a signer who is not trusted. When the target could not answer.
    pub async fn record_missed(
        &self,
        stream: &str,
        schedule: &DrillSchedule,
        signer: &SigningKey,
    ) -> Result<Option<Evidence>> {
        self.expect_trusted(signer)?;
        let evidence = self.evidence().await?.usable;
        let now = unix_millis(self.clock.now());
        let Some((from, to)) = schedule.last_missed(stream, &evidence, now) else {
            return Ok(None);
        };
        let mut name = blake3::Hasher::new();
        name.update(b"groundtackle missed drill 1");
        name.update(&self.descriptor.repository.0);
        name.update(&from.to_be_bytes());
        name.update(stream.as_bytes());
        let mut id = Hex::default();
        name.finalize_xof().fill(&mut id.0);
        let drill = DrillRecord {
            id,
            repository: self.descriptor.repository,
            network: self.descriptor.network.clone(),
            stream: stream.into(),
            level: schedule.level,
            share: None,
            choice: None,
            scheduled: true,
            started_unix_millis: from,
            finished_unix_millis: to,
            place: None,
            chosen: None,
            restored: None,
            chosen_tree: None,
            restored_tree: None,
            checked: Checked::default(),
            proofs: Vec::new(),
            measured: Measured::default(),
            objectives: Objectives::default(),
            outcome: DrillOutcome::Missed,
            reasons: vec![format!(
                "no drill was held for {:?}, though one was due",
                schedule.every
            )],
            tool: TOOL.into(),
        };
        let kept = self
            .keep(vec![self.descriptor_as_subject()], drill, signer)
            .await?;
        Ok(kept.map(|(evidence, _)| evidence))
    }
}

/// How often a drill is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrillSchedule {
    /// The time from one to the next.
    pub every: Duration,
    /// Only those of this level and above count.
    pub level: DrillLevel,
}

/// Whether it is time for a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Due {
    /// The next one is due then.
    NotYet {
        /// When.
        until: SystemTime,
    },
    /// It is time, or there was none ever.
    Now,
    /// A whole period went by without one.
    Missed {
        /// When it was due.
        since: SystemTime,
    },
}

impl DrillSchedule {
    /// Whether a drill of `stream` is due. One that was held counts, whether it passed or failed; one that `evidence` sets
    /// later than `now` does not, so that a wrong clock can't put drills off.
    pub fn due(&self, stream: &str, evidence: &[Evidence], now: SystemTime) -> Due {
        let now = unix_millis(now);
        let Some(last) = self.last(stream, evidence, now) else {
            return Due::Now;
        };
        let next = last.saturating_add(self.every_millis());
        let at = time(next);
        match now.saturating_sub(last) / self.every_millis() {
            0 => Due::NotYet { until: at },
            1 => Due::Now,
            _ => Due::Missed { since: at },
        }
    }

    fn every_millis(&self) -> u64 {
        u64::try_from(self.every.as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// When the last one began.
    fn last(&self, stream: &str, evidence: &[Evidence], now: u64) -> Option<u64> {
        let drills = evidence.iter().map(|evidence| &evidence.drill);
        let held = drills
            .filter(|drill| drill.stream == stream && drill.level >= self.level)
            .filter(|drill| drill.outcome != DrillOutcome::Missed)
            .map(|drill| drill.started_unix_millis);
        held.filter(|started| *started <= now).max()
    }

    /// The last whole period without a drill, after the one in which none was due.
    fn last_missed(&self, stream: &str, evidence: &[Evidence], now: u64) -> Option<(u64, u64)> {
        let last = self.last(stream, evidence, now)?;
        let periods = now.saturating_sub(last) / self.every_millis();
        let before = periods.checked_sub(1).filter(|before| *before > 0)?;
        let after = |periods: u64| last.saturating_add(periods.saturating_mul(self.every_millis()));
        Some((after(before), after(periods)))
    }
}

fn time(unix_millis: u64) -> SystemTime {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(unix_millis));
    time.unwrap_or(UNIX_EPOCH)
}

/// What to watch of a stream's backups and drills. `None` where there is nothing yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Figures {
    /// When the last restore point was made, in milliseconds since 1970.
    pub last_backup_unix_millis: Option<u64>,
    /// Its height.
    pub last_backup_height: Option<u32>,
    /// When the last drill ended, or was missed.
    pub last_drill_unix_millis: Option<u64>,
    /// How.
    pub last_drill_outcome: Option<DrillOutcome>,
    /// When the last drill that passed ended.
    pub last_good_drill_unix_millis: Option<u64>,
    /// How far it went.
    pub last_good_drill_level: Option<DrillLevel>,
    /// The height that it chose.
    pub last_good_drill_height: Option<u32>,
    /// How long the last restore took that was measured.
    pub last_recovery_millis: Option<u64>,
    /// Whether the last drill that was held met all its objectives.
    pub objectives_met: Option<bool>,
}

impl Figures {
    /// Of one stream.
    pub fn of(stream: &str, points: &[Manifest], evidence: &[Evidence]) -> Self {
        let point = points
            .iter()
            .filter(|point| point.stream == stream)
            .max_by_key(|point| point.created_unix_millis);
        let mut drills: Vec<_> = evidence
            .iter()
            .map(|evidence| &evidence.drill)
            .filter(|drill| drill.stream == stream)
            .collect();
        drills.sort_by_key(|drill| drill.finished_unix_millis);
        let last = drills.last();
        let held = drills
            .iter()
            .rfind(|drill| drill.outcome != DrillOutcome::Missed);
        let good = drills
            .iter()
            .rfind(|drill| drill.outcome == DrillOutcome::Passed);
        Self {
            last_backup_unix_millis: point.map(|point| point.created_unix_millis),
            last_backup_height: point.and_then(|point| Some(point.content.position()?.height)),
            last_drill_unix_millis: last.map(|drill| drill.finished_unix_millis),
            last_drill_outcome: last.map(|drill| drill.outcome),
            last_good_drill_unix_millis: good.map(|drill| drill.finished_unix_millis),
            last_good_drill_level: good.map(|drill| drill.level),
            last_good_drill_height: good.and_then(|drill| Some(drill.chosen?.position.height)),
            last_recovery_millis: drills
                .iter()
                .rev()
                .find_map(|drill| drill.measured.recovery_millis),
            objectives_met: held.map(|drill| {
                drill
                    .objectives
                    .missed(drill.level, &drill.measured)
                    .is_empty()
            }),
        }
    }

    /// As Prometheus reads it from a file. What is not known has no line.
    pub fn exposition(&self, stream: &str) -> String {
        let mut label = String::new();
        for character in stream.chars() {
            match character {
                '\\' => label.push_str("\\\\"),
                '"' => label.push_str("\\\""),
                '\n' => label.push_str("\\n"),
                other => label.push(other),
            }
        }
        let seconds = |millis: Option<u64>| millis.map(|millis| millis as f64 / 1000.0);
        let outcome = |wanted| {
            self.last_drill_outcome
                .map(|outcome| f64::from(u8::from(outcome == wanted)))
        };
        let lines = [
            (
                "backup_last_timestamp_seconds",
                seconds(self.last_backup_unix_millis),
            ),
            ("backup_last_height", self.last_backup_height.map(f64::from)),
            (
                "drill_last_timestamp_seconds",
                seconds(self.last_drill_unix_millis),
            ),
            ("drill_last_passed", outcome(DrillOutcome::Passed)),
            ("drill_last_missed", outcome(DrillOutcome::Missed)),
            (
                "drill_last_good_timestamp_seconds",
                seconds(self.last_good_drill_unix_millis),
            ),
            (
                "drill_last_good_level",
                self.last_good_drill_level
                    .map(|level| f64::from(level as u8)),
            ),
            (
                "drill_last_good_height",
                self.last_good_drill_height.map(f64::from),
            ),
            (
                "drill_last_recovery_seconds",
                seconds(self.last_recovery_millis),
            ),
            (
                "drill_objectives_met",
                self.objectives_met.map(|met| f64::from(u8::from(met))),
            ),
        ];
        let mut text = String::new();
        for (name, value) in lines {
            if let Some(value) = value {
                // Into a text it can't fail.
                let _ = writeln!(
                    text,
                    "# TYPE groundtackle_{name} gauge\ngroundtackle_{name}{{stream=\"{label}\"}} {value}"
                );
            }
        }
        text
    }
}
