//! The set at the tip of one store into another one.

use std::time::{Duration, Instant};

use groundtackle_chain::BlockHash;
use groundtackle_utxo_store::{Copied, UtxoStore, copy_set};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::{Report, note};

const LINE_EVERY: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Answer {
    height: u32,
    bestblock: BlockHash,
    txouts: u64,
    /// Of these, how many were there from an earlier, interrupted copy.
    txouts_before: u64,
    muhash: String,
}

pub async fn run(
    from: &dyn UtxoStore,
    to: &dyn UtxoStore,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let began = Instant::now();
    let mut last_line = began;
    let copied = copy_set(from, to, |coins| {
        if last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            let per_second = coins as f64 / began.elapsed().as_secs_f64();
            note(&format!("copied {coins} coins, {per_second:.0} coins/s"));
        }
    });
    // It may be dropped: what is there is marked as unfinished.
    let Copied {
        tip,
        coins,
        coins_before,
        muhash,
        ..
    } = interrupt.or(copied).await?.map_err(Failure::Copy)?;
    let answer = Answer {
        height: tip.height,
        bestblock: tip.hash,
        txouts: coins,
        txouts_before: coins_before,
        // Digests print reversed, as hashes do.
        muhash: BlockHash::from_bytes(muhash).to_string(),
    };
    let text = format!(
        "height             {}\nbestblock          {}\ntxouts             {}\ntxouts_before      {}\n\
         muhash             {}, of what was read and of what was written",
        answer.height, answer.bestblock, answer.txouts, answer.txouts_before, answer.muhash
    );
    report.answer(&answer, &text)
}
