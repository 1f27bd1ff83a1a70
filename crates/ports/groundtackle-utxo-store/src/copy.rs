//! Copies between any two stores.

use groundtackle_chain::{BlockHash, OutPoint, Transaction, Txid};

use crate::digest::MuHash3072;
use crate::error::{Error, Result};
use crate::ext::{MuHashWorkers, StatisticsOptions, UtxoStoreExt};
use crate::store::{SetScan, UtxoStore};
use crate::types::{Coin, Fields, NewRecord, Reassignment, SlotState, Tip};
use crate::verdict::Outcome;

/// Coins read at a time.
const PAGE_COINS: usize = 4_096;

/// Names the record that says "unfinished". Nothing hashes to it.
const MARK: Txid = Txid::from_bytes(*b"groundtackle: unfinished copy   ");

/// What [`copy_set`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The block the set belongs to.
    pub tip: Tip,
    /// Coins in the set.
    pub coins: u64,
    /// Of these, how many an earlier, unfinished copy had brought already.
    pub coins_before: u64,
    /// The digest of the set, computed over what was read and over what was written.
    pub muhash: [u8; 32],
}

/// Copies the confirmed set and the tip of one store into another one that is empty, or that an
/// unfinished copy of the same set left. Frozen and reassigned outputs stay so, and outputs of locked
/// transactions locked, as the source has them when their page is read: order no alert meanwhile. What is
/// not in the confirmed set is not copied: unmined transactions, spent records, undo data, how long a
/// record is preserved; blocks at or below the tip can't be disconnected in the copy. `progress` is told how many coins are done.
///
/// The target is marked as unfinished before its first coin, and has no tip until a scan of it has the
/// digest of all that was read; see [`unfinished_copy`]. While a source without
/// [`snapshot_scan`](crate::Capabilities::snapshot_scan) is copied, nothing may write to it.
///
/// **Atomicity**: none; what is there of it is marked. **Idempotency**, **cancel safety**: repeat it;
/// records that are there are not written again. Memory: a few thousand coins, and those of one
/// transaction. Must run inside a tokio runtime.
///
/// # Errors
/// When a store could not answer. `InvalidRequest` for a source without a tip, for a target that holds
/// something else, and where the source has moved on since the unfinished copy began. `Corrupt` where a digest
/// differs: the target stays marked.
///
/// # Example
/// ```
/// # use groundtackle_utxo_store::*;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let (from, to) = (MemoryUtxoStore::new(), MemoryUtxoStore::new());
/// let tip = Tip { height: 7, hash: BlockHash::from_bytes([7; 32]), median_time_past: 0 };
/// from.set_tip(&tip).await?;
/// let copied = copy_set(&from, &to, |_| {}).await?;
/// assert_eq!((copied.tip, copied.muhash), (tip, to.digest().await?.muhash));
/// # Ok(()) }
/// ```
pub async fn copy_set(
    from: &dyn UtxoStore,
    to: &dyn UtxoStore,
    mut progress: impl FnMut(u64) + Send,
) -> Result<Copied> {
    let scan = from.scan().await?;
    let tip = scan.tip().ok_or_else(|| {
        Error::invalid_request("the store to copy from has no tip: sync it to a block first")
    })?;
    if unfinished_copy(from).await?.is_some() {
        return Err(Error::invalid_request(
            "the store to copy from is an unfinished copy itself: finish that one first",
        ));
    }
    mark(to, &tip).await?;

    let (mut coins, mut coins_before) = (0, 0);
    let mut read = MuHashWorkers::new();
    for partition in 0..scan.partitions() {
        let mut rest = Vec::new();
        let mut after = None;
        loop {
            let page = scan.page(partition, after.as_ref(), PAGE_COINS).await?;
            rest.extend(page.items);
            // A record is written whole, so what may go on with the next page waits.
            let whole = match (&page.next, rest.last()) {
                (Some(_), Some(last)) => {
                    let txid = last.outpoint.txid;
                    rest.partition_point(|coin| coin.outpoint.txid != txid)
                }
                _ => rest.len(),
            };
            let later = rest.split_off(whole);
            coins += rest.len() as u64;
            coins_before += write(from, to, &rest).await?;
            read.add(std::mem::replace(&mut rest, later)).await?;
            progress(coins);
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    let read: MuHash3072 = read.finish().await?;
    let muhash = read.digest();
    still_the_same(from, &*scan, &tip, &muhash).await?;

    let options = StatisticsOptions {
        muhash: true,
        hash_serialized_3: false,
    };
    let written = to.statistics(options).await?;
    if written.muhash != Some(muhash) || written.txouts != coins {
        let detail = format!(
            "{coins} coins were read, and {} are there; the digests differ: begin again with an empty store",
            written.txouts
        );
        return Err(Error::corrupt(to.capabilities().backend, "a copy", detail));
    }
    to.set_tip(&tip).await?;
    to.flush().await?;
    accepted(to.remove(&[MARK]).await?)?;
    to.flush().await?;
    Ok(Copied {
        tip,
        coins,
        coins_before,
        muhash,
    })
}

/// The tip of the set of which an unfinished copy is in `store`: it must not be used as if it were whole.
/// [`copy_set`] from a store at that tip finishes it.
///
/// # Errors
/// When the store could not answer.
pub async fn unfinished_copy(store: &dyn UtxoStore) -> Result<Option<(BlockHash, u32)>> {
    let record = store.record(MARK).await?;
    Ok(record
        .and_then(|mark| mark.inputs.first().copied())
        .map(|input| (BlockHash::from_bytes(*input.txid.as_bytes()), input.vout)))
}

/// Marks an empty store as an unfinished copy of the set at `tip`, or finds that it is one.
async fn mark(to: &dyn UtxoStore, tip: &Tip) -> Result<()> {
    let wanted = (tip.hash, tip.height);
    match unfinished_copy(to).await? {
        Some(begun) if begun == wanted => return Ok(()),
        Some((hash, height)) => {
            return Err(Error::invalid_request(format!(
                "the store to copy to holds an unfinished copy of the set at height {height} ({hash}), and the store \
                 to copy from is at height {} ({}): bring it to that block, or begin again with an empty store",
                tip.height, tip.hash
            )));
        }
        None => {}
    }
    if !is_empty(to).await? {
        return Err(Error::invalid_request(
            "the store to copy to is not empty: name a new one",
        ));
    }
    // In no set, since it is unmined; a conflicting record needs nothing that it names.
    let tx = Transaction {
        txid: MARK,
        inputs: vec![OutPoint::new(
            Txid::from_bytes(*tip.hash.as_bytes()),
            tip.height,
        )],
        outputs: Vec::new(),
        lock_time: 0,
        size_bytes: 0,
        coinbase: false,
    };
    let mark = NewRecord::Conflicting {
        tx,
        fee_sat: None,
        unmined_since: tip.height,
    };
    accepted(to.create(&[mark]).await?)?;
    to.flush().await
}

async fn is_empty(store: &dyn UtxoStore) -> Result<bool> {
    if store.tip().await?.is_some() || !store.unmined(None, None, 1).await?.items.is_empty() {
        return Ok(false);
    }
    let scan = store.scan().await?;
    for partition in 0..scan.partitions() {
        if !scan.page(partition, None, 1).await?.items.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the coins of whole transactions. How many were there.
async fn write(from: &dyn UtxoStore, to: &dyn UtxoStore, coins: &[Coin]) -> Result<u64> {
    let most = to.capabilities().max_batch_items.unwrap_or(PAGE_COINS);
    let groups: Vec<_> = coins
        .chunk_by(|a, b| a.outpoint.txid == b.outpoint.txid)
        .filter_map(|group| Some((group.first()?, group)))
        .collect();
    let mut coins_before = 0;
    for groups in groups.chunks(most.max(1)) {
        let txids: Vec<_> = groups
            .iter()
            .map(|(first, _)| first.outpoint.txid)
            .collect();
        let there = to.records(&txids, Fields::META).await?;
        let mut records = Vec::new();
        for ((first, group), there) in groups.iter().zip(there) {
            if there.is_some() {
                coins_before += group.len() as u64;
                continue;
            }
            let outputs = group
                .iter()
                .map(|coin| (coin.outpoint.vout, coin.output.clone()));
            records.push(NewRecord::Seed {
                txid: first.outpoint.txid,
                coinbase: first.coinbase,
                height: first.height,
                outputs: outputs.collect(),
            });
        }
        accepted(to.create(&records).await?)?;
    }
    carry_alerts(from, to, coins).await?;
    Ok(coins_before)
}

/// Freezes, reassigns and locks what is so in the source.
async fn carry_alerts(from: &dyn UtxoStore, to: &dyn UtxoStore, coins: &[Coin]) -> Result<()> {
    let most = |store: &dyn UtxoStore| store.capabilities().max_batch_items.unwrap_or(PAGE_COINS);
    let outpoints: Vec<_> = coins.iter().map(|coin| coin.outpoint).collect();
    for outpoints in outpoints.chunks(most(from).min(most(to)).max(1)) {
        // An unmined spender hides the rest of a slot.
        let views = from.outputs(outpoints).await?.into_iter().flatten();
        let views: Vec<_> = views.collect();
        let locked = views.iter().filter(|view| view.locked);
        let mut locked: Vec<_> = locked.map(|view| view.outpoint.txid).collect();
        locked.dedup();
        if !locked.is_empty() {
            accepted(to.set_locked(&locked, true).await?)?;
        }
        let touched = views.iter().filter(|view| view.state != SlotState::Unspent);
        let mut outpoints: Vec<_> = touched.map(|view| view.outpoint).collect();
        outpoints.sort_unstable();
        let mut txids: Vec<_> = outpoints.iter().map(|outpoint| outpoint.txid).collect();
        txids.dedup();
        let (mut frozen, mut reassigned) = (Vec::new(), Vec::new());
        for record in from
            .records(&txids, Fields::ALL)
            .await?
            .into_iter()
            .flatten()
        {
            for output in record.outputs {
                let outpoint = OutPoint::new(record.txid, output.vout);
                if outpoints.binary_search(&outpoint).is_err() {
                    continue;
                }
                if output.frozen {
                    frozen.push(outpoint);
                }
                reassigned.extend(output.spendable_from.map(|spendable_from| Reassignment {
                    outpoint,
                    script: output.output.script,
                    spendable_from,
                }));
            }
        }
        // Only what is frozen can be reassigned, and it is not frozen then.
        let to_reassign: Vec<_> = reassigned.iter().map(|one| one.outpoint).collect();
        if !reassigned.is_empty() {
            accepted(to.freeze(&to_reassign).await?)?;
            accepted(to.reassign(&reassigned).await?)?;
        }
        if !frozen.is_empty() {
            accepted(to.freeze(&frozen).await?)?;
        }
    }
    Ok(())
}

/// What was read is the set at `tip`, and of one moment.
async fn still_the_same(
    from: &dyn UtxoStore,
    scan: &dyn SetScan,
    tip: &Tip,
    muhash: &[u8; 32],
) -> Result<()> {
    let capabilities = from.capabilities();
    let digest = from.digest().await?;
    let moved = digest.tip.as_ref() != Some(tip) || scan.tip().as_ref() != Some(tip);
    if moved && !capabilities.snapshot_scan {
        return Err(Error::invalid_request(format!(
            "the store to copy from moved on while it was read, and a scan of {} is no snapshot: stop what writes to \
             it, and begin again with an empty store",
            capabilities.backend
        )));
    }
    if !moved && digest.muhash != *muhash {
        let detail = "the coins that were read have another digest than the store keeps: something wrote to it \
                      meanwhile, or it is damaged";
        return Err(Error::corrupt(capabilities.backend, "the set", detail));
    }
    Ok(())
}

/// A refusal here means that something else writes to the target.
fn accepted<T>(outcomes: Vec<Outcome<T>>) -> Result<()> {
    match outcomes.into_iter().find_map(Result::err) {
        Some(verdict) => Err(Error::invalid_request(format!(
            "the store to copy to is in use by something else: {verdict}"
        ))),
        None => Ok(()),
    }
}
