use std::time::Duration;

use groundtackle_health_check::News;
use serde::Serialize;

/// What an [`Item`] tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A check.
    Check,
    /// An objective's burn-rate alert.
    Alert,
}

/// One of the [`News`] of a message, as notifiers send it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// What it tells of.
    pub kind: Kind,
    /// The check, or the objective.
    pub name: String,
    /// Whether it is down, or fires; otherwise that is over.
    pub down: bool,
    /// A check's outcome (`fail`, `unknown`, `pass`, `warn`), or an alert's severity (`page`, `ticket`).
    pub state: &'static str,
    /// Why, for machines: a check's cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Why, in more words. What fails says them, what is over does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Since when, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_unix_millis: Option<u64>,
    /// How many checks can't be told apart from it, since they need it.
    pub hides: usize,
    /// An alert's long window, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub long_secs: Option<u64>,
}

impl Item {
    /// `None` for news of a kind that this version does not know.
    #[must_use]
    pub fn new(news: &News) -> Option<Self> {
        let down = news.is_down();
        match news {
            News::Check {
                name,
                outcome,
                cause,
                detail,
                since_unix_millis,
                hides,
            } => Some(Self {
                kind: Kind::Check,
                name: name.as_str().into(),
                down,
                state: outcome.as_str(),
                cause: Some(cause.as_str().into()),
                detail: detail.as_deref().map(Into::into),
                since_unix_millis: Some(*since_unix_millis),
                hides: *hides,
                long_secs: None,
            }),
            News::Alert {
                objective,
                severity,
                long_secs,
                ..
            } => Some(Self {
                kind: Kind::Alert,
                name: objective.as_str().into(),
                down,
                state: severity.as_str(),
                cause: None,
                detail: None,
                since_unix_millis: None,
                hides: 0,
                long_secs: Some(*long_secs),
            }),
            _ => None,
        }
    }

    /// What there is to say besides the name, without the detail: one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = match (self.kind, self.down) {
            (Kind::Check, true) => "is down".to_owned(),
            (Kind::Check, false) => "is up again".to_owned(),
            (Kind::Alert, true) => "spends its error budget too fast".to_owned(),
            (Kind::Alert, false) => "no longer spends its error budget too fast".to_owned(),
        };
        if let Some(secs) = self.long_secs {
            let window = Duration::from_secs(secs);
            line += &format!(" (over {window:?})");
        }
        let state = match &self.cause {
            Some(cause) if self.down || cause != "ok" => format!(": {}, {cause}", self.state),
            _ => format!(": {}", self.state),
        };
        line += &state;
        if self.down && self.hides > 0 {
            line += &format!("; it hides {} more", self.hides);
        }
        line
    }
}
