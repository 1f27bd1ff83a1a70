//! Fills, inspects and rewinds a UTXO store that a URL names, writes and reads snapshots of it, backs it up, and watches services. README.md
//! says how to copy it.

mod away;
mod backup;
mod checks;
mod compact;
mod copy;
mod demo;
mod drill;
mod failure;
mod gate;
mod get;
mod health;
mod interrupt;
mod places;
mod prune;
mod rekey;
mod report;
mod rewind;
mod snapshot;
mod stats;
mod stores;
mod sync;
#[cfg(target_os = "linux")]
mod trees;
mod watch;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use groundtackle_backup_utxo::Journaled;
use groundtackle_chain::Network;
use groundtackle_core::ByteSize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::failure::{Exit, Result};
use crate::get::Target;
use crate::interrupt::Interrupt;
use crate::report::Report;
use crate::stores::{Missing, StoreUrl};

/// Shown by --help and in README.md.
const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  the answer is no: the demo's digest differs, the store has no such transaction or output, a drill
       failed or was missed, or a service is not ready
    2  the command line or a config is wrong, lacks what a snapshot does not say, or asks for a height that
       the store or the restore points do not have
   65  bad data: block files, a snapshot, a block that the store refuses, a damaged store or restore point
   66  not found: block files, a snapshot, a config, a repository, or a store to read from
   69  the store can't be used like this: a newer version wrote it, it was made with other options, it is
       an unfinished copy, not empty where it must be, or has coins that no snapshot can hold; no key at hand
       opens a restore point, or nobody trusted signed it
   73  the store or the file could not be created, or the file is there already
   74  reading or writing failed, a full disk included
   75  the store is in use or overloaded: try again later
  130  interrupted (SIGINT or SIGTERM); what was connected is kept";

/// Fill, inspect and rewind a UTXO store.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, propagate_version = true)]
struct Cli {
    /// Print JSON, one object a line, on standard output, and all else on standard error.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Connect main net blocks 0 to 599, and compare the set's digests with the known answer.
    Demo {
        /// The store to fill. Default: an embedded store in a temporary folder.
        #[arg(long, value_name = "URL")]
        store: Option<StoreUrl>,
    },
    /// Work on a UTXO store.
    #[command(subcommand)]
    Utxo(Utxo),
    /// Write and read snapshots of the set, as Bitcoin Core's dumptxoutset and loadtxoutset.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Ask a policy whether an artefact may go out, and keep the signed record.
    #[command(subcommand)]
    Gate(gate::Gate),
    /// Keep encrypted restore points of a store.
    #[command(subcommand)]
    Backup(Backup),
    /// Look at what a service needs: each check on its own schedule, and each change on a line, until SIGINT or SIGTERM.
    #[command(after_help = EXIT_CODES)]
    Health(health::HealthArgs),
    /// Serve probes for Kubernetes, metrics for Prometheus and a status page, until SIGINT or SIGTERM.
    #[command(after_help = EXIT_CODES)]
    Serve {
        #[command(flatten)]
        config: health::ConfigFile,
    },
    /// Fill a new store with the set at any height that restore points reach; goes on where an interrupted restore
    /// stopped. Or a new directory with a tree, a PostgreSQL cluster or a dump.
    #[command(after_help = EXIT_CODES)]
    Restore {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: backup::RestoreArgs,
        /// The store to fill: a new or an empty one, or an unfinished restore.
        #[arg(long, value_name = "URL")]
        #[cfg_attr(
            target_os = "linux",
            arg(
                conflicts_with = "into_directory",
                required_unless_present = "into_directory"
            )
        )]
        into: Option<StoreUrl>,
        #[cfg(target_os = "linux")]
        #[command(flatten)]
        directory: trees::Directory,
    },
}

#[derive(Debug, Subcommand)]
enum Backup {
    /// Make a repository, and the signer's key if there is none.
    #[command(after_help = EXIT_CODES)]
    Init {
        #[command(flatten)]
        config: backup::ConfigFile,
    },
    /// Make a restore point: what blocks changed since the last one if the journal has it all, otherwise the whole set. Of a
    /// tree, a PostgreSQL cluster or a dump: what no restore point has.
    #[command(after_help = EXIT_CODES)]
    Run {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: backup::RunArgs,
    },
    /// Show the restore points, oldest first.
    #[command(after_help = EXIT_CODES)]
    List {
        #[command(flatten)]
        config: backup::ConfigFile,
    },
    /// Look whether all restore points are as they were written.
    #[command(after_help = EXIT_CODES)]
    Check {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: backup::CheckArgs,
    },
    /// Restore for practice, at a level from a look at the chain to a store that is asked; signed evidence stays in the
    /// repository.
    #[command(after_help = EXIT_CODES)]
    Drill {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: drill::DrillArgs,
    },
    /// Show and verify the evidence of drills, and figures to watch.
    #[command(after_help = EXIT_CODES)]
    Evidence {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: drill::EvidenceArgs,
    },
    /// Offer restore points no more: those that the config does not keep, or those that are named.
    #[command(after_help = EXIT_CODES)]
    Forget {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: prune::ForgetArgs,
    },
    /// Write changes of blocks together in fewer restore points, and with --fold the latest set as a whole one, without the
    /// store.
    #[command(after_help = EXIT_CODES)]
    Compact {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: compact::CompactArgs,
    },
    /// Let the recipients of the config read the restore points that are there; no data is written again.
    #[command(after_help = EXIT_CODES)]
    Rekey {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: rekey::RekeyArgs,
    },
    /// Back up on a schedule, hold the drills that are due, forget and prune, until SIGINT or SIGTERM.
    #[command(after_help = EXIT_CODES)]
    Watch {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: watch::WatchArgs,
    },
    /// Remove what was forgotten long enough ago and nobody needs, also beside backups and restores.
    #[command(after_help = EXIT_CODES)]
    Prune {
        #[command(flatten)]
        config: backup::ConfigFile,
        #[command(flatten)]
        args: prune::PruneArgs,
    },
}

