//! Copies between any two stores.

use groundtackle_chain::OutPoint;

use crate::error::Result;
use crate::ext::MuHashWorkers;
use crate::load::{
    Filling, PAGE_COINS, WholeTransactions, accepted, begin, begin_scan, finish, write,
};
use crate::store::UtxoStore;
use crate::types::{Coin, Fields, Reassignment, SlotState, Tip};

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
/// digest of all that was read; see [`unfinished_copy`](crate::unfinished_copy). While a source without
/// [`snapshot_scan`](crate::Capabilities::snapshot_scan) is copied, nothing may write to it.
///
/// **Atomicity**: none; what is there of it is marked. **Idempotency**, **cancel safety**: repeat it;
/// records that are there are not written again. Memory: a few thousand coins, and those of one
/// transaction. Must run inside a tokio runtime.
///
/// # Errors
/// When a store could not answer. `InvalidRequest` for a source without a tip, for a target that holds
/// something else, and where the source has moved on since the unfinished copy began. `Corrupt` where a digest
/// differs: the target stays marked. `Transient` where blocks connect faster than the source's digest is read.
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
    let (scan, begun) = begin_scan(from).await?;
    let tip = begun.tip;
    begin(to, Filling::Copy, &tip).await?;

    let (mut coins, mut coins_before) = (0, 0);
    let mut read = MuHashWorkers::new();
    let mut pages = WholeTransactions::default();
    while let Some(page) = pages.next(&*scan).await? {
        coins += page.len() as u64;
        coins_before += write(to, &page).await?;
        carry_alerts(from, to, &page).await?;
        read.add(page).await?;
        progress(coins);
    }
    let muhash = read.finish().await?.digest();
    let again = "begin again with an empty store";
    begun.compare(from, &muhash, again).await?;
    finish(to, &tip, coins, &muhash, "").await?;
    Ok(Copied {
        tip,
        coins,
        coins_before,
        muhash,
    })
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
