//! Queries: what is unmined, unfinished, due, confirmed.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use aerospike::expressions as exp;
use aerospike::query::Filter;
use aerospike::{Bins, Key, PartitionFilter, QueryDuration, QueryPolicy, Record, Statement};
use futures_util::StreamExt;
use groundtackle_utxo_store::pending::{CellKey, DueKind};
use groundtackle_utxo_store::{Error, Result, Retryability, Txid, UnminedTransaction};

use crate::cells::{AerospikeCells, millis, newest};
use crate::error::{failed, is_overload};
use crate::record::{
    DUE, HEAD, HEIGHT, KEY, UNFINISHED, UNMINED, UNMINED_SINCE, key_of, place_in_order,
    place_of_due, unmined_since_of,
};

/// Into how many partitions a scan divides the set.
pub(crate) const PARTITIONS: u32 = 16;

/// Partitions of a cluster, always.
pub(crate) const CLUSTER_PARTITIONS: usize = 4_096;
const EACH: usize = CLUSTER_PARTITIONS / PARTITIONS as usize;

/// A query takes as long as this at least.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Records that are taken at most where they must all be seen before the first is passed on.
const MOST: usize = 16_384;

pub(crate) fn partition_of(key: &Key) -> u32 {
    u32::try_from(key.partition_id() / EACH).unwrap_or(0)
}

fn txid_of(record: &Record) -> Result<Option<Txid>> {
    Ok(match key_of(record)? {
        CellKey::Page { txid, page: 0 } => Some(txid),
        _ => None,
    })
}

/// What is asked for.
struct Query {
    filter: Option<Filter>,
    only: Option<exp::Expression>,
    partitions: PartitionFilter,
    bins: Bins,
}

fn some(bins: &[&str]) -> Bins {
    Bins::Some(bins.iter().map(|bin| (*bin).to_owned()).collect())
}

#[derive(Default)]
struct Found {
    /// Each once, those of one partition in the server's order.
    records: Vec<Record>,
    /// How many came, with those that came again.
    received: usize,
    /// Whether these are all.
    complete: bool,
}

fn listing_failed(action: &str, error: aerospike::Error) -> Error {
    match failed(action, error) {
        // Nothing is changed by a question.
        Error::Backend {
            backend,
            action,
            retryability: Retryability::Indeterminate,
            source,
        } => Error::backend(backend, action, Retryability::Transient, source),
        other => other,
    }
}

impl AerospikeCells {
    /// Records that a query finds: all, or one more than `most`. The servers are told `limit`, if it is not 0.
    async fn ask(
        &self,
        query: Query,
        (most, limit): (usize, usize),
    ) -> Result<Found, aerospike::Error> {
        let _permit = self.throttle.enter().await;
        let mut policy = QueryPolicy::default();
        newest(&mut policy.base_policy);
        // A node that looks through all it has says nothing for longer than one that looks for a record.
        let long = |times| millis(self.answer_timeout.saturating_mul(times).max(QUERY_TIMEOUT));
        policy.base_policy.socket_timeout = long(2);
        policy.base_policy.total_timeout = long(6);
        policy.base_policy.filter_expression = query.only;
        // Short ones are answered with what a node happens to have, also by one that came back empty just now.
        policy.expected_duration = QueryDuration::Long;
        policy.max_records = u64::try_from(limit).unwrap_or(0);
        let mut statement = Statement::new(self.namespace.as_str(), self.set.as_str(), query.bins);
        if let Some(filter) = query.filter {
            statement.set_filter(filter);
        }
        let answer = self
            .client
            .query(&policy, query.partitions, statement)
            .await;
        let mut stream = answer?.into_stream();
        let mut found = Found::default();
        let mut taken = HashSet::new();
        while let Some(record) = stream.next().await {
            let record = record?;
            found.received += 1;
            // After a node has failed, what it sent last comes once more.
            let digest = record.key.as_ref().map(Key::digest);
            if digest.is_none_or(|digest| taken.insert(digest)) {
                found.records.push(record);
                if found.records.len() > most {
                    return Ok(found);
                }
            }
        }
        found.complete = true;
        Ok(found)
    }

    /// Whether the set has any record, of whatever kind.
    pub(crate) async fn holds_anything(&self) -> Result<bool> {
        let query = Query {
            filter: None,
            only: None,
            partitions: PartitionFilter::all(),
            bins: Bins::None,
        };
        let found = self.ask(query, (0, 1)).await;
        let found = found.map_err(|error| listing_failed("look for records", error))?;
        Ok(!found.records.is_empty())
    }

