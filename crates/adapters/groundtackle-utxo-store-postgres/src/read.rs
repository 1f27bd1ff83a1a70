//! What a call reads, in one round trip each time.

use std::collections::HashSet;
use std::pin::pin;

use futures_util::TryStreamExt;
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{Changes, Loaded, Reads, TxidHash};
use groundtackle_utxo_store::{OutPoint, Result, Tip, Txid};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::error::{Failed, corrupt};
use crate::record::{self, Seen, column};
use crate::session::{Lease, Session};

/// What a call keeps others from changing while it judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locks {
    /// Nothing: it only reads.
    None,
    /// Of the records it names only that they stay as they are. Its change tells which outputs it saw.
    Seen,
    /// The outputs it names as well.
    Slots,
    /// Its records with all their outputs.
    Records,
    /// The tip with the digest, and the records that it reads whole. Its change tells which outputs it saw. Of
    /// records that it does not read whole it sees no more than judging takes, and can't change them.
    ///
    /// Of other records a block needs that they are confirmed and not conflicting. Whoever confirms one or
    /// takes it back has the chain's row; and what is confirmed is neither marked nor removed.
    Block,
    /// Its records with all their outputs, and the tip with the digest: the confirmed set may change.
    Chain,
}

impl Locks {
    /// What a call keeps others from after it was overtaken: then it is not again.
    pub(crate) const fn firm(self) -> Self {
        match self {
            Self::Seen => Self::Slots,
            Self::Block => Self::Chain,
            other => other,
        }
    }

    /// Whether all records that change were kept from changing.
    pub(crate) fn cover(self, changes: &Changes, reads: &Reads) -> bool {
        let mut records = changes.heads.iter().map(|head| &head.txid);
        let whole = |txid| reads.outputs.contains(txid);
        self != Self::Block || (records.all(whole) && changes.deleted.iter().all(whole))
    }
}

/// The chain's row.
pub(crate) struct Chain {
    pub(crate) tip: Option<Tip>,
    pub(crate) muhash: MuHash3072,
}

impl Chain {
    pub(crate) fn read(rows: &[Row]) -> Result<Self> {
        let damaged = |detail: &str| corrupt("the row of the chain", detail);
        let row = rows.first().ok_or_else(|| damaged("it is missing"))?;
        let bytes: &[u8] = column(row, 3)?;
        let muhash = bytes
            .try_into()
            .ok()
            .and_then(MuHash3072::from_bytes)
            .ok_or_else(|| damaged("its digest is none"))?;
        Ok(Self {
            tip: record::tip(row, 0)?,
            muhash,
        })
    }
}

/// What rows say, read as they come: the server makes the next ones meanwhile.
async fn rows<T, const N: usize>(
    session: &Session,
    statement: &tokio_postgres::Statement,
    values: [&(dyn ToSql + Sync); N],
    read: impl Fn(&Row) -> Result<T>,
) -> Result<Result<Vec<T>>, tokio_postgres::Error> {
    let values = values.iter().map(|value| *value as &dyn ToSql);
    let mut rows = pin!(session.client.query_raw(statement, values).await?);
    let mut all = Ok(Vec::new());
    while let Some(row) = rows.try_next().await? {
        if let Ok(some) = &mut all {
            match read(&row) {
                Ok(one) => some.push(one),
                Err(error) => all = Err(error),
            }
        }
    }
    Ok(all)
}

pub(crate) async fn execute_text(
    session: &Session,
    sql: &str,
) -> Result<(), tokio_postgres::Error> {
    if sql.is_empty() {
        return Ok(());
    }
    session.client.batch_execute(sql).await
}

/// What a call has read.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) loaded: Loaded,
    pub(crate) seen: Seen,
    pub(crate) chain: Option<Chain>,
}

/// Whether any of these transactions is there.
pub(crate) async fn any_exists(
    action: &str,
    lease: &Lease,
    txids: impl IntoIterator<Item = &Txid>,
) -> Result<bool, Failed> {
    let txids: Vec<&[u8]> = txids.into_iter().map(bytes).collect();
    if txids.is_empty() {
        return Ok(false);
    }
    let session = lease.session()?;
    let values: [&(dyn ToSql + Sync); 1] = [&txids];
    let query = session
        .client
        .query_one(&session.statements.existing, &values);
    let count: i64 = column(&lease.answer(action, query).await?, 0)?;
    Ok(count > 0)
}

/// Reads `reads` into `view` without keeping others from anything, after `begin`, in one round trip.
pub(crate) async fn load(
    action: &str,
    lease: &mut Lease,
    begin: &str,
    view: &mut View,
    reads: &Reads,
) -> Result<(), Failed> {
    let at_rest = lease.begin();
    let new = Presumed::default();
    load_locked(
        action,
        lease,
        begin,
        view,
        reads,
        Locks::None,
        &new,
        async {},
    )
    .await?;
    if begin.is_empty() && at_rest {
        lease.end();
    }
    Ok(())
}

