use groundtackle_health_check_notify_discord::{Channel, Note};
use groundtackle_release_gate::{
    Decision, Error, Evidence, Fact, Resolution, Result, RunOutcome, Verdict, When,
};

use crate::config::GateDiscordConfig;

const BACKEND: &str = "discord";

const RED: u32 = 0x00d0_2f2f;
const AMBER: u32 = 0x00f9_a825;
const GREEN: u32 = 0x002e_7d32;

/// Tells a channel of Discord.
#[derive(Debug)]
pub struct GateDiscord {
    channel: Channel,
    place: String,
}

impl From<GateDiscordConfig> for GateDiscord {
    fn from(config: GateDiscordConfig) -> Self {
        Self {
            channel: Channel::new(config.url, config.authorities),
            place: config.place,
        }
    }
}

impl GateDiscord {
    /// Tells of an answer: what was asked and by whom, why not, what was passed by a waiver or an override, and what to look out for. `next`
    /// is when it would next be go, if that was asked.
    ///
    /// **Idempotency**: none; each call is a message. **Cancel safety**: dropped, it may have been told.
    ///
    /// # Errors
    /// When Discord did not store it; `Indeterminate` if it may have.
    pub async fn decision(&self, decision: &Decision, next: Option<When>) -> Result<()> {
        let request = &decision.request;
        let line = format!(
            "{}: {} of {} {} to {}",
            decision.verdict, request.action, request.name, request.tag, request.environment
        );
        let color = match decision.verdict {
            Verdict::Go => GREEN,
            Verdict::Hold | Verdict::Inconclusive => AMBER,
            Verdict::NoGo => RED,
        };
        let mut note = Note::new(line, color)
            .with_field("asked by", &request.actor)
            .with_field("artefact", request.artefact.to_string());
        match next {
            Some(When::At(at)) => note = note.with_field("next go", at.to_string()),
            Some(When::Never) => {
                note = note.with_field("next go", "not by time alone: something else is missing");
            }
            None => {}
        }
        if let Some(until) = decision.good_until {
            note = note.with_field("good until", until.to_string());
        }
        for reason in &decision.reasons {
            let name = format!("{}: {}", reason.rule.name(), reason.subject);
            note = note.with_field(name, format!("{}: {}", reason.verdict, reason.detail));
        }
        for passed in &decision.passed {
            let reason = &passed.reason;
            let name = format!("passed: {}: {}", reason.rule.name(), reason.subject);
            note = note.with_field(name, format!("{}; {}", passed.by, reason.detail));
        }
        for warning in &decision.warnings {
            note = note.with_field("warning", warning);
        }
        self.post(&note, "telling of a decision").await
    }

    /// Tells how a pipeline's last run ended, and returns the evidence with this place among those that a failure was reported to. One that
    /// has passed, or is running, is not told, and neither is one that was reported here already: the evidence comes back as it is.
    ///
    /// **Idempotency**: told once, if the evidence that comes back is kept. **Cancel safety**: dropped, it may have been told.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for evidence of something else. When Discord did not store it; `Indeterminate` if it may have.
    pub async fn pipeline(&self, mut evidence: Evidence) -> Result<Evidence> {
        let Fact::Pipeline {
            name,
            outcome,
            reported_to,
            resolved,
        } = &mut evidence.fact
        else {
            return Err(Error::invalid_request(
                "only evidence of a pipeline is reported as one",
            ));
        };
        if *outcome != RunOutcome::Failed || reported_to.contains(&self.place) {
            return Ok(evidence);
        }
        let then = match resolved {
            Some(Resolution::Fixed) => "fixed",
            Some(Resolution::RolledBack) => "rolled back",
            None => "open: fix it, or roll back",
        };
        let note = Note::new(format!("pipeline {name} failed"), RED)
            .with_field("state", then)
            .with_field("seen", evidence.observed_at.to_string())
            .with_field("source", &evidence.source);
        self.post(&note, "telling of a pipeline").await?;
        reported_to.insert(self.place.clone());
        Ok(evidence)
    }

    async fn post(&self, note: &Note, action: &str) -> Result<()> {
        let posted = self.channel.post(note).await;
        posted.map_err(|error| Error::backend(BACKEND, action, error.retryability(), error))
    }
}
