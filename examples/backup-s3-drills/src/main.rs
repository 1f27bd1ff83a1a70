//! A UTXO store, backed up to S3 on a schedule, with drills.

mod backups;
mod blocks;
mod failure;
mod keys;
mod settings;

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use groundtackle_backup::At;
use groundtackle_backup_utxo::Journaled;
use groundtackle_utxo_store::{MaintenanceStore, UtxoStore};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use tracing_subscriber::EnvFilter;

use crate::backups::Backups;
use crate::failure::{Failure, Result, While};
use crate::settings::Settings;

const USAGE: &str = "usage: backup-s3-drills init | once | run | drill | restore PATH [HEIGHT]";

/// With the journal around it: backups after the first are what blocks changed.
async fn store(settings: &Settings) -> Result<Arc<dyn UtxoStore>> {
    let opening = || format!("opening the store {}", settings.store.display());
    let store = EmbeddedUtxoStore::open(&settings.store, EmbeddedUtxoStoreConfig::default());
    let store = store.when(opening())?;
    store.recover().await.when(opening())?;
    let journaled = Journaled::open(store, &settings.journal).await;
    Ok(Arc::new(journaled.when("opening the journal")?))
}

async fn round(backups: &Backups, store: &Arc<dyn UtxoStore>, settings: &Settings) -> Result<()> {
    let connected = blocks::connect(&**store, settings).await;
    // What was connected before is backed up in any case.
    backups
        .round(store, settings)
        .await
        .and(connected.map(drop))
}

async fn run(settings: &Settings) -> Result<()> {
    let (backups, store) = (
        Backups::open(settings, false).await?,
        store(settings).await?,
    );
    let mut every = tokio::time::interval(settings.every);
    loop {
        tokio::select! {
            stop = tokio::signal::ctrl_c() => return stop.when("waiting for the end"),
            _ = every.tick() => {}
        }
        // A round that is dropped is listed as a whole or not at all.
        tokio::select! {
            stop = tokio::signal::ctrl_c() => return stop.when("waiting for the end"),
            done = round(&backups, &store, settings) => if let Err(failure) = done {
                tracing::error!(exit_code = failure.exit_code(), "{}", failure.told());
            }
        }
    }
}

async fn restore(settings: &Settings, into: &str, height: Option<&str>) -> Result<()> {
    let wrong = |_| Failure::Config("HEIGHT is a whole number".into());
    let at = height
        .map(str::parse)
        .transpose()
        .map_err(wrong)?
        .map_or(At::Latest, At::Height);
    let backups = Backups::open(settings, false).await?;
    let store = EmbeddedUtxoStore::open(Path::new(into), EmbeddedUtxoStoreConfig::default());
    let store = Arc::new(store.when(format_args!("opening {into}"))?);
    let restored = backups.restore(store, at).await?;
    let mut muhash = restored.goal.set.muhash;
    muhash.0.reverse();
    println!(
        "restored height {} with {} coins, muhash {muhash}",
        restored.goal.position.height, restored.goal.set.coins
    );
    Ok(())
}

async fn command(args: &[&str]) -> Result<()> {
    let settings = Settings::read()?;
    match args {
        ["init"] => {
            let identities = settings.recipients.with_file_name("identities.txt");
            if !settings.signer.exists() {
                keys::make(&settings.signer, &settings.recipients, &identities)?;
                println!(
                    "made {}: keep it elsewhere, it reads every backup",
                    identities.display()
                );
            }
            Backups::open(&settings, true).await.map(drop)
        }
        ["once"] => {
            let (backups, store) = (
                Backups::open(&settings, false).await?,
                store(&settings).await?,
            );
            round(&backups, &store, &settings).await
        }
        ["run"] => run(&settings).await,
        ["drill"] => {
            let backups = Backups::open(&settings, false).await?;
            let drilled = backups.drill(&settings, false).await;
            drilled.and(backups.tell(&settings).await)
        }
        ["restore", into] => restore(&settings, into, None).await,
        ["restore", into, height] => restore(&settings, into, Some(height)).await,
        _ => Err(Failure::Config(USAGE.into())),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let args: Vec<_> = env::args().skip(1).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match command(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!(exit_code = failure.exit_code(), "{}", failure.told());
            failure.exit_code().into()
        }
    }
}
