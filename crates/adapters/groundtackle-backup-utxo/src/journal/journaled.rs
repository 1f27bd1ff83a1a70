use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use groundtackle_core::fail_point;
use groundtackle_utxo_store::{
    Applied, ChainBlock, Coin, Connected, NewRecord, OutPoint, Outcome, OutputView, Recovered,
    Result, SlotState, Tip, Txid, UtxoStore, UtxoStoreExt, forward_store,
};
use tokio::sync::Mutex;
use tracing::warn;

use super::error::{BACKEND, JournalError};
use super::file::{EPOCH, Epoch, Folder, Intent, LOCK, exists, failed, sync_folder};
use crate::delta::Delta;

/// Outputs read in one call, where the store names no limit.
const READ_ITEMS: usize = 4_096;

/// Writes down what each block changes, as it is connected: the deltas of a [`Journal`](super::Journal).
///
/// A connection is acknowledged once its delta is durable. Before the store is asked to connect, an intent is made
/// durable; where the process dies in between, the next [`open`](Self::open) finishes the delta, or finds that the
/// block was not connected. Calls that change the confirmed set otherwise end the [epoch](super): durably, before they
/// run.
///
/// Blocks, prunes and calls that end the epoch wait for each other, so that nothing is lost between a block and its
/// delta. All else goes straight to the store.
///
/// All changes must come through the one `Journaled`: what goes past it is not in the journal, and where it is not a
/// block, nothing tells.
#[derive(Debug)]
pub struct Journaled<S> {
    inner: S,
    folder: Folder,
    /// Held while the store works: that calls wait for each other is the point.
    turn: Mutex<Turn>,
    /// Locked as long as this lives.
    _lock: File,
}

#[derive(Debug)]
struct Turn {
    /// `None` while a call ends it, and after one that was dropped.
    epoch: Option<Epoch>,
    pending: Option<Intent>,
}

impl<S: UtxoStore> Journaled<S> {
    /// Around `inner`, in a folder of its own, which is created if need be. Finishes what a crash interrupted, and lets
    /// the store recover first if so.
    ///
    /// # Errors
    /// `InUse` by another process; a damaged or newer journal, named; when the file system fails or the store can't
    /// answer.
    pub async fn open(inner: S, folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = Folder(folder.into());
        let (lock, turn) = blocking(|| prepare(&folder))?;
        let interrupted = turn.pending.is_some();
        let journaled = Self {
            inner,
            folder,
            turn: Mutex::new(turn),
            _lock: lock,
        };
        if interrupted {
            journaled.inner.recover().await?;
        }
        let mut turn = journaled.turn.lock().await;
        journaled.settle(&mut turn).await?;
        drop(turn);
        Ok(journaled)
    }

    /// The store, past the journal: for what changes nothing.
    pub const fn inner(&self) -> &S {
        &self.inner
    }

    /// Finishes what an earlier call has left: the end of an epoch, the delta of a block. How many deltas.
    async fn settle(&self, turn: &mut Turn) -> Result<u64> {
        if turn.epoch.is_none() {
            self.begin_epoch(turn)?;
        }
        let Some(intent) = &turn.pending else {
            return Ok(0);
        };
        let tip = self.inner.tip().await?;
        if tip.is_none_or(|tip| tip.hash != intent.tip.hash) {
            // Not connected, or not yet: a store that works by steps may go on when it is asked again.
            return Ok(0);
        }
        self.complete(turn, None).await?;
        Ok(1)
    }

    fn begin_epoch(&self, turn: &mut Turn) -> Result<()> {
        let epoch = Epoch::new();
        blocking(|| self.folder.write_epoch(Some(epoch)))?;
        turn.epoch = Some(epoch);
        Ok(())
    }

    async fn connect(
        &self,
        block: &ChainBlock,
        call: impl Future<Output = Result<Outcome<Connected>>>,
    ) -> Result<Outcome<Connected>> {
        let mut turn = self.turn.lock().await;
        self.settle(&mut turn).await?;
        let tip = self.inner.tip().await?;
        if tip.is_some_and(|tip| tip.hash == block.hash || tip.hash != block.previous) {
            // Connected before, or refused: nothing to write down.
            return call.await;
        }
        // Where blocks are connected by steps, some may have been made already: then only the intent of the first try
        // knows what was overwritten.
        let resumed = turn.pending.as_ref().is_some_and(|intent| {
            intent.tip.hash == block.hash && !self.inner.capabilities().atomic_blocks
        });
        if !resumed {
            let overwritten = self.overwritten(block).await?;
            let intent = intent_of(block, overwritten);
            blocking(|| self.folder.write_intent(&intent))?;
            turn.pending = Some(intent);
        }
        let answer = call.await?;
        fail_point("journal.connected");
        match &answer {
            Ok(connected) => {
                let spent = (connected.applied == Applied::Now).then_some(&connected.spent[..]);
                self.complete(&mut turn, spent)
                    .await
                    .map_err(|error| error.after_effect(BACKEND, "connect_block"))?;
            }
            Err(_) => {
                turn.pending = None;
                blocking(|| self.folder.remove_intent())?;
            }
        }
        Ok(answer)
    }

