//! Whose turn it is. Nothing is lost without: names are random, and a manifest comes last. A lease keeps two hosts from doing
//! the same work, and puts their restore points in an order.
//!
//! Time is the target's: it says when the lease was written and, by an object that is written for it, what time it is. So the
//! clocks of hosts need not agree. The holder counts from before it sent what the target dated, by its wall clock and by its
//! monotonic one, whichever says more: it gives up before anybody else may take over, as long as clocks run at about one pace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::envelope::{self, Envelope};
use crate::error::{Error, Result};
use crate::keys::SigningKey;
use crate::manifest::{FORMAT, Fencing, of_known_format};
use crate::repository::{Repository, verdict, whole};
use crate::target::{ObjectKey, ObjectTag, PutIf};

const PAYLOAD_TYPE: &str = "application/vnd.groundtackle.lease.v1+json";

/// What all of their keys begin with.
pub(crate) const LEASES: &str = "leases/";

/// Targets that date objects to the second date them up to that much too early.
const DATED_EARLY: Duration = Duration::from_secs(2);

/// How often another one may be faster, until it counts as theirs.
const ATTEMPTS: u32 = 3;

/// What takes turns.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Turn {
    /// To back up a stream.
    BackUp(String),
    /// To prune the repository.
    Prune,
}

impl Turn {
    /// To back up `stream`.
    pub fn back_up(stream: impl Into<String>) -> Self {
        Self::BackUp(stream.into())
    }

    fn object(&self) -> Result<ObjectKey> {
        match self {
            // A stream's name is any text.
            Self::BackUp(stream) => {
                let hash = *blake3::hash(stream.as_bytes()).as_bytes();
                format!("{LEASES}streams/{}", Hex(hash)).try_into()
            }
            Self::Prune => format!("{LEASES}prune").try_into(),
        }
    }
}

impl std::fmt::Display for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BackUp(stream) => write!(f, "backing up {stream}"),
            Self::Prune => f.write_str("pruning"),
        }
    }
}

/// Who takes a lease, and for how long at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    holder: String,
    lasts: Duration,
}

impl LeaseTerms {
    /// The shortest that one lasts.
    pub const SHORTEST: Duration = Duration::from_secs(10);

    /// The longest: as long nobody else has a turn after a holder crashed.
    pub const LONGEST: Duration = Duration::from_secs(60 * 60);

    /// `holder` is for people: a host's name, at most 255 bytes. It lasts that long without being renewed.
    ///
    /// # Errors
    /// `InvalidRequest` for a time below [`SHORTEST`](Self::SHORTEST) or above [`LONGEST`](Self::LONGEST), or a longer name.
    pub fn new(holder: impl Into<String>, lasts: Duration) -> Result<Self> {
        let holder = holder.into();
        if !(Self::SHORTEST..=Self::LONGEST).contains(&lasts) {
            return Err(Error::invalid_request(format!(
                "a lease of {} s: it lasts {} s to {} s",
                lasts.as_secs(),
                Self::SHORTEST.as_secs(),
                Self::LONGEST.as_secs()
            )));
        }
        if holder.len() > 255 {
            return Err(Error::invalid_request(format!(
                "the holder's name has {} bytes, and 255 are the most",
                holder.len()
            )));
        }
        Ok(Self { holder, lasts })
    }
}

/// What lies in the object. It is overwritten, under the condition that nobody else did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    format: u32,
    repository: Hex<16>,
    /// Of whom: drawn at random when it was taken.
    id: Hex<16>,
    token: u64,
    holder: String,
    /// So that no two contents have one tag.
    renewed: u64,
    /// 0 once it was released.
    lasts_millis: u64,
}

/// When a holder sent what counts.
#[derive(Clone, Copy, Debug)]
struct Sent {
    wall: SystemTime,
    monotonic: Instant,
}

#[derive(Debug)]
struct Held {
    tag: ObjectTag,
    sent: Sent,
    renewed: u64,
    lost: bool,
}

/// A turn that was taken. Dropped without [`release`](Self::release) it ends by itself.
#[derive(Debug)]
pub struct Lease {
    repository: Repository,
    object: ObjectKey,
    turn: Turn,
    signer: SigningKey,
    terms: LeaseTerms,
    id: Hex<16>,
    token: u64,
    held: Mutex<Held>,
}

