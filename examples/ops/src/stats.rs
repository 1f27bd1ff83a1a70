//! Figures of the set at the tip, under the names that Bitcoin Core gives them.

use groundtackle_chain::BlockHash;
use groundtackle_utxo_store::{SetStatistics, StatisticsOptions, UtxoStore, UtxoStoreExt};
use serde::Serialize;

use crate::failure::Result;
use crate::report::Report;

/// In `gettxoutsetinfo` the amount is in coins; here it is in satoshis, and named so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub height: Option<u32>,
    pub bestblock: Option<BlockHash>,
    pub transactions: u64,
    pub txouts: u64,
    pub bogosize: u64,
    pub total_amount_sat: u64,
    pub muhash: Option<String>,
    /// Only where the store can scan in order.
    pub hash_serialized_3: Option<String>,
}

impl From<SetStatistics> for Figures {
    fn from(statistics: SetStatistics) -> Self {
        let digest = |digest: Option<[u8; 32]>| {
            // Digests print reversed, as hashes do.
            digest.map(|digest| BlockHash::from_bytes(digest).to_string())
        };
        Self {
            height: statistics.tip.map(|tip| tip.height),
            bestblock: statistics.tip.map(|tip| tip.hash),
            transactions: statistics.transactions,
            txouts: statistics.txouts,
            bogosize: statistics.bogosize,
            total_amount_sat: statistics.total_amount_sat,
            muhash: digest(statistics.muhash),
            hash_serialized_3: digest(statistics.hash_serialized_3),
        }
    }
}

impl Figures {
    pub async fn of(store: &dyn UtxoStore) -> Result<Self> {
        let options = StatisticsOptions {
            muhash: true,
            hash_serialized_3: store.capabilities().ordered_scan,
        };
        Ok(store.statistics(options).await?.into())
    }

    /// One figure a line.
    pub fn to_text(&self) -> String {
        fn or_none(value: &Option<impl ToString>) -> String {
            value.as_ref().map_or("none".into(), ToString::to_string)
        }
        [
            ("height", or_none(&self.height)),
            ("bestblock", or_none(&self.bestblock)),
            ("transactions", self.transactions.to_string()),
            ("txouts", self.txouts.to_string()),
            ("bogosize", self.bogosize.to_string()),
            ("total_amount_sat", self.total_amount_sat.to_string()),
            ("muhash", or_none(&self.muhash)),
            ("hash_serialized_3", or_none(&self.hash_serialized_3)),
        ]
        .map(|(name, value)| format!("{name:<18} {value}"))
        .join("\n")
    }
}

pub async fn run(store: &dyn UtxoStore, report: Report) -> Result<()> {
    let figures = Figures::of(store).await?;
    report.answer(&figures, &figures.to_text())
}
