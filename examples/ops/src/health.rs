//! Checks of what a service needs: looked at once, watched, served over HTTP, and alerted on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use groundtackle_health_check::{
    Event, FileLedger, Health, HealthConfig, Notifications, NotifyConfig, Outcome, Reading,
    Scheduler, View,
};
use groundtackle_health_check_grpc::{GrpcHealthConfig, service as service_of_grpc};
use groundtackle_health_check_http::{
    HttpHealthConfig, RUNBOOK, grafana_dashboard, prometheus_rules, router,
};
use groundtackle_health_check_notify_discord::{Discord, DiscordConfig};
use groundtackle_health_check_notify_pagerduty::{PagerDuty, PagerDutyConfig};
use groundtackle_health_check_notify_webhook::{Webhook, WebhookConfig};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::server::TcpIncoming;

use crate::checks::Probe;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::report::{Report, note};

/// How long requests that are under way are waited for at the end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// First runs are spread over a second.
const SPREAD: Duration = Duration::from_secs(1);

/// How often it is seen whether all have run.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The checks, objectives and maintenances; README.md shows one.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct HealthArgs {
    #[command(subcommand)]
    export: Option<HealthCommand>,
    /// The checks, objectives and maintenances; README.md shows one.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Run each check once, and answer no if the service is not ready.
    #[arg(long)]
    once: bool,
}

#[derive(Debug, Subcommand)]
enum HealthCommand {
    /// Write what watches the metrics of `ops serve`: alert rules for Prometheus, or a dashboard for Grafana.
    Export {
        #[command(flatten)]
        config: ConfigFile,
        /// What to write on standard output.
        #[arg(long = "for", value_name = "WHAT")]
        what: Export,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Export {
    /// A file of rules, in YAML.
    Prometheus,
    /// A dashboard to import, in JSON.
    Grafana,
}

/// The table `[service]`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Service {
    /// Where `ops serve` listens.
    listen: SocketAddr,
    /// Who sees what there.
    http: HttpHealthConfig,
    /// Where gRPC's health protocol is served; without it, nowhere.
    grpc: Option<SocketAddr>,
    /// Whom `ops serve` tells of failure and recovery.
    notify: Vec<NotifyTo>,
    /// The file of the service levels' ledger; without one they begin anew at each start.
    ledger: Option<PathBuf>,
    /// What Prometheus calls the service.
    job: String,
    /// The page that alerts point to, with a section for each.
    runbook: String,
}

/// Somebody who is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NotifyTo {
    by: By,
    /// How messages are grouped, limited and repeated.
    #[serde(default)]
    how: NotifyConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum By {
    Webhook(WebhookConfig),
    Discord(DiscordConfig),
    #[serde(rename = "pagerduty")]
    PagerDuty(PagerDutyConfig),
}

impl NotifyTo {
    fn start(self, health: &Health) -> Result<Notifications> {
        let how = self.how;
        let started = match self.by {
            By::Webhook(config) => Notifications::start(health, Webhook::from(config), how),
            By::Discord(config) => Notifications::start(health, Discord::from(config), how),
            By::PagerDuty(config) => Notifications::start(health, PagerDuty::from(config), how),
        };
        started.map_err(unusable)
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            http: HttpHealthConfig::default(),
            grpc: None,
            notify: Vec::new(),
            ledger: None,
            job: "node".into(),
            runbook: RUNBOOK.into(),
        }
    }
}

type Config = HealthConfig<Probe, Service>;

async fn read(path: &PathBuf) -> Result<Config> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|source| Failure::ConfigFile {
            path: path.clone(),
            source,
        })?;
    let config = Config::from_toml(&path.display().to_string(), &text);
    config.map_err(|error| Failure::Config(error.to_string()))
}

fn unusable(error: groundtackle_health_check::Error) -> Failure {
    Failure::Health(error)
}

pub async fn health(args: &HealthArgs, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    if let Some(HealthCommand::Export { config, what }) = &args.export {
        let config = read(&config.config).await?;
        let text = match what {
            Export::Prometheus => prometheus_rules(
                &config.service.job,
                &config.objectives,
                &config.service.runbook,
            ),
            Export::Grafana => grafana_dashboard(&config.service.http.title, &config.service.job),
        };
        return Report { json: false }.text(text.trim_end());
    }
    let path = args.config.as_ref();
    let path = path.ok_or_else(|| Failure::Config("--config is missing".into()))?;
    let config = read(path).await?;
    if args.once {
        once(config, report, interrupt).await
    } else {
        watch(config, report, interrupt).await
    }
}

/// Each check once; what it says counts at once.
async fn once(mut config: Config, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    let mut longest = Duration::ZERO;
    for check in &mut config.checks {
        check.schedule.failures_to_down = 1;
        check.schedule.successes_to_up = 1;
        longest = longest.max(check.schedule.timeout);
    }
    // Of so many some wait for their turn.
    let turns = u32::try_from(config.checks.len() / 64).unwrap_or(u32::MAX);
    let until = Instant::now() + SPREAD + longest.saturating_mul(turns.saturating_add(2));
    let health = config
        .into_builder(Probe::into_check)
        .build()
        .map_err(unusable)?;
    let scheduler = Scheduler::start(&health);
    let ran = |view: &View| {
        let mut readings = view.readings.iter();
        readings.all(|reading| reading.observed_unix_millis.is_some())
    };
    while !ran(&health.view()) && Instant::now() < until {
        interrupt.or(sleep(LOOK)).await?;
    }
    let view = health.view();
    scheduler.stop().await.map_err(unusable)?;
    report.answer(&as_json(&view), &as_text(&view))?;
    match view.readiness.outcome.is_up() {
        true => Ok(()),
        false => Err(Failure::No(format!(
            "the service is not ready: {}",
            view.readiness.cause
        ))),
    }
}