impl Repository {
    /// Takes a turn, if nobody has it.
    ///
    /// **Atomicity**: of several at once one takes it. **Idempotency**: none; who has it already has to wait like others.
    /// **Cancel safety**: it may have been taken; then it ends by itself.
    ///
    /// # Errors
    /// `Leased` while another one has it. `InvalidRequest` from a target without conditional puts: there one host writes, by
    /// configuration; or for a signer who is not trusted. When the target could not answer.
    pub async fn lease(
        &self,
        turn: Turn,
        terms: &LeaseTerms,
        signer: &SigningKey,
    ) -> Result<Arc<Lease>> {
        self.expect_trusted(signer)?;
        let capabilities = self.target.capabilities();
        if !capabilities.conditional_put {
            return Err(Error::invalid_request(format!(
                "{} does not let several hosts write, so there is no lease: take it out, and see to it that one host \
                 writes",
                capabilities.backend
            )));
        }
        let object = turn.object()?;
        let mut id = Hex::default();
        self.entropy.fill(&mut id.0)?;
        for _ in 0..ATTEMPTS {
            let info = self.target.info(&object).await?;
            let (condition, token) = match &info {
                None => (PutIf::Absent, self.highest_token(&turn).await?),
                Some(info) => {
                    let token = match verdict(self.read_lease(&object).await)? {
                        // Gone since.
                        Ok(None) => continue,
                        Ok(Some(written)) => {
                            self.expect_over(&turn, &written, info.written).await?;
                            written.token
                        }
                        // Its holder notices as well.
                        Err(_) => self.highest_token(&turn).await?,
                    };
                    (PutIf::Unchanged(info.tag.clone()), token)
                }
            };
            let token = token.checked_add(1).ok_or_else(|| {
                Error::corrupt(object.as_str(), "its token is the greatest there is")
            })?;
            let written = Written {
                format: FORMAT,
                repository: self.descriptor.repository,
                id,
                token,
                holder: terms.holder.clone(),
                renewed: 0,
                lasts_millis: millis(terms.lasts),
            };
            let body = envelope::seal(PAYLOAD_TYPE, &written, signer)?;
            let sent = self.sent();
            let put = self.target.put(&object, body.into(), &condition, None);
            if let Ok(info) = put.await? {
                return Ok(Arc::new(Lease {
                    repository: self.clone(),
                    object,
                    turn,
                    signer: signer.clone(),
                    terms: terms.clone(),
                    id,
                    token,
                    held: Mutex::new(Held {
                        tag: info.tag,
                        sent,
                        renewed: 0,
                        lost: false,
                    }),
                }));
            }
        }
        Err(Error::Leased {
            turn: turn.to_string(),
            holder: "others that are faster".into(),
        })
    }

    /// The same repository, for what is done in this turn: restore points say whose it was, and are listed, and objects
    /// are pruned, only while it lasts.
    #[must_use]
    pub fn under(&self, lease: Arc<Lease>) -> Self {
        let mut under = self.clone();
        under.lease = Some(lease);
        under
    }

    /// What a restore point says of whose turn it is. Fails as soon as the turn is known to be over.
    pub(crate) fn fencing(&self, turn: &Turn) -> Result<Option<Fencing>> {
        let Some(lease) = &self.lease else {
            return Ok(None);
        };
        lease.expect(turn)?;
        lease.check_age()?;
        Ok(Some(Fencing {
            token: lease.token,
            holder: lease.terms.holder.clone(),
        }))
    }

    /// Looks anew.
    pub(crate) async fn check_lease(&self, turn: &Turn) -> Result<()> {
        match &self.lease {
            Some(lease) => {
                lease.expect(turn)?;
                lease.check().await
            }
            None => Ok(()),
        }
    }

    fn sent(&self) -> Sent {
        Sent {
            wall: self.clock.now(),
            monotonic: Instant::now(),
        }
    }

    async fn read_lease(&self, object: &ObjectKey) -> Result<Option<Written>> {
        let Some(body) = whole(&*self.target, object).await? else {
            return Ok(None);
        };
        let name = object.as_str();
        let payload = Envelope::read(name, &body)?.open(name, PAYLOAD_TYPE, &self.trust.0)?;
        let written: Written = of_known_format(name, &payload)?;
        if written.repository != self.descriptor.repository {
            return Err(Error::corrupt(name, "it belongs to another repository"));
        }
        Ok(Some(written))
    }

    async fn expect_over(&self, turn: &Turn, written: &Written, at: SystemTime) -> Result<()> {
        let lasts = Duration::from_millis(written.lasts_millis);
        if lasts.is_zero() {
            return Ok(());
        }
        let (now, clock) = self.target_time().await?;
        // What stays is removed by a prune.
        drop(self.target.remove(&clock).await);
        let age = now.duration_since(at).unwrap_or_default();
        match at > UNIX_EPOCH && age >= lasts.saturating_add(DATED_EARLY) {
            true => Ok(()),
            false => Err(Error::Leased {
                turn: turn.to_string(),
                holder: written.holder.clone(),
            }),
        }
    }

