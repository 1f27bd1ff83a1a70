//! What is asked of a release, as data.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, Length};
use crate::dsse::PublicKey;
use crate::hours::{Calendar, Hours, Zone};
use crate::tag::TagPattern;

/// The version of the policy's format that this crate reads.
pub const POLICY_VERSION: u32 = 1;

/// All that is asked. Read with [`Gate::read`](crate::Gate::read), or made in code and given to
/// [`Gate::new`](crate::Gate::new), which check that it makes sense.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// [`POLICY_VERSION`].
    pub version: u32,
    /// What minutes and decisions call it.
    pub name: String,
    /// Whose calendar says when a quarter begins.
    pub zone: Zone,
    /// How old evidence may be where a rule does not say. For a state, age counts from when it was looked at, for an event
    /// from when it happened.
    pub max_age: Length,
    /// How long a permit lasts at most. It ends sooner where the answer would change.
    pub permit_for: Length,
    /// Who is who.
    #[serde(default, rename = "role")]
    pub roles: Vec<Role>,
    /// The keys of people who sign what they say.
    #[serde(default, rename = "person")]
    pub people: Vec<Person>,
    /// Where artefacts go.
    #[serde(default, rename = "environment")]
    pub environments: Vec<Environment>,
    /// Days that windows name.
    #[serde(default, rename = "calendar")]
    pub calendars: Vec<Calendar>,
    /// When something may go out, or may not.
    #[serde(default, rename = "window")]
    pub windows: Vec<Window>,
    /// Spans of dates in which nothing goes out.
    #[serde(default, rename = "freeze")]
    pub freezes: Vec<Freeze>,
    /// Figures to keep to.
    #[serde(default, rename = "budget")]
    pub budgets: Vec<Budget>,
    /// Who is available when.
    #[serde(default, rename = "shift")]
    pub rota: Vec<Shift>,
    /// Who may pass what, in need. Default: nobody.
    #[serde(default, rename = "override", skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// Rules that are not asked for until a date.
    #[serde(default, rename = "waiver")]
    pub waivers: Vec<Waiver>,
    /// To whom an incident goes, the longer it stays open.
    #[serde(default, rename = "escalation")]
    pub escalations: Vec<Escalation>,
}

impl Policy {
    /// One that asks for nothing, in UTC: evidence counts for an hour, a permit for ten minutes.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            version: POLICY_VERSION,
            name: name.into(),
            zone: Zone::utc(),
            max_age: Length::hours(1),
            permit_for: Length::minutes(10),
            roles: Vec::new(),
            people: Vec::new(),
            environments: Vec::new(),
            calendars: Vec::new(),
            windows: Vec::new(),
            freezes: Vec::new(),
            budgets: Vec::new(),
            rota: Vec::new(),
            overrides: None,
            waivers: Vec::new(),
            escalations: Vec::new(),
        }
    }

    /// With one more role.
    #[must_use]
    pub fn with_role(mut self, name: &str, members: &[&str]) -> Self {
        self.roles.push(Role {
            name: name.into(),
            members: members.iter().map(|&member| member.into()).collect(),
        });
        self
    }

    /// With one more person's keys.
    #[must_use]
    pub fn with_person(mut self, name: &str, keys: impl IntoIterator<Item = PublicKey>) -> Self {
        self.people.push(Person {
            name: name.into(),
            keys: keys.into_iter().collect(),
        });
        self
    }

    /// With one more environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Environment) -> Self {
        self.environments.push(environment);
        self
    }

    /// With one more window.
    #[must_use]
    pub fn with_window(mut self, window: Window) -> Self {
        self.windows.push(window);
        self
    }

    /// With one more budget.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }

    /// Of what it says, however it was written down.
    pub fn digest(&self) -> Digest {
        // A policy has no key that is not text, and nothing else fails.
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    pub(crate) fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.name == name)
    }

    /// The keys that sign for somebody; none if no [`Person`] is of that name.
    pub fn keys(&self, person: &str) -> &BTreeSet<PublicKey> {
        const NONE: &BTreeSet<PublicKey> = &BTreeSet::new();
        let found = self.people.iter().find(|other| other.name == person);
        found.map_or(NONE, |person| &person.keys)
    }

    /// Whether the person is in the role.
    pub fn has_role(&self, person: &str, role: &str) -> bool {
        self.role(role)
            .is_some_and(|role| role.members.contains(person))
    }
}

/// Some people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// What rules call it.
    pub name: String,
    /// Who, as evidence names them.
    pub members: BTreeSet<String>,
}

/// Somebody who signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Who, as roles name them.
    pub name: String,
    /// Their keys, any of which counts. No two people share one.
    pub keys: BTreeSet<PublicKey>,
}

