use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fjall::Snapshot;
use groundtackle_utxo_store::digest::{MuHash3072, coin_element};
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, Capabilities, ChainBlock, ConflictStore, Connected,
    Cursor, Disconnected, Error, Fields, Health, HealthDepth, LongestChain, MaintenanceStore,
    MinedIn, NewRecord, NewTransaction, OutPoint, Outcome, OutputView, Page, Pruned, Reassignment,
    Record, Recovered, Result, RetentionStore, ScanStore, SetDigest, SetScan, SpendOptions,
    SpendStore, Tip, Txid, UnminedTransaction, Verdict,
};

use crate::chain;
use crate::config::{Durability, EmbeddedUtxoStoreConfig};
use crate::draft::{Draft, read_inputs};
use crate::engine::{Engine, Fixed};
use crate::error::{BACKEND, Stop, corrupt, outcome};
use crate::ops;
use crate::record::{
    self, EXPIRING_KIND, Head, Inputs, Mined, Slot, TIP_KEY, TipState, UNDO_KIND, UNMINED_KIND,
    chunk_of, decode_chunk, decode_head, decode_tip, decode_unmined, end_of_height, read_expiring,
    read_hash, record_key, unmined_key,
};
use crate::rules;
use crate::scan::EmbeddedScan;

/// Records that one step of a pruning looks at: other writers get their turn between steps.
const PRUNE_STEP: usize = 1024;

/// A UTXO store in a folder, for one process.
///
/// Calls do their work on the calling thread: on a multi-thread runtime of tokio by
/// `block_in_place`, elsewhere by blocking it. So a call is never dropped half-way. Clones share the
/// store; drop the last one outside of a latency-critical task, since closing waits for the
/// engine's background work.
#[derive(Clone, Debug)]
pub struct EmbeddedUtxoStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    fixed: Fixed,
    config: EmbeddedUtxoStoreConfig,
    writer: Mutex<Writer>,
}

/// What the one writer at a time has.
#[derive(Debug)]
struct Writer {
    state: TipState,
    /// A commit failed, so `state` and the disk may differ.
    in_doubt: bool,
}

