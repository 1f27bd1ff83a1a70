//! A service that keeps a UTXO store, backs it up, proves that it restores, and says how it is. README.md says how to copy it.

mod backup;
mod blocks;
mod config;
mod failure;
mod gate;
mod health;
mod keys;
mod shutdown;
mod store;
mod telemetry;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use groundtackle_health_check::{Health, Heartbeat, Observation, Scheduler, SystemClock};
use groundtackle_health_check_grpc::{GrpcHealthConfig, service};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use tonic::transport::server::TcpIncoming;

use crate::backup::Backups;
use crate::blocks::Feeder;
use crate::config::Config;
use crate::failure::{Failure, Result, While};
use crate::shutdown::Stop;

/// How long requests that are under way are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Keep a UTXO store, back it up, prove that it restores, and say how it is, until SIGTERM.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The config; node-service.toml documents its keys. Default: what that file says.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Read the config and end: with 0, or with 2 and what is wrong with it. Nothing it names is opened.
    #[arg(long)]
    check: bool,
    /// The folder for all that the service writes, instead of the config's.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where to serve HTTP, instead of where the config says.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Where to serve gRPC, instead of where the config says.
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<SocketAddr>,
}

fn main() -> ExitCode {
    let ran = run(Cli::parse());
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The log may not have begun, or be for machines.
            eprintln!("error: {failure}");
            failure.exit()
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let mut config = match &cli.config {
        Some(path) => Config::read(path)?,
        None => Config::default(),
    };
    if cli.check {
        return Ok(());
    }
    config.data = cli.data.unwrap_or(config.data);
    config.http.listen = cli.http.unwrap_or(config.http.listen);
    config.grpc.listen = cli.grpc.unwrap_or(config.grpc.listen);
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    let runtime = threads.enable_all().build().when("starting threads")?;
    let ran = runtime.block_on(async {
        let telemetry = telemetry::start(&config)?;
        let limit = config.telemetry.timeout.saturating_mul(2);
        let ran = serve(config).await;
        if let Err(failure) = &ran {
            tracing::error!(error = %failure, "the service ends");
        }
        // The runtime has to go on while it sends.
        let stopping = tokio::task::spawn_blocking(|| telemetry.stop());
        drop(timeout(limit, stopping).await);
        ran
    });
    // A read that nobody waits for must not delay the end.
    runtime.shutdown_background();
    ran
}

/// Until a signal comes, or a part of it can't go on.
async fn serve(mut config: Config) -> Result<()> {
    let mut signal = shutdown::listen().when("listening to signals")?;
    // What can't be opened ends the service: whoever started it starts it again.
    let Some(opened) = signal.or(open(&mut config)).await else {
        return Ok(());
    };
    let (store, backups) = opened?;
    let heartbeat = Heartbeat::new(Arc::new(SystemClock), health::SILENCE);
    let health = health::build(&mut config, &store, &backups, &heartbeat)?;
    let itself = health.reporter(health::SERVICE).when("reporting")?;
    let routes = health::routes(&health, &config.http, &backups)?
        .nest("/gate", gate::routes(&config, &health, &backups)?);
    let (http, http_at) = listen(config.http.listen).await?;
    let (grpc, grpc_at) = listen(config.grpc.listen).await?;

    let (stopping, stop) = Stop::new();
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let told = health::notify(&health, std::mem::take(&mut config.notify))?;
    let reporter = health.reporter(health::BLOCKS).when("reporting")?;
    let feeder = Feeder::new(&mut config, store.clone(), reporter, stop.clone())?;
    tasks.spawn(health::log_changes(health.clone(), stop.clone()));
    tasks.spawn(feeder.run());
    tasks.spawn(backups.run(stop.clone()));
    tasks.spawn(serve_http(http, routes, stop.clone()));
    tasks.spawn(serve_grpc(grpc, health.clone(), stop));
    let scheduler = Scheduler::start(&health);
    tracing::info!(http = %http_at, grpc = %grpc_at, "serving, see http://{http_at}/status");

    let mut beats = interval(health::BEAT);
    let ran = loop {
        tokio::select! {
            () = signal.stopped() => break Ok(()),
            Some(ended) = tasks.join_next() => break early(ended),
            _ = beats.tick() => {
                heartbeat.beat();
                itself.report(Observation::pass());
            }
        }
    };
    itself.report(Observation::fail("stopping"));
    if ran.is_ok() {
        // Whoever sends traffic here gets time to see it.
        tokio::time::sleep(config.http.drain).await;
    }
    stopping.send_replace(true);
    let ending = async {
        while let Some(ended) = tasks.join_next().await {
            ended.when("ending a task")??;
        }
        store.flush().await.when("making the store durable")?;
        scheduler.stop().await.when("keeping the service levels")
    };
    let ended = timeout(config.stop_within, ending).await;
    drop(told);
    ran?;
    let late = |_| {
        Failure::of("not everything ended within stop_within; the store recovers when it is opened")
    };
    ended.map_err(late)??;
    tracing::info!("stopped");
    Ok(())
}

/// None of them ends before it is told to.
fn early(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.when("a task")??;
    Err(Failure::of("a task ended too early"))
}

async fn open(
    config: &mut Config,
) -> Result<(Arc<dyn groundtackle_utxo_store::UtxoStore>, Backups)> {
    fs::create_dir_all(&config.data)
        .when(format_args!("making the folder {}", config.data.display()))?;
    let store = store::open(&config.store_url()?, &config.journal()).await?;
    let backups = Backups::open(config, store.clone()).await?;
    Ok((store, backups))
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listening = || format!("listening at {at}");
    let listener = TcpListener::bind(at).await.when(listening())?;
    let at = listener.local_addr().when(listening())?;
    Ok((listener, at))
}

async fn serve_http(listener: TcpListener, routes: axum::Router, stop: Stop) -> Result<()> {
    let mut asked = stop.clone();
    let server =
        axum::serve(listener, routes).with_graceful_shutdown(async move { asked.stopped().await });
    until_answered(server.into_future(), stop).await
}

async fn serve_grpc(listener: TcpListener, health: Health, stop: Stop) -> Result<()> {
    let mut asked = stop.clone();
    let server = tonic::transport::Server::builder()
        .add_service(service(health, GrpcHealthConfig::default()))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), async move {
            asked.stopped().await;
        });
    until_answered(server, stop).await
}

/// A server that was asked to stop. Who still watches then is cut off.
async fn until_answered<E>(
    server: impl Future<Output = Result<(), E>>,
    mut stop: Stop,
) -> Result<()>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let late = async {
        stop.stopped().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    tokio::select! {
        served = server => served.when("serving"),
        () = late => Ok(()),
    }
}