fn as_json(view: &View) -> Value {
    let check = |reading: &Reading| {
        json!({
            "check": reading.name.as_str(),
            "kind": reading.kind.as_str(),
            "outcome": reading.outcome.as_str(),
            "cause": reading.cause.as_str(),
            "caused_by": reading.caused_by.as_ref().map(|name| name.as_str()),
            "detail": reading.detail.as_deref(),
        })
    };
    json!({
        "ready": view.readiness.outcome.is_up(),
        "outcome": view.readiness.outcome.as_str(),
        "cause": view.readiness.cause.as_str(),
        "checks": view.readings.iter().map(check).collect::<Vec<_>>(),
    })
}

fn as_text(view: &View) -> String {
    let mut text = String::new();
    let all = view.readings.iter();
    let width = all
        .map(|reading| reading.name.as_str().chars().count())
        .max();
    for reading in &view.readings {
        let (name, outcome) = (reading.name.as_str(), reading.outcome.as_str());
        text += &format!("{outcome:<8}{name:<width$}", width = width.unwrap_or(0));
        if reading.outcome != Outcome::Pass {
            text += &format!("  {}", reading.cause);
        }
        if let Some(root) = &reading.caused_by {
            text += &format!(", caused by {root}");
        }
        if let Some(detail) = &reading.detail {
            text += &format!(": {detail}");
        }
        text.push('\n');
    }
    text + &format!("{:<8}all", view.readiness.outcome.as_str())
}

/// Each change, until the end.
async fn watch(config: Config, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    let (health, _) = build(config)?;
    let mut events = health.events();
    let scheduler = Scheduler::start(&health);
    let told = loop {
        match interrupt.or(events.next()).await {
            Ok(Some(event)) => {
                if let Err(error) = tell(&event, report) {
                    break Err(error);
                }
            }
            Ok(None) | Err(_) => break Ok(()),
        }
    };
    scheduler.stop().await.map_err(unusable)?;
    told
}

fn tell(event: &Event, report: Report) -> Result<()> {
    match event {
        Event::Check(change) => {
            let (name, from, to) = (&change.name, change.from, change.to);
            report.answer(
                &json!({
                    "unix_millis": change.unix_millis,
                    "check": name.as_str(),
                    "from": from.as_str(),
                    "to": to.as_str(),
                    "cause": change.cause.as_str(),
                    "caused_by": change.caused_by.as_ref().map(|name| name.as_str()),
                }),
                &format!("{name}: {from} -> {to} ({})", change.cause),
            )
        }
        Event::Alert(change) => {
            let (objective, severity) = (&change.objective, change.severity.as_str());
            let says = if change.firing { "fires" } else { "ends" };
            report.answer(
                &json!({
                    "unix_millis": change.unix_millis,
                    "objective": objective.as_str(),
                    "severity": severity,
                    "firing": change.firing,
                    "burn": change.burn,
                }),
                &format!("{objective}: an alert ({severity}) {says}"),
            )
        }
        Event::Lost(lost) => {
            note(&format!("{lost} changes could not be told"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn build(mut config: Config) -> Result<(Health, Service)> {
    let service = std::mem::take(&mut config.service);
    let mut builder = config.into_builder(Probe::into_check);
    if let Some(path) = &service.ledger {
        let ledger = FileLedger::open(path).map_err(unusable)?;
        builder = builder.ledger(Arc::new(ledger));
    }
    Ok((builder.build().map_err(unusable)?, service))
}

async fn listen(at: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(at).await;
    let listener = listener.map_err(|source| Failure::Listen { at, source })?;
    let at = listener.local_addr().unwrap_or(at);
    Ok((listener, at))
}

/// Probes, metrics and the status page, until the end.
pub async fn serve(file: &ConfigFile, report: Report, interrupt: &mut Interrupt) -> Result<()> {
    let (health, service) = build(read(&file.config).await?)?;
    let (listener, at) = listen(service.listen).await?;
    let grpc = match service.grpc {
        Some(at) => Some(listen(at).await?),
        None => None,
    };
    let told = service.notify.into_iter().map(|to| to.start(&health));
    let _told: Vec<_> = told.collect::<Result<_>>()?;
    let scheduler = Scheduler::start(&health);
    let grpc_at = grpc.as_ref().map(|(_, at)| at.to_string());
    report.answer(
        &json!({ "listening": at.to_string(), "grpc": grpc_at }),
        &format!("serving on http://{at}/status"),
    )?;
    let mut beside = JoinSet::new();
    if let Some((listener, at)) = grpc {
        let health = service_of_grpc(health.clone(), GrpcHealthConfig::default());
        let server = tonic::transport::Server::builder().add_service(health);
        beside.spawn(async move {
            let served = server.serve_with_incoming(TcpIncoming::from(listener));
            if let Err(error) = served.await {
                note(&format!("gRPC can't be served any more at {at}: {error}"));
            }
        });
    }
    let routes = router(health.clone(), service.http);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async {
        // Told to stop, or nobody is left who could.
        drop(stopped.await);
    });
    let mut server = tokio::spawn(server.into_future());
    let served = interrupt.or(&mut server).await;
    drop(stop);
    if served.is_err() {
        drop(timeout(LAST_ANSWERS, &mut server).await);
    }
    scheduler.stop().await.map_err(unusable)?;
    match served {
        Ok(Ok(Err(source))) => Err(Failure::System {
            what: "HTTP can't be served any more",
            source,
        }),
        // Asked to stop, which is how it ends.
        _ => Ok(()),
    }
}