/// Where an artefact goes, and what is asked for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// The environment in which the artefact must be first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What tags go here. Default: any.
    pub tags: Vec<TagPattern>,
    /// The roles that may act here.
    pub actors: Vec<String>,
    /// Who must have looked at every change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reviews: Option<Quorum>,
    /// Who must have approved the artefact.
    pub approvals: Vec<Quorum>,
    /// The go/no-go meeting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meeting: Option<MeetingRule>,
    /// What must have been done.
    pub checklist: Vec<ChecklistItem>,
    /// Pipelines that must have ended well.
    pub pipelines: Vec<PipelineRule>,
    /// Tests that must have passed.
    pub tests: Vec<TestRule>,
    /// Platforms that the artefact must have been built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<PlatformsRule>,
    /// How long it must have run in the environment that it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soak: Option<SoakRule>,
    /// What must be the same there and here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parity: Option<ParityRule>,
    /// The names of the budgets that count here.
    pub budgets: Vec<String>,
    /// Backups that must be fresh and proven.
    pub backups: Vec<BackupRule>,
    /// Incidents that stop a release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incidents: Option<IncidentsRule>,
    /// Roles of whom somebody must be on shift.
    pub available: Vec<String>,
}

impl Environment {
    /// One that asks for nothing.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

/// So many people of a role, none of whom made a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quorum {
    /// Which role.
    pub role: String,
    /// How many. At least 1.
    pub at_least: u32,
    /// How old the evidence may be. An approval expires so long after it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
    /// Whether each approval counts only with the signature of who gives it. Not for reviews, which are of where changes are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// A meeting about this artefact and environment that was quorate, said go and has minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeetingRule {
    /// Who must have been there, by role.
    pub quorum: Vec<Seat>,
    /// How long ago it may have been held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// So many people of a role at a meeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Which role.
    pub role: String,
    /// How many. At least 1.
    pub at_least: u32,
}

/// How an item of a checklist shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// Something was measured.
    Probe,
    /// There is a document, whose digest is the evidence's.
    Document,
    /// Its owner says so.
    Statement,
}

/// Something to be done for each artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChecklistItem {
    /// Its name.
    pub id: String,
    /// Which list it is on, such as `"release-management"` or `"operations"`.
    pub list: String,
    /// The role that owns it, and alone can tick it.
    pub owner: String,
    /// How it shows.
    pub form: Form,
    /// How old the evidence may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
    /// Whether it counts only with the signature of who ticked it. Not for a probe, which nobody says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// A pipeline whose last run must have passed, or have been reported, and then fixed or rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineRule {
    /// Its name.
    pub name: String,
    /// Where a failure must have been reported, such as `"discord"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_to: Option<String>,
    /// How long ago one may have looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// A test that must have passed for this artefact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestRule {
    /// The suite's name.
    pub suite: String,
    /// How long ago it may have run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// What the artefact must have been built for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformsRule {
    /// All of these, such as `"linux/arm64"`.
    pub all_of: BTreeSet<String>,
    /// How long ago one may have looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// How long the artefact must have run in the environment that it comes from since it came there, or since the last blocker
/// was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoakRule {
    /// How long.
    #[serde(rename = "for")]
    pub length: Length,
    /// How long ago one may have looked for blockers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// What must be the same here and in the environment that the artefact comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParityRule {
    /// The names of the settings.
    pub keys: BTreeSet<String>,
    /// How long ago one may have looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// A backup that must be fresh, and have been restored for practice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupRule {
    /// The stream's name.
    pub name: String,
    /// How old the last restore point may be.
    pub max_age: Length,
    /// How long ago the last restore drill may have been, which must have passed.
    pub drill_max_age: Length,
}

/// Open incidents that stop a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentsRule {
    /// How severe they are.
    pub block: BTreeSet<Severity>,
    /// How long ago one may have looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// How bad an incident is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something can be put off.
    Minor,
    /// Something does not work.
    Major,
    /// Nothing works, or something is being lost.
    Critical,
}

/// Whether a window lets through or stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// Nothing goes out outside all windows of this kind, if there is any.
    Allow,
    /// Nothing goes out inside. It wins over any that allows.
    Deny,
}

/// What becomes of work that is still going on when the window closes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Overrun {
    /// It is finished.
    #[default]
    Finish,
    /// It stops at its next step: [`Clearance::may_go_on`](crate::Clearance::may_go_on).
    Stop,
    /// It does not begin if it would not be finished in time.
    Refuse,
}

/// Hours in which something may go out, or may not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// What reasons call it.
    pub name: String,
    /// Which way.
    pub kind: WindowKind,
    /// Where it counts. Default: everywhere.
    #[serde(default)]
    pub environments: Vec<String>,
    /// When.
    pub hours: Hours,
    /// The calendars on whose days it is shut.
    #[serde(default)]
    pub except: Vec<String>,
    /// The calendars on whose days alone it is open. Default: every day.
    #[serde(default)]
    pub on: Vec<String>,
    /// What becomes of work that is still going on when it closes. Of windows that are open together, the strictest counts.
    #[serde(default)]
    pub overrun: Overrun,
}

