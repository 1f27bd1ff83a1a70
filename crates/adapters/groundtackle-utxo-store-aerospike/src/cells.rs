//! One cell at a time: each step is one conditional operation on one record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::time::Duration;

use aerospike::expressions::{self as exp, Expression};
use aerospike::operations::{Operation, lists, scalar};
use aerospike::policy::{BasePolicy, ReadModeAp, ReadModeSc, Replica};
use aerospike::{
    BatchDeletePolicy, BatchOperation, BatchPolicy, BatchReadPolicy, BatchRecord, BatchWritePolicy,
    Bin, Bins, Client, Expiration, Key, ListReturnType, Record, RecordExistsAction, ResultCode,
    Value,
};
use async_trait::async_trait;
use groundtackle_utxo_store::pending::{
    Cell, CellKey, Cells, Claim, DueKind, Mark, Phase, Step, Stored, Write,
};
use groundtackle_utxo_store::{
    Error, Health, HealthDepth, Result, Retryability, Txid, UnminedTransaction,
};

use crate::error::{BACKEND, corrupt, failed, is_overload, is_permanent};
use crate::record::{
    ABORTED, ATTEMPT, COINBASE, CONFLICTING, FLAGS, HEIGHT, LOCK, LOCKED, OUTPUTS, PENDING, SLOTS,
    STAMP, UNFINISHED, UNSPENT, bins, cell, index_of, int, pack_mark, pack_output,
};
use crate::throttle::Throttle;

/// Records of one request.
const REQUEST_RECORDS: usize = 1_024;

/// What the records of one request may hold together; one that is larger goes alone.
const REQUEST_BYTES: usize = 4 << 20;

/// Operations on one record in one row.
const ROW_OPERATIONS: usize = 64;

/// How often marks are looked for that are to be taken back.
const UNMARK_ROUNDS: usize = 16;

/// The records of one set.
pub(crate) struct AerospikeCells {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) set: String,
    pub(crate) answer_timeout: Duration,
    pub(crate) min_replicas: u32,
    pub(crate) throttle: Throttle,
    /// How wide a stretch of the order of unmined transactions is asked for at once.
    pub(crate) unmined_stretch: AtomicI64,
    /// How many of the cluster's partitions a scan asks for at once.
    pub(crate) scan_stretch: AtomicUsize,
}

impl std::fmt::Debug for AerospikeCells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AerospikeCells")
            .field("namespace", &self.namespace)
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// A number that never comes twice, as far as chance goes.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(1_u8)
}

pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// What was acknowledged is seen: the engine decides by what is not there. So only a record's master is asked, and it asks
/// the others while the cluster moves the record.
pub(crate) const fn newest(policy: &mut BasePolicy) {
    policy.replica = Replica::Master;
    policy.read_mode_ap = ReadModeAp::All;
    policy.read_mode_sc = ReadModeSc::Linearize;
}

/// How one row of a batch ended.
enum Row {
    Done(Option<Box<Record>>),
    /// The record is not as it should be, or not there.
    Refused,
}

fn not_locked() -> Expression {
    exp::not(exp::bin_exists(LOCK))
}

fn same(bin: &str, number: i64) -> Expression {
    exp::eq(exp::int_bin(bin), exp::int_val(number))
}

fn element(bin: &str, vout: u32) -> Expression {
    exp::lists::get_by_index(
        ListReturnType::VALUES,
        exp::ExpType::Blob,
        exp::int_val(index_of(vout)),
        exp::list_bin(bin),
        &[],
    )
}

fn is_blob(element: Expression, bytes: Vec<u8>) -> Expression {
    exp::eq(element, exp::blob_val(bytes))
}

fn no_flag(flags: i64) -> Expression {
    exp::eq(
        exp::int_and(vec![exp::int_bin(FLAGS), exp::int_val(flags)]),
        exp::int_val(0),
    )
}

