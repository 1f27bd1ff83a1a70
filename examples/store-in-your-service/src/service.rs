use std::sync::Arc;

use groundtackle_utxo_store::{
    Applied, COINBASE_MATURITY, ChainBlock, Error, OutPoint, OutputView, Retryability, SlotState,
    SpendOptions, Tip, Transaction, Txid, UtxoStore, UtxoStoreExt, Verdict,
};

/// What a node does with a transaction, or a question about an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// It is there already.
    Known,
    /// Not as things are, but as soon as something else has come: a parent, a height. Keep it.
    NotYet(Verdict),
    /// Somebody else was first, or an authority says no.
    Refused(Verdict),
    /// It never will be. Whoever sent it is broken, or means harm.
    Invalid(Verdict),
}

impl Answer {
    fn no(verdict: Verdict) -> Self {
        match verdict {
            Verdict::MissingTransaction { .. }
            | Verdict::Immature { .. }
            | Verdict::FrozenUntil { .. }
            | Verdict::Locked { .. }
            | Verdict::Unconfirmed { .. } => Self::NotYet(verdict),
            Verdict::MissingOutput { .. }
            | Verdict::OutputMismatch { .. }
            | Verdict::InvalidTransaction { .. } => Self::Invalid(verdict),
            // Also what later versions of the store will say.
            _ => Self::Refused(verdict),
        }
    }
}

/// A store that could not answer. That says nothing about the data.
#[derive(Debug)]
pub enum Broken {
    /// Nothing was done. Ask again later: tell the client so, as 503 does.
    Later(Error),
    /// It may have been done. Repeat the same call: what was done already is answered as [`Answer::Known`].
    Unknown(Error),
    /// Asking again is no help: stop, and have somebody look.
    ForAPerson(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        match error.retryability() {
            Retryability::Transient => Self::Later(error),
            Retryability::Indeterminate => Self::Unknown(error),
            _ => Self::ForAPerson(error),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Later(_) => "the store can't answer now",
            Self::Unknown(_) => "it is not known whether the store has done it",
            Self::ForAPerson(_) => "the store needs a person to look at it",
        })
    }
}

impl std::error::Error for Broken {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let (Self::Later(error) | Self::Unknown(error) | Self::ForAPerson(error)) = self;
        Some(error)
    }
}

/// What a node asks of its store. Whatever the adapter is, it is the same.
#[derive(Clone, Debug)]
pub struct Service {
    store: Arc<dyn UtxoStore>,
}

impl Service {
    /// On a store that [`open`](crate::open) has opened.
    pub fn new(store: Arc<dyn UtxoStore>) -> Self {
        Self { store }
    }