impl EmbeddedUtxoStore {
    /// Opens the store in the folder `path`, or creates it there.
    ///
    /// Blocks while the engine replays its journal: up to a second.
    ///
    /// # Errors
    /// `InUse` by another process; `NewerFormat`; `NotFound` unless it may be created; `Corrupt`;
    /// `Full`; `InvalidRequest` for a folder with something else in it, or a configuration that
    /// differs from what was fixed at creation.
    pub fn open(path: impl Into<PathBuf>, config: EmbeddedUtxoStoreConfig) -> Result<Self> {
        let path = path.into();
        let (engine, fixed) = Engine::open(&path, &config)?;
        let snapshot = engine.snapshot();
        let state = read_tip_state(&engine, &snapshot)?;
        if state.muhash.is_some() != fixed.incremental_digest {
            return Err(corrupt(
                path.display().to_string(),
                "its header and its tip differ on whether a digest is kept",
            ));
        }
        let writer = Mutex::new(Writer {
            state,
            in_doubt: false,
        });
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Arc::new(engine),
                fixed,
                config,
                writer,
            }),
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.inner.engine.path
    }

    /// Hands every key that is written or deleted from now on to `recorder`; only the first call counts.
    #[cfg(feature = "__record")]
    #[doc(hidden)]
    pub fn observe_batches(&self, recorder: crate::engine::Recorder) {
        drop(self.inner.engine.recorder.set(recorder));
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    #[cfg(test)]
    fn lengths(&self) -> Result<Vec<usize>> {
        let snapshot = self.inner.engine.snapshot();
        let all = self.inner.engine.range(&snapshot, &[], &[u8::MAX]);
        all.map(|entry| entry.map(|(_, value)| value.len()))
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn longest_value(&self) -> Result<usize> {
        Ok(self.lengths()?.into_iter().max().unwrap_or(0))
    }

    #[cfg(test)]
    pub(crate) fn key_count(&self) -> Result<usize> {
        Ok(self.lengths()?.len())
    }
}

/// Written when the store is created, so it is always there.
fn read_tip_state(engine: &Engine, snapshot: &Snapshot) -> Result<TipState> {
    let value = engine
        .get(snapshot, TIP_KEY)?
        .ok_or_else(|| corrupt("the tip", "it is missing"))?;
    decode_tip(value.bytes())
}

/// Runs blocking work where it hurts least: on a multi-thread runtime other tasks move on.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

impl Inner {
    fn store(&self) -> String {
        self.engine.path.display().to_string()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic leaves no half-made change: a draft is committed whole.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws up a change and commits it, unless drawing it up fails.
    fn write<T, E: From<Error>>(
        &self,
        durable: bool,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        blocking(|| {
            let mut writer = self.writer();
            if writer.in_doubt {
                return Err(Error::Poisoned {
                    store: self.store(),
                }
                .into());
            }
            let mut draft = Draft::new(&self.engine, writer.state.clone());
            let answer = change(&mut draft)?;
            self.check_room()?;
            match draft.commit(durable) {
                Ok(state) => writer.state = state,
                Err(error) => {
                    writer.in_doubt = true;
                    return Err(error.into());
                }
            }
            Ok(answer)
        })
    }

    fn check_room(&self) -> Result<()> {
        let (free, wanted) = (self.engine.free_bytes()?, self.config.min_free.bytes());
        if free < wanted {
            let source = format!("{free} bytes are free, and min_free asks for {wanted}");
            return Err(Error::Full {
                store: self.store(),
                source: source.into(),
            });
        }
        Ok(())
    }

    const fn every_batch(&self) -> bool {
        matches!(self.config.durability, Durability::Batch)
    }

    /// One change for each item, in order, committed together.
    fn each<I, T>(
        &self,
        items: &[I],
        mut change: impl FnMut(&mut Draft<'_>, &I) -> Result<T, Stop>,
    ) -> Result<Vec<Outcome<T>>> {
        self.write(self.every_batch(), |draft| {
            items
                .iter()
                .map(|item| outcome(change(draft, item)))
                .collect()
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T>) -> Result<T> {
        blocking(|| read(&self.engine.snapshot()))
    }

    /// Reads without changing, with the means of a change.
    fn look<I, T>(
        &self,
        items: &[I],
        mut look: impl FnMut(&mut Draft<'_>, &I) -> Result<T, Stop>,
    ) -> Result<Vec<Outcome<T>>> {
        blocking(|| {
            let state = TipState::new(false);
            let mut draft = Draft::new(&self.engine, state);
            items
                .iter()
                .map(|item| outcome(look(&mut draft, item)))
                .collect()
        })
    }

    fn block_hash(
        &self,
        snapshot: &Snapshot,
        number: u32,
        known: &mut HashMap<u32, BlockHash>,
    ) -> Result<BlockHash> {
        if let Some(hash) = known.get(&number) {
            return Ok(*hash);
        }
        let value = self
            .engine
            .get_raw(snapshot, &record::number_key(number))?
            .ok_or_else(|| {
                corrupt(
                    "the list of blocks",
                    format!("block number {number} is missing"),
                )
            })?;
        let hash = BlockHash::from_bytes(read_hash("a block's hash", &value)?);
        known.insert(number, hash);
        Ok(hash)
    }

    fn record(
        &self,
        snapshot: &Snapshot,
        txid: &Txid,
        fields: Fields,
        blocks: &mut HashMap<u32, BlockHash>,
    ) -> Result<Option<Record>> {
        let Some(value) = self.engine.get(snapshot, &record_key(txid, 0))? else {
            return Ok(None);
        };
        let (head, mut slots) = decode_head(txid, value.bytes())?;
        if fields.outputs {
            for chunk in 1..=head.last_chunk {
                slots.extend(self.chunk(snapshot, txid, chunk)?);
            }
        } else {
            slots.clear();
        }
        let inputs = match (fields.inputs, head.inputs) {
            (false, _) => Vec::new(),
            (true, Inputs::Here(inputs)) => inputs,
            (true, Inputs::Apart) => read_inputs(&self.engine, snapshot, txid)?,
        };
        let mut mined_in = Vec::with_capacity(head.mined_in.len());
        for mined in &head.mined_in {
            let block = mined
                .block
                .map(|number| self.block_hash(snapshot, number, blocks))
                .transpose()?;
            let Mined {
                height,
                subtree_index,
                on_longest_chain,
                ..
            } = *mined;
            mined_in.push(MinedIn {
                block,
                height,
                subtree_index,
                on_longest_chain,
            });
        }
        let outputs = slots.iter().map(Slot::read).collect::<Result<_>>()?;
        Ok(Some(Record {
            txid: *txid,
            coinbase: head.coinbase,
            fee_sat: head.fee_sat,
            size_bytes: head.size_bytes,
            lock_time: head.lock_time,
            inputs,
            outputs,
            mined_in,
            unmined_since: head.unmined_since,
            locked: head.locked,
            conflicting: head.conflicting,
            conflicting_children: head.conflicting_children,
            preserve_until: head.preserve_until,
        }))
    }

    fn chunk(&self, snapshot: &Snapshot, txid: &Txid, chunk: u32) -> Result<Vec<Slot>> {
        let value = self
            .engine
            .get(snapshot, &record_key(txid, chunk))?
            .ok_or_else(|| {
                corrupt(
                    format!("the record of {txid}"),
                    format!("its chunk {chunk} is missing"),
                )
            })?;
        decode_chunk(txid, chunk, value.bytes())
    }

    fn output(
        &self,
        snapshot: &Snapshot,
        heads: &mut Heads,
        outpoint: OutPoint,
    ) -> Result<Outcome<OutputView>> {
        let OutPoint { txid, vout } = outpoint;
        if let std::collections::hash_map::Entry::Vacant(e) = heads.entry(txid) {
            let value = self.engine.get(snapshot, &record_key(&txid, 0))?;
            e.insert(
                value
                    .map(|value| decode_head(&txid, value.bytes()))
                    .transpose()?,
            );
        }
        let Some(Some((head, first))) = heads.get(&txid) else {
            return Ok(Err(Verdict::MissingTransaction { outpoint }));
        };
        let later;
        let slots = match chunk_of(vout) {
            0 => first,
            chunk if chunk <= head.last_chunk => {
                later = self.chunk(snapshot, &txid, chunk)?;
                &later
            }
            _ => return Ok(Err(Verdict::MissingOutput { outpoint })),
        };
        let slot = slots
            .binary_search_by_key(&vout, |slot| slot.vout)
            .ok()
            .and_then(|at| slots.get(at));
        let Some(slot) = slot.map(Slot::read).transpose()? else {
            return Ok(Err(Verdict::MissingOutput { outpoint }));
        };
        Ok(Ok(OutputView {
            outpoint,
            state: slot.state(),
            output: slot.output,
            height: head.confirmed_height(),
            coinbase: head.coinbase,
            locked: head.locked,
            conflicting: head.conflicting,
        }))
    }
}

type Heads = HashMap<Txid, Option<(Head, Vec<Slot>)>>;

impl Inner {
    fn prune(&self, horizon: u32) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let done = self.prune_into(horizon, &mut pruned);
        pruned.when(done, BACKEND)
    }

    /// Counts what goes as soon as it has gone.
    fn prune_into(&self, horizon: u32, pruned: &mut Pruned) -> Result<()> {
        if self.writer().state.tip.is_none() {
            return Ok(());
        }
        // Undo data goes first, so that no block can be taken back whose records are half gone.
        pruned.blocks = self.prune_undo(horizon)?;
        loop {
            let (records, more) = self.prune_expired(horizon)?;
            pruned.records += records;
            if !more {
                break;
            }
        }
        loop {
            let records = self.prune_conflicting(horizon)?;
            pruned.records += records;
            if records == 0 {
                break;
            }
        }
        if self.every_batch() {
            blocking(|| self.engine.sync())?;
        }
        Ok(())
    }

    fn prune_undo(&self, horizon: u32) -> Result<u64> {
        self.write(true, |draft| {
            // In the same moment: from then on no block at or below the horizon can be taken back, and
            // none is connected in its place.
            if let Some(tip) = draft.state.tip {
                tip.check_horizon(horizon)?;
            }
            let snapshot = draft.snapshot().clone();
            let end = end_of_height(UNDO_KIND, horizon);
            let mut blocks = 0;
            for entry in self.engine.range(&snapshot, &[UNDO_KIND], &end) {
                let (key, value) = entry?;
                let parts = self.engine.whole(&snapshot, &key, value)?.parts;
                draft.remove_undo(key.to_vec(), parts);
                blocks += 1;
            }
            Ok(blocks)
        })
    }

    /// One step; says how many records went and whether there is more to look at.
    fn prune_expired(&self, horizon: u32) -> Result<(u64, bool)> {
        self.write(false, |draft| {
            let snapshot = draft.snapshot().clone();
            let end = end_of_height(EXPIRING_KIND, horizon);
            let (mut records, mut looked_at) = (0, 0);
            for entry in self.engine.range(&snapshot, &[EXPIRING_KIND], &end) {
                if looked_at >= PRUNE_STEP {
                    return Ok((records, true));
                }
                let (key, value) = entry?;
                draft.looked_at(key.to_vec());
                for txid in read_expiring(&value)? {
                    looked_at += 1;
                    if let Some(until) = ops::kept_until(draft, txid, horizon)? {
                        draft.look_at(until, txid);
                        continue;
                    }
                    match ops::done_at(draft, txid)? {
                        Some(height) if height <= horizon => {
                            draft.forget(txid)?;
                            records += 1;
                        }
                        // The spender that was confirmed last may lie in a block below another's.
                        Some(height) => draft.look_at(height, txid),
                        None => {}
                    }
                }
            }
            Ok((records, false))
        })
    }

    fn prune_conflicting(&self, horizon: u32) -> Result<u64> {
        self.write(false, |draft| {
            let snapshot = draft.snapshot().clone();
            let mut lost = Vec::new();
            for entry in self.unmined_entries(&snapshot, &[UNMINED_KIND]) {
                let (txid, since, conflicting) = entry?;
                if conflicting
                    && since <= horizon
                    && ops::kept_until(draft, txid, horizon)?.is_none()
                {
                    lost.push(txid);
                }
            }
            let mut records = 0;
            for txid in lost {
                if draft
                    .all_slots(txid)?
                    .iter()
                    .any(|slot| slot.spent_by.is_some())
                {
                    continue;
                }
                let inputs = draft.inputs(txid)?;
                let mut holding = false;
                for (me, outpoint) in &inputs {
                    holding |= rules::holds(draft, *me, *outpoint)?;
                }
                if !holding {
                    let parents = ops::outpoints(draft, txid)?;
                    rules::tell_parents(draft, txid, &parents, false)?;
                    draft.forget(txid)?;
                    records += 1;
                }
            }
            Ok(records)
        })
    }

    fn unmined_entries(
        &self,
        snapshot: &Snapshot,
        start: &[u8],
    ) -> impl Iterator<Item = Result<(Txid, u32, bool)>> {
        self.engine
            .range(snapshot, start, &[UNMINED_KIND + 1])
            .map(|entry| entry.and_then(|(key, value)| decode_unmined(&key, &value)))
    }

    fn tip_state(&self, snapshot: &Snapshot) -> Result<TipState> {
        read_tip_state(&self.engine, snapshot)
    }

    fn scan(&self) -> Result<EmbeddedScan> {
        let snapshot = self.engine.snapshot();
        let tip = self.tip_state(&snapshot)?.tip;
        let unmined = self
            .unmined_entries(&snapshot, &[UNMINED_KIND])
            .map(|entry| entry.map(|(txid, ..)| txid))
            .collect::<Result<HashSet<_>>>()?;
        Ok(EmbeddedScan::new(
            self.engine.clone(),
            snapshot,
            tip,
            unmined,
        ))
    }
}

#[async_trait]
impl SpendStore for EmbeddedUtxoStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new(BACKEND);
        capabilities.persistent = true;
        capabilities.snapshot_scan = true;
        capabilities.ordered_scan = true;
        capabilities.incremental_digest = self.inner.fixed.incremental_digest;
        capabilities.atomic_blocks = true;
        capabilities
    }

    async fn spend_and_create(
        &self,
        transactions: &[NewTransaction],
        options: &SpendOptions,
    ) -> Result<Vec<Outcome<Applied>>> {
        let fixed = self.inner.fixed;
        self.inner.each(transactions, |draft, new| {
            ops::spend_and_create(draft, fixed, new, options)
        })
    }

    async fn create(&self, records: &[NewRecord]) -> Result<Vec<Outcome<Applied>>> {
        let fixed = self.inner.fixed;
        self.inner
            .each(records, |draft, new| ops::create(draft, fixed, new))
    }

    async fn spend(&self, txids: &[Txid], options: &SpendOptions) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(txids, |draft, txid| ops::spend(draft, *txid, options))
    }

    async fn unspend(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(txids, |draft, txid| ops::unspend(draft, *txid))
    }

    async fn remove(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(txids, |draft, txid| ops::remove(draft, *txid))
    }

    async fn records(&self, txids: &[Txid], fields: Fields) -> Result<Vec<Option<Record>>> {
        self.inner.read(|snapshot| {
            let mut blocks = HashMap::new();
            txids
                .iter()
                .map(|txid| self.inner.record(snapshot, txid, fields, &mut blocks))
                .collect()
        })
    }

    async fn outputs(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<OutputView>>> {
        self.inner.read(|snapshot| {
            let mut heads = Heads::new();
            outpoints
                .iter()
                .map(|outpoint| self.inner.output(snapshot, &mut heads, *outpoint))
                .collect()
        })
    }
}

#[async_trait]
impl BlockStore for EmbeddedUtxoStore {
    async fn tip(&self) -> Result<Option<Tip>> {
        self.inner
            .read(|snapshot| Ok(self.inner.tip_state(snapshot)?.tip))
    }

    async fn previous_tip(&self) -> Result<Option<Tip>> {
        self.inner.read(|snapshot| {
            let Some(tip) = self.inner.tip_state(snapshot)?.tip else {
                return Ok(None);
            };
            chain::previous(&self.inner.engine, snapshot, &tip)
        })
    }

    async fn set_tip(&self, tip: &Tip) -> Result<()> {
        self.inner.write(true, |draft| {
            draft.set_tip(Some(*tip));
            Ok(())
        })
    }

    async fn set_mined(&self, txids: &[Txid], mined: &MinedIn) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(txids, |draft, txid| ops::set_mined(draft, *txid, mined))
    }

    async fn unset_mined(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        unmined_since: u32,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.inner.each(txids, |draft, txid| {
            ops::unset_mined(draft, *txid, block, unmined_since)
        })
    }

    async fn set_longest_chain(
        &self,
        txids: &[Txid],
        block: &BlockHash,
        mark: LongestChain,
    ) -> Result<Vec<Outcome<Applied>>> {
        self.inner.each(txids, |draft, txid| {
            ops::set_longest_chain(draft, *txid, block, mark)
        })
    }

    async fn connect_block(&self, block: &ChainBlock) -> Result<Outcome<Connected>> {
        self.inner.whole(|draft| {
            chain::connect(
                draft,
                &self.inner.engine,
                self.inner.fixed.unspendable,
                block,
            )
        })
    }

    async fn disconnect_block(
        &self,
        block: &BlockHash,
        previous: &BlockHash,
    ) -> Result<Outcome<Disconnected>> {
        self.inner
            .whole(|draft| chain::disconnect(draft, &self.inner.engine, block, previous))
    }
}

impl Inner {
    /// A block: durable, and nothing at all if it is refused.
    fn whole<T>(
        &self,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, Stop>,
    ) -> Result<Outcome<T>> {
        outcome(self.write(true, change))
    }
}

#[async_trait]
impl AlertStore for EmbeddedUtxoStore {
    async fn freeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(outpoints, |draft, outpoint| ops::freeze(draft, *outpoint))
    }

    async fn unfreeze(&self, outpoints: &[OutPoint]) -> Result<Vec<Outcome<Applied>>> {
        self.inner.each(outpoints, |draft, outpoint| {
            ops::set_frozen(draft, *outpoint, false)
        })
    }

    async fn reassign(&self, reassignments: &[Reassignment]) -> Result<Vec<Outcome<Applied>>> {
        let fixed = self.inner.fixed;
        self.inner.each(reassignments, |draft, reassignment| {
            ops::reassign(draft, fixed, reassignment)
        })
    }
}

#[async_trait]
impl ConflictStore for EmbeddedUtxoStore {
    async fn set_locked(&self, txids: &[Txid], locked: bool) -> Result<Vec<Outcome<Applied>>> {
        self.inner.each(txids, |draft, txid| {
            if draft.known(*txid)?.head.locked == locked {
                return Ok(Applied::Before);
            }
            if let Some(head) = draft.head_mut(*txid)? {
                head.locked = locked;
            }
            Ok(Applied::Now)
        })
    }

    async fn mark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.inner
            .each(txids, |draft, txid| ops::mark_conflicting(draft, *txid))
    }

    async fn unmark_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Applied>>> {
        self.inner
            .each(txids, |draft, txid| ops::unmark_conflicting(draft, *txid))
    }

    async fn counter_conflicting(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.inner
            .look(txids, |draft, txid| ops::counter_conflicting(draft, *txid))
    }

    async fn conflicting_children(&self, txids: &[Txid]) -> Result<Vec<Outcome<Vec<Txid>>>> {
        self.inner.look(txids, |draft, txid| {
            Ok(draft.known(*txid)?.head.conflicting_children.clone())
        })
    }
}

