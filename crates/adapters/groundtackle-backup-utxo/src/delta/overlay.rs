//! The net effect of consecutive deltas.

use std::collections::BTreeMap;

use groundtackle_utxo_store::{BlockHash, Coin, OutPoint};

use super::Delta;

/// What many consecutive blocks changed of the confirmed set, forwards or backwards: the set they lead to is the one
/// they begin at without the coins of [`removed`](Self::removed), and with those of [`added`](Self::added).
///
/// An outpoint can be in both, where a coin was removed and another one of that name is there now (a coinbase that was
/// overwritten, or one that was fully spent and made again): so remove first. A coin that comes back exactly as it was
/// is in neither, nor is one that came and went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overlay {
    /// The block whose set it leads to; not known before the first delta.
    at: Option<BlockHash>,
    /// For sets that may have, or lack, what has changed meanwhile.
    inexact: bool,
    removed: BTreeMap<OutPoint, Coin>,
    added: BTreeMap<OutPoint, Coin>,
}

/// A delta that can't be the next one. The overlay is not to be used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverlayError {
    /// It belongs elsewhere in the chain.
    #[error("the delta of block {block} does not continue at {at}")]
    NotNext {
        /// The delta's block.
        block: BlockHash,
        /// Where the overlay leads.
        at: BlockHash,
    },
    /// It removes what is not there, or adds what is there already.
    #[error("the delta of block {block} contradicts those before it at {outpoint}")]
    Contradiction {
        /// The delta's block.
        block: BlockHash,
        /// The coin.
        outpoint: OutPoint,
    },
}

impl Overlay {
    /// No change, beginning with the set after `block`. With [`Overlay::default`] the first delta says where.
    pub fn at(block: BlockHash) -> Self {
        Self {
            at: Some(block),
            ..Self::default()
        }
    }

    /// No change of a set that was read while blocks were connected, so that nobody knows which of their changes it has
    /// already. Then nothing contradicts it: what was ever removed is in [`removed`](Self::removed), and what came back is
    /// in [`added`](Self::added) too.
    pub fn of_scan() -> Self {
        Self {
            inexact: true,
            ..Self::default()
        }
    }

    /// Replays the block that follows.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn forwards(&mut self, delta: &Delta) -> Result<(), OverlayError> {
        let (from, to) = (delta.previous, delta.tip.hash);
        self.change(delta, from, to, &delta.spent, &delta.created)
    }

    /// Takes back the block that the overlay leads to.
    ///
    /// # Errors
    /// [`OverlayError`].
    pub fn backwards(&mut self, delta: &Delta) -> Result<(), OverlayError> {
        let (from, to) = (delta.tip.hash, delta.previous);
        self.change(delta, from, to, &delta.created, &delta.spent)
    }

    fn change(
        &mut self,
        delta: &Delta,
        from: BlockHash,
        to: BlockHash,
        remove: &[Coin],
        add: &[Coin],
    ) -> Result<(), OverlayError> {
        let block = delta.tip.hash;
        if let Some(at) = self.at.filter(|at| *at != from) {
            return Err(OverlayError::NotNext { block, at });
        }
        if self.inexact {
            for coin in remove {
                self.added.remove(&coin.outpoint);
                self.removed.insert(coin.outpoint, coin.clone());
            }
            let add = add.iter().map(|coin| (coin.outpoint, coin.clone()));
            self.added.extend(add);
            self.at = Some(to);
            return Ok(());
        }
        let contradiction = |outpoint| OverlayError::Contradiction { block, outpoint };
        for coin in remove {
            let outpoint = coin.outpoint;
            let known = match self.added.remove(&outpoint) {
                Some(added) => added == *coin,
                // Of the set at the beginning, and not removed from it before.
                None => self.removed.insert(outpoint, coin.clone()).is_none(),
            };
            if !known {
                return Err(contradiction(outpoint));
            }
        }
        for coin in add {
            let outpoint = coin.outpoint;
            if self.added.contains_key(&outpoint) {
                return Err(contradiction(outpoint));
            }
            if self.removed.get(&outpoint) == Some(coin) {
                self.removed.remove(&outpoint);
            } else {
                self.added.insert(outpoint, coin.clone());
            }
        }
        self.at = Some(to);
        Ok(())
    }

    /// The block whose set it leads to; `None` before the first delta of [`Overlay::default`].
    pub const fn block(&self) -> Option<BlockHash> {
        self.at
    }

    /// Coins of the set at the beginning that are gone, by outpoint.
    pub const fn removed(&self) -> &BTreeMap<OutPoint, Coin> {
        &self.removed
    }

    /// Coins that the set at the beginning did not have, by outpoint.
    pub const fn added(&self) -> &BTreeMap<OutPoint, Coin> {
        &self.added
    }

    pub(crate) const fn added_mut(&mut self) -> &mut BTreeMap<OutPoint, Coin> {
        &mut self.added
    }

    /// Both, removed first.
    pub fn into_parts(self) -> (BTreeMap<OutPoint, Coin>, BTreeMap<OutPoint, Coin>) {
        (self.removed, self.added)
    }
}
