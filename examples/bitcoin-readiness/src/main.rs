//! The readiness of a Bitcoin-family node, told by a small process beside it.

mod checks;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use groundtackle_core::Secret;
use groundtackle_health_check::{Health, Heartbeat, Name, Scheduler, SystemClock};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{interval, timeout};

use crate::checks::{Fault, Watched};

/// From so long without a beat on, the process is dead.
const SILENCE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_secs(1);

/// How long answers that are under way are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serve /livez, /readyz, /startupz, /health, /status and /metrics of a Bitcoin-family node, until SIGTERM.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    watched: Watched,
    /// Where to listen.
    #[arg(
        long,
        env = "LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Who sends this as a bearer token sees causes and metrics. On a loopback address everybody does.
    #[arg(
        long,
        env = "OPERATOR_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    operator_token: Option<Secret>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let cli = Cli::parse();
    let heartbeat = Heartbeat::new(Arc::new(SystemClock), SILENCE);
    let (code, ran) = match health(&cli, &heartbeat) {
        Ok(health) => (1, serve(&cli, health, heartbeat).await),
        Err(error) => (2, Err(error)),
    };
    let failed = ran.inspect_err(|error| tracing::error!("{error}")).is_err();
    ExitCode::from(if failed { code } else { 0 })
}

fn health(cli: &Cli, heartbeat: &Heartbeat) -> Result<Health, Fault> {
    let checks = cli.watched.builder()?;
    let itself = Name::try_from("main loop")?;
    Ok(checks.liveness(itself, heartbeat.clone()).build()?)
}

async fn serve(cli: &Cli, health: Health, heartbeat: Heartbeat) -> Result<(), Fault> {
    let http = HttpHealthConfig::default()
        .with_title("Bitcoin node".into())
        .with_operator_token(cli.operator_token.clone().unwrap_or_default())
        .with_all_are_operators(cli.listen.ip().is_loopback());
    let listener = TcpListener::bind(cli.listen).await?;
    let at = listener.local_addr()?;
    let (stop, no_more_requests) = (asked_to_stop()?, asked_to_stop()?);
    let scheduler = Scheduler::start(&health);
    tracing::info!("serving, see http://{at}/status");
    let mut server = tokio::spawn(
        axum::serve(listener, router(health, http))
            .with_graceful_shutdown(no_more_requests)
            .into_future(),
    );
    tokio::pin!(stop);
    let mut beats = interval(BEAT);
    loop {
        tokio::select! {
            () = &mut stop => break,
            ended = &mut server => return Ok(ended??),
            _ = beats.tick() => heartbeat.beat(),
        }
    }
    scheduler.stop().await?;
    // Who still reads then is cut off.
    if let Ok(ended) = timeout(LAST_ANSWERS, server).await {
        ended??;
    }
    Ok(())
}

/// From now on these signals don't end the process by themselves.
fn asked_to_stop() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
