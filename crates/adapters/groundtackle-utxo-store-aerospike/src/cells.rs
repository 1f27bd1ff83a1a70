//! One cell at a time: each step is one conditional operation on one record.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::time::Duration;

use aerospike::expressions::{self as exp, Expression};
use aerospike::operations::{Operation, lists, scalar};
use aerospike::policy::{BasePolicy, ReadModeAp, Replica};
use aerospike::{
    BatchDeletePolicy, BatchOperation, BatchPolicy, BatchReadPolicy, BatchRecord, BatchWritePolicy,
    Bin, Bins, Client, Expiration, Key, ListReturnType, Record, RecordExistsAction, ResultCode,
    Value,
};
use async_trait::async_trait;
use groundtackle_utxo_store::pending::{
    Cell, CellKey, Cells, Claim, DueKind, Mark, PART_BYTES, Phase, Step, Stored, Write,
};
use groundtackle_utxo_store::{
    Error, Health, HealthDepth, Result, Retryability, Txid, UnminedTransaction,
};

use crate::error::{BACKEND, corrupt, failed, is_overload, is_permanent};
use crate::record::{
    ABORTED, ATTEMPT, COINBASE, CONFLICTING, FLAGS, HEIGHT, LOCK, LOCKED, OUTPUTS, PENDING, SLOTS,
    STAMP, UNFINISHED, UNSPENT, bins, cell, index_of, int, pack_mark, pack_output,
};
use crate::sentinel::Sentinels;
use crate::throttle::Throttle;

/// Records of one request.
const REQUEST_RECORDS: usize = 1_024;

/// What the records of one request may hold together; one that is larger goes alone.
const REQUEST_BYTES: usize = 4 << 20;

/// Operations on one record in one row.
const ROW_OPERATIONS: usize = 64;

/// Scripts in one row's filter together; servers take filters below 1 MiB.
const ROW_SCRIPTS: usize = 512 << 10;

/// How often marks are looked for that are to be taken back.
const UNMARK_ROUNDS: usize = 16;

/// The records of one set.
pub(crate) struct AerospikeCells {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) set: String,
    pub(crate) answer_timeout: Duration,
    pub(crate) min_replicas: u32,
    pub(crate) allow_split: bool,
    pub(crate) sentinels: Sentinels,
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
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(1_u8)
}

pub(crate) fn millis(duration: Duration) -> u32 {
    // 0 is for ever.
    u32::try_from(duration.as_millis())
        .unwrap_or(u32::MAX)
        .max(1)
}

/// What was acknowledged is seen: the engine decides by what is not there. So only a record's master is asked, and it asks
/// the others while the cluster moves the record. Linearized reads are strong consistency's, and Community
/// Edition refuses them.
pub(crate) const fn newest(policy: &mut BasePolicy) {
    policy.replica = Replica::Master;
    policy.read_mode_ap = ReadModeAp::All;
}

/// How one row of a batch ended.
pub(crate) enum Row {
    Done(Option<Box<Record>>),
    /// There is no record.
    Missing,
    /// The record is not as it should be.
    Refused,
}

