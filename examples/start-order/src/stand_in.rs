//! A service to try it with: it starts as slowly as it is told to, and says so at its own `/startupz`.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use clap::Args;
use groundtackle_health_check::{Check, Health, Name, Observation, Schedule, Scheduler, Settings};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::{Fault, duration};

#[derive(Debug, Args)]
pub struct StandIn {
    name: String,
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How long it takes to start.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ready_after: Duration,
    /// When it ends by itself, with 3. Default: never.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ends_after: Option<Duration>,
    /// A file to which it adds what happens to it. Default: none.
    #[arg(long, env = "STAND_IN_JOURNAL", value_name = "FILE")]
    journal: Option<PathBuf>,
}

#[derive(Debug)]
struct Work(Arc<AtomicBool>);

#[async_trait]
impl Check for Work {
    async fn check(&self) -> Observation {
        match self.0.load(Ordering::SeqCst) {
            true => Observation::pass(),
            false => Observation::fail("starting"),
        }
    }
}

impl StandIn {
    /// Until `stop`. Whether it ended by that.
    pub async fn serve(&self, stop: impl Future<Output = ()>) -> Result<bool, Fault> {
        self.note("starts")?;
        let done = Arc::new(AtomicBool::new(false));
        let schedule = Schedule::default()
            .with_period(Duration::from_millis(20))
            .with_timeout(Duration::from_millis(20))
            .with_successes_to_up(1);
        let settings = Settings::default().with_schedule(schedule);
        let health = Health::builder()
            .startup(Name::try_from("work")?, settings, Work(done.clone()))
            .build()?;
        let _scheduler = Scheduler::start(&health);
        let listener = TcpListener::bind(self.listen).await?;
        let server = axum::serve(listener, router(health, HttpHealthConfig::default()));
        let work = async {
            sleep(self.ready_after).await;
            // Written first: nobody can have seen it earlier.
            self.note("is ready")?;
            done.store(true, Ordering::SeqCst);
            std::future::pending::<Result<(), Fault>>().await
        };
        tokio::select! {
            served = server.into_future() => served?,
            worked = work => worked?,
            () = sleep(self.ends_after.unwrap_or(Duration::MAX)) => return Ok(false),
            () = stop => {}
        }
        self.note("stops")?;
        Ok(true)
    }

    fn note(&self, what: &str) -> Result<(), Fault> {
        if let Some(path) = &self.journal {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            // In one write, among those of others.
            file.write_all(format!("{} {what}\n", self.name).as_bytes())?;
        }
        Ok(())
    }
}
