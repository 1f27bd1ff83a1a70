//! Walking the confirmed set, bucket by bucket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_utxo_store::{Coin, Cursor, Error, OutPoint, Page, Result, SetScan, Tip, Txid};
use redis::Cmd;

use crate::call::changing;
use crate::error::corrupt;
use crate::read::{Keys, array, bucket_of, bytes};
use crate::record;
use crate::store::Inner;

/// Partitions, by the first byte of the transaction identifier.
const PARTITIONS: u32 = 16;
const BUCKETS_EACH: u32 = (1 << 16) / PARTITIONS;

/// Buckets that are read at once, once it shows that they hold little.
const MOST_BUCKETS: usize = 64;

/// Times that buckets are read anew at once for spenders that came meanwhile.
const EAGER_ROUNDS: u32 = 16;

const ACTION: &str = "scan";

pub(crate) struct RedisScan {
    inner: Arc<Inner>,
    tip: Option<Tip>,
}

impl fmt::Debug for RedisScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisScan")
            .field("tip", &self.tip)
            .finish_non_exhaustive()
    }
}

impl RedisScan {
    pub(crate) async fn begin(inner: Arc<Inner>) -> Result<Self> {
        let tip = inner.chain(ACTION).await?.tip;
        Ok(Self { inner, tip })
    }

    /// The buckets of a partition that may hold something, from `first` on.
    async fn buckets(&self, first: u32, partition: u32) -> Result<Vec<u32>> {
        let end = (partition + 1) * BUCKETS_EACH;
        let mut command = redis::cmd("GETRANGE");
        command.arg(self.inner.keys.buckets());
        command.arg(first >> 3).arg((end >> 3) - 1);
        let bits = self.inner.ask(ACTION, &command).await?;
        let bits = bytes(bits)?.unwrap_or_default();
        let numbers = (first & !7..end).zip(bits.iter().flat_map(|byte| {
            // As BITFIELD counts.
            (0..8).map(move |bit| byte & (0x80 >> bit) != 0)
        }));
        let held = numbers.filter(|(number, bit)| *bit && *number >= first);
        Ok(held.map(|(number, _)| number).collect())
    }

    /// All coins of some buckets, in order, each record with its spenders at one moment: what is known
    /// of the spenders is asked for before and after the records.
    async fn coins(&self, buckets: &[u32]) -> Result<Vec<Coin>> {
        let keys = &self.inner.keys;
        let mut attempts = self.inner.attempts(ACTION);
        let mut spenders: BTreeSet<Txid> = BTreeSet::new();
        let mut rounds = 0_u32;
        loop {
            let lookups = || spenders.iter().map(|txid| unmined_command(keys, txid));
            let records = buckets.iter().map(|bucket| bucket_command(keys, *bucket));
            let commands: Vec<Cmd> = lookups().chain(records).chain(lookups()).collect();
            let mut answers = match self.inner.link.ask_all(ACTION, commands, false).await {
                Ok(answers) => answers.into_iter(),
                Err(failed) => {
                    failed.again(&mut attempts).await?;
                    continue;
                }
            };
            let before: Vec<_> = answers.by_ref().take(spenders.len()).collect();
            let mut records = BTreeMap::new();
            for answer in answers.by_ref().take(buckets.len()) {
                records_of(answer, &mut records)?;
            }
            if !before.iter().eq(answers.as_slice()) {
                changing(ACTION).again(&mut attempts).await?;
                continue;
            }
            let unmined: HashMap<Txid, bool> = spenders
                .iter()
                .zip(answers)
                .map(|(txid, count)| (*txid, count != redis::Value::Int(0)))
                .collect();
            let (coins, unknown) = coins_of(records, &unmined);
            if unknown.is_empty() {
                return Ok(coins);
            }
            // Those that came meanwhile: to wait would let more come.
            rounds += 1;
            if rounds.is_multiple_of(EAGER_ROUNDS) {
                changing(ACTION).again(&mut attempts).await?;
            }
            spenders.extend(unknown);
        }
    }
}