#[derive(Debug, Subcommand)]
enum Snapshot {
    /// Write the set at the tip to a file, byte for byte as Bitcoin Core does.
    #[command(after_help = EXIT_CODES)]
    Export {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        export: snapshot::ExportArgs,
    },
    /// Fill a new store from a file, once its digest is the one expected; goes on where an interrupted
    /// import stopped.
    #[command(after_help = EXIT_CODES)]
    Import {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        import: snapshot::ImportArgs,
    },
}

#[derive(Debug, Subcommand)]
enum Utxo {
    /// Connect blocks from files, going on after the store's tip; makes the store if there is none.
    #[command(after_help = EXIT_CODES)]
    Sync {
        #[command(flatten)]
        store: Store,
        #[command(flatten)]
        options: SyncOptions,
    },
    /// Count the set and compute its digests, as Bitcoin Core's gettxoutsetinfo.
    #[command(after_help = EXIT_CODES)]
    Stats {
        #[command(flatten)]
        store: Store,
    },
    /// Take blocks back, down to a height.
    #[command(after_help = EXIT_CODES)]
    Rewind {
        #[command(flatten)]
        store: Store,
        /// The height to end at.
        #[arg(long, value_name = "HEIGHT")]
        to: u32,
    },
    /// Copy the set at the tip from one store to a new one, and compare the digests; goes on where an
    /// interrupted copy stopped.
    #[command(after_help = EXIT_CODES)]
    Copy {
        /// The store to copy from.
        #[arg(long, value_name = "URL")]
        from: StoreUrl,
        /// The store to copy to: a new or an empty one, or an unfinished copy.
        #[arg(long, value_name = "URL")]
        to: StoreUrl,
    },
    /// Show a transaction's record, or one of its outputs.
    #[command(after_help = EXIT_CODES)]
    Get {
        #[command(flatten)]
        store: Store,
        /// What to show.
        #[arg(value_name = "TXID[:VOUT]")]
        target: Target,
    },
}

#[derive(Debug, Args)]
struct Store {
    /// The store: embedded:PATH, postgres://USER:PASSWORD@HOST/DATABASE, rediss://USER:PASSWORD@HOST,
    /// rediss+cluster://USER:PASSWORD@HOST,HOST, aerospike://HOST/NAMESPACE/SET, or
    /// memory: for one that is gone when the command ends. Options of the adapter may follow: embedded:PATH?durability=block&cache=1GiB.
    #[arg(long = "store", value_name = "URL")]
    url: StoreUrl,
}

#[derive(Debug, Args)]
pub struct SyncOptions {
    /// Bitcoin Core's blocks directory, or block files in any order; raw blocks and hexadecimal
    /// text, too. Headers of the ten blocks before the store's tip must be among them.
    #[arg(long, value_name = "PATH", required = true, value_delimiter = ',')]
    blocks: Vec<PathBuf>,
    /// The network: main, testnet3, testnet4, signet or regtest.
    #[arg(long, default_value_t)]
    network: Network,
    /// The height to end at. Default: the end of the chain of most work.
    #[arg(long, value_name = "HEIGHT")]
    to: Option<u32>,
    /// Make the store durable after so many blocks; a crash of the machine costs no more.
    #[arg(long, value_name = "BLOCKS", default_value = "500")]
    flush_every: NonZeroU32,
    /// Refuse larger blocks, so that a file which claims one takes no memory.
    #[arg(long, value_name = "SIZE", default_value = "32MiB")]
    max_block_size: ByteSize,
    /// Write down in this folder what each block changes, so that backups can be deltas. All that changes the store must
    /// name it.
    #[arg(long, value_name = "PATH")]
    journal: Option<PathBuf>,
    /// Take a record that its file cuts short for the end: for copies of a running node's files.
    #[arg(long)]
    partial_tail: bool,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Its low codes are answers, and a wrong command line is none.
        Err(error) if error.use_stderr() && asks_the_gate() => {
            // There is nobody to tell of a failure.
            let _ = error.print();
            return ExitCode::from(gate::USAGE);
        }
        Err(error) => error.exit(),
    };
    log();
    if let Command::Gate(gate) = &cli.command {
        return gate::run(gate, Report { json: cli.json });
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            report::note(&format!(
                "error: no threads to work with\n  because: {error}"
            ));
            return Exit::Io.into();
        }
    };
    let result = runtime.block_on(run(cli));
    // A read that nobody waits for must not delay the end.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit().into()
        }
    }
}