    /// Where the object does not say: no restore point has a higher one.
    async fn highest_token(&self, turn: &Turn) -> Result<u64> {
        let Turn::BackUp(stream) = turn else {
            return Ok(0);
        };
        let points = self.points().await?;
        let all = points.usable.iter().chain(&points.forgotten);
        let tokens = all
            .filter(|point| point.stream == *stream)
            .filter_map(|point| point.fencing.as_ref())
            .map(|fencing| fencing.token);
        Ok(tokens.max().unwrap_or_default())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Lease {
    /// Higher than those of all that had this turn before.
    pub const fn token(&self) -> u64 {
        self.token
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, turn: &Turn) -> Result<()> {
        match self.turn == *turn {
            true => Ok(()),
            false => Err(Error::invalid_request(format!(
                "the lease is for {}, and this is {turn}: take one for it",
                self.turn
            ))),
        }
    }

    fn lost(&self, detail: impl Into<String>) -> Error {
        self.held().lost = true;
        Error::LeaseLost {
            turn: self.turn.to_string(),
            detail: detail.into(),
        }
    }

    /// By this host's clocks, and what it noticed before.
    fn check_age(&self) -> Result<()> {
        let (sent, lost) = {
            let held = self.held();
            (held.sent, held.lost)
        };
        let now = self.repository.sent();
        let wall = now.wall.duration_since(sent.wall).unwrap_or_default();
        let monotonic = now.monotonic.saturating_duration_since(sent.monotonic);
        if lost || wall.max(monotonic) >= self.terms.lasts {
            return Err(self.lost("it was not renewed in time"));
        }
        Ok(())
    }

    /// Looks whether it is still this host's, at the target and by the clock.
    ///
    /// **Idempotency**, **cancel safety**: a read.
    ///
    /// # Errors
    /// `LeaseLost`. When the target could not answer.
    pub async fn check(&self) -> Result<()> {
        self.check_age()?;
        let written = verdict(self.repository.read_lease(&self.object).await)?;
        match written {
            Ok(Some(written)) if self.is_own(&written) => {}
            Ok(Some(written)) => {
                return Err(self.lost(format!("{} took over", written.holder)));
            }
            Ok(None) | Err(_) => return Err(self.lost("its object is gone or damaged")),
        }
        // The answer may have taken a while.
        self.check_age()
    }

    fn is_own(&self, written: &Written) -> bool {
        (written.id, written.token) == (self.id, self.token)
    }

    /// Lets it last from now on.
    ///
    /// **Atomicity**: whole or not at all. **Idempotency**: yes. **Cancel safety**: repeat it.
    ///
    /// # Errors
    /// `LeaseLost`. When the target could not answer: then it lasts as long as it did, and can be renewed later.
    pub async fn renew(&self) -> Result<()> {
        self.check_age()?;
        self.write(self.terms.lasts).await
    }

    /// Ends it, so that the next one need not wait.
    ///
    /// **Atomicity**: whole or not at all. **Cancel safety**: it ends by itself.
    ///
    /// # Errors
    /// `LeaseLost`. When the target could not answer.
    pub async fn release(&self) -> Result<()> {
        self.write(Duration::ZERO).await?;
        self.held().lost = true;
        Ok(())
    }

    async fn write(&self, lasts: Duration) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let (tag, renewed) = {
                let mut held = self.held();
                held.renewed = held.renewed.saturating_add(1);
                (held.tag.clone(), held.renewed)
            };
            let repository = &self.repository;
            let written = Written {
                format: FORMAT,
                repository: repository.descriptor.repository,
                id: self.id,
                token: self.token,
                holder: self.terms.holder.clone(),
                renewed,
                lasts_millis: millis(lasts),
            };
            let body = envelope::seal(PAYLOAD_TYPE, &written, &self.signer)?;
            let sent = repository.sent();
            let unchanged = PutIf::Unchanged(tag);
            let put = repository
                .target
                .put(&self.object, body.into(), &unchanged, None);
            if let Ok(info) = put.await? {
                let mut held = self.held();
                (held.tag, held.sent) = (info.tag, sent);
                return Ok(());
            }
            // An earlier one may have come so far that only its answer was lost.
            let info = repository.target.info(&self.object).await?;
            self.check().await?;
            if let Some(info) = info {
                self.held().tag = info.tag;
            }
        }
        Err(self.lost("its object changes faster than it is renewed"))
    }

    /// Does some work, and renews meanwhile. The work is not dropped if that fails: it ends where it looks.
    ///
    /// **Cancel safety**: that of the work.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn keep<T>(&self, work: impl Future<Output = T>) -> T {
        let third = self.terms.lasts / 3;
        let mut renewing = std::pin::pin!(async {
            loop {
                tokio::time::sleep(third).await;
                // What does not answer is asked again, and in the end the clock decides.
                let renewed = tokio::time::timeout(third, self.renew()).await;
                if matches!(renewed, Ok(Err(Error::LeaseLost { .. }))) {
                    return;
                }
            }
        });
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = &mut renewing => {}
        }
        work.await
    }
}
