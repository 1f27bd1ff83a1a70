//! One small record in each of the cluster's partitions: where one is missing, a part of the store is.

use aerospike::expressions as exp;
use aerospike::operations::scalar;
use aerospike::{
    BatchOperation, BatchReadPolicy, BatchWritePolicy, Bin, Bins, Expiration, Key, Value,
};
use groundtackle_utxo_store::Result;

use crate::cells::{AerospikeCells, Row, random, update};
use crate::list::CLUSTER_PARTITIONS;

const PART: &str = "part";

/// Sentinels that are written to see whether nodes take writes: drawn by lot, so that each of the few nodes of
/// a cluster has some of them, as good as always.
const PROBES: usize = 128;

/// A number for each partition, in whose sentinel's name it is.
#[derive(Debug, Default)]
pub(crate) struct Sentinels(Vec<u32>);

impl AerospikeCells {
    fn sentinel(&self, number: u32) -> Result<Key> {
        self.record_key(format!("part {number}").into_bytes())
    }

    /// The server's hash says where a name belongs, so that names are tried out until each partition has one.
    pub(crate) fn find_sentinels(&self) -> Result<Sentinels> {
        let mut numbers = vec![None; CLUSTER_PARTITIONS];
        let mut left = CLUSTER_PARTITIONS;
        for number in 0_u32.. {
            if left == 0 {
                break;
            }
            let partition = self.sentinel(number)?.partition_id();
            if let Some(place @ None) = numbers.get_mut(partition) {
                *place = Some(number);
                left -= 1;
            }
        }
        Ok(Sentinels(numbers.into_iter().flatten().collect()))
    }

    pub(crate) async fn write_sentinels(&self) -> Result<()> {
        let policy = BatchWritePolicy {
            expiration: Expiration::Never,
            ..BatchWritePolicy::default()
        };
        let mut rows = Vec::with_capacity(CLUSTER_PARTITIONS);
        for number in &self.sentinels.0 {
            let bin = Bin::new(PART, Value::Int(i64::from(*number)));
            let operations = vec![scalar::put(&bin)];
            let key = self.sentinel(*number)?;
            rows.push((64, BatchOperation::write(&policy, key, operations)));
        }
        self.change("create the store", rows).await.map(drop)
    }

    /// How many partitions have lost what they held.
    pub(crate) async fn lost_partitions(&self) -> Result<usize> {
        let policy = BatchReadPolicy::default();
        let mut rows = Vec::with_capacity(CLUSTER_PARTITIONS);
        for number in &self.sentinels.0 {
            let row = BatchOperation::read(&policy, self.sentinel(*number)?, Bins::None);
            rows.push((64, row));
        }
        let rows = self.send("look for the store's parts", rows, false).await?;
        Ok(rows
            .iter()
            .filter(|row| matches!(row, Row::Missing))
            .count())
    }

    /// Whether writes are taken.
    pub(crate) async fn probe(&self) -> Result<()> {
        let mut rows = Vec::with_capacity(PROBES);
        let places = self.sentinels.0.len().max(1);
        let offset = usize::try_from(random() % places as u64).unwrap_or(0);
        let step = (places / PROBES).max(1);
        let chosen = self.sentinels.0.iter().cycle().skip(offset).step_by(step);
        for number in chosen.take(PROBES) {
            let number = i64::from(*number);
            let same = exp::eq(exp::int_bin(PART), exp::int_val(number));
            let operations = vec![scalar::put(&Bin::new(PART, Value::Int(number)))];
            let key = self.sentinel(u32::try_from(number).unwrap_or(0))?;
            rows.push((64, BatchOperation::write(&update(same), key, operations)));
        }
        self.change("probe for writes", rows).await.map(drop)
    }
}
