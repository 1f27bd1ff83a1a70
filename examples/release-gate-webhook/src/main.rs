//! The release gate as a webhook.

mod config;
mod github;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use axum::Router;
use clap::Parser;
use groundtackle_core::Secret;
use groundtackle_release_gate::{Entry, FileLog, PublicKey};
use groundtackle_release_gate_github::{GitHub, WebhookSecret};
use groundtackle_release_gate_http::{HttpGateConfig, Webhook, router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Answer whether a release may go out, and keep a signed log of the answers.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    /// Answer until SIGTERM.
    Serve {
        /// gate.toml documents its keys.
        #[arg(default_value = "gate.toml")]
        config: PathBuf,
    },
    /// Verify a log without anybody's help, and list its answers.
    Verify {
        /// The log; its head is beside it, in a file with `.head` after its name.
        log: PathBuf,
        /// A public key whose records count, as `serve` says it. May be given several times.
        #[arg(long = "trust", value_name = "KEY", required = true)]
        trusted: Vec<PublicKey>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let done = match Cli::parse() {
        Cli::Serve { config } => serve(&config).await,
        Cli::Verify { log, trusted } => verify(&log, &trusted),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = error.source().map(|cause| format!(": {cause}"));
            tracing::error!("{error}{}", cause.unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}

async fn serve(path: &Path) -> Result<(), Fault> {
    let config = Config::read(path)?;
    let signer = config.signer()?;
    tracing::info!("records are signed by {}", signer.public());
    let (log, _) = FileLog::open(&config.log, signer, &[])?;
    let mut sources = config.sources();
    let hub = match &config.github {
        Some(rule) => {
            let secret: Secret = config::secret(&rule.secret)?;
            let secret = WebhookSecret::try_from(secret)?;
            let github = Arc::new(GitHub::from(rule.app.clone()));
            if rule.as_evidence {
                sources.push(github.clone());
            }
            github::routes(github::Rule {
                secret,
                takes: rule.takes,
                github,
                gate: config.gate()?,
                sources: sources.clone(),
                log: log.clone(),
            })
        }
        None => Router::new(),
    };
    let webhook = Webhook::new(config.gate()?, sources, Arc::new(log));
    let http = HttpGateConfig::default().with_token(config.token()?);
    let listener = TcpListener::bind(config.listen).await?;
    let stop = asked_to_stop()?;
    tracing::info!("serving at http://{}", listener.local_addr()?);
    axum::serve(listener, router(webhook, http).merge(hub))
        .with_graceful_shutdown(stop)
        .await?;
    Ok(())
}

fn verify(log: &Path, trusted: &[PublicKey]) -> Result<(), Fault> {
    let verified = FileLog::read(log, trusted)?;
    for record in &verified.records {
        if let Entry::Decision { decision, .. } = &record.entry {
            let request = &decision.request;
            println!(
                "{} {} {}: {} of {} {} to {} by {}",
                record.sequence,
                record.at,
                decision.verdict,
                request.action,
                request.name,
                request.tag,
                request.environment,
                request.actor
            );
        }
    }
    println!(
        "{} records, the last one {}",
        verified.head.records, verified.head.digest
    );
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
