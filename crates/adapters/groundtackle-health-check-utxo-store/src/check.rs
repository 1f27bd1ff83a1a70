use std::error::Error as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};
use groundtackle_utxo_store::{BlockStore, Error, Health, HealthDepth, MaintenanceStore, Tip};

use crate::config::UtxoStoreCheckConfig;

/// Asks a store how it is, and where its tip is.
#[derive(Debug)]
pub struct UtxoStoreCheck<S> {
    store: S,
    config: UtxoStoreCheckConfig,
}

impl<S: BlockStore + MaintenanceStore> UtxoStoreCheck<S> {
    /// A check of this store; give it an `Arc` of one that is used elsewhere.
    pub const fn new(store: S, config: UtxoStoreCheckConfig) -> Self {
        Self { store, config }
    }

    async fn look(&self) -> Result<Observation, Error> {
        let health = self.store.health(HealthDepth::Readiness).await?;
        if !health.ready {
            return Ok(judge(&self.config, &health, None));
        }
        let tip = self.store.tip().await?;
        Ok(judge(&self.config, &health, tip))
    }
}

fn judge(config: &UtxoStoreCheckConfig, health: &Health, tip: Option<Tip>) -> Observation {
    let reasons = health.reasons.join("; ");
    if !health.ready {
        return Observation::fail("not-ready").with_detail(reasons);
    }
    if tip.is_none() && !config.may_be_empty {
        let detail = "the store has no block; fill it, or set may_be_empty";
        return Observation::fail("empty").with_detail(detail);
    }
    match tip.and_then(|tip| too_old(config, &tip)) {
        Some(seen) if !seen.outcome.is_up() || reasons.is_empty() => seen,
        _ if !reasons.is_empty() => Observation::warn("at-risk").with_detail(reasons),
        _ => Observation::pass(),
    }
}

fn too_old(config: &UtxoStoreCheckConfig, tip: &Tip) -> Option<Observation> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let time = Duration::from_secs(tip.median_time_past.into());
    let age = now.saturating_sub(time);
    let older = |limit: Option<Duration>| limit.is_some_and(|limit| age > limit);
    let seen = if older(config.fail_tip_age) {
        Observation::fail("stale-tip")
    } else if older(config.warn_tip_age) {
        Observation::warn("stale-tip")
    } else {
        return None;
    };
    let (height, secs) = (tip.height, age.as_secs());
    Some(seen.with_detail(format!(
        "the tip, block {height}, is {secs} s old by its median time past"
    )))
}

#[async_trait]
impl<S: BlockStore + MaintenanceStore> Check for UtxoStoreCheck<S> {
    async fn check(&self) -> Observation {
        self.look().await.unwrap_or_else(|error| {
            let cause = error.source().map(|cause| format!(": {cause}"));
            let cause = cause.unwrap_or_default();
            Observation::fail("no-answer").with_detail(format!("{error}{cause}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use groundtackle_health_check::Outcome;
    use groundtackle_utxo_store::BlockHash;

    use super::*;

    #[test]
    fn what_is_worse_is_told() {
        let hour = Some(Duration::from_secs(3600));
        let default = UtxoStoreCheckConfig::default;
        let (warns, fails) = (
            default().with_warn_tip_age(hour),
            default().with_fail_tip_age(hour),
        );
        let old = Some(Tip {
            height: 7,
            hash: BlockHash::ZERO,
            median_time_past: 1_231_006_505,
        });
        for (config, ready, reason, tip, outcome, cause, says) in [
            (default(), true, "", old, Outcome::Pass, "ok", ""),
            (
                default(),
                true,
                "nearly full",
                old,
                Outcome::Warn,
                "at-risk",
                "nearly full",
            ),
            (
                default(),
                false,
                "full",
                old,
                Outcome::Fail,
                "not-ready",
                "full",
            ),
            (
                default(),
                true,
                "nearly full",
                None,
                Outcome::Fail,
                "empty",
                "may_be_empty",
            ),
            (
                default().with_may_be_empty(true),
                true,
                "",
                None,
                Outcome::Pass,
                "ok",
                "",
            ),
            (
                warns.clone(),
                true,
                "",
                old,
                Outcome::Warn,
                "stale-tip",
                "block 7",
            ),
            (
                warns,
                true,
                "nearly full",
                old,
                Outcome::Warn,
                "at-risk",
                "nearly full",
            ),
            (
                fails.clone(),
                true,
                "nearly full",
                old,
                Outcome::Fail,
                "stale-tip",
                "block 7",
            ),
            (
                fails,
                false,
                "full",
                old,
                Outcome::Fail,
                "not-ready",
                "full",
            ),
        ] {
            let reasons = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
            let health = Health {
                ready,
                reasons: reasons.into_iter().collect(),
            };
            let seen = judge(&config, &health, tip);
            assert_eq!(
                (seen.outcome, seen.cause.as_str()),
                (outcome, cause),
                "{seen:?}"
            );
            assert!(seen.detail.unwrap_or_default().contains(says));
        }
    }
}