/// [`Cell::admits`] as the servers evaluate it, but for slots that are reassigned: those are left to
/// calls that are judged. What can't be evaluated, such as an index that is not there, counts as false.
fn admits(claims: &[&Claim]) -> Expression {
    let mut all = vec![not_locked(), exp::not(exp::bin_exists(UNFINISHED))];
    let mut ignore_locked = true;
    let mut terms: Vec<(u32, u32)> = Vec::new();
    for claim in claims {
        ignore_locked &= claim.ignore_locked;
        terms.push((claim.height, claim.coinbase_maturity));
        all.push(exp::or(vec![
            is_blob(element(SLOTS, claim.vout), UNSPENT.to_vec()),
            is_blob(element(SLOTS, claim.vout), pack_mark(&claim.mark)),
        ]));
        if let Some(expected) = &claim.expected {
            let script = Stored::Here(expected.script.as_bytes().to_vec());
            let output = pack_output(expected.value_sat, &script);
            all.push(is_blob(element(OUTPUTS, claim.vout), output));
        }
    }
    all.push(no_flag(match ignore_locked {
        true => CONFLICTING,
        false => CONFLICTING | LOCKED,
    }));
    terms.sort_unstable();
    terms.dedup();
    for (height, maturity) in terms {
        let ripe_from = i64::from(height) - i64::from(maturity);
        all.push(exp::or(vec![
            no_flag(COINBASE),
            exp::le(exp::int_bin(HEIGHT), exp::int_val(ripe_from)),
        ]));
    }
    exp::and(all)
}

fn set_slot(vout: u32, slot: Vec<u8>) -> Operation {
    lists::set(SLOTS, index_of(vout), Value::Blob(slot))
}

fn put(bin: &str, value: Value) -> Operation {
    scalar::put(&Bin::new(bin, value))
}

fn new_stamp() -> Operation {
    put(STAMP, int(random()))
}

/// A change to a record that must be there and pass the filter. On one that is not there no filter would
/// be evaluated.
fn update(filter: Expression) -> BatchWritePolicy {
    BatchWritePolicy {
        record_exists_action: RecordExistsAction::UpdateOnly,
        expiration: Expiration::Never,
        filter_expression: Some(filter),
        ..BatchWritePolicy::default()
    }
}

const fn page_of(claim: &Claim) -> CellKey {
    CellKey::Page {
        txid: claim.parent,
        page: claim.page,
    }
}

impl AerospikeCells {
    pub(crate) fn key(&self, key: &CellKey) -> Result<Key> {
        self.record_key(key.to_bytes())
    }

    pub(crate) fn record_key(&self, bytes: Vec<u8>) -> Result<Key> {
        Key::new(
            self.namespace.as_str(),
            self.set.as_str(),
            Value::Blob(bytes),
        )
        .map_err(|error| failed("name a record", error))
    }

