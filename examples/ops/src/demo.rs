//! The main job in one command, on blocks that ship with the program.

use std::fs;
use std::num::NonZeroU32;

use groundtackle_chain::Network;
use serde::Serialize;

use crate::SyncOptions;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::stats::Figures;
use crate::stores::{self, Missing, StoreUrl};
use crate::sync;

const BLOCKS: [(&str, &[u8]); 2] = [
    ("blk00000.dat", include_bytes!("../data/blk00000.dat")),
    ("blk00001.dat", include_bytes!("../data/blk00001.dat")),
];
const LAST_HEIGHT: u32 = 599;

/// What the set at height 599 is known to be: computed independently, and equal to Bitcoin Core's.
fn known() -> Figures {
    Figures {
        height: Some(LAST_HEIGHT),
        bestblock: "0000000042844571bc6bce8e1c0fbec99466971eaff89fef8c0d123582181d4d"
            .parse()
            .ok(),
        transactions: 599,
        txouts: 601,
        bogosize: 70_317,
        total_amount_sat: 2_995_000_000_000,
        muhash: Some("ce93177ecb5987744529c6e484b895dea4e4b1d062aef2230583f3f32acc4f8d".into()),
        hash_serialized_3: Some(
            "6b1d7ce40dba4aac9c4d4342c1482f516885b50a6c60c814d82eefc73c9ad8a6".into(),
        ),
    }
}

#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    figures: Figures,
    as_known: bool,
}

pub async fn run(url: Option<StoreUrl>, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    let write = |source| Failure::Create {
        what: "a temporary folder for the demo's blocks",
        source,
    };
    let folder = tempfile::tempdir().map_err(write)?;
    for (name, bytes) in BLOCKS {
        fs::write(folder.path().join(name), bytes).map_err(write)?;
    }
    let url = url.unwrap_or_else(|| StoreUrl::embedded(folder.path().join("store")));
    let options = SyncOptions {
        journal: None,
        blocks: vec![folder.path().to_owned()],
        network: Network::Main,
        to: Some(LAST_HEIGHT),
        flush_every: NonZeroU32::MAX,
        max_block_size: groundtackle_core::ByteSize::mib(1),
        partial_tail: false,
    };

    report.text(&format!(
        "connecting main net blocks 0 to {LAST_HEIGHT} into {url}"
    ))?;
    let store = stores::open(&url, Missing::Create).await?;
    sync::run(&*store, &options, report, interrupt).await?;
    let figures = Figures::of(&*store).await?;
    // Without an order there is one digest less to compare.
    let mut known = known();
    if figures.hash_serialized_3.is_none() {
        known.hash_serialized_3 = None;
    }
    let as_known = figures == known;
    report.text(&figures.to_text())?;
    report.json(&Answer { figures, as_known })?;
    if !as_known {
        return Err(Failure::No(format!(
            "this is not the known answer, which is\n{}",
            known.to_text()
        )));
    }
    report.text("equal to the known answer")
}
