//! Taking blocks back.

use groundtackle_chain::BlockHash;
use groundtackle_utxo_store::{Tip, UtxoStore, Verdict};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::{Progress, Report, note};

#[derive(Debug)]
pub struct TakenBack {
    pub tip: Option<Tip>,
    pub kept_unmined: u64,
}

#[derive(Debug, Serialize)]
struct Answer {
    from_height: u32,
    height: Option<u32>,
    bestblock: Option<BlockHash>,
    kept_unmined: u64,
}

pub async fn run(
    store: &dyn UtxoStore,
    to: u32,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let from_height = match store.tip().await? {
        Some(tip) if tip.height >= to => tip.height,
        tip => {
            return Err(Failure::AboveTip {
                tip: tip.map(|tip| tip.height),
                to,
            });
        }
    };
    let TakenBack { tip, kept_unmined } = take_back(store, to, interrupt).await?;
    let height = tip.map(|tip| tip.height);
    report.json(&Answer {
        from_height,
        height,
        bestblock: tip.map(|tip| tip.hash),
        kept_unmined,
    })?;
    report.text(&format!(
        "rewound from height {from_height} to {to}; {kept_unmined} transactions are kept as unmined"
    ))
}

/// Disconnects blocks until the tip is at height `to`, and makes that durable.
pub async fn take_back(store: &dyn UtxoStore, to: u32, interrupt: &Interrupt) -> Result<TakenBack> {
    let mut taken = TakenBack {
        tip: store.tip().await?,
        kept_unmined: 0,
    };
    let result = disconnect(store, to, interrupt, &mut taken).await;
    let flushed = store.flush().await;
    if let (Err(_), Some(tip)) = (&result, taken.tip) {
        note(&format!(
            "stopped at height {} with block {}",
            tip.height, tip.hash
        ));
    }
    result?;
    flushed?;
    Ok(taken)
}

async fn disconnect(
    store: &dyn UtxoStore,
    to: u32,
    interrupt: &Interrupt,
    taken: &mut TakenBack,
) -> Result<()> {
    let height = taken.tip.map_or(0, |tip| tip.height);
    let mut progress = Progress::new("took back", height.saturating_sub(to).into());
    while let Some(tip) = taken.tip.filter(|tip| tip.height > to) {
        interrupt.check()?;
        let refused = |source| Failure::NotTakenBack { tip, source };
        let previous = store
            .previous_tip()
            .await?
            .ok_or_else(|| refused(Verdict::NoUndo { block: tip.hash }))?;
        let disconnected = store
            .disconnect_block(&tip.hash, &previous.hash)
            .await?
            .map_err(refused)?;
        taken.tip = disconnected.tip;
        taken.kept_unmined += disconnected.kept_unmined;
        progress.block(previous.height);
    }
    Ok(())
}
