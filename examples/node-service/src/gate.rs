//! Whether a release may go out now, by what this service knows of itself; each answer goes to a signed log first.

use std::fs;
use std::sync::Arc;

use axum::Router;
use groundtackle_health_check::{Health, Name};
use groundtackle_release_gate::{EvidenceSource, FileLog, Gate, PolicyFormat, Signer};
use groundtackle_release_gate_backup::{BackupEvidence, BackupEvidenceConfig, StreamRule};
use groundtackle_release_gate_health::{HealthEvidence, HealthEvidenceConfig, ItemRule};
use groundtackle_release_gate_http::{HttpGateConfig, Webhook, router};

use crate::backup::{Backups, STREAM};
use crate::config::Config;
use crate::failure::{Result, While};
use crate::keys::{self, Missing};

const POLICY: &str = include_str!("../policy.toml");

/// The routes `/check` and `/flagger`.
pub fn routes(config: &Config, health: &Health, backups: &Backups) -> Result<Router> {
    let (name, text) = match &config.gate.policy {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.when(format_args!("reading {}", path.display()))?;
            (path.display().to_string(), text)
        }
        None => ("policy.toml".into(), POLICY.into()),
    };
    let gate = Gate::read(&name, &text, PolicyFormat::of(&name)).when("reading the policy")?;
    let token = match config.gate.token.expose() {
        "" => keys::random(&config.data.join("keys/gate.token"), Missing::Make)?.0,
        _ => config.gate.token.clone(),
    };
    let evidence = match &config.gate.health {
        Some(evidence) => evidence.clone(),
        None => built_in()?,
    };
    let rule = StreamRule {
        drill_level: backups.config.drill_level,
        ..StreamRule::new(STREAM)
    };
    let proof = BackupEvidenceConfig::new("backups", vec![backups.signer], vec![rule]);
    let sources: Vec<Arc<dyn EvidenceSource>> = vec![
        Arc::new(HealthEvidence::new(health.clone(), evidence).when("reading gate.health")?),
        Arc::new(BackupEvidence::new(backups.target.clone(), proof).when("reading the backups")?),
    ];
    let path = config.data.join("gate.log");
    let missing = match path.exists() {
        true => Missing::Refuse,
        false => Missing::Make,
    };
    let seed = keys::random(&config.data.join("keys/gate.key"), missing)?.1;
    let opened = FileLog::open(&path, Signer::from_seed(&seed), &[]);
    let (log, _) = opened.when(format_args!("opening {}", path.display()))?;
    let config = HttpGateConfig::default().with_token(token);
    Ok(router(Webhook::new(gate, sources, Arc::new(log)), config))
}

/// What the built-in policy asks of this service's checks.
fn built_in() -> Result<HealthEvidenceConfig> {
    let mut config = HealthEvidenceConfig::new("production");
    config.items.push(ItemRule {
        id: "store-is-well".into(),
        check: Name::try_from("store").when("naming a check")?,
        owner: "operator".into(),
    });
    Ok(config)
}
