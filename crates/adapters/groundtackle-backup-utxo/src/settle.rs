//! Base and changes, as the set that comes of them: what every sink does first.

use std::collections::BTreeMap;

use groundtackle_backup::{Direction, Error, Result, Retryability, Segment};
use groundtackle_utxo_store::{Coin, OutPoint, Txid};

use crate::codec::decode_coins;
use crate::delta::{DeltaPart, Joiner, Overlay, decode_parts};
use crate::error::of_codec;
use crate::source::COINS;

/// What [`SegmentInfo::codec`](groundtackle_backup::SegmentInfo::codec) says of what blocks changed.
pub const DELTAS: &str = "deltas.1";

/// Coins of transactions that no base segment has, given at a time.
const PAGE_COINS: usize = 4_096;

/// The set, in parts of whole transactions. Memory: what the blocks between base and goal changed, and the coins of one
/// transaction.
#[derive(Debug)]
pub(crate) struct Settling {
    overlay: Overlay,
    /// Parts of a block, the rest of which is to come.
    parts: Vec<DeltaPart>,
    /// The last transaction of the base that came: the next segment may go on with it.
    rest: Vec<Coin>,
}

impl Settling {
    pub(crate) fn new() -> Self {
        Self {
            overlay: Overlay::of_scan(),
            parts: Vec::new(),
            rest: Vec::new(),
        }
    }

    /// As [`Sink::changes`](groundtackle_backup::Sink::changes).
    pub(crate) fn changes(
        &mut self,
        segment: &Segment,
        direction: Direction,
        heights: (u32, u32),
    ) -> Result<()> {
        if segment.info.codec != DELTAS {
            return Err(wrong_codec(segment));
        }
        let mut parts = decode_parts(&segment.bytes).map_err(of_codec)?;
        parts.retain(|part| (heights.0..=heights.1).contains(&part.delta.tip.height));
        if direction == Direction::Backwards {
            parts.reverse();
        }
        for part in parts {
            let whole = match direction {
                Direction::Forwards => part.last,
                Direction::Backwards => part.number == 0,
            };
            self.parts.push(part);
            if !whole {
                continue;
            }
            let mut parts = std::mem::take(&mut self.parts);
            if direction == Direction::Backwards {
                parts.reverse();
            }
            let mut joiner = Joiner::default();
            let mut delta = None;
            for part in parts {
                delta = joiner.push(part).map_err(of_codec)?;
            }
            joiner.finish().map_err(of_codec)?;
            if let Some(delta) = delta {
                let applied = match direction {
                    Direction::Forwards => self.overlay.forwards(&delta),
                    Direction::Backwards => self.overlay.backwards(&delta),
                };
                applied.map_err(contradicts)?;
            }
        }
        Ok(())
    }

    /// A part of the base: the coins of the set that come of it.
    pub(crate) fn base(&mut self, segment: &Segment) -> Result<Vec<Coin>> {
        if segment.info.codec != COINS {
            return Err(wrong_codec(segment));
        }
        let mut coins = std::mem::take(&mut self.rest);
        coins.extend(decode_coins(&segment.bytes).map_err(of_codec)?);
        let last = coins.last().map(|coin| coin.outpoint.txid);
        let whole = coins
            .iter()
            .rposition(|coin| Some(coin.outpoint.txid) != last)
            .map_or(0, |at| at.saturating_add(1));
        self.rest = coins.split_off(whole);
        let mut settled = Vec::with_capacity(coins.len());
        let mut group: Vec<Coin> = Vec::new();
        for coin in coins {
            if group
                .first()
                .is_some_and(|first| first.outpoint.txid != coin.outpoint.txid)
            {
                self.settle(std::mem::take(&mut group), &mut settled);
            }
            group.push(coin);
        }
        self.settle(group, &mut settled);
        Ok(settled)
    }

    /// What is left once the base is at its end, in pages; an empty one is the last.
    pub(crate) fn rest(&mut self) -> Vec<Coin> {
        let mut page = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.settle(rest, &mut page);
        // Ascending, so that a transaction's coins are together.
        while page.len() < PAGE_COINS {
            let Some(txid) = self.overlay.first_added() else {
                break;
            };
            page.extend(self.overlay.take_added(txid));
        }
        page
    }

    /// One transaction of the base, as the blocks left it.
    fn settle(&mut self, coins: Vec<Coin>, settled: &mut Vec<Coin>) {
        let Some(txid) = coins.first().map(|coin| coin.outpoint.txid) else {
            return;
        };
        let mut outputs: BTreeMap<_, _> = coins
            .into_iter()
            .filter(|coin| !self.overlay.removed().contains_key(&coin.outpoint))
            .map(|coin| (coin.outpoint, coin))
            .collect();
        for coin in self.overlay.take_added(txid) {
            outputs.insert(coin.outpoint, coin);
        }
        settled.extend(outputs.into_values());
    }
}

fn contradicts(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::backend(
        "the UTXO store",
        "replaying blocks",
        Retryability::Permanent,
        error,
    )
}

/// A segment of another kind than is due.
fn wrong_codec(segment: &Segment) -> Error {
    Error::invalid_request(format!(
        "the segment is of {}, which a UTXO store does not take here",
        segment.info.codec
    ))
}

impl Overlay {
    /// Takes out what a transaction has gained.
    fn take_added(&mut self, txid: Txid) -> Vec<Coin> {
        let (first, last) = (OutPoint::new(txid, 0), OutPoint::new(txid, u32::MAX));
        let outpoints: Vec<_> = self
            .added()
            .range(first..=last)
            .map(|(outpoint, _)| *outpoint)
            .collect();
        outpoints
            .iter()
            .filter_map(|outpoint| self.added_mut().remove(outpoint))
            .collect()
    }

    fn first_added(&self) -> Option<Txid> {
        self.added().keys().next().map(|outpoint| outpoint.txid)
    }
}