fn asks_the_gate() -> bool {
    let mut words = std::env::args_os().skip(1);
    words
        .find(|word| word != "--json")
        .is_some_and(|word| word == "gate")
}

async fn run(cli: Cli) -> Result<()> {
    let report = Report { json: cli.json };
    match cli.command {
        // Answered before, with codes of its own.
        Command::Gate(_) => Ok(()),
        Command::Demo { store } => demo::run(store, report, &mut Interrupt::listen()?).await,
        Command::Utxo(Utxo::Sync { store, options }) => {
            let mut interrupt = Interrupt::listen()?;
            let store = stores::open(&store.url, Missing::Create).await?;
            match &options.journal {
                Some(folder) => {
                    let store = Journaled::open(store, folder).await?;
                    sync::run(&store, &options, report, &mut interrupt).await
                }
                None => sync::run(&*store, &options, report, &mut interrupt).await,
            }
        }
        Command::Utxo(Utxo::Stats { store }) => {
            let store = stores::open(&store.url, Missing::Refuse).await?;
            stats::run(&*store, report).await
        }
        Command::Utxo(Utxo::Rewind {
            store: Store { url },
            to,
        }) => {
            let mut interrupt = Interrupt::listen()?;
            let store = stores::open(&url, Missing::Refuse).await?;
            rewind::run(&*store, to, report, &mut interrupt).await
        }
        Command::Utxo(Utxo::Copy { from, to }) => {
            let mut interrupt = Interrupt::listen()?;
            let from = stores::open(&from, Missing::Refuse).await?;
            let to = stores::open_unfinished(&to, Missing::Create).await?;
            copy::run(&*from, &*to, report, &mut interrupt).await
        }
        Command::Snapshot(Snapshot::Export { store, export }) => {
            let mut interrupt = Interrupt::listen()?;
            let store = stores::open(&store.url, Missing::Refuse).await?;
            snapshot::export(&*store, &export, report, &mut interrupt).await
        }
        Command::Snapshot(Snapshot::Import { store, import }) => {
            let mut interrupt = Interrupt::listen()?;
            let file = import.open().await?;
            let store = stores::open_unfinished(&store.url, Missing::Create).await?;
            import.run(&file, &*store, report, &mut interrupt).await
        }
        Command::Health(args) => health::health(&args, report, &mut Interrupt::listen()?).await,
        Command::Serve { config } => {
            health::serve(&config, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Init { config }) => backup::init(&config, report).await,
        Command::Backup(Backup::Run { config, args }) => {
            let mut interrupt = Interrupt::listen()?;
            backup::run(&config, &args, report, &mut interrupt).await
        }
        Command::Backup(Backup::List { config }) => backup::list(&config, report).await,
        Command::Backup(Backup::Check { config, args }) => {
            backup::check(&config, &args, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Drill { config, args }) => {
            drill::drill(&config, &args, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Evidence { config, args }) => {
            drill::evidence(&config, &args, report).await
        }
        Command::Backup(Backup::Forget { config, args }) => {
            prune::forget(&config, &args, report).await
        }
        Command::Backup(Backup::Compact { config, args }) => {
            compact::compact(&config, &args, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Rekey { config, args }) => {
            rekey::rekey(&config, &args, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Watch { config, args }) => {
            watch::watch(&config, &args, report, &mut Interrupt::listen()?).await
        }
        Command::Backup(Backup::Prune { config, args }) => {
            prune::prune(&config, &args, report, &mut Interrupt::listen()?).await
        }
        #[cfg(target_os = "linux")]
        Command::Restore {
            config,
            args,
            directory,
            into: None,
        } => {
            let mut interrupt = Interrupt::listen()?;
            let path = directory.into_directory.clone().unwrap_or_default();
            trees::restore(&config, &args, &directory, path, report, &mut interrupt).await
        }
        Command::Restore {
            config, args, into, ..
        } => {
            let mut interrupt = Interrupt::listen()?;
            let into = into.ok_or_else(|| failure::Failure::Config("--into is missing".into()))?;
            let store = stores::open_unfinished(&into, Missing::Create).await?;
            backup::restore(&config, &args, store, report, &mut interrupt).await
        }
        Command::Utxo(Utxo::Get { store, target }) => {
            let store = stores::open(&store.url, Missing::Refuse).await?;
            get::run(&*store, target, report).await
        }
    }
}

/// Logs to stderr as `GROUNDTACKLE_LOG` asks, or else `RUST_LOG`; without either not at all.
fn log() {
    let wanted = ["GROUNDTACKLE_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    if let Some(wanted) = wanted {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(wanted))
            .with_writer(std::io::stderr)
            // A call to the store is a span: its end says how long it took.
            .with_span_events(FmtSpan::CLOSE)
            .init();
    }
}
