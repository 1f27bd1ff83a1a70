use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_backup_utxo::{Journal, Journaled};
use groundtackle_utxo_store::{
    BlockHash, ChainBlock, SetDigest, Tip, UnspendableRule, UtxoStore, unfinished_copy,
};

use crate::carry;
use crate::copy::Scratch;
use crate::error::{Error, Result, While};
use crate::live::Live;
use crate::phase::{Memory, Phase};
use crate::stores::StoreUrl;

/// How long a block may be in the store that serves and not in its journal.
const JOURNAL_WITHIN: Duration = Duration::from_secs(60);

/// Where the store that follows gets the blocks: from the node that gave them to the one that serves.
#[async_trait]
pub trait Blocks: Debug + Send + Sync + 'static {
    /// A block of the longest chain, or of a branch that has just left it.
    ///
    /// # Errors
    /// When the node could not answer, or does not have it.
    async fn block(&self, hash: &BlockHash) -> Result<ChainBlock>;
}

/// How to migrate.
#[derive(Clone, Debug)]
pub struct Options {
    /// The network, as the copy is labelled.
    pub network: String,
    /// The new store is filled with the set so many blocks below the tip, since it can't go back further.
    pub depth_blocks: u32,
    /// How often to look whether there are as many.
    pub poll: Duration,
    /// How long calls may wait for a switch; then it is given up.
    pub max_pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: "main".into(),
            depth_blocks: 6,
            poll: Duration::from_secs(10),
            max_pause: Duration::from_secs(10),
        }
    }
}

/// What a switch did.
#[derive(Clone, Copy, Debug)]
pub struct Switched {
    /// The block after which the stores were compared.
    pub tip: Tip,
    /// The digest that both have.
    pub muhash: [u8; 32],
    /// Unmined transactions that went over.
    pub unmined: u64,
    /// How long calls have waited.
    pub pause: Duration,
}

#[derive(Debug)]
struct End {
    store: Arc<dyn UtxoStore>,
    /// None while it is being filled.
    journal: Option<Journal>,
}

impl End {
    async fn journaled(store: Arc<dyn UtxoStore>, folder: &Path) -> Result<Self> {
        let opening = || format!("opening the journal in {}", folder.display());
        let store = Journaled::open(store, folder).await.when(opening())?;
        Ok(Self {
            store: Arc::new(store),
            journal: Some(Journal::open(folder).when(opening())?),
        })
    }
}

/// Two stores, one of which serves.
#[derive(Debug)]
pub struct Migration {
    live: Arc<Live>,
    old: End,
    new: End,
    phase: Phase,
    memory: Memory,
    folder: PathBuf,
    blocks: Arc<dyn Blocks>,
    options: Options,
    unspendable: UnspendableRule,
    /// The store that follows has nothing but blocks.
    clean: bool,
}

impl Migration {
    /// Begins one, or goes on where an earlier process was. `journal` is the old store's; `folder` is the migration's own, and
    /// has room for a copy of the set.
    ///
    /// # Errors
    /// When a store can't be opened; `Refused` after [`retire`](Self::retire).
    pub async fn open(
        from: &StoreUrl,
        journal: &Path,
        to: &StoreUrl,
        folder: &Path,
        blocks: Arc<dyn Blocks>,
        options: Options,
    ) -> Result<Self> {
        if from.to_string() == to.to_string() || from.unspendable() != to.unspendable() {
            return Err(Error::Refused(format!(
                "{from} and {to} must be two stores of one rule for unspendable outputs"
            )));
        }
        let (memory, phase) = Memory::open(folder, from.to_string(), to.to_string())?;
        if phase == Phase::Retired {
            return Err(Error::Refused(format!(
                "the migration is over: let the service open {to}, and never {from}"
            )));
        }
        let opening = |url: &StoreUrl| format!("opening {url}");
        let old = from.open().await.when(opening(from))?;
        if unfinished_copy(&*old).await.when(opening(from))?.is_some() {
            return Err(Error::Refused(format!("{from} holds an unfinished copy")));
        }
        let old = End::journaled(old, journal).await?;
        let new = to.open().await.when(opening(to))?;
        let new = match phase {
            Phase::Copying => End {
                store: new,
                journal: None,
            },
            _ => End::journaled(new, &folder.join("journal-new")).await?,
        };
        let serves = if phase == Phase::NewServes {
            &new
        } else {
            &old
        };
        Ok(Self {
            live: Arc::new(Live::new(serves.store.clone())),
            old,
            new,
            phase,
            memory,
            folder: folder.into(),
            blocks,
            options,
            unspendable: from.unspendable(),
            clean: false,
        })
    }

