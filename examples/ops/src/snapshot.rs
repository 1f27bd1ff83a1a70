//! The set at the tip into a file as Bitcoin Core writes them, and out of one.

use std::path::PathBuf;

use clap::Args;
use groundtackle_chain::{BlockHash, Network};
use groundtackle_utxo_store::UtxoStore;
use groundtackle_utxo_store::snapshot::{
    ExpectedDigest, ExportOptions, Exported, ImportOptions, Imported, SnapshotFile,
    SnapshotProgress, SnapshotStep, export_snapshot, import_snapshot,
};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::{Progress, Report};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write; one that is there is left alone.
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// The set's network, which the file names: main, testnet3, testnet4, signet or regtest.
    #[arg(long, default_value_t)]
    network: Network,
    /// Replace the file if it is there.
    #[arg(long)]
    replace: bool,
}

#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file to read: dumptxoutset version 2 or 1.
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// The snapshot's network: main, testnet3, testnet4, signet or regtest.
    #[arg(long, default_value_t)]
    network: Network,
    /// The set's MuHash, from gettxoutsetinfo muhash of a node that you trust.
    #[arg(long, value_name = "HEX", conflicts_with = "expect_hash_serialized_3")]
    expect_muhash: Option<BlockHash>,
    /// The set's serialised hash, from gettxoutsetinfo or dumptxoutset (txoutset_hash). Without this and
    /// --expect-muhash, what is built into Bitcoin Core for the file's block.
    #[arg(long, value_name = "HEX")]
    expect_hash_serialized_3: Option<BlockHash>,
    /// The block that the set must be of. No digest covers the one that the file names.
    #[arg(long, value_name = "HASH")]
    expect_block: Option<BlockHash>,
    /// The block's height. Default: what is built in for the block, otherwise the highest coin's.
    #[arg(long, value_name = "HEIGHT")]
    height: Option<u32>,
    /// The block's median time past (mediantime in getblockheader), in seconds since 1970, to be kept with
    /// the tip until the next block brings its own.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    median_time_past: u32,
}

#[derive(Serialize)]
struct Answer {
    height: u32,
    bestblock: BlockHash,
    transactions: u64,
    txouts: u64,
    /// Of an import: how many of these were there from an earlier, interrupted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    txouts_before: Option<u64>,
    /// Of an export.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    muhash: BlockHash,
    /// Only where the file's transactions are in order.
    hash_serialized_3: Option<BlockHash>,
    file: String,
}

pub async fn export(
    store: &dyn UtxoStore,
    args: &ExportArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let mut options = ExportOptions::new(args.network);
    options.replace = args.replace;
    let mut steps = Steps::default();
    let exporting = export_snapshot(store, &args.file, &options, |progress| {
        steps.show(progress);
    });
    // It may be dropped: nothing has the file's name before all is done.
    let exported: Exported = interrupt.or(exporting).await?.map_err(Failure::Export)?;
    drop(steps);
    tell(
        report,
        &Answer {
            height: exported.tip.height,
            bestblock: exported.tip.hash,
            transactions: exported.transactions,
            txouts: exported.coins,
            txouts_before: None,
            bytes: Some(exported.bytes),
            muhash: BlockHash::from_bytes(exported.muhash),
            hash_serialized_3: Some(BlockHash::from_bytes(exported.hash_serialized_3)),
            file: args.file.display().to_string(),
        },
    )
}

impl ImportArgs {
    /// The file, with what its set must be: before there is a store to fill.
    pub async fn open(&self) -> Result<SnapshotFile> {
        let muhash = self.expect_muhash.map(|digest| *digest.as_bytes());
        let serialized = self
            .expect_hash_serialized_3
            .map(|digest| *digest.as_bytes());
        let mut options = ImportOptions::new(self.network);
        options.expected = muhash
            .map(ExpectedDigest::Muhash)
            .or(serialized.map(ExpectedDigest::HashSerialized3));
        options.block = self.expect_block;
        options.height = self.height;
        options.median_time_past = self.median_time_past;
        SnapshotFile::open(&self.file, &options)
            .await
            .map_err(Failure::Import)
    }

    pub async fn run(
        &self,
        file: &SnapshotFile,
        store: &dyn UtxoStore,
        report: Report,
        interrupt: &mut Interrupt,
    ) -> Result<()> {
        let mut steps = Steps::default();
        let importing = import_snapshot(file, store, |progress| steps.show(progress));
        // It may be dropped: what is there is marked as unfinished.
        let imported: Imported = interrupt.or(importing).await?.map_err(Failure::Import)?;
        drop(steps);
        tell(
            report,
            &Answer {
                height: imported.tip.height,
                bestblock: imported.tip.hash,
                transactions: imported.transactions,
                txouts: imported.coins,
                txouts_before: Some(imported.coins_before),
                bytes: None,
                muhash: BlockHash::from_bytes(imported.muhash),
                hash_serialized_3: imported.hash_serialized_3.map(BlockHash::from_bytes),
                file: self.file.display().to_string(),
            },
        )
    }
}

/// One figure a line, or JSON.
fn tell(report: Report, answer: &Answer) -> Result<()> {
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let text: Vec<_> = [
        ("height", Some(answer.height.to_string())),
        ("bestblock", Some(answer.bestblock.to_string())),
        ("transactions", number(Some(answer.transactions))),
        ("txouts", number(Some(answer.txouts))),
        ("txouts_before", number(answer.txouts_before)),
        ("bytes", number(answer.bytes)),
        ("muhash", Some(answer.muhash.to_string())),
        (
            "hash_serialized_3",
            answer.hash_serialized_3.map(|digest| digest.to_string()),
        ),
        ("file", Some(answer.file.clone())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name:<18} {}", value?)))
    .collect();
    report.answer(answer, &text.join("\n"))
}

/// A bar or lines for each step.
#[derive(Default)]
struct Steps(Option<(SnapshotStep, Progress)>);

impl Steps {
    fn show(&mut self, progress: SnapshotProgress) {
        let SnapshotProgress {
            step, coins, total, ..
        } = progress;
        if self.0.as_ref().is_none_or(|(shown, _)| *shown != step) {
            let verb = match step {
                SnapshotStep::Scan => "read",
                SnapshotStep::Sort => "sorted",
                SnapshotStep::Check => "checked",
                SnapshotStep::Load => "loaded",
                _ => "did",
            };
            self.0 = Some((step, Progress::of_coins(verb, total)));
        }
        if let Some((_, bar)) = &mut self.0 {
            bar.coins(coins);
        }
    }
}