#[async_trait]
impl RetentionStore for EmbeddedUtxoStore {
    async fn unmined(
        &self,
        older_than: Option<u32>,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<UnminedTransaction>> {
        let start = match after {
            None => vec![UNMINED_KIND],
            // The least key above the one named.
            Some(cursor) => [unmined_key(&cursor.txid()?).as_slice(), &[0]].concat(),
        };
        self.inner.read(|snapshot| {
            let mut items: Vec<UnminedTransaction> = Vec::new();
            for entry in self.inner.unmined_entries(snapshot, &start) {
                let (txid, unmined_since, _) = entry?;
                if older_than.is_some_and(|height| unmined_since >= height) {
                    continue;
                }
                if items.len() >= limit.max(1) {
                    let next = items.last().map(|last| Cursor::from(last.txid));
                    return Ok(Page { items, next });
                }
                items.push(UnminedTransaction {
                    txid,
                    unmined_since,
                });
            }
            Ok(Page { items, next: None })
        })
    }

    async fn preserve(&self, txids: &[Txid], until_height: u32) -> Result<Vec<Outcome<Applied>>> {
        self.inner.each(txids, |draft, txid| {
            if draft.known(*txid)?.head.preserve_until == Some(until_height) {
                return Ok(Applied::Before);
            }
            if let Some(head) = draft.head_mut(*txid)? {
                head.preserve_until = Some(until_height);
            }
            draft.look_at(until_height, *txid);
            Ok(Applied::Now)
        })
    }

    async fn prune(&self, horizon: u32) -> Result<Pruned> {
        self.inner.prune(horizon)
    }
}

#[async_trait]
impl ScanStore for EmbeddedUtxoStore {
    async fn scan(&self) -> Result<Box<dyn SetScan>> {
        blocking(|| Ok(Box::new(self.inner.scan()?) as Box<dyn SetScan>))
    }