/// From one date to another, nothing goes out but what goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Freeze {
    /// What reasons call it.
    pub name: String,
    /// Where it counts. Default: everywhere.
    #[serde(default)]
    pub environments: Vec<String>,
    /// Whose clock counts.
    pub zone: Zone,
    /// When it begins, such as `"2026-12-18T17:00"`; the first time that the clock shows it.
    pub from: DateTime,
    /// When it is over; the last time that the clock shows it.
    pub until: DateTime,
}

/// A figure to keep to in each quarter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The measure's name.
    pub name: String,
    /// What it counts, and so what it can be: `percent` is between 0 and 100, the others are no less than 0.
    pub unit: Unit,
    /// It must not be less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It must be less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_than: Option<f64>,
    /// How long ago one may have measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Length>,
}

/// What a [`Budget`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A share of 100.
    Percent,
    /// Whole numbers. One that would use up the budget with its next gives a warning.
    Count,
    /// Hours of work. The last tenth gives a warning.
    Hours,
}

/// Some people of a role are available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// The role.
    pub role: String,
    /// Who; each is in the role.
    pub people: BTreeSet<String>,
    /// When.
    pub hours: Hours,
    /// The calendars on whose days they are not.
    #[serde(default)]
    pub except: Vec<String>,
}

/// Who may pass what, in need. Missing or stale evidence is passed by nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overrides {
    /// The role of those who may.
    pub role: String,
    /// How many of them it takes. At least 2.
    pub people: u32,
    /// For incidents of which severity.
    pub severities: BTreeSet<Severity>,
    /// What can be passed. With [`Rule::Approvals`] in it these people release what nobody approved: an approval that nobody gave is
    /// no missing evidence.
    pub passes: BTreeSet<Rule>,
    /// How long an override counts.
    pub max_age: Length,
    /// The budget that each spends one of.
    pub budget: String,
    /// Whether people count only with their own signature.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub signed: bool,
}

/// A rule that is not asked for until a date. Missing or stale evidence is not waived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waiver {
    /// Which.
    pub rule: Rule,
    /// What of it, as reasons name it, such as an item of the checklist. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Where.
    pub environment: String,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub by: String,
    /// When it ends, such as `"2026-12-31T00:00:00Z"`.
    pub until: Timestamp,
}

/// To whom incidents of a severity go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// Which.
    pub severity: Severity,
    /// Who owns it at first.
    pub owner: String,
    /// Who does when it stays open.
    #[serde(default)]
    pub steps: Vec<EscalationStep>,
}

/// Who owns an incident that has been open so long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalationStep {
    /// How long.
    pub after: Length,
    /// Who.
    pub to: String,
}

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// There is no such environment in the policy. Can't be waived.
    Environment,
    /// The actor is in no role that may act. Can't be waived.
    Actor,
    /// Evidence is from after the instant. Can't be waived.
    Clock,
    /// A source of evidence could not be read. Can't be waived.
    Sources,
    /// The tag, or the artefact that it names.
    Tag,
    /// The environment that the artefact comes from.
    Order,
    /// Who looked at every change.
    Reviews,
    /// Who approved.
    Approvals,
    /// The go/no-go meeting.
    Meeting,
    /// An item of the checklist.
    Checklist,
    /// A pipeline.
    Pipelines,
    /// A test.
    Tests,
    /// What the artefact was built for.
    Platforms,
    /// How long it has run elsewhere.
    Soak,
    /// What is the same there and here.
    Parity,
    /// A figure.
    Budgets,
    /// A backup.
    Backups,
    /// A restore drill.
    Drills,
    /// Open incidents.
    Incidents,
    /// Who is on shift.
    Rota,
    /// Windows.
    Windows,
    /// Freezes.
    Freezes,
    /// A rollback to what was never there.
    Rollback,
}

impl Rule {
    /// Whether a waiver or an override can pass over it.
    pub const fn can_be_passed(self) -> bool {
        !matches!(
            self,
            Self::Environment | Self::Actor | Self::Clock | Self::Sources | Self::Rollback
        )
    }

    /// As policies write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Actor => "actor",
            Self::Clock => "clock",
            Self::Sources => "sources",
            Self::Tag => "tag",
            Self::Order => "order",
            Self::Reviews => "reviews",
            Self::Approvals => "approvals",
            Self::Meeting => "meeting",
            Self::Checklist => "checklist",
            Self::Pipelines => "pipelines",
            Self::Tests => "tests",
            Self::Platforms => "platforms",
            Self::Soak => "soak",
            Self::Parity => "parity",
            Self::Budgets => "budgets",
            Self::Backups => "backups",
            Self::Drills => "drills",
            Self::Incidents => "incidents",
            Self::Rota => "rota",
            Self::Windows => "windows",
            Self::Freezes => "freezes",
            Self::Rollback => "rollback",
        }
    }
}
