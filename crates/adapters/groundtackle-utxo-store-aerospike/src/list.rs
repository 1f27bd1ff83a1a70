//! Queries: what is unmined, unfinished, due, confirmed.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use aerospike::expressions as exp;
use aerospike::query::Filter;
use aerospike::{Bins, Key, PartitionFilter, QueryDuration, QueryPolicy, Record, Statement};
use futures_util::StreamExt;
use groundtackle_utxo_store::pending::{CellKey, DueKind};
use groundtackle_utxo_store::{Error, Result, Txid, UnminedTransaction};

use crate::cells::{AerospikeCells, millis, newest};
use crate::error::failed;
use crate::record::{
    DUE, HEAD, HEIGHT, KEY, UNFINISHED, UNMINED, UNMINED_SINCE, key_of, place_in_order,
    place_of_due, unmined_since_of,
};

/// Into how many partitions a scan divides the set.
pub(crate) const PARTITIONS: u32 = 16;

/// Partitions of a cluster, always.
const CLUSTER_PARTITIONS: usize = 4_096;
const EACH: usize = CLUSTER_PARTITIONS / PARTITIONS as usize;

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

impl AerospikeCells {
    /// Records that a query finds: all, or `None` where there are more than `most`.
    async fn query(
        &self,
        action: &str,
        filter: Option<Filter>,
        only: Option<exp::Expression>,
        partitions: PartitionFilter,
        bins: &[&str],
        bounds: (usize, usize),
    ) -> Result<Option<Vec<Record>>> {
        let (records, all) = self
            .query_some(action, filter, only, partitions, bins, bounds)
            .await?;
        Ok(all.then_some(records))
    }

    /// Records that a query finds, and whether these are all; one more than `most` where not.
    async fn query_some(
        &self,
        action: &str,
        filter: Option<Filter>,
        only: Option<exp::Expression>,
        partitions: PartitionFilter,
        bins: &[&str],
        (most, limit): (usize, usize),
    ) -> Result<(Vec<Record>, bool)> {
        let _permit = self.throttle.enter().await;
        let mut policy = QueryPolicy::default();
        newest(&mut policy.base_policy);
        policy.base_policy.socket_timeout = millis(self.answer_timeout);
        policy.base_policy.total_timeout = millis(self.answer_timeout.saturating_mul(4));
        policy.base_policy.filter_expression = only;
        policy.expected_duration = QueryDuration::Short;
        policy.max_records = u64::try_from(limit).unwrap_or(0);
        let bins: Vec<String> = bins.iter().map(|bin| (*bin).to_owned()).collect();
        let mut statement =
            Statement::new(self.namespace.as_str(), self.set.as_str(), Bins::Some(bins));
        if let Some(filter) = filter {
            statement.set_filter(filter);
        }
        let failed = |error| match failed(action, error) {
            // A read that is in doubt can be asked for again.
            Error::Backend {
                backend,
                action,
                retryability,
                source,
            } => Error::Backend {
                backend,
                action,
                retryability: match retryability {
                    groundtackle_utxo_store::Retryability::Indeterminate => {
                        groundtackle_utxo_store::Retryability::Transient
                    }
                    other => other,
                },
                source,
            },
            other => other,
        };
        let found = self.client.query(&policy, partitions, statement).await;
        let mut stream = found.map_err(failed)?.into_stream();
        let mut records = Vec::new();
        while let Some(record) = stream.next().await {
            records.push(record.map_err(failed)?);
            if records.len() > most {
                return Ok((records, false));
            }
        }
        Ok((records, true))
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
            let filter = Filter::range(UNMINED, from, to);
            let most = limit.saturating_mul(2).max(MOST);
            let records = self
                .query(
                    "list unmined transactions",
                    Some(filter),
                    Some(live),
                    PartitionFilter::all(),
                    &[KEY, UNMINED_SINCE],
                    (if stretch <= 1 { usize::MAX } else { most }, 0),
                )
                .await?;
            let Some(records) = records else {
                self.unmined_stretch
                    .store((stretch / 16).max(1), Ordering::Relaxed);
                continue;
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
            // A node that comes and goes can let a record be found twice.
            page.dedup_by_key(|tx| tx.txid);
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
        let (mut records, _) = self
            .query_some(
                action,
                Some(filter),
                None,
                partitions,
                &[KEY],
                (most, limit),
            )
            .await?;
        records.truncate(most);
        let mut keys = Vec::new();
        for record in &records {
            keys.push(key_of(record)?);
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
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
        let mut after = match after {
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
            let records = self
                .query("scan", None, Some(confirmed), partitions, &[KEY], bounds)
                .await?;
            let Some(records) = records else {
                self.scan_stretch
                    .store((stretch / 8).max(1), Ordering::Relaxed);
                continue;
            };
            if records.len() < most / 16 {
                let more = stretch.saturating_mul(2).min(EACH);
                self.scan_stretch.store(more, Ordering::Relaxed);
            }
            let mut by_partition: BTreeMap<usize, Vec<Txid>> = BTreeMap::new();
            let seen = records.len();
            for record in &records {
                if let Some(txid) = txid_of(record)? {
                    let key = self.key(&CellKey::Page { txid, page: 0 })?;
                    by_partition
                        .entry(key.partition_id())
                        .or_default()
                        .push(txid);
                }
            }
            found.extend(by_partition.into_values().flatten());
            if stretch == 1 && seen >= wanted {
                break;
            }
            begin += stretch;
            after = None;
        }
        found.truncate(limit);
        Ok(found)
    }
}
