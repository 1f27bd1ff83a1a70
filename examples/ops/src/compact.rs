//! Writes restore points together: changes of blocks in fewer ones, and a base without the store.

use std::num::NonZeroU32;

use clap::Args;
use groundtackle_backup::BackUp;
use groundtackle_backup_utxo::fold;
use serde::Serialize;

use crate::backup::{ConfigFile, Point};
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, tell};
use crate::report::{Progress, Report, following, note};

#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Write changes that end between two multiples of so many blocks in height together; one after the other if there are
    /// several.
    #[arg(
        long,
        value_name = "BLOCKS",
        value_delimiter = ',',
        default_value = "144,1008"
    )]
    roll_up: Vec<NonZeroU32>,
    /// Write the set that the latest restore point leads to as a whole one, from what lies in the repository.
    #[arg(long)]
    fold: bool,
}

#[derive(Serialize)]
struct Compacted {
    rolled_up: Vec<Point>,
    /// Nothing where it is a whole set already, or none was asked for.
    folded: Option<Point>,
}

pub async fn compact(
    file: &ConfigFile,
    args: &CompactArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let (signer, recipients) = (config.signer()?, config.recipients()?);
    let identities = config.identities()?;
    let repository = config.repository(For::Writing).await?;
    let how = BackUp {
        stream: &config.stream,
        wrapping: &recipients,
        signer: &signer,
        workers: config.workers,
    };
    let mut answer = Compacted {
        rolled_up: Vec::new(),
        folded: None,
    };
    let mut progress = Progress::of_bytes("sent", None);
    for blocks in &args.roll_up {
        let rolling = repository.roll_up(*blocks, &identities, &how);
        let rolling = following(&mut progress, || config.meter.written(), rolling);
        let made = interrupt.or(rolling).await?.map_err(Failure::Backup)?;
        answer.rolled_up.extend(made.iter().map(Point::of));
    }
    let mut passed_over = Vec::new();
    if args.fold {
        let folding = fold(&repository, &identities, &how);
        let folding = following(&mut progress, || config.meter.written(), folding);
        if let Some(folded) = interrupt.or(folding).await?.map_err(Failure::Backup)? {
            answer.folded = Some(Point::of(&folded.base));
            passed_over = folded.passed_over;
        }
    }
    tell(&repository);
    for error in passed_over {
        note(&format!("not used, others have the same blocks: {error}"));
    }
    let mut text = format!(
        "{} restore points were written of the changes of others",
        answer.rolled_up.len()
    );
    if let Some(folded) = &answer.folded {
        text = format!("{text}; {}", folded.text());
    }
    report.answer(&answer, &text)
}