    /// Writes the delta of the pending block, which is the tip. `answered` is what the store said that it spent.
    async fn complete(&self, turn: &mut Turn, answered: Option<&[Coin]>) -> Result<()> {
        let (Some(intent), Some(epoch)) = (&turn.pending, turn.epoch) else {
            return Ok(());
        };
        let tip = intent.tip;
        let head = blocking(|| self.folder.read_head(tip.height, &tip.hash))?;
        if answered.is_none() && head.is_some_and(|head| head.epoch == epoch) {
            // It was only the intent that was left.
            blocking(|| self.folder.remove_intent())?;
            turn.pending = None;
            return Ok(());
        }
        match self.delta(intent, answered).await? {
            Ok(delta) => blocking(|| self.folder.write_delta(epoch, delta))?,
            Err(missing) => {
                warn!(block = %tip.hash, %missing, "the delta of a block is lost; the next backup takes a new base");
                self.begin_epoch(turn)?;
            }
        }
        blocking(|| self.folder.remove_intent())?;
        turn.pending = None;
        Ok(())
    }

    /// What the pending block, which is the tip, has changed; or what the store does not have any more.
    ///
    /// Created coins are read back, since an output that was given another owner before its transaction was mined is
    /// not the one in the block; and the store knows which outputs nobody can spend.
    async fn delta(
        &self,
        intent: &Intent,
        answered: Option<&[Coin]>,
    ) -> Result<Result<Delta, OutPoint>> {
        let mut created = Vec::with_capacity(intent.created.len());
        for (outpoint, view) in self.read(&intent.created).await? {
            match view {
                Ok(view) if view.height == Some(intent.tip.height) => {
                    created.push(coin(view, intent.tip.height));
                }
                Ok(_) => return Ok(Err(outpoint)),
                // Nobody can spend it.
                Err(_) => {}
            }
        }
        let mut spent = intent.overwritten.clone();
        let outside: HashSet<&OutPoint> = intent.spent.iter().collect();
        let answered = answered.map(|coins| {
            let coins = coins.iter();
            let coins = coins.filter(|coin| outside.contains(&coin.outpoint));
            coins.cloned().collect::<Vec<_>>()
        });
        match answered.filter(|coins| coins.len() == outside.len()) {
            Some(coins) => spent.extend(coins),
            None => {
                for (outpoint, view) in self.read(&intent.spent).await? {
                    match view {
                        Ok(view) => match view.height {
                            Some(height) => spent.push(coin(view, height)),
                            None => return Ok(Err(outpoint)),
                        },
                        Err(_) => return Ok(Err(outpoint)),
                    }
                }
            }
        }
        Ok(Ok(Delta {
            tip: intent.tip,
            previous: intent.previous,
            created,
            spent,
        }))
    }

    /// Coins of an earlier coinbase of the same identifier that are in the set, where the block may overwrite them.
    async fn overwritten(&self, block: &ChainBlock) -> Result<Vec<Coin>> {
        let mut coins = Vec::new();
        let coinbase = block.transactions.first();
        let Some(coinbase) = coinbase.filter(|_| block.coinbase_may_overwrite) else {
            return Ok(coins);
        };
        for (_, view) in self
            .read(&outpoints(coinbase.txid, coinbase.outputs.len()))
            .await?
        {
            let Ok(view) = view else { continue };
            let Some(height) = view.height else { continue };
            let spent = match view.state {
                SlotState::Spent(by) => self
                    .inner
                    .record(by.txid)
                    .await?
                    .is_none_or(|spender| spender.confirmed_height().is_some()),
                _ => false,
            };
            if !spent {
                coins.push(coin(view, height));
            }
        }
        Ok(coins)
    }

    async fn read(&self, names: &[OutPoint]) -> Result<Vec<(OutPoint, Outcome<OutputView>)>> {
        let most = self.inner.capabilities().max_batch_items;
        let mut views = Vec::with_capacity(names.len());
        for part in names.chunks(most.unwrap_or(READ_ITEMS).max(1)) {
            views.extend(part.iter().copied().zip(self.inner.outputs(part).await?));
        }
        Ok(views)
    }

    /// A call that needs the order of blocks, and changes the set by nothing but blocks.
    async fn in_turn<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut turn = self.turn.lock().await;
        self.settle(&mut turn).await?;
        call.await
    }

    /// A call that changes the confirmed set otherwise: while it runs there is no epoch, and after it another one.
    async fn ending_epoch<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let mut turn = self.turn.lock().await;
        self.settle(&mut turn).await?;
        turn.epoch = None;
        blocking(|| self.folder.write_epoch(None))?;
        let answer = call.await;
        if let Err(error) = self.begin_epoch(&mut turn) {
            // The next call does it.
            warn!(%error, "the journal has no epoch");
        }
        answer
    }

    async fn recover_all(
        &self,
        call: impl Future<Output = Result<Recovered>>,
    ) -> Result<Recovered> {
        let mut turn = self.turn.lock().await;
        let mut recovered = call.await?;
        let finished = self.settle(&mut turn).await?;
        recovered.rolled_forward = recovered.rolled_forward.saturating_add(finished);
        Ok(recovered)
    }
}

