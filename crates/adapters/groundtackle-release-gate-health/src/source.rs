use std::collections::BTreeSet;

use async_trait::async_trait;
use groundtackle_health_check::{Health, Outcome, Reading, ServiceLevel, View};
use groundtackle_release_gate::{
    Error, Evidence, EvidenceSource, Fact, Form, Request, Result, Retryability, Timestamp,
};

use crate::config::{HealthEvidenceConfig, LevelRule};

const BACKEND: &str = "health";

/// A service's health as evidence.
#[derive(Debug)]
pub struct HealthEvidence {
    name: String,
    health: Health,
    config: HealthEvidenceConfig,
}

impl HealthEvidence {
    /// # Errors
    /// [`Error::InvalidRequest`] for a check, subset or objective that the service has not.
    pub fn new(health: Health, config: HealthEvidenceConfig) -> Result<Self> {
        let view = health.view();
        let checks = config.items.iter().map(|item| &item.check);
        for check in checks.chain(&config.blockers) {
            if view.subset(check.as_str()).is_none() {
                return Err(Error::invalid_request(format!(
                    "the service has no check and no subset {:?}",
                    check.as_str()
                )));
            }
        }
        let source = Self {
            name: match &config.name {
                Some(name) => format!("{BACKEND} {} {name}", config.environment),
                None => format!("{BACKEND} {}", config.environment),
            },
            health,
            config,
        };
        let view = source.look();
        for rule in &source.config.levels {
            source.level(&view, rule)?;
        }
        Ok(source)
    }

    /// What is known now. The levels, too: whoever should count them each second may have stopped.
    fn look(&self) -> std::sync::Arc<View> {
        self.health.tick();
        self.health.view()
    }

    /// How a check or a subset is; what nobody knows is an error.
    fn outcome(&self, view: &View, name: &str) -> Result<Outcome> {
        let verdict = view
            .subset(name)
            .filter(|verdict| verdict.outcome != Outcome::Unknown);
        verdict.map(|verdict| verdict.outcome).ok_or_else(|| {
            let why = view.subset(name).map(|verdict| verdict.cause.to_string());
            let why = why.unwrap_or_else(|| "it is not there".into());
            let action = format!("looking at {name:?}");
            Error::backend(
                BACKEND,
                action,
                Retryability::Transient,
                format!("how it is, is not known: {why}"),
            )
        })
    }

    fn level<'a>(&self, view: &'a View, rule: &LevelRule) -> Result<&'a ServiceLevel> {
        let mut levels = view.service_levels.iter();
        let found = levels.find(|level| level.objective == rule.objective);
        found.ok_or_else(|| {
            Error::invalid_request(format!(
                "the service has no objective {:?}",
                rule.objective.as_str()
            ))
        })
    }

    fn blockers(&self, view: &View, request: &Request) -> Result<Fact> {
        let mut open = BTreeSet::new();
        let mut last_closed: Option<u64> = None;
        for name in &self.config.blockers {
            if !self.outcome(view, name.as_str())?.is_up() {
                open.insert(name.to_string());
            }
            // Since when those that are up are: what failed before was over then.
            let members = view
                .readings
                .iter()
                .filter(|reading| reading.name == *name || reading.subsets.contains(name));
            let up = members.filter(|reading: &&Reading| reading.outcome.is_up());
            last_closed = last_closed.max(up.map(|reading| reading.since_unix_millis).max());
        }
        Ok(Fact::Blockers {
            artefact: request.artefact,
            environment: self.config.environment.clone(),
            open,
            last_closed_at: last_closed.map(timestamp),
        })
    }
}

#[async_trait]
impl EvidenceSource for HealthEvidence {
    fn name(&self) -> &str {
        &self.name
    }

    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>> {
        let view = self.look();
        let now = timestamp(view.unix_millis);
        let mut facts = Vec::new();
        if !self.config.blockers.is_empty() {
            facts.push(self.blockers(&view, request)?);
        }
        // How it is elsewhere says nothing.
        let here = request.environment == self.config.environment;
        for item in self.config.items.iter().filter(|_| here) {
            facts.push(Fact::Item {
                id: item.id.clone(),
                artefact: request.artefact,
                form: Form::Probe,
                passed: self.outcome(&view, item.check.as_str())? == Outcome::Pass,
                by: item.owner.clone(),
            });
        }
        for rule in &self.config.levels {
            let level = self.level(&view, rule)?;
            let (good, bad) = (level.counts.good, level.counts.bad);
            let unmeasured = match rule.unmeasured_is_down {
                true => level.unmeasured,
                false => 0,
            };
            let all = good.saturating_add(bad).saturating_add(unmeasured);
            if all > 0 {
                facts.push(Fact::Measure {
                    name: rule.name.clone(),
                    // Counts of milliseconds in a quarter are far below 2^53.
                    value: good as f64 / all as f64 * 100.0,
                    since: timestamp(level.window_begin_unix_millis),
                });
            }
        }
        let evidence = facts
            .into_iter()
            .map(|fact| Evidence::new(&self.name, now, fact));
        Ok(evidence.collect())
    }
}

fn timestamp(unix_millis: u64) -> Timestamp {
    let millis = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}
