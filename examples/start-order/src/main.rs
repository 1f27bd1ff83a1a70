//! Services that start when what they need is ready.

mod run;
mod services;
mod stand_in;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use groundtackle_health_check::Scheduler;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::services::{Services, listed, path};
use crate::stand_in::StandIn;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// Start services when what they need is ready. Exit code 1: one did not start, or ended by itself; 2: the file or a flag is wrong.
#[derive(Debug, Parser)]
#[command(version)]
enum Cli {
    /// Show the order, who waits for whom, and which services decide how long it takes.
    Plan { file: PathBuf },
    /// Start all services and stop them at SIGTERM, in reverse.
    Run { file: PathBuf },
    /// Wait until all that a service needs is ready: for its own start script, or an init container.
    Wait {
        file: PathBuf,
        service: String,
        /// How long.
        #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5m")]
        within: Duration,
    },
    /// A service to try it with.
    StandIn(StandIn),
}

pub fn duration(text: &str) -> Result<Duration, Fault> {
    Ok(text.parse::<jiff::SignedDuration>()?.try_into()?)
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Plan { file } => Services::read(&file).map(|services| plan(&services)),
        Cli::Run { file } => run(&file).await,
        Cli::Wait {
            file,
            service,
            within,
        } => wait(&file, &service, within).await,
        Cli::StandIn(service) => match stand_in(service).await {
            Ok(false) => return ExitCode::from(3),
            served => served,
        },
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn run(file: &Path) -> Result<bool, Fault> {
    let services = Services::read(file)?;
    run::run(&services, asked_to_stop()?).await
}

async fn stand_in(service: StandIn) -> Result<bool, Fault> {
    service.serve(asked_to_stop()?).await
}

fn plan(services: &Services) -> bool {
    let ready = services.planned();
    for (of, number) in services.iter().zip(1..) {
        let at = ready.get(&of.name).copied().unwrap_or_default();
        println!(
            "{number}. {}: needs {}; ready after {at:.1?}; it holds up {}",
            of.name,
            listed(&of.depends_on),
            listed(services.held_up_by(&of.name))
        );
    }
    println!(
        "critical path: {}",
        path(&services.critical_path(&ready), &ready)
    );
    true
}

async fn wait(file: &Path, name: &str, within: Duration) -> Result<bool, Fault> {
    let needed = Services::read(file)?.needed_by(name)?;
    let health = run::health(&needed)?;
    let _scheduler = Scheduler::start(&health);
    let until = Instant::now() + within;
    loop {
        let view = health.view();
        if view.waiting_for.is_empty() {
            return Ok(true);
        }
        if Instant::now() >= until {
            for of in &view.waiting_for {
                println!(
                    "{name} waits for {} ({}), which holds up {}",
                    of.name,
                    of.cause,
                    listed(needed.held_up_by(&of.name))
                );
            }
            return Ok(false);
        }
        sleep(Duration::from_millis(50)).await;
    }
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