/// Reads `reads` into `view`, after `begin`, in one round trip, but for what is presumed to be new. What is asked
/// `beside` is sent last, and not waited for.
#[expect(clippy::too_many_arguments, reason = "each is another thing")]
pub(crate) async fn load_locked(
    action: &str,
    lease: &Lease,
    begin: &str,
    view: &mut View,
    reads: &Reads,
    locks: Locks,
    presumed: &Presumed,
    beside: impl Future<Output = ()>,
) -> Result<(), Failed> {
    let session = lease.session()?;
    let statements = &session.statements;
    let records_by = match locks {
        Locks::None => &statements.records,
        Locks::Seen | Locks::Slots => &statements.records_shared,
        Locks::Records | Locks::Block | Locks::Chain => &statements.records_locked,
    };
    let slots_by = match locks {
        Locks::Slots => &statements.slots_locked,
        // Whoever has a record has its outputs.
        _ => &statements.slots,
    };
    let chain_by = match locks {
        Locks::None => Some(&statements.chain),
        Locks::Block | Locks::Chain => Some(&statements.chain_locked),
        _ => None,
    };
    let before = view.loaded.reads();
    let (inputs_before, locked) = (&before.inputs, |txid: &Txid| {
        locks != Locks::Block || reads.outputs.contains(txid)
    });
    // What is presumed to be new has nothing to read.
    let spent = || {
        let slots = reads.slots.iter();
        slots.filter(|slot| !presumed.contains(&slot.txid))
    };
    // Of these no more is read than judging takes.
    let spent_from: HashSet<&Txid, TxidHash> = match locks {
        Locks::Block => {
            let txids = spent().map(|slot| &slot.txid);
            let more = |txid| reads.inputs.contains(txid) || reads.outputs.contains(txid);
            txids.filter(|txid| !more(*txid)).collect()
        }
        _ => HashSet::default(),
    };
    let some_records = async |by, locked_ones: bool| {
        let wanted = |txid: &&Txid| {
            let elsewhere = presumed.contains(*txid) || !locked_ones && spent_from.contains(*txid);
            locked(txid) == locked_ones && !elsewhere
        };
        let txids: Vec<_> = reads.records.iter().filter(wanted).collect();
        if txids.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let with_inputs =
            |txid: &&Txid| reads.inputs.contains(txid) || inputs_before.contains(txid);
        let with_inputs: Vec<bool> = txids.iter().map(with_inputs).collect();
        let txids: Vec<_> = txids.into_iter().map(bytes).collect();
        rows(session, by, [&txids, &with_inputs], record::record).await
    };
    let chain = async {
        match chain_by {
            Some(by) => session.client.query(by, &[]).await,
            None => Ok(Vec::new()),
        }
    };
    let slots = async {
        let txids: Vec<_> = spent().map(|slot| bytes(&slot.txid)).collect();
        let vouts: Vec<i64> = spent().map(|slot| slot.vout.into()).collect();
        if txids.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let values: [&(dyn ToSql + Sync); 2] = [&txids, &vouts];
        if locks == Locks::Block {
            let read = |row: &Row| {
                let (head, slot) = record::slot_of_block(row)?;
                Ok((Some(head), slot))
            };
            return rows(session, &statements.slots_of_block, values, read).await;
        }
        let read = |row: &Row| Ok((None, Some(record::slot(row)?)));
        rows(session, slots_by, values, read).await
    };
    let outputs = async |whole: Vec<&[u8]>| {
        if whole.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        rows(session, &statements.outputs, [&whole], record::slot).await
    };
    // A block's transactions are new or have outputs: those of new ones are not looked for. The server is at
    // `slots` when it is told which are not.
    let records_with_outputs = async {
        let records = some_records(records_by, true).await?;
        let outputs = match &records {
            Ok(there) if locks == Locks::Block => {
                let there = there.iter().map(|record| &record.txid);
                outputs(there.map(bytes).collect()).await?
            }
            _ => Ok(Vec::new()),
        };
        Ok((records, outputs))
    };
    let all_outputs = async {
        let whole = reads.outputs.iter().filter(|_| locks != Locks::Block);
        outputs(whole.map(bytes).collect()).await
    };
    let undo = async {
        if reads.undo.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        let blocks: Vec<_> = reads
            .undo
            .iter()
            .map(|block| block.as_bytes().as_slice())
            .collect();
        rows(session, &statements.undo, [&blocks], record::undo).await
    };
    // Polled in this order, so sent in it; the server is at the first while the others are put together.
    let answers = async {
        tokio::try_join!(
            biased;
            execute_text(session, begin),
            chain,
            records_with_outputs,
            some_records(&statements.records, false),
            slots,
            all_outputs,
            undo,
            async {
                beside.await;
                Ok(())
            },
        )
    };
    let ((), chain, (records, outputs_there), others, slots, outputs, undo, ()) =
        lease.answer(action, Box::pin(answers)).await?;
    let has_chain = chain_by.is_some();
    let View { loaded, seen, .. } = view;
    loaded.asked(reads.clone());
    for record in records?.into_iter().chain(others?) {
        loaded.put_record(record);
    }
    let mut spent = Vec::new();
    for (head, slot) in slots? {
        if let Some(head) = head.filter(|head| spent_from.contains(&head.txid)) {
            loaded.put_record(head);
        }
        spent.extend(slot);
    }
    let mut whole = outputs_there?;
    whole.extend(outputs?);
    // As they are best put.
    whole.sort_by_key(|(txid, output, _)| (*txid, output.vout));
    for (txid, output, version) in spent.into_iter().chain(whole) {
        seen.put(OutPoint::new(txid, output.vout), version);
        loaded.put_output(txid, output);
    }
    for (block, undo) in undo? {
        loaded.put_undo(block, undo);
    }
    if has_chain {
        let chain = Chain::read(&chain)?;
        loaded.set_tip(chain.tip);
        view.chain = Some(chain);
    }
    Ok(())
}

/// Transactions that a call brings and that are taken to be new: they are looked for while it is judged.
pub(crate) type Presumed = HashSet<Txid, TxidHash>;

fn bytes(txid: &Txid) -> &[u8] {
    txid.as_bytes()
}
