//! Forgets restore points that are kept long enough, and removes what nobody needs any more.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use groundtackle_backup::{Chosen, Hex, PruneOptions, Turn};
use serde::Serialize;

use crate::backup::ConfigFile;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::places::{For, give_back, tell};
use crate::report::Report;

#[derive(Debug, Default, Args)]
pub struct ForgetArgs {
    /// Forget these restore points, by their names. Default: what the config does not keep.
    #[arg(long = "point", value_name = "NAME")]
    points: Vec<Name>,
    /// Say what would be forgotten, and forget nothing.
    #[arg(long)]
    dry_run: bool,
    /// Offer the restore points again that --point names; what was pruned does not come back.
    #[arg(long, requires = "points", conflicts_with = "dry_run")]
    undo: bool,
}

/// A restore point's, as list shows it.
#[derive(Clone, Copy, Debug)]
pub struct Name(pub Hex<16>);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.parse().map(Self);
        name.map_err(|_| format!("{text:?} is no restore point's name: list shows them"))
    }
}

#[derive(Serialize)]
struct Forgot {
    /// Absent where points were named.
    #[serde(flatten)]
    chosen: Option<Chosen>,
    /// Not forgotten before.
    forgotten: u64,
    dry_run: bool,
}

pub async fn forget(file: &ConfigFile, args: &ForgetArgs, report: Report) -> Result<()> {
    let config = file.read()?;
    let signer = config.signer()?;
    let named: Vec<_> = args.points.iter().map(|name| name.0).collect();
    if args.undo {
        let repository = config.repository(For::Changing).await?;
        let undone = repository.unforget(&named).await;
        let undone = undone.map_err(Failure::Backup)?;
        #[derive(Serialize)]
        struct Undone {
            offered_again: u64,
        }
        return report.answer(
            &Undone {
                offered_again: undone,
            },
            &format!("{undone} restore points are offered again"),
        );
    }
    let (repository, go, chosen) = if named.is_empty() {
        let retention = config.retention.as_ref().ok_or_else(|| {
            Failure::Config(
                "nothing says what to keep: write a table [retention], or name restore points with --point".into(),
            )
        })?;
        // What can't be used may be the last one.
        let (repository, points) = config.points(For::Writing, false).await?;
        let chosen = retention.choose(&points, &config.stream);
        let chosen = chosen.map_err(|error| Failure::Config(error.to_string()))?;
        (repository, chosen.go.clone(), Some(chosen))
    } else {
        (config.repository(For::Writing).await?, named, None)
    };
    let forgotten = match args.dry_run {
        true => 0,
        false => {
            let forgetting = repository.forget(&go, &signer).await;
            forgetting.map_err(Failure::Backup)?
        }
    };
    let mut text = String::new();
    if let Some(chosen) = &chosen {
        text = format!(
            "{} restore points are kept, {} more as these need them; ",
            chosen.keep.len(),
            chosen.needed.len()
        );
    }
    text += &match args.dry_run {
        true => format!("{} would be forgotten", go.len()),
        false => format!("{forgotten} forgotten: ops backup prune removes them"),
    };
    for point in go.iter().filter(|_| args.dry_run) {
        text += &format!("\n{point}");
    }
    let answer = Forgot {
        chosen,
        forgotten,
        dry_run: args.dry_run,
    };
    report.answer(&answer, &text)
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Remove what was forgotten so long ago: a number and s, m, h or d. Below 24h it needs --nobody-else-writes.
    #[arg(long, value_name = "TIME", default_value = "48h")]
    grace: Grace,
    /// State that no other process backs up to this repository, forgets or prunes until this one ends. Where that is wrong,
    /// restore points are lost.
    #[arg(long)]
    nobody_else_writes: bool,
    /// Say what would go, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Grace(Duration);

impl PruneArgs {
    /// Beside others.
    pub const fn unattended() -> Self {
        Self {
            grace: Grace(Duration::from_secs(48 * 60 * 60)),
            nobody_else_writes: false,
            dry_run: false,
        }
    }
}

impl FromStr for Grace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
        let seconds = units.iter().find_map(|(unit, seconds)| {
            let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
            number.checked_mul(*seconds)
        });
        let time = seconds.map(|seconds| Self(Duration::from_secs(seconds)));
        time.ok_or_else(|| format!("{text:?} is no time: write 48h, or 2d"))
    }
}

#[derive(Serialize)]
struct PruneAnswer {
    points: u64,
    packs: u64,
    bytes: u64,
    needed: u64,
    later: u64,
    unfinished: u64,
    dry_run: bool,
}

pub async fn prune(
    file: &ConfigFile,
    args: &PruneArgs,
    report: Report,
    interrupt: &mut Interrupt,
) -> Result<()> {
    let config = file.read()?;
    let repository = config.repository(For::Changing).await?;
    let mut options = PruneOptions::new().with_grace(args.grace.0);
    if args.nobody_else_writes {
        options = options.nobody_else_writes();
    }
    if args.dry_run {
        options = options.dry_run();
    }
    let lease = match &config.lease {
        Some(lease) => {
            let signer = config.signer()?;
            Some(lease.take(&repository, Turn::Prune, &signer).await?)
        }
        None => None,
    };
    // It may be dropped: the next one goes on.
    let pruned = match &lease {
        Some(lease) => {
            let under = repository.under(lease.clone());
            interrupt.or(lease.keep(under.prune(&options))).await
        }
        None => interrupt.or(repository.prune(&options)).await,
    };
    give_back(lease).await;
    tell(&repository);
    let pruned = pruned?.map_err(Failure::Backup)?;
    let answer = PruneAnswer {
        points: pruned.points,
        packs: pruned.packs,
        bytes: pruned.bytes,
        needed: pruned.needed,
        later: pruned.later,
        unfinished: pruned.unfinished,
        dry_run: args.dry_run,
    };
    let verb = if args.dry_run { "would be" } else { "were" };
    let text = format!(
        "{} restore points and {} objects of {} bytes {verb} removed, and {} unfinished uploads; {} restore points are still \
         needed by others, {} objects can't be removed yet",
        answer.points, answer.packs, answer.bytes, answer.unfinished, answer.needed, answer.later
    );
    report.answer(&answer, &text)
}