    /// How the service reaches its store, from now on.
    pub fn live(&self) -> Arc<Live> {
        self.live.clone()
    }

    /// How far it is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The one that serves, and the one that follows.
    const fn ends(&self) -> (&End, &End) {
        match self.phase {
            Phase::NewServes => (&self.new, &self.old),
            _ => (&self.old, &self.new),
        }
    }

    /// Fills the new store while the old one serves, and compares its digest. Nothing to do when that is done.
    ///
    /// **Cancel safety**, **idempotency**: repeat it, in another process too.
    ///
    /// # Errors
    /// When a store or the folder could not answer; `Refused` for a new store that is not empty.
    pub async fn copy(&mut self) -> Result<()> {
        if self.phase != Phase::Copying {
            return Ok(());
        }
        let scratch = Scratch::open(&self.folder, &self.options.network).await?;
        let (old, new) = (&self.old, &self.new);
        let journal = old.journal.as_ref().ok_or_else(no_journal)?;
        scratch
            .copy(&old.store, journal, &new.store, &self.options)
            .await?;
        carry::alerts(&*old.store, &*new.store).await?;
        let store = new.store.clone();
        let new = End::journaled(store, &self.folder.join("journal-new")).await?;
        self.enter(Phase::OldServes)?;
        self.new = new;
        scratch.remove(&self.folder)
    }

    fn enter(&mut self, phase: Phase) -> Result<()> {
        self.memory
            .write(phase)
            .when("remembering how far the migration is")?;
        self.phase = phase;
        Ok(())
    }

    /// Brings the store that follows to the block of the one that serves, taking back what has left the chain, and compares
    /// their digests there. That block and the digest.
    ///
    /// **Cancel safety**, **idempotency**: repeat it.
    ///
    /// # Errors
    /// `Differ`. `Refused` where the chain has left below what the new store was filled with, or the journal has a gap.
    pub async fn follow(&mut self) -> Result<(Tip, [u8; 32])> {
        if self.phase == Phase::Copying {
            return Err(Error::Refused("the new store is not filled yet".into()));
        }
        if !self.clean {
            carry::forget_mempool(&*self.ends().1.store).await?;
            self.clean = true;
        }
        self.catch_up().await
    }

    async fn catch_up(&self) -> Result<(Tip, [u8; 32])> {
        let what = "following";
        let (serving, other) = self.ends();
        let journal = serving.journal.as_ref().ok_or_else(no_journal)?;
        let mut stuck = None;
        loop {
            let goal = serving.store.tip().await.when(what)?.ok_or_else(no_tip)?;
            let at = other.store.tip().await.when(what)?.ok_or_else(no_tip)?;
            if at.hash == goal.hash {
                if let Some(muhash) = compare(serving, other, &goal).await? {
                    return Ok((goal, muhash));
                }
                continue;
            }
            let before = serving.store.previous_tip().await.when(what)?;
            if serving.store.tip().await.when(what)?.map(|tip| tip.hash) != Some(goal.hash) {
                continue;
            }
            // A block is in its store before it is in the journal.
            let epoch = journal.epoch().when(what)?;
            let (Some(epoch), Some(before)) = (epoch, before) else {
                wait(&mut stuck).await?;
                continue;
            };
            if journal
                .chain(epoch, before.hash, goal.hash)
                .when(what)?
                .is_none()
            {
                wait(&mut stuck).await?;
                continue;
            }
            stuck = None;
            match journal.chain(epoch, at.hash, goal.hash).when(what)? {
                Some(chain) => {
                    for delta in chain {
                        let hash = delta.when(what)?.tip.hash;
                        let block = self.blocks.block(&hash).await?;
                        let connecting = || format!("connecting block {} ({hash})", block.height);
                        let connected =
                            other.store.connect_block(&block).await.when(connecting())?;
                        connected.when(connecting())?;
                    }
                }
                None => take_back(other, &at).await?,
            }
        }
    }