    async fn digest(&self) -> Result<SetDigest> {
        blocking(|| {
            let snapshot = self.inner.engine.snapshot();
            let state = self.inner.tip_state(&snapshot)?;
            let tip = state.tip;
            if self.inner.fixed.incremental_digest {
                let muhash = state.muhash.unwrap_or_default();
                return Ok(SetDigest {
                    tip,
                    muhash: muhash.digest(),
                });
            }
            let scan = self.inner.scan()?;
            let mut muhash = MuHash3072::new();
            scan.each_coin(|coin| muhash.insert(&coin_element(&coin)))?;
            Ok(SetDigest {
                tip: scan.tip(),
                muhash: muhash.digest(),
            })
        })
    }
}

#[async_trait]
impl MaintenanceStore for EmbeddedUtxoStore {
    async fn recover(&self) -> Result<Recovered> {
        // A change is one batch of the engine, which replayed its journal when it was opened.
        blocking(|| self.inner.engine.check())?;
        Ok(Recovered::default())
    }

    async fn flush(&self) -> Result<()> {
        blocking(|| self.inner.engine.sync())
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        let mut reasons = Vec::new();
        let mut ready = true;
        let mut not_ready = |reason: String| {
            ready = false;
            reasons.push(reason);
        };
        match self.inner.writer.try_lock() {
            Ok(writer) if writer.in_doubt => not_ready(
                Error::Poisoned {
                    store: self.inner.store(),
                }
                .to_string(),
            ),
            _ => {}
        }
        if depth == HealthDepth::Readiness {
            blocking(|| {
                if let Err(error) = self.inner.engine.check() {
                    not_ready(error.to_string());
                }
                if let Err(error) = self.inner.read(|snapshot| self.inner.tip_state(snapshot)) {
                    not_ready(error.to_string());
                }
                if let Err(error) = self.inner.check_room() {
                    not_ready(error.to_string());
                }
            });
        }
        Ok(Health { ready, reasons })
    }
}