impl Row {
    const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

fn not_locked() -> Expression {
    exp::not(exp::bin_exists(LOCK))
}

fn same(bin: &str, number: i64) -> Expression {
    exp::eq(exp::int_bin(bin), exp::int_val(number))
}

fn stamped(stamp: u64) -> Expression {
    same(STAMP, stamp.cast_signed())
}

fn in_phase(phase: Phase) -> Expression {
    match phase {
        Phase::Live => exp::not(exp::bin_exists(UNFINISHED)),
        Phase::Pending => same(UNFINISHED, PENDING),
        Phase::Aborted => same(UNFINISHED, ABORTED),
    }
}

fn in_attempt(step: &Step) -> Expression {
    same(ATTEMPT, step.attempt.cast_signed())
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
pub(crate) fn update(filter: Expression) -> BatchWritePolicy {
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

fn script_len(claim: &Claim) -> usize {
    claim
        .expected
        .as_ref()
        .map_or(0, |output| output.script.as_bytes().len())
}

/// Claims on one record in rows that a server takes.
fn rows_of(claims: Vec<&Claim>) -> Vec<Vec<&Claim>> {
    let mut rows: Vec<Vec<&Claim>> = Vec::new();
    let mut room = 0;
    for claim in claims {
        let len = script_len(claim);
        match rows.last_mut() {
            Some(row) if row.len() < ROW_OPERATIONS && len <= room => {
                room -= len;
                row.push(claim);
            }
            _ => {
                room = ROW_SCRIPTS.saturating_sub(len);
                rows.push(vec![claim]);
            }
        }
    }
    rows
}

/// What the answer about a cell may hold: wide pages and parts come few at a time.
const fn likely_size(key: &CellKey) -> usize {
    match key {
        CellKey::Page { page: 0, .. } => 1_024,
        CellKey::Part { .. } => PART_BYTES,
        _ => PART_BYTES / 2,
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
    pub(crate) async fn send(
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
            Some(error) if writes && rows.iter().any(Row::is_done) => {
                Err(error.after_effect(BACKEND, action))
            }
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
        // A node that ends its answer early says why in one row only.
        let told = rows.iter().find_map(BatchOperation::error);
        let told = told.map(ToString::to_string);
        for row in rows {
            let row: BatchRecord = row.into_batch_record();
            answers.push(match row.result_code() {
                Some(ResultCode::Ok) => Row::Done(row.record.map(Box::new)),
                Some(ResultCode::KeyNotFoundError) => Row::Missing,
                Some(ResultCode::KeyExistsError | ResultCode::FilteredOut) if writes => {
                    Row::Refused
                }
                _ => {
                    overload |= row.error().is_some_and(is_overload);
                    error = Some(worse(
                        error,
                        row_failed(action, &row, told.as_deref(), writes),
                    ));
                    Row::Refused
                }
            });
        }
        if overload {
            self.throttle.ease_off();
        }
        let error = match (whole, error) {
            // Rows that a node has answered, or that are in doubt, say more than what ended the call.
            (Err(whole), error) => worse(error, failed(action, whole)),
            (Ok(()), Some(error)) => error,
            (Ok(()), None) => {
                self.throttle.went_well();
                return Ok(answers);
            }
        };
        Err(match writes && answers.iter().any(Row::is_done) {
            true => error.after_effect(BACKEND, action),
            false => error,
        })
    }

    /// Changes with the records' sizes in bytes; says of each whether it was carried out.
    pub(crate) async fn change(
        &self,
        action: &str,
        rows: Vec<(usize, BatchOperation)>,
    ) -> Result<Vec<bool>> {
        let rows = self.send(action, rows, true).await?;
        Ok(rows.iter().map(Row::is_done).collect())
    }

    fn put_row(
        &self,
        write: &Write,
        cell: &Cell,
        policy: &BatchWritePolicy,
    ) -> Result<(usize, BatchOperation)> {
        let bins = bins(&write.key, cell);
        let operations: Vec<_> = bins.iter().map(scalar::put).collect();
        let row = BatchOperation::write(policy, self.key(&write.key)?, operations);
        Ok((size_of(&bins), row))
    }

    fn replace_row(
        &self,
        write: &Write,
        cell: &Cell,
        filter: Expression,
    ) -> Result<(usize, BatchOperation)> {
        let policy = BatchWritePolicy {
            record_exists_action: RecordExistsAction::ReplaceOnly,
            ..update(filter)
        };
        self.put_row(write, cell, &policy)
    }

    fn write_row(&self, write: &Write) -> Result<(usize, BatchOperation)> {
        match (write.expect, &write.cell) {
            (Some(expect), Some(cell)) => {
                // One that was written before the answer was lost is written again, to all copies.
                let filter = exp::or(vec![stamped(expect), stamped(cell.stamp)]);
                self.replace_row(write, cell, filter)
            }
            (None, Some(cell)) => {
                let policy = BatchWritePolicy {
                    record_exists_action: RecordExistsAction::CreateOnly,
                    expiration: Expiration::Never,
                    ..BatchWritePolicy::default()
                };
                self.put_row(write, cell, &policy)
            }
            (Some(expect), None) => {
                let policy = BatchDeletePolicy {
                    filter_expression: Some(stamped(expect)),
                    ..BatchDeletePolicy::default()
                };
                Ok((64, BatchOperation::delete(&policy, self.key(&write.key)?)))
            }
            // Without a filter it would delete whatever is there.
            (None, None) => {
                let policy = BatchReadPolicy::default();
                let row = BatchOperation::read(&policy, self.key(&write.key)?, Bins::None);
                Ok((64, row))
            }
        }
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
        let size = claims.iter().map(|claim| 256 + script_len(claim)).sum();
        Ok((
            size,
            BatchOperation::write(&update(admits(claims)), key, operations),
        ))
    }

    fn step_row(
        &self,
        step: &Step,
        filter: Vec<Expression>,
        operations: Vec<Operation>,
    ) -> Result<(usize, BatchOperation)> {
        let key = self.key(&CellKey::head(step.txid))?;
        let policy = update(exp::and(filter));
        Ok((64, BatchOperation::write(&policy, key, operations)))
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

    /// Puts marks, and says of each that is there where and whose it is.
    async fn put_marks(
        &self,
        claims: &[Claim],
        marked: &mut BTreeMap<(CellKey, u32), Mark>,
    ) -> Result<()> {
        // All that goes to one record goes as one row; if it is refused, what is wrong with the others is
        // no fault of the rest.
        let mut by_page: BTreeMap<CellKey, Vec<&Claim>> = BTreeMap::new();
        for claim in claims {
            // A longer script lies apart, so that none here is like it.
            if script_len(claim) <= PART_BYTES {
                by_page.entry(page_of(claim)).or_default().push(claim);
            }
        }
        let mut groups: Vec<Vec<&Claim>> = Vec::new();
        for group in by_page.into_values() {
            groups.extend(rows_of(group));
        }
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
        Ok(())
    }

    /// Takes marks back, and says as soon as any may have gone.
    async fn take_marks(&self, claims: &[Claim], any: &mut bool) -> Result<()> {
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
            *any |= self.change("take marks back", rows).await?.contains(&true);
        }
        // What is left means nothing, since its record is given up.
        Ok(())
    }
}

fn row_failed(action: &str, row: &BatchRecord, told: Option<&str>, writes: bool) -> Error {
    let text = row.error().map_or_else(
        || format!("no answer, {}", told.unwrap_or("and no reason")),
        ToString::to_string,
    );
    let code = row.result_code();
    let retryability = match code {
        _ if row.in_doubt() => Retryability::Indeterminate,
        // It was not sent.
        None if row.error().is_some() => Retryability::Transient,
        Some(
            ResultCode::DeviceOverload
            | ResultCode::KeyBusy
            | ResultCode::ServerMemError
            | ResultCode::FailForbidden
            | ResultCode::PartitionUnavailable
            | ResultCode::BatchQueuesFull,
        ) => Retryability::Transient,
        Some(code) if is_permanent(code) => Retryability::Permanent,
        // Nothing is changed by a question. The row itself may have been lost with the task that was about it.
        _ if !writes => Retryability::Transient,
        _ => Retryability::Indeterminate,
    };
    let hint = match code {
        Some(ResultCode::ServerMemError | ResultCode::FailForbidden) => {
            " (a node refuses writes: its namespace or the set is full, or the nodes' clocks differ)"
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
            rows.push((likely_size(key), row));
        }
        let rows = self.send("read records", rows, false).await?;
        keys.iter()
            .zip(rows)
            .map(|(key, row)| match row {
                Row::Done(Some(record)) => cell(key, &record).map(Some),
                Row::Missing => Ok(None),
                Row::Done(None) | Row::Refused => Err(corrupt(
                    "an answer",
                    "it says neither what there is nor that nothing is",
                )),
            })
            .collect()
    }

    async fn write(&self, writes: &[Write]) -> Result<Vec<bool>> {
        let rows: Result<Vec<_>> = writes.iter().map(|write| self.write_row(write)).collect();
        let rows = self.send("write records", rows?, true).await?;
        let mut done: Vec<_> = writes
            .iter()
            .zip(&rows)
            .map(|(write, row)| match (write.expect, &write.cell) {
                (None, None) => matches!(row, Row::Missing),
                _ => row.is_done(),
            })
            .collect();
        let any = done.contains(&true);
        // What is there may have been created by an earlier attempt: that is written again, and nothing else is.
        let (mut again, mut answers) = (Vec::new(), Vec::new());
        for (write, done) in writes.iter().zip(&mut done) {
            if let (None, Some(cell), false) = (write.expect, &write.cell, *done) {
                again.push(self.replace_row(write, cell, stamped(cell.stamp))?);
                answers.push(done);
            }
        }
        if !again.is_empty() {
            let written = self.change("write records again", again).await;
            let written = written.map_err(|error| match any {
                true => error.after_effect(BACKEND, "write records"),
                false => error,
            })?;
            for (answer, written) in answers.into_iter().zip(written) {
                *answer = written;
            }
        }
        Ok(done)
    }

    async fn mark(&self, claims: &[Claim]) -> Result<Vec<bool>> {
        let mut marked = BTreeMap::new();
        if let Err(error) = self.put_marks(claims, &mut marked).await {
            return Err(match marked.is_empty() {
                true => error,
                false => error.after_effect(BACKEND, "mark outputs"),
            });
        }
        Ok(claims
            .iter()
            .map(|claim| marked.get(&(page_of(claim), claim.vout)) == Some(&claim.mark))
            .collect())
    }

    async fn unmark(&self, claims: &[Claim]) -> Result<()> {
        let mut any = false;
        let taken = self.take_marks(claims, &mut any).await;
        taken.map_err(|error| match any {
            true => error.after_effect(BACKEND, "take marks back"),
            false => error,
        })
    }

    async fn step(&self, steps: &[Step]) -> Result<Vec<bool>> {
        let mut rows = Vec::with_capacity(steps.len());
        for step in steps {
            let filter = vec![in_phase(Phase::Pending), in_attempt(step), not_locked()];
            let phase = match step.to {
                Phase::Live => Value::Nil,
                Phase::Pending => Value::Int(PENDING),
                Phase::Aborted => Value::Int(ABORTED),
            };
            rows.push(self.step_row(step, filter, vec![put(UNFINISHED, phase), new_stamp()])?);
        }
        let mut done = self.change("change phases", rows).await?;
        let any = done.contains(&true);
        // One that was done before its answer was lost is written again, to all copies. It may be locked by
        // now, so that its stamp stays.
        let (mut again, mut answers) = (Vec::new(), Vec::new());
        for (step, done) in steps.iter().zip(&mut done).filter(|(_, done)| !**done) {
            let filter = vec![in_phase(step.to), in_attempt(step)];
            again.push(self.step_row(step, filter, vec![put(ATTEMPT, int(step.attempt))])?);
            answers.push(done);
        }
        if !again.is_empty() {
            let changed = self.change("change phases again", again).await;
            let changed = changed.map_err(|error| match any {
                true => error.after_effect(BACKEND, "change phases"),
                false => error,
            })?;
            for (answer, changed) in answers.into_iter().zip(changed) {
                *answer = changed;
            }
        }
        Ok(done)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(retryability: Retryability) -> Error {
        Error::backend(BACKEND, "a step", retryability, "why")
    }

    #[test]
    fn a_doubt_is_not_forgotten() {
        use Retryability::{Indeterminate, Permanent, Transient};
        for (before, now, all) in [
            (None, Transient, Transient),
            (Some(Indeterminate), Transient, Indeterminate),
            (Some(Indeterminate), Permanent, Indeterminate),
            (Some(Transient), Indeterminate, Indeterminate),
            (Some(Permanent), Transient, Permanent),
        ] {
            let found = worse(before.map(error), error(now)).retryability();
            assert_eq!(found, all, "{before:?}, {now:?}");
        }
    }

    #[test]
    fn a_row_without_an_answer_is_in_doubt_if_it_writes() {
        let key = Key::new("test", "set", Value::Int(1)).unwrap();
        for (writes, retryability) in [
            (true, Retryability::Indeterminate),
            (false, Retryability::Transient),
        ] {
            let row = BatchRecord::new(key.clone(), writes);
            let error = row_failed("write records", &row, Some("another row's reason"), writes);
            assert_eq!(error.retryability(), retryability);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            assert!(cause.unwrap_or_default().contains("another row's reason"));
        }
    }

    #[test]
    fn short_timeouts_are_no_endless_ones() {
        assert_eq!(millis(Duration::from_micros(1)), 1);
        assert_eq!(millis(Duration::from_secs(5)), 5_000);
        assert_eq!(millis(Duration::MAX), u32::MAX);
    }
}