    /// Lets the other store serve. Calls wait meanwhile: for the last blocks, the comparison, and unmined transactions. The
    /// store that served follows from now on, so that the way back is the same call again.
    ///
    /// **Atomicity**: one rename in the migration's folder. Before it the one store serves, in a new process too, and after it
    /// the other one. **Cancel safety**: switched or not.
    ///
    /// # Errors
    /// As [`follow`](Self::follow), and `TooLong`: nothing was switched. After `InDoubt` end the process.
    pub async fn switch_over(&mut self) -> Result<Switched> {
        self.follow().await?;
        let phase = match self.phase {
            Phase::NewServes => Phase::OldServes,
            _ => Phase::NewServes,
        };
        self.clean = false;
        let live = self.live.clone();
        let max_pause = self.options.max_pause;
        let began = Instant::now();
        let prepare = async {
            let held = live.hold().await;
            let (tip, muhash) = self.catch_up().await?;
            let (serving, other) = self.ends();
            let (from, to) = (&*serving.store, &*other.store);
            let next = tip.height.saturating_add(1);
            let unmined = carry::mempool(from, to, next, self.unspendable).await?;
            to.flush().await.when("making the other store durable")?;
            Ok::<_, Error>((held, tip, muhash, unmined))
        };
        let prepared = tokio::time::timeout(max_pause, prepare).await;
        let max_pause_millis = max_pause.as_millis();
        let (mut held, tip, muhash, unmined) =
            prepared.map_err(|_| Error::TooLong { max_pause_millis })??;
        // Nothing is awaited from here on.
        if self.memory.write(phase).is_err() {
            *held = None;
            return Err(Error::InDoubt);
        }
        self.phase = phase;
        *held = Some(self.ends().0.store.clone());
        Ok(Switched {
            tip,
            muhash,
            unmined,
            pause: began.elapsed(),
        })
    }

    /// Leaves the old store behind: the point of no return. It is not followed any more, and the next process is refused, so
    /// that the service names the new store itself.
    ///
    /// # Errors
    /// `Refused` while the old store serves.
    pub fn retire(&mut self) -> Result<()> {
        match self.phase {
            Phase::NewServes => self.enter(Phase::Retired),
            _ => Err(Error::Refused(
                "the old store serves: switch over first".into(),
            )),
        }
    }
}

/// Waits for the journal, not for ever.
async fn wait(since: &mut Option<Instant>) -> Result<()> {
    if since.get_or_insert_with(Instant::now).elapsed() > JOURNAL_WITHIN {
        return Err(Error::Refused(
            "the journal lacks the block that the store is at: something else writes to the store, or the journal was shortened \
             too far; begin again with an empty store"
                .into(),
        ));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(())
}

async fn take_back(other: &End, at: &Tip) -> Result<()> {
    let taking = || format!("taking block {} ({}) back", at.height, at.hash);
    let previous = other.store.previous_tip().await.when(taking())?.ok_or_else(|| {
        Error::Refused(format!(
            "the chain has left block {} ({}), with which the store was filled, or the journal has a gap: begin again with an \
             empty store",
            at.height, at.hash
        ))
    })?;
    let done = other.store.disconnect_block(&at.hash, &previous.hash).await;
    done.when(taking())?.when(taking()).map(drop)
}

/// None if the one that serves has gone on.
async fn compare(serving: &End, other: &End, at: &Tip) -> Result<Option<[u8; 32]>> {
    let what = "comparing digests";
    let found = other.store.digest().await.when(what)?;
    let wanted = serving.store.digest().await.when(what)?;
    let is_there = |digest: &SetDigest| digest.tip.is_some_and(|tip| tip.hash == at.hash);
    if !is_there(&wanted) || !is_there(&found) {
        return Ok(None);
    }
    if wanted.muhash != found.muhash {
        let shown = |mut muhash: [u8; 32]| {
            muhash.reverse();
            groundtackle_chain::hash::to_hex(&muhash)
        };
        return Err(Error::Differ {
            height: at.height,
            hash: at.hash.to_string(),
            serving: shown(wanted.muhash),
            other: shown(found.muhash),
        });
    }
    Ok(Some(wanted.muhash))
}

fn no_tip() -> Error {
    Error::Refused("a store has no tip: sync it first".into())
}

fn no_journal() -> Error {
    Error::Refused("the store that serves has no journal".into())
}
