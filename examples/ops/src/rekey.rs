//! Wraps the keys of restore points to others; no data is written again.

use clap::Args;
use groundtackle_backup::Manifest;
use serde::Serialize;

use crate::backup::ConfigFile;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, tell};
use crate::prune::Name;
use crate::report::Report;

#[derive(Debug, Args)]
pub struct RekeyArgs {
    /// Only these restore points, by their names, and what they need. Default: all of the stream.
    #[arg(long = "point", value_name = "NAME")]
    points: Vec<Name>,
    /// Remove what was wrapped by earlier calls. What the backup itself wrapped stays: only a new backup, under a new key, is out
    /// of the reach of those who could read the old one.
    #[arg(long)]
    remove_old: bool,
}

#[derive(Default, Serialize)]
struct Rekeyed {
    /// Restore points that have new readers.
    rekeyed: u64,
    /// Those that had them already.
    unchanged: u64,
    /// Wrappings that were removed.
    removed: u64,
}

pub async fn rekey(
    file: &ConfigFile,
    args: &RekeyArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let (signer, identities) = (config.signer()?, config.identities()?);
    let recipients = config.recipients()?;
    let wanted = sorted(recipients.recipients());
    // What can't be used stays as it is: the others are wrapped all the same.
    let (repository, points) = config.points(For::Changing, true).await?;
    let named = |point: &&Manifest| {
        args.points.is_empty() || args.points.iter().any(|name| name.0 == point.point)
    };
    let mut needed = Vec::new();
    for point in points.usable.iter().filter(named) {
        needed.extend(points.needs(point).map_err(Failure::Backup)?);
    }
    if let Some(unknown) = args.points.iter().find(|name| !needed.contains(&name.0)) {
        return Err(Failure::Config(format!(
            "there is no restore point {} in the stream {}: ops backup list shows them",
            unknown.0, config.stream
        )));
    }
    let mut answer = Rekeyed::default();
    let all = points.usable.iter().chain(&points.forgotten);
    for point in all.filter(|point| needed.contains(&point.point)) {
        interrupt.check()?;
        let readers = repository.readers(point).await;
        if sorted(readers.map_err(Failure::Backup)?) == wanted {
            answer.unchanged += 1;
        } else {
            let wrapped = repository.rekey(point, &identities, &recipients, &signer);
            wrapped.await.map_err(Failure::Backup)?;
            answer.rekeyed += 1;
        }
        if args.remove_old {
            let removed = repository.remove_old_wrappings(point, &identities).await;
            answer.removed += removed.map_err(Failure::Backup)?;
        }
    }
    tell(&repository);
    let text = format!(
        "{} restore points can be read by the recipients of the config now, {} could before; {} older wrappings were removed",
        answer.rekeyed, answer.unchanged, answer.removed
    );
    report.answer(&answer, &text)
}

fn sorted(mut recipients: Vec<String>) -> Vec<String> {
    recipients.sort();
    recipients
}