    /// Sends rows in bounded requests, several at a time, and returns how each ended.
    async fn send(
        &self,
        action: &str,
        rows: Vec<(usize, BatchOperation)>,
        writes: bool,
    ) -> Result<Vec<Row>> {
        let mut requests: Vec<Vec<BatchOperation>> = Vec::new();
        let mut room = 0;
        for (bytes, row) in rows {
            match requests.last_mut() {
                Some(request) if request.len() < REQUEST_RECORDS && bytes <= room => {
                    room -= bytes;
                    request.push(row);
                }
                _ => {
                    room = REQUEST_BYTES.saturating_sub(bytes);
                    requests.push(vec![row]);
                }
            }
        }
        let answers = requests
            .into_iter()
            .map(|request| self.request(action, request, writes));
        let mut rows = Vec::new();
        let mut error = None;
        for answer in futures_util::future::join_all(answers).await {
            match answer {
                Ok(answer) => rows.extend(answer),
                Err(found) => error = Some(worse(error, found)),
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(rows),
        }
    }

    async fn request(
        &self,
        action: &str,
        mut rows: Vec<BatchOperation>,
        writes: bool,
    ) -> Result<Vec<Row>> {
        let _permit = self.throttle.enter().await;
        let mut policy = match writes {
            true => BatchPolicy::write_default(),
            false => BatchPolicy::default(),
        };
        newest(&mut policy.base_policy);
        policy.base_policy.total_timeout = millis(self.answer_timeout);
        policy.base_policy.socket_timeout = millis(self.answer_timeout);
        let whole = self.client.batch(&policy, &mut rows).await;
        let mut answers = Vec::with_capacity(rows.len());
        let mut error = None;
        let mut overload = whole.as_ref().is_err_and(is_overload);
        for row in rows {
            let row: BatchRecord = row.into_batch_record();
            answers.push(match (row.result_code(), row.error()) {
                (Some(ResultCode::Ok), _) => Row::Done(row.record.map(Box::new)),
                (
                    Some(
                        ResultCode::KeyNotFoundError
                        | ResultCode::KeyExistsError
                        | ResultCode::FilteredOut,
                    ),
                    _,
                ) => Row::Refused,
                (_, found) => {
                    overload |= found.is_some_and(is_overload);
                    let in_doubt = row.in_doubt();
                    error = Some(worse(error, row_failed(action, &row, in_doubt)));
                    Row::Refused
                }
            });
        }
        if overload {
            self.throttle.ease_off();
        }
        match (whole, error) {
            (Err(whole), _) => Err(failed(action, whole)),
            (Ok(()), Some(error)) => Err(error),
            (Ok(()), None) => {
                self.throttle.went_well();
                Ok(answers)
            }
        }
    }

    /// Changes with the records' sizes in bytes; says of each whether it was carried out.
    async fn change(&self, action: &str, rows: Vec<(usize, BatchOperation)>) -> Result<Vec<bool>> {
        let rows = self.send(action, rows, true).await?;
        Ok(rows.iter().map(|row| matches!(row, Row::Done(_))).collect())
    }

    /// One row of claims on one record.
    fn claim_row(&self, claims: &[&Claim]) -> Result<(usize, BatchOperation)> {
        let Some(first) = claims.first() else {
            return Err(corrupt("a request", "it is about nothing"));
        };
        let mut operations: Vec<_> = claims
            .iter()
            .map(|claim| set_slot(claim.vout, pack_mark(&claim.mark)))
            .collect();
        operations.push(new_stamp());
        let key = self.key(&page_of(first))?;
        let size = 256 * claims.len();
        Ok((
            size,
            BatchOperation::write(&update(admits(claims)), key, operations),
        ))
    }

    /// Of claims on one record that were refused together, those that may pass by themselves: the first
    /// of several for one output.
    async fn sift<'a>(&self, groups: Vec<Vec<&'a Claim>>) -> Result<Vec<Vec<&'a Claim>>> {
        let keys: Vec<_> = groups
            .iter()
            .filter_map(|group| group.first())
            .map(|claim| page_of(claim))
            .collect();
        let mut passed = Vec::new();
        for (group, cell) in groups.into_iter().zip(self.read(&keys).await?) {
            let Some(cell) = cell else {
                continue;
            };
            let mut taken = Vec::new();
            let good: Vec<_> = group
                .into_iter()
                .filter(|claim| {
                    let first = !taken.contains(&claim.vout);
                    taken.push(claim.vout);
                    first && cell.admits(claim).is_some()
                })
                .collect();
            if !good.is_empty() {
                passed.push(good);
            }
        }
        Ok(passed)
    }
}

fn row_failed(action: &str, row: &BatchRecord, in_doubt: bool) -> Error {
    let text = row
        .error()
        .map_or_else(|| "no answer".to_owned(), |error| error.to_string());
    let code = row.result_code();
    let retryability = match code {
        _ if in_doubt => Retryability::Indeterminate,
        Some(
            ResultCode::DeviceOverload
            | ResultCode::KeyBusy
            | ResultCode::ServerMemError
            | ResultCode::FailForbidden
            | ResultCode::PartitionUnavailable
            | ResultCode::BatchQueuesFull,
        ) => Retryability::Transient,
        Some(code) if is_permanent(code) => Retryability::Permanent,
        _ => Retryability::Indeterminate,
    };
    let hint = match code {
        Some(ResultCode::ServerMemError | ResultCode::FailForbidden) => {
            " (a node refuses writes: its namespace is full, or the nodes' clocks differ)"
        }
        Some(ResultCode::RecordTooBig) => {
            " (a record is larger than the namespace allows; 1 MiB are needed)"
        }
        _ => "",
    };
    Error::backend(BACKEND, format!("{action}{hint}"), retryability, text)
}

/// Of two errors of one call, the one that tells more about what may have been done.
fn worse(before: Option<Error>, now: Error) -> Error {
    let rank = |error: &Error| match error.retryability() {
        Retryability::Indeterminate => 2,
        Retryability::Permanent => 1,
        Retryability::Transient => 0,
    };
    match before {
        Some(before) if rank(&before) >= rank(&now) => before,
        _ => now,
    }
}

