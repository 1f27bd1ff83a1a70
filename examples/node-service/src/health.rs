//! What is checked, and who sees and hears of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use axum::routing::get;
use groundtackle_health_check::{
    Event, FileLedger, Health, Heartbeat, Name, Notifications, Schedule, Settings,
};
use groundtackle_health_check_backup::{BackupCheck, BackupCheckConfig, TipHeight};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use groundtackle_health_check_notify_discord::Discord;
use groundtackle_health_check_notify_pagerduty::PagerDuty;
use groundtackle_health_check_notify_webhook::Webhook;
use groundtackle_health_check_probes::{DiskProbe, Probe, ProbeCheck};
use groundtackle_health_check_utxo_store::UtxoStoreCheck;
use groundtackle_utxo_store::UtxoStore;

use crate::backup::{Backups, STREAM};
use crate::config::{By, Config, Http, Notify};
use crate::failure::{Result, While};
use crate::shutdown::Stop;

/// What the main loop reports of itself, so often.
pub const SERVICE: &str = "service";
pub const BEAT: Duration = Duration::from_secs(1);
pub const BLOCKS: &str = "blocks";
const STORE: &str = "store";

/// From so long without a beat on, the process is dead.
pub const SILENCE: Duration = Duration::from_secs(30);

fn name(text: &str) -> Result<Name> {
    Name::try_from(text).when("naming a check")
}

/// One result is enough: nothing flaps that the service says itself.
fn at_once(period: Duration) -> Schedule {
    Schedule::default()
        .with_period(period)
        .with_timeout(period.min(Duration::from_secs(10)))
        .with_failures_to_down(1)
        .with_successes_to_up(1)
}

pub fn build(
    config: &mut Config,
    store: &Arc<dyn UtxoStore>,
    backups: &Backups,
    heartbeat: &Heartbeat,
) -> Result<Health> {
    let public = || Settings::default().with_public(true);
    let needs_store = || -> Result<_> { Ok(public().with_depends_on(vec![name(STORE)?])) };
    let mut disk = DiskProbe::new(&config.data, config.disk.fail_below);
    disk.warn_below = config.disk.warn_below;
    // A round may take long where it reads a node's whole folder.
    let long = config.blocks.every.saturating_mul(3);
    let long = long.saturating_add(Duration::from_secs(600));
    let (check, every) = backup_check(store, backups);
    let mut builder = Health::builder()
        .liveness(name("main loop")?, heartbeat.clone())
        .push(name(SERVICE)?, public().with_schedule(at_once(SILENCE)))
        .readiness(
            name(STORE)?,
            public().with_schedule(Schedule::default().with_period(Duration::from_secs(5))),
            UtxoStoreCheck::new(store.clone(), config.store.expect.clone()),
        )
        .push(
            name(BLOCKS)?,
            needs_store()?.with_schedule(at_once(config.blocks.every).with_valid_for(Some(long))),
        )
        .readiness(name("disk")?, public(), ProbeCheck::from(Probe::Disk(disk)))
        // Old backups are no reason to send nobody here any more.
        .readiness(
            name("backup")?,
            needs_store()?
                .with_required(false)
                .with_schedule(at_once(every)),
            check,
        );
    for check in std::mem::take(&mut config.checks) {
        let (settings, probe) = (check.settings(), ProbeCheck::from(check.probe));
        builder = match check.kind {
            groundtackle_health_check::Kind::Startup => {
                builder.startup(check.name, settings, probe)
            }
            _ => builder.readiness(check.name, settings, probe),
        };
    }
    for objective in std::mem::take(&mut config.objectives) {
        builder = builder.objective(objective);
    }
    for maintenance in std::mem::take(&mut config.maintenances) {
        builder = builder.maintenance(maintenance);
    }
    let ledger = FileLedger::open(config.data.join("service-levels"));
    let ledger = Arc::new(ledger.when("opening the service levels' ledger")?);
    builder.ledger(ledger).build().when("setting up the checks")
}

/// How old, how far behind, and when last proven; and how often to look, since a bucket wants money for each look.
fn backup_check(store: &Arc<dyn UtxoStore>, backups: &Backups) -> (BackupCheck, Duration) {
    let limits = &backups.config;
    let expect = BackupCheckConfig::new([backups.signer], limits.fail_age)
        .with_stream(STREAM.into())
        .with_warn_lag_blocks(Some(limits.warn_lag_blocks))
        .with_fail_lag_blocks(Some(limits.fail_lag_blocks))
        .with_drill_level(limits.drill_level)
        // One may be late.
        .with_warn_drill_age(Some(limits.drill_every.saturating_mul(2)))
        .with_fail_drill_age(Some(limits.drill_every.saturating_mul(3)));
    let check = BackupCheck::new(backups.target.clone(), expect);
    let check = check.with_tip(Arc::new(Tip(store.clone())));
    (check, limits.every.clamp(BEAT, Duration::from_secs(600)))
}

#[derive(Debug)]
struct Tip(Arc<dyn UtxoStore>);

#[async_trait]
impl TipHeight for Tip {
    async fn tip_height(&self) -> Result<u32, Box<dyn Error + Send + Sync>> {
        Ok(self.0.tip().await?.ok_or("the store has no block")?.height)
    }
}

/// Probes, metrics and the status page.
pub fn routes(health: &Health, config: &Http, backups: &Backups) -> Result<Router> {
    // Whoever reaches a loopback address is on this machine.
    let are_operators = config.all_are_operators;
    let http = HttpHealthConfig::default()
        .with_title(config.title.clone())
        .with_operator_token(config.operator_token()?)
        .with_all_are_operators(are_operators.unwrap_or(config.listen.ip().is_loopback()));
    let figures = backups.figures.clone();
    let figures = move || {
        let text = figures.borrow().clone();
        async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text) }
    };
    Ok(router(health.clone(), http)
        .route("/", get(|| async { Redirect::temporary("/status") }))
        .route("/metrics/backup", get(figures)))
}

/// Whom the config names.
pub fn notify(health: &Health, whom: Vec<Notify>) -> Result<Vec<Notifications>> {
    let start = |Notify { by, how }| {
        let started = match by {
            By::Webhook(config) => Notifications::start(health, Webhook::from(config), how),
            By::Discord(config) => Notifications::start(health, Discord::from(config), how),
            By::PagerDuty(config) => Notifications::start(health, PagerDuty::from(config), how),
        };
        started.when("starting a notifier")
    };
    whom.into_iter().map(start).collect()
}

/// Each change as a line of the log.
pub async fn log_changes(health: Health, mut stop: Stop) -> Result<()> {
    let mut events = health.events();
    while let Some(Some(event)) = stop.or(events.next()).await {
        match event {
            Event::Check(change) => tracing::info!(
                check = change.name.as_str(),
                from = change.from.as_str(),
                to = change.to.as_str(),
                cause = change.cause.as_str(),
                caused_by = change.caused_by.as_ref().map(Name::as_str),
                "health changed"
            ),
            Event::Alert(change) => tracing::warn!(
                objective = change.objective.as_str(),
                severity = change.severity.as_str(),
                firing = change.firing,
                "burn-rate alert"
            ),
            Event::Lost(lost) => tracing::warn!(lost, "changes of health were not logged"),
            _ => {}
        }
    }
    Ok(())
}