    pub(crate) async fn list_unmined(
        &self,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Vec<UnminedTransaction>> {
        let mut from = after.as_ref().map_or(0, place_in_order);
        let mut found = Vec::new();
        loop {
            // The records of a stretch come in no order, so that all of it is needed.
            let stretch = self.unmined_stretch.load(Ordering::Relaxed);
            let to = from.saturating_add(stretch);
            let live = exp::not(exp::bin_exists(UNFINISHED));
            let query = Query {
                filter: Some(Filter::range(UNMINED, from, to)),
                only: Some(live),
                partitions: PartitionFilter::all(),
                bins: some(&[KEY, UNMINED_SINCE]),
            };
            let most = limit.saturating_mul(2).max(MOST);
            let bounds = (if stretch <= 1 { usize::MAX } else { most }, 0);
            let narrower = || {
                let less = (stretch / 16).max(1);
                self.unmined_stretch.store(less, Ordering::Relaxed);
            };
            let records = match self.ask(query, bounds).await {
                Ok(found) if found.complete => found.records,
                Ok(_) => {
                    narrower();
                    continue;
                }
                Err(error) => {
                    if is_overload(&error) {
                        narrower();
                    }
                    return Err(listing_failed("list unmined transactions", error));
                }
            };
            if records.len() < most / 16 {
                self.unmined_stretch
                    .store(stretch.saturating_mul(4), Ordering::Relaxed);
            }
            let mut page = Vec::new();
            for record in &records {
                let Some(txid) =
                    txid_of(record)?.filter(|txid| after.is_none_or(|after| *txid > after))
                else {
                    continue;
                };
                page.push(UnminedTransaction {
                    txid,
                    unmined_since: unmined_since_of(record)?,
                });
            }
            page.sort_unstable_by_key(|tx| tx.txid);
            found.extend(page);
            if found.len() >= limit || to == i64::MAX {
                found.truncate(limit);
                return Ok(found);
            }
            from = to + 1;
        }
    }

    /// All nodes are asked for all they have, and no more is taken than the limit: what the servers are told is
    /// divided among them, and one that has little would leave room that others miss.
    pub(crate) async fn list_unfinished(
        &self,
        partition: u32,
        limit: usize,
    ) -> Result<Vec<CellKey>> {
        let partitions = PartitionFilter::by_range(partition as usize * EACH, EACH);
        let filter = Filter::range(UNFINISHED, 1, 3);
        self.list_keys("list what is unfinished", filter, partitions, (limit, 0))
            .await
    }

    pub(crate) async fn list_due(
        &self,
        kind: DueKind,
        height: u32,
        limit: usize,
    ) -> Result<Vec<CellKey>> {
        let filter = Filter::range(DUE, place_of_due(kind, 0), place_of_due(kind, height));
        let all = PartitionFilter::all();
        self.list_keys("list what is due", filter, all, (usize::MAX, limit))
            .await
    }

    async fn list_keys(
        &self,
        action: &str,
        filter: Filter,
        partitions: PartitionFilter,
        (most, limit): (usize, usize),
    ) -> Result<Vec<CellKey>> {
        let query = Query {
            filter: Some(filter),
            only: None,
            partitions,
            bins: some(&[KEY]),
        };
        let found = self.ask(query, (most, limit)).await;
        let found = found.map_err(|error| listing_failed(action, error))?;
        found.records.iter().take(most).map(key_of).collect()
    }

    /// In the order of the cluster's partitions, and in each as the server has it.
    pub(crate) async fn list_confirmed(
        &self,
        partition: u32,
        after: Option<Txid>,
        limit: usize,
    ) -> Result<Vec<Txid>> {
        let end = (partition as usize + 1) * EACH;
        let mut begin = partition as usize * EACH;
        let mut after: Option<[u8; 20]> = match after {
            None => None,
            Some(txid) => {
                let key = self.key(&CellKey::Page { txid, page: 0 })?;
                begin = key.partition_id();
                Some(key.digest())
            }
        };
        let mut found = Vec::new();
        while begin < end && found.len() < limit {
            let stretch = self
                .scan_stretch
                .load(Ordering::Relaxed)
                .clamp(1, end - begin);
            let mut partitions = PartitionFilter::by_range(begin, stretch);
            partitions.digest = after;
            let wanted = limit - found.len();
            let most = limit.saturating_mul(4).max(MOST / 8);
            let confirmed = exp::and(vec![
                exp::bin_exists(HEAD),
                exp::bin_exists(HEIGHT),
                exp::not(exp::bin_exists(UNFINISHED)),
            ]);
            let bounds = match stretch {
                // The server's order goes on where it was left.
                1 => (usize::MAX, wanted),
                _ => (most, 0),
            };
            let query = Query {
                filter: None,
                only: Some(confirmed),
                partitions,
                bins: some(&[KEY]),
            };
            let narrower = || {
                let less = (stretch / 8).max(1);
                self.scan_stretch.store(less, Ordering::Relaxed);
            };
            let answer = match self.ask(query, bounds).await {
                Ok(answer) if answer.complete => answer,
                Ok(_) => {
                    narrower();
                    continue;
                }
                Err(error) => {
                    if is_overload(&error) {
                        narrower();
                    }
                    return Err(listing_failed("scan", error));
                }
            };
            if answer.records.len() < most / 16 {
                let more = stretch.saturating_mul(2).min(EACH);
                self.scan_stretch.store(more, Ordering::Relaxed);
            }
            let mut by_partition: BTreeMap<usize, Vec<Txid>> = BTreeMap::new();
            for record in &answer.records {
                if let Some(txid) = txid_of(record)? {
                    let key = self.key(&CellKey::Page { txid, page: 0 })?;
                    by_partition
                        .entry(key.partition_id())
                        .or_default()
                        .push(txid);
                }
            }
            found.extend(by_partition.into_values().flatten());
            // Those that came again have taken the place of others.
            let last = answer.records.last().and_then(|last| last.key.as_ref());
            after = match last {
                Some(last) if stretch == 1 && answer.received >= wanted => Some(last.digest()),
                _ => {
                    begin += stretch;
                    None
                }
            };
        }
        found.truncate(limit);
        Ok(found)
    }
}