fn bucket_command(keys: &Keys, bucket: u32) -> Cmd {
    let mut command = redis::cmd("HGETALL");
    command.arg(keys.bucket(bucket));
    command
}

/// Counts the transaction among the unmined ones.
fn unmined_command(keys: &Keys, txid: &Txid) -> Cmd {
    let mut command = redis::cmd("ZLEXCOUNT");
    command.arg(keys.unmined());
    command.arg([b"[", txid.as_bytes().as_slice()].concat());
    command.arg([b"[", txid.as_bytes().as_slice(), &[0xff; 5]].concat());
    command
}

type Found = (
    Option<record::Main>,
    BTreeMap<u32, Vec<groundtackle_utxo_store::RecordOutput>>,
);

/// A bucket's records that are confirmed.
fn records_of(bucket: redis::Value, records: &mut BTreeMap<Txid, Found>) -> Result<()> {
    let mut fields = array(bucket)?.into_iter().map(bytes);
    while let (Some(field), Some(value)) = (fields.next().transpose()?, fields.next().transpose()?)
    {
        let (field, value) = (field.unwrap_or_default(), value.unwrap_or_default());
        let (id, rest) = field
            .split_first_chunk()
            .ok_or_else(|| corrupt("a bucket", "a field is too short"))?;
        let txid = Txid::from_bytes(*id);
        let (main, chunks) = records.entry(txid).or_default();
        match rest {
            [] => *main = Some(record::unpack_main(txid, &value)?),
            [_, _, _, _] => {
                let chunk = rest.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
                chunks.insert(chunk, record::unpack_chunk(txid, &value)?.1);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The coins, and those spenders of which it is not known whether they are unmined.
fn coins_of(
    records: BTreeMap<Txid, Found>,
    unmined: &HashMap<Txid, bool>,
) -> (Vec<Coin>, Vec<Txid>) {
    let (mut coins, mut unknown) = (Vec::new(), Vec::new());
    for (txid, (main, chunks)) in records {
        let Some(main) = main else { continue };
        let Some(height) = main.head.confirmed_height() else {
            continue;
        };
        let outputs = main
            .outputs
            .into_iter()
            .chain(chunks.into_values().flatten());
        for output in outputs {
            if let Some(by) = output.spent_by {
                match unmined.get(&by.txid) {
                    Some(true) => {}
                    // Confirmed, or pruned since.
                    Some(false) => continue,
                    None => {
                        unknown.push(by.txid);
                        continue;
                    }
                }
            }
            coins.push(Coin {
                outpoint: OutPoint::new(txid, output.vout),
                output: output.output,
                height,
                coinbase: main.head.coinbase,
            });
        }
    }
    (coins, unknown)
}

#[async_trait]
impl SetScan for RedisScan {
    fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let after = after.map(Cursor::outpoint).transpose()?;
        let foreign = |after: OutPoint| bucket_of(&after.txid) / BUCKETS_EACH != partition;
        if partition >= PARTITIONS || after.is_some_and(foreign) {
            return Err(Error::invalid_request(format!(
                "no such place in partition {partition} of {PARTITIONS}"
            )));
        }
        let limit = limit.clamp(1, self.inner.config.max_batch_items);
        let first = after.map_or(partition * BUCKETS_EACH, |after| bucket_of(&after.txid));
        let buckets = self.buckets(first, partition).await?;
        let mut rest = buckets.as_slice();
        let mut items = Vec::new();
        let mut at_once = 1;
        while items.len() <= limit && !rest.is_empty() {
            let (now, later) = rest.split_at(at_once.min(rest.len()));
            rest = later;
            at_once = (at_once * 2).min(MOST_BUCKETS);
            let coins = self.coins(now).await?;
            items.extend(
                coins
                    .into_iter()
                    .filter(|coin| after.is_none_or(|after| coin.outpoint > after)),
            );
        }
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items
            .last()
            .filter(|_| more)
            .map(|last: &Coin| Cursor::from(last.outpoint));
        Ok(Page { items, next })
    }
}