/// Whether a record is in the confirmed set at once.
const fn is_confirmed(record: &NewRecord) -> bool {
    match record {
        NewRecord::Coinbase { mined, .. } => mined.on_longest_chain,
        NewRecord::Seed { .. } => true,
        NewRecord::Conflicting { .. } => false,
    }
}

macro_rules! journaled {
    ($self:ident, whole, connect_block, $block:ident.transactions.len(), || $call:expr) => {
        $self.connect($block, $call).await
    };
    ($self:ident, whole, disconnect_block, $items:expr, || $call:expr) => {
        $self.in_turn($call).await
    };
    ($self:ident, whole, prune, $items:expr, || $call:expr) => {
        $self.in_turn($call).await
    };
    ($self:ident, whole, recover, $items:expr, || $call:expr) => {
        $self.recover_all($call).await
    };
    ($self:ident, whole, set_tip, $items:expr, || $call:expr) => {
        $self.ending_epoch($call).await
    };
    ($self:ident, chunked, create, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        if $part.iter().any(is_confirmed) {
            $self.ending_epoch($call).await
        } else {
            $call.await
        }
    }};
    ($self:ident, chunked, set_mined, $items:expr, |$part:ident| $call:expr) => {
        journaled!(ending $self, $items, |$part| $call)
    };
    ($self:ident, chunked, unset_mined, $items:expr, |$part:ident| $call:expr) => {
        journaled!(ending $self, $items, |$part| $call)
    };
    ($self:ident, chunked, set_longest_chain, $items:expr, |$part:ident| $call:expr) => {
        journaled!(ending $self, $items, |$part| $call)
    };
    ($self:ident, chunked, reassign, $items:expr, |$part:ident| $call:expr) => {
        journaled!(ending $self, $items, |$part| $call)
    };
    (ending $self:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        if $part.is_empty() {
            $call.await
        } else {
            $self.ending_epoch($call).await
        }
    }};
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

forward_store!([S: UtxoStore] Journaled<S>, inner, journaled);

/// A process that was killed holds its lock until it is gone, and one that is being started holds its parent's for a moment.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn prepare(folder: &Folder) -> Result<(File, Turn), JournalError> {
    let path = &folder.0;
    fs::create_dir_all(path).map_err(|error| failed("create", path, error))?;
    let lock_path = folder.path(LOCK);
    let lock = File::create(&lock_path).map_err(|error| failed("create", &lock_path, error))?;
    let mut tries = 0..LOCK_TRIES;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if tries.next().is_some() => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(JournalError::InUse { path: path.clone() });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_path, error)),
        }
    }
    if let Some(parent) = path.parent().filter(|parent| parent.is_dir()) {
        // The folder itself may be new.
        sync_folder(parent)?;
    }
    let epoch = if exists(&folder.path(EPOCH))? {
        folder.read_epoch()?
    } else {
        None
    };
    let pending = folder.read_intent()?;
    Ok((lock, Turn { epoch, pending }))
}

fn intent_of(block: &ChainBlock, overwritten: Vec<Coin>) -> Intent {
    // A genesis block creates nothing.
    let transactions = match block.height {
        0 => &[],
        _ => block.transactions.as_slice(),
    };
    let own: HashSet<Txid> = transactions.iter().map(|tx| tx.txid).collect();
    let inputs = || transactions.iter().flat_map(|tx| tx.inputs.iter().copied());
    let inside: HashSet<OutPoint> = inputs().filter(|input| own.contains(&input.txid)).collect();
    let created = transactions
        .iter()
        .flat_map(|tx| outpoints(tx.txid, tx.outputs.len()))
        .filter(|outpoint| !inside.contains(outpoint));
    Intent {
        tip: Tip {
            height: block.height,
            hash: block.hash,
            median_time_past: block.median_time_past,
        },
        previous: block.previous,
        created: created.collect(),
        spent: inputs()
            .filter(|input| !own.contains(&input.txid))
            .collect(),
        overwritten,
    }
}

/// The first `count` outputs of a transaction.
fn outpoints(txid: Txid, count: usize) -> Vec<OutPoint> {
    // No block has room for more outputs than that.
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    (0..count).map(|vout| OutPoint::new(txid, vout)).collect()
}

fn coin(view: OutputView, height: u32) -> Coin {
    Coin {
        outpoint: view.outpoint,
        output: view.output,
        height,
        coinbase: view.coinbase,
    }
}

/// Runs blocking work where it hurts least: on a multi-thread runtime other tasks move on.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}