    /// The block up to which it is connected.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn tip(&self) -> Result<Option<Tip>, Broken> {
        Ok(self.store.tip().await?)
    }

    /// The height of the next block: that of whoever spends now.
    async fn next_height(&self) -> Result<u32, Broken> {
        Ok(self
            .tip()
            .await?
            .map_or(0, |tip| tip.height.saturating_add(1)))
    }

    /// Whether the set lets an output be spent in the next block. Scripts and signatures are for the caller to judge.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn may_be_spent(&self, outpoint: OutPoint) -> Result<Answer, Broken> {
        let height = self.next_height().await?;
        Ok(match self.store.output(outpoint).await? {
            Ok(output) => against(&output, height).map_or(Answer::Yes, Answer::no),
            Err(verdict) => Answer::no(verdict),
        })
    }

    /// Takes a transaction into the mempool: its inputs are its own from now on, and its outputs can be spent. The
    /// caller has looked at its scripts, signatures and fee.
    ///
    /// # Errors
    /// When the store could not answer.
    pub async fn accept(&self, transaction: Transaction) -> Result<Answer, Broken> {
        let options = SpendOptions::at(self.next_height().await?);
        let outcomes = self
            .store
            .spend_and_create(&[transaction.into()], &options)
            .await?;
        Ok(match outcomes.into_iter().next() {
            Some(Ok(Applied::Now)) => Answer::Yes,
            Some(Ok(Applied::Before)) => Answer::Known,
            Some(Err(verdict)) => Answer::no(verdict),
            None => return Err(Error::invalid_request("the store gave no outcome").into()),
        })
    }

    /// Connects the block after the tip. Blocks come first: a transaction of the mempool that spends what the block does, and all
    /// that rests on it, is marked as conflicting and gives its inputs back.
    ///
    /// # Errors
    /// When the store could not answer. Repeat it.
    pub async fn connect(&self, block: &ChainBlock) -> Result<Answer, Broken> {
        let inputs = block
            .transactions
            .iter()
            .map(|transaction| transaction.inputs.len());
        // Each round frees one input at least.
        for _ in 0..=inputs.sum() {
            let verdict = match self.store.connect_block(block).await? {
                Ok(connected) if connected.applied == Applied::Before => return Ok(Answer::Known),
                Ok(_) => return Ok(Answer::Yes),
                Err(verdict) => verdict,
            };
            match loser(&verdict) {
                Some(loser) if self.evict(loser).await? => {}
                _ => return Ok(Answer::no(verdict)),
            }
        }
        Err(
            Error::invalid_request("something else spends what the block does, again and again")
                .into(),
        )
    }

    /// Whether it was in the mempool.
    async fn evict(&self, loser: Txid) -> Result<bool, Broken> {
        let record = self.store.record(loser).await?;
        if record.is_none_or(|record| record.unmined_since.is_none()) {
            return Ok(false);
        }
        let marked = self.store.mark_conflicting(&[loser]).await?;
        let all: Vec<_> = marked
            .into_iter()
            .flatten()
            .flatten()
            .chain([loser])
            .collect();
        self.store.unspend(&all).await?;
        Ok(true)
    }

    /// Leaves the branch of the tip down to the block `fork`, and connects another one. What is lost with the old branch and not in
    /// the new one is for the caller to [`accept`](Self::accept) again. A block that is refused ends it: the tip is below it then.
    ///
    /// # Errors
    /// When the store could not answer. Repeat it: what is done is found done.
    pub async fn reorganise(&self, fork: Tip, blocks: &[ChainBlock]) -> Result<Answer, Broken> {
        while let Some(tip) = self.tip().await?
            && tip.height > fork.height
            && !blocks.iter().any(|block| block.hash == tip.hash)
        {
            let Some(previous) = self.store.previous_tip().await? else {
                return Ok(Answer::Refused(Verdict::NoUndo { block: tip.hash }));
            };
            if let Err(verdict) = self
                .store
                .disconnect_block(&tip.hash, &previous.hash)
                .await?
            {
                return Ok(Answer::no(verdict));
            }
        }
        let tip = self.tip().await?;
        let done = blocks
            .iter()
            .position(|block| tip.is_some_and(|tip| tip.hash == block.hash));
        for block in blocks.iter().skip(done.map_or(0, |done| done + 1)) {
            let answer = self.connect(block).await?;
            if !matches!(answer, Answer::Yes | Answer::Known) {
                return Ok(answer);
            }
        }
        Ok(Answer::Yes)
    }

    /// All that was acknowledged is on disk when it returns. Then drop it.
    ///
    /// # Errors
    /// When that could not be had.
    pub async fn close(self) -> Result<(), Broken> {
        Ok(self.store.flush().await?)
    }
}

/// What stands against spending an output at `height`.
fn against(output: &OutputView, height: u32) -> Option<Verdict> {
    let outpoint = output.outpoint;
    match output.state {
        SlotState::Spent(by) => return Some(Verdict::AlreadySpent { outpoint, by }),
        SlotState::Frozen => return Some(Verdict::Frozen { outpoint }),
        SlotState::Reassigned { spendable_from } if spendable_from > height => {
            return Some(Verdict::FrozenUntil {
                outpoint,
                height: spendable_from,
            });
        }
        _ => {}
    }
    if output.conflicting {
        return Some(Verdict::ConflictingParent { outpoint });
    }
    if output.locked {
        return Some(Verdict::Locked { outpoint });
    }
    let spendable_at = output
        .height
        .map(|made| made.saturating_add(COINBASE_MATURITY));
    let mature = !output.coinbase || spendable_at.is_some_and(|at| at <= height);
    (!mature).then_some(Verdict::Immature {
        outpoint,
        spendable_at,
    })
}

/// Who holds what a block wants to spend.
fn loser(verdict: &Verdict) -> Option<Txid> {
    match verdict {
        Verdict::InBlock { verdict, .. } => loser(verdict),
        Verdict::AlreadySpent { by, .. } => Some(by.txid),
        _ => None,
    }
}