fn size_of(operations: &[Bin]) -> usize {
    let size = |value: &Value| match value {
        Value::Blob(bytes) => bytes.len(),
        Value::List(items) => items
            .iter()
            .map(|item| match item {
                Value::Blob(bytes) => bytes.len() + 4,
                _ => 9,
            })
            .sum(),
        _ => 9,
    };
    operations.iter().map(|bin| size(&bin.value) + 16).sum()
}

#[async_trait]
impl Cells for AerospikeCells {
    fn backend(&self) -> &'static str {
        BACKEND
    }

    /// This process; what the nodes outlive is theirs to say.
    fn is_persistent(&self) -> bool {
        true
    }

    fn partitions(&self) -> u32 {
        crate::list::PARTITIONS
    }

    fn partition_of(&self, txid: &Txid) -> u32 {
        let key = self.key(&CellKey::Page {
            txid: *txid,
            page: 0,
        });
        key.map_or(0, |key| crate::list::partition_of(&key))
    }

    async fn read(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        let policy = BatchReadPolicy::default();
        let mut rows = Vec::with_capacity(keys.len());
        for key in keys {
            let row = BatchOperation::read(&policy, self.key(key)?, Bins::All);
            rows.push((1_024, row));
        }
        let rows = self.send("read records", rows, false).await?;
        keys.iter()
            .zip(rows)
            .map(|(key, row)| match row {
                Row::Done(Some(record)) => cell(key, &record).map(Some),
                Row::Done(None) | Row::Refused => Ok(None),
            })
            .collect()
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>> {
        let mut rows = Vec::with_capacity(writes.len());
        for write in writes {
            let key = self.key(&write.key)?;
            let as_read = write.expect.map(|stamp| same(STAMP, stamp.cast_signed()));
            let row = match (&write.cell, as_read) {
                (Some(cell), as_read) => {
                    let bins = bins(&write.key, cell);
                    let action = match as_read {
                        Some(_) => RecordExistsAction::ReplaceOnly,
                        None => RecordExistsAction::CreateOnly,
                    };
                    let policy = BatchWritePolicy {
                        record_exists_action: action,
                        expiration: Expiration::Never,
                        filter_expression: as_read,
                        ..BatchWritePolicy::default()
                    };
                    let operations: Vec<_> = bins.iter().map(scalar::put).collect();
                    (
                        size_of(&bins),
                        BatchOperation::write(&policy, key, operations),
                    )
                }
                (None, as_read) => {
                    let policy = BatchDeletePolicy {
                        filter_expression: as_read,
                        ..BatchDeletePolicy::default()
                    };
                    (64, BatchOperation::delete(&policy, key))
                }
            };
            rows.push(row);
        }
        self.change("write records", rows).await
    }

    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        // All that goes to one record goes as one row; if it is refused, what is wrong with the others is
        // no fault of the rest.
        let mut by_page: BTreeMap<CellKey, Vec<&Claim>> = BTreeMap::new();
        for claim in claims {
            by_page.entry(page_of(claim)).or_default().push(claim);
        }
        let mut groups: Vec<Vec<&Claim>> = Vec::new();
        for group in by_page.into_values() {
            groups.extend(group.chunks(ROW_OPERATIONS).map(<[_]>::to_vec));
        }
        let mut marked: BTreeMap<(CellKey, u32), Mark> = BTreeMap::new();
        // The second time only those that were found good, and then what is refused is refused.
        for again in [false, true] {
            let mut refused = Vec::new();
            // Chunks of one record go one after another.
            while !groups.is_empty() {
                let mut now: Vec<Vec<&Claim>> = Vec::new();
                let mut later = Vec::new();
                for group in groups {
                    let page = group.first().map(|claim| page_of(claim));
                    match now
                        .last()
                        .and_then(|last| last.first())
                        .map(|last| page_of(last))
                    {
                        Some(last) if Some(last) == page => later.push(group),
                        _ => now.push(group),
                    }
                }
                let rows: Result<Vec<_>> = now.iter().map(|group| self.claim_row(group)).collect();
                let done = self.change("mark outputs", rows?).await?;
                for (group, done) in now.into_iter().zip(done) {
                    if done {
                        let places = group.iter().map(|c| ((page_of(c), c.vout), c.mark));
                        marked.extend(places);
                    } else if !again && group.len() > 1 {
                        refused.push(group);
                    }
                }
                groups = later;
            }
            if refused.is_empty() {
                break;
            }
            groups = self.sift(refused).await?;
        }
        Ok(claims
            .iter()
            .map(|claim| marked.get(&(page_of(claim), claim.vout)) == Some(&claim.mark))
            .collect())
    }

    async fn unmark(&self, claims: &[Claim]) -> Result<()> {
        let mut by_page: BTreeMap<CellKey, Vec<&Claim>> = BTreeMap::new();
        for claim in claims {
            by_page.entry(page_of(claim)).or_default().push(claim);
        }
        for _ in 0..UNMARK_ROUNDS {
            let keys: Vec<_> = by_page.keys().copied().collect();
            let mut rows = Vec::new();
            for (key, cell) in keys.iter().zip(self.read(&keys).await?) {
                let held = by_page.get(key).map(|claims| held(cell.as_ref(), claims));
                let held = held.unwrap_or_default();
                let held: Vec<_> = held.into_iter().take(ROW_OPERATIONS).collect();
                if held.is_empty() {
                    by_page.remove(key);
                    continue;
                }
                let mut filter = vec![not_locked()];
                let mut operations = vec![new_stamp()];
                for claim in &held {
                    filter.push(is_blob(element(SLOTS, claim.vout), pack_mark(&claim.mark)));
                    operations.push(set_slot(claim.vout, UNSPENT.to_vec()));
                }
                let policy = update(exp::and(filter));
                let row = BatchOperation::write(&policy, self.key(key)?, operations);
                rows.push((256 * held.len(), row));
            }
            if rows.is_empty() {
                return Ok(());
            }
            // What is refused has changed since, and is looked at again.
            self.change("take marks back", rows).await?;
        }
        // What is left means nothing, since its record is given up.
        Ok(())
    }

    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>> {
        let mut rows = Vec::with_capacity(steps.len());
        for step in steps {
            let key = self.key(&CellKey::head(step.txid))?;
            let filter = exp::and(vec![
                same(UNFINISHED, PENDING),
                same(ATTEMPT, step.attempt.cast_signed()),
                not_locked(),
            ]);
            let phase = match step.to {
                Phase::Live => Value::Nil,
                Phase::Pending => Value::Int(PENDING),
                Phase::Aborted => Value::Int(ABORTED),
            };
            let operations = vec![put(UNFINISHED, phase), new_stamp()];
            rows.push((64, BatchOperation::write(&update(filter), key, operations)));
        }
        self.change("change phases", rows).await
    }

    async fn unmined(&self, after: Option<Txid>, limit: usize) -> Result<Vec<UnminedTransaction>> {
        self.list_unmined(after, limit).await
    }

    async fn unfinished(&self, partition: u32, limit: usize) -> Result<Vec<CellKey>> {
        self.list_unfinished(partition, limit).await
    }

    async fn due(&self, kind: DueKind, height: u32, limit: usize) -> Result<Vec<CellKey>> {
        self.list_due(kind, height, limit).await
    }

    async fn scan(&self, partition: u32, after: Option<Txid>, limit: usize) -> Result<Vec<Txid>> {
        self.list_confirmed(partition, after, limit).await
    }

    /// An acknowledged write is in the memory of all its replicas, and there is no more to be had.
    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn health(&self, depth: HealthDepth) -> Result<Health> {
        self.look_at_nodes(depth).await
    }
}

/// The claims whose marks are there.
fn held<'a>(cell: Option<&Cell>, claims: &[&'a Claim]) -> Vec<&'a Claim> {
    use groundtackle_utxo_store::pending::Body;
    let page = cell
        .filter(|cell| cell.lock.is_none())
        .and_then(|cell| match &cell.body {
            Some(Body::Page(page)) => Some(page),
            _ => None,
        });
    let is_held = |claim: &&&Claim| {
        let slot = page.and_then(|page| page.slots.get(&claim.vout));
        // One that is reassigned too is left to calls that are judged.
        slot.is_some_and(|slot| {
            slot.mark == Some(claim.mark) && slot.spendable_from.is_none() && !slot.frozen
        })
    };
    claims.iter().filter(is_held).copied().collect()
}
