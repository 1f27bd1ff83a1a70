//! A policy that was checked, and how it is read.

use jiff::Timestamp;
use jiff::civil::DateTime;

use crate::error::{Error, Result};
use crate::hours::{Calendar, Hours, Recurring, Zone};
use crate::locate::{Step, line_of, line_of_path, path_text};
use crate::policy::{
    Budget, Environment, Form, Overrun, POLICY_VERSION, Policy, Quorum, Role, Unit, WindowKind,
};
use crate::{Digest, Seat};

/// The longest policy that is read.
const MAX_POLICY_BYTES: usize = 1 << 20;

/// How a policy is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyFormat {
    /// TOML 1.1.
    Toml,
    /// JSON.
    Json,
}

impl PolicyFormat {
    /// By the end of a file's name: JSON if it is `.json`, otherwise TOML.
    pub fn of(file: &str) -> Self {
        if file.ends_with(".json") {
            Self::Json
        } else {
            Self::Toml
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) name: String,
    pub(crate) kind: WindowKind,
    pub(crate) environments: Vec<String>,
    pub(crate) overrun: Overrun,
    pub(crate) hours: Recurring,
}

#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) name: String,
    pub(crate) environments: Vec<String>,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

#[derive(Clone, Debug)]
pub(crate) struct OnShift {
    pub(crate) role: String,
    pub(crate) hours: Recurring,
}

/// Judges by one policy, which was checked. It is pure: it reads no clock, no file and no variable, and the zones are built in.
#[derive(Clone, Debug)]
pub struct Gate {
    pub(crate) policy: Policy,
    pub(crate) digest: Digest,
    pub(crate) openings: Vec<Opening>,
    pub(crate) freezes: Vec<Frozen>,
    pub(crate) shifts: Vec<OnShift>,
}

/// A key, and what is wrong with it.
struct Fault {
    path: Vec<Step>,
    detail: String,
}

macro_rules! fault {
    ($path:expr, $($detail:tt)*) => {
        return Err(Fault { path: $path, detail: format!($($detail)*) })
    };
}

/// Of keys and numbers.
macro_rules! path {
    ($($step:expr),*) => { vec![$(Step::from($step)),*] };
}

impl From<&'static str> for Step {
    fn from(key: &'static str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Gate {
    /// Of a policy that was made in code.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`], whose file is the policy's name and whose line is 0.
    pub fn new(policy: Policy) -> Result<Self> {
        check(&policy).map_err(|fault| Error::InvalidPolicy {
            file: policy.name.clone(),
            line: 0,
            key: path_text(&fault.path),
            detail: fault.detail,
        })?;
        Ok(Self::checked(policy))
    }

    /// Of a text, up to 1 MiB; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] with the line and the key: one that is not known or missing, a value that is none, a reference to
    /// what is not there, windows that leave no time, a quorum larger than its role, a budget that can never be kept.
    pub fn read(file: &str, text: &str, format: PolicyFormat) -> Result<Self> {
        let invalid = |line, key: String, detail: String| Error::InvalidPolicy {
            file: file.into(),
            line,
            key,
            detail,
        };
        if text.len() > MAX_POLICY_BYTES {
            return Err(invalid(1, "policy".into(), "is longer than 1 MiB".into()));
        }
        let json = format == PolicyFormat::Json;
        let policy: Policy = match format {
            PolicyFormat::Toml => toml::from_str(text).map_err(|error| {
                let span = error.span().unwrap_or_default();
                let key = quoted(error.message()).map(str::to_owned);
                let key = key.unwrap_or_else(|| toml_key(text, span.start));
                invalid(
                    line_of(text, span.start),
                    key,
                    error.message().trim().into(),
                )
            })?,
            PolicyFormat::Json => serde_json::from_str(text).map_err(|error| {
                let message = error.to_string();
                let key = quoted(&message).map(str::to_owned);
                let key = key.unwrap_or_else(|| json_key(text, error.line()));
                invalid(error.line(), key, message)
            })?,
        };
        check(&policy).map_err(|fault| {
            let line = line_of_path(text, json, &fault.path);
            invalid(line, path_text(&fault.path), fault.detail)
        })?;
        Ok(Self::checked(policy))
    }

    fn checked(policy: Policy) -> Self {
        let named = |names: &[String]| -> Vec<Calendar> {
            let all = policy.calendars.iter();
            all.filter(|calendar| names.contains(&calendar.name))
                .cloned()
                .collect()
        };
        let openings = policy.windows.iter().map(|window| Opening {
            name: window.name.clone(),
            kind: window.kind,
            environments: window.environments.clone(),
            overrun: window.overrun,
            hours: Recurring::new(&window.hours, named(&window.except), named(&window.on)),
        });
        let freezes = policy.freezes.iter().filter_map(|freeze| {
            let (from, until) = freeze_span(&freeze.zone, freeze.from, freeze.until)?;
            Some(Frozen {
                name: freeze.name.clone(),
                environments: freeze.environments.clone(),
                from,
                until,
            })
        });
        let shifts = policy.rota.iter().map(|shift| OnShift {
            role: shift.role.clone(),
            hours: Recurring::new(&shift.hours, named(&shift.except), Vec::new()),
        });
        Self {
            digest: policy.digest(),
            openings: openings.collect(),
            freezes: freezes.collect(),
            shifts: shifts.collect(),
            policy,
        }
    }

    /// What it judges by.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy's digest.
    pub const fn policy_digest(&self) -> Digest {
        self.digest
    }

    /// Who of a role is on shift.
    pub fn on_shift(&self, role: &str, instant: Timestamp) -> Vec<&str> {
        let shifts = self.policy.rota.iter().zip(&self.shifts);
        let mut people: Vec<_> = shifts
            .filter(|(shift, hours)| shift.role == role && hours.hours.contains(instant))
            .flat_map(|(shift, _)| shift.people.iter().map(String::as_str))
            .collect();
        people.sort_unstable();
        people.dedup();
        people
    }
}

fn freeze_span(zone: &Zone, from: DateTime, until: DateTime) -> Option<(Timestamp, Timestamp)> {
    let from = zone.rules().to_ambiguous_timestamp(from).earlier().ok()?;
    let until = zone.rules().to_ambiguous_timestamp(until).later().ok()?;
    Some((from, until))
}

/// The key that a message says is unknown, missing or there twice.
fn quoted(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("field `")?;
    Some(rest.split_once('`')?.0)
}

/// The key of the line that has the byte, or what stands there.
fn toml_key(text: &str, at: usize) -> String {
    let line = text
        .lines()
        .nth(line_of(text, at).saturating_sub(1))
        .unwrap_or_default();
    let key = line.split_once('=').map_or(line, |(key, _)| key);
    key.trim().chars().take(60).collect()
}

fn json_key(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    let key = line.trim_start_matches(|c: char| !c.is_alphanumeric());
    key.split('"')
        .next()
        .unwrap_or_default()
        .chars()
        .take(60)
        .collect()
}

fn unique<'a>(
    list: &'static str,
    key: &'static str,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), Fault> {
    let mut seen = Vec::new();
    for (n, name) in names.enumerate() {
        if name.trim().is_empty() {
            fault!(path![list, n, key], "is empty");
        }
        if seen.contains(&name) {
            fault!(path![list, n, key], "{name:?} is there twice");
        }
        seen.push(name);
    }
    Ok(())
}

fn under(before: &[Step], after: Vec<Step>) -> Vec<Step> {
    before.iter().cloned().chain(after).collect()
}

fn check(policy: &Policy) -> Result<(), Fault> {
    if policy.version != POLICY_VERSION {
        fault!(
            path!["version"],
            "is {}; this version reads {POLICY_VERSION}",
            policy.version
        );
    }
    if policy.environments.is_empty() {
        fault!(
            path!["environment"],
            "is missing; a policy has one at least"
        );
    }
    unique("role", "name", policy.roles.iter().map(|role| &*role.name))?;
    check_people(policy)?;
    unique(
        "environment",
        "name",
        policy.environments.iter().map(|e| &*e.name),
    )?;
    unique(
        "calendar",
        "name",
        policy.calendars.iter().map(|c| &*c.name),
    )?;
    unique(
        "window",
        "name",
        policy.windows.iter().map(|window| &*window.name),
    )?;
    unique(
        "freeze",
        "name",
        policy.freezes.iter().map(|freeze| &*freeze.name),
    )?;
    unique(
        "budget",
        "name",
        policy.budgets.iter().map(|budget| &*budget.name),
    )?;
    for (n, environment) in policy.environments.iter().enumerate() {
        check_environment(
            policy,
            &[Step::Key("environment"), Step::Index(n)],
            environment,
        )?;
    }
    check_times(policy)?;
    for (n, budget) in policy.budgets.iter().enumerate() {
        check_budget(&[Step::Key("budget"), Step::Index(n)], budget)?;
    }
    check_overrides(policy)?;
    for (n, waiver) in policy.waivers.iter().enumerate() {
        if !waiver.rule.can_be_passed() {
            fault!(
                path!["waiver", n, "rule"],
                "{:?} can't be waived",
                waiver.rule.name()
            );
        }
        known_environment(
            policy,
            path!["waiver", n, "environment"],
            &waiver.environment,
        )?;
        for (key, value) in [("reason", &waiver.reason), ("by", &waiver.by)] {
            if value.trim().is_empty() {
                fault!(
                    path!["waiver", n, key],
                    "is empty; a waiver says why, and who answers for it"
                );
            }
        }
    }
    for (n, escalation) in policy.escalations.iter().enumerate() {
        let same = |other: &&crate::policy::Escalation| other.severity == escalation.severity;
        if policy.escalations.iter().take(n).any(|other| same(&other)) {
            fault!(path!["escalation", n, "severity"], "is there twice");
        }
        for (m, pair) in escalation.steps.windows(2).enumerate() {
            if let [a, b] = pair
                && a.after >= b.after
            {
                fault!(
                    path!["escalation", n, "steps", m + 1, "after"],
                    "is no later than the step before"
                );
            }
        }
    }
    Ok(())
}

fn known_role<'p>(
    policy: &'p Policy,
    path: Vec<Step>,
    name: &str,
) -> Result<&'p crate::policy::Role, Fault> {
    match policy.role(name) {
        Some(role) => Ok(role),
        None => fault!(
            path,
            "there is no role {name:?}; add a [[role]] of that name"
        ),
    }
}

fn known_environment(policy: &Policy, path: Vec<Step>, name: &str) -> Result<(), Fault> {
    if policy
        .environments
        .iter()
        .any(|environment| environment.name == name)
    {
        return Ok(());
    }
    fault!(
        path,
        "there is no environment {name:?}; add an [[environment]] of that name"
    );
}

fn check_quorum(policy: &Policy, at: Vec<Step>, role: &str, at_least: u32) -> Result<(), Fault> {
    let members = known_role(policy, under(&at, path!["role"]), role)?
        .members
        .len();
    if at_least == 0 {
        fault!(
            under(&at, path!["at_least"]),
            "is 0, which asks for nobody; leave the rule out"
        );
    }
    if at_least as usize > members {
        fault!(
            under(&at, path!["at_least"]),
            "is {at_least}, more than the {members} people of role {role:?}"
        );
    }
    Ok(())
}

fn check_people(policy: &Policy) -> Result<(), Fault> {
    let people = &policy.people;
    unique("person", "name", people.iter().map(|person| &*person.name))?;
    for (n, person) in people.iter().enumerate() {
        let known = |role: &Role| role.members.contains(&person.name);
        if !policy.roles.iter().any(known) {
            fault!(
                path!["person", n, "name"],
                "{:?} is in no role; add them to one",
                person.name
            );
        }
        let keys = || path!["person", n, "keys"];
        if person.keys.is_empty() {
            fault!(keys(), "is empty; leave the person out");
        }
        if let Some(key) = person.keys.iter().find(|key| !key.is_sound()) {
            fault!(keys(), "{key} is no key of ed25519 that tells who signed");
        }
        // With one key for two, one of them could speak for both.
        for other in people.iter().take(n) {
            if let Some(key) = person.keys.intersection(&other.keys).next() {
                fault!(keys(), "{key} is {:?}'s already", other.name);
            }
        }
    }
    Ok(())
}

/// As many of a role have keys as have to sign.
fn check_signers(policy: &Policy, at: Vec<Step>, role: &str, at_least: u32) -> Result<(), Fault> {
    let members = policy.role(role).map(|role| &role.members);
    let signers = members
        .into_iter()
        .flatten()
        .filter(|member| !policy.keys(member).is_empty())
        .count();
    if (at_least as usize) > signers {
        fault!(
            under(&at, path!["signed"]),
            "asks {at_least} of role {role:?} to sign, and {signers} have a key; add a [[person]] for each"
        );
    }
    Ok(())
}

fn check_environment(policy: &Policy, at: &[Step], environment: &Environment) -> Result<(), Fault> {
    let here = |path: Vec<Step>| under(at, path);
    if environment.actors.is_empty() {
        fault!(
            here(path!["actors"]),
            "names no role, so that nobody could act"
        );
    }
    for (n, role) in environment.actors.iter().enumerate() {
        known_role(policy, here(path!["actors", n]), role)?;
    }
    // Up to the first environment, at most once by each.
    let mut before = environment.after.as_deref();
    let mut steps = 0;
    while let Some(name) = before {
        known_environment(policy, here(path!["after"]), name)?;
        steps += 1;
        if steps > policy.environments.len() || name == environment.name {
            fault!(
                here(path!["after"]),
                "leads back to {:?} itself",
                environment.name
            );
        }
        let found = policy.environments.iter().find(|other| other.name == name);
        before = found.and_then(|found| found.after.as_deref());
    }
    for (key, set) in [
        ("soak", environment.soak.is_some()),
        ("parity", environment.parity.is_some()),
    ] {
        if set && environment.after.is_none() {
            fault!(
                here(path![key]),
                "needs `after`: the environment to compare with"
            );
        }
    }
    let quorum = |path: Vec<Step>, quorum: &Quorum| {
        check_quorum(policy, here(path), &quorum.role, quorum.at_least)
    };
    if let Some(reviews) = &environment.reviews {
        quorum(path!["reviews"], reviews)?;
        if reviews.signed {
            fault!(
                here(path!["reviews", "signed"]),
                "is for approvals; reviews are of where changes are"
            );
        }
    }
    for (n, approvals) in environment.approvals.iter().enumerate() {
        quorum(path!["approvals", n], approvals)?;
        if approvals.signed {
            let at = here(path!["approvals", n]);
            check_signers(policy, at, &approvals.role, approvals.at_least)?;
        }
    }
    if let Some(meeting) = &environment.meeting {
        if meeting.quorum.is_empty() {
            fault!(
                here(path!["meeting", "quorum"]),
                "is empty, so that nobody had to be there"
            );
        }
        for (n, Seat { role, at_least }) in meeting.quorum.iter().enumerate() {
            check_quorum(policy, here(path!["meeting", "quorum", n]), role, *at_least)?;
        }
    }
    let mut ids = Vec::new();
    for (n, item) in environment.checklist.iter().enumerate() {
        known_role(policy, here(path!["checklist", n, "owner"]), &item.owner)?;
        if item.id.trim().is_empty() || ids.contains(&&item.id) {
            fault!(
                here(path!["checklist", n, "id"]),
                "{:?} is empty, or there twice",
                item.id
            );
        }
        ids.push(&item.id);
        if item.signed {
            let at = here(path!["checklist", n]);
            if item.form == Form::Probe {
                fault!(
                    under(&at, path!["signed"]),
                    "is for what people say, and a probe is measured"
                );
            }
            check_signers(policy, at, &item.owner, 1)?;
        }
    }
    for (n, name) in environment.budgets.iter().enumerate() {
        if !policy.budgets.iter().any(|budget| budget.name == *name) {
            fault!(
                here(path!["budgets", n]),
                "there is no budget {name:?}; add a [[budget]] of that name"
            );
        }
    }
    for (n, role) in environment.available.iter().enumerate() {
        known_role(policy, here(path!["available", n]), role)?;
        if !policy.rota.iter().any(|shift| shift.role == *role) {
            fault!(
                here(path!["available", n]),
                "role {role:?} has no [[shift]], so that nobody is ever available"
            );
        }
    }
    if let Some(platforms) = &environment.platforms
        && platforms.all_of.is_empty()
    {
        fault!(
            here(path!["platforms", "all_of"]),
            "is empty; leave the rule out"
        );
    }
    if let Some(parity) = &environment.parity
        && parity.keys.is_empty()
    {
        fault!(
            here(path!["parity", "keys"]),
            "is empty; leave the rule out"
        );
    }
    if let Some(incidents) = &environment.incidents
        && incidents.block.is_empty()
    {
        fault!(
            here(path!["incidents", "block"]),
            "is empty; leave the rule out"
        );
    }
    Ok(())
}

fn check_times(policy: &Policy) -> Result<(), Fault> {
    let hours = |at: Vec<Step>, hours: &Hours| match hours.fault() {
        Some((key, detail)) => fault!(under(&at, path!["hours", key]), "{detail}"),
        None => Ok(()),
    };
    let calendars = |at: Vec<Step>, names: &[String]| {
        for (n, name) in names.iter().enumerate() {
            if !policy
                .calendars
                .iter()
                .any(|calendar| calendar.name == *name)
            {
                fault!(
                    under(&at, path![n]),
                    "there is no calendar {name:?}; add a [[calendar]] of that name"
                );
            }
        }
        Ok(())
    };
    let places = |at: Vec<Step>, names: &[String]| {
        for (n, name) in names.iter().enumerate() {
            known_environment(policy, under(&at, path![n]), name)?;
        }
        Ok(())
    };
    for (n, window) in policy.windows.iter().enumerate() {
        hours(path!["window", n], &window.hours)?;
        calendars(path!["window", n, "except"], &window.except)?;
        calendars(path!["window", n, "on"], &window.on)?;
        places(path!["window", n, "environments"], &window.environments)?;
    }
    for (n, freeze) in policy.freezes.iter().enumerate() {
        places(path!["freeze", n, "environments"], &freeze.environments)?;
        match freeze_span(&freeze.zone, freeze.from, freeze.until) {
            Some((from, until)) if from < until => {}
            Some(_) => fault!(path!["freeze", n, "until"], "is no later than `from`"),
            None => fault!(path!["freeze", n, "from"], "is out of range"),
        }
    }
    for (n, shift) in policy.rota.iter().enumerate() {
        let role = known_role(policy, path!["shift", n, "role"], &shift.role)?;
        hours(path!["shift", n], &shift.hours)?;
        calendars(path!["shift", n, "except"], &shift.except)?;
        if shift.people.is_empty() {
            fault!(path!["shift", n, "people"], "names nobody");
        }
        if let Some(stranger) = shift
            .people
            .iter()
            .find(|person| !role.members.contains(*person))
        {
            fault!(
                path!["shift", n, "people"],
                "{stranger:?} is not in role {:?}",
                role.name
            );
        }
    }
    contradictions(policy)
}

/// Windows that leave no time in any week. Calendars are left aside: they come and go.
fn contradictions(policy: &Policy) -> Result<(), Fault> {
    // A Monday; more than a year from there has all that daylight saving does.
    let start = Timestamp::constant(1_767_571_200, 0);
    for environment in &policy.environments {
        let here = |names: &[String]| names.is_empty() || names.contains(&environment.name);
        let windows = policy
            .windows
            .iter()
            .enumerate()
            .filter(|(_, window)| here(&window.environments));
        let (allow, deny): (Vec<_>, Vec<_>) =
            windows.partition(|(_, window)| window.kind == WindowKind::Allow);
        let deny: Vec<_> = deny
            .into_iter()
            .filter(|(_, window)| window.on.is_empty())
            .collect();
        let Some((last, _)) = deny.iter().chain(&allow).max_by_key(|(n, _)| *n) else {
            continue;
        };
        let plain = |list: &[(usize, &crate::policy::Window)]| -> Vec<Opening> {
            let each = list.iter().map(|(_, window)| Opening {
                name: String::new(),
                kind: window.kind,
                environments: Vec::new(),
                overrun: Overrun::Finish,
                hours: Recurring::new(&window.hours, Vec::new(), Vec::new()),
            });
            each.collect()
        };
        let openings: Vec<_> = plain(&allow).into_iter().chain(plain(&deny)).collect();
        if crate::times::next_open(&openings.iter().collect::<Vec<_>>(), start).is_none() {
            fault!(
                path!["window", *last, "hours"],
                "with the other windows leaves no time at all for environment {:?}",
                environment.name
            );
        }
    }
    Ok(())
}

fn check_budget(at: &[Step], budget: &Budget) -> Result<(), Fault> {
    let here = |key: &'static str| under(at, path![key]);
    for (key, value) in [
        ("at_least", budget.at_least),
        ("fewer_than", budget.fewer_than),
    ] {
        if value.is_some_and(|value| !value.is_finite()) {
            fault!(here(key), "is no number that can be compared");
        }
    }
    if budget.unit == Unit::Percent && budget.at_least.is_some_and(|least| least > 100.0) {
        fault!(
            here("at_least"),
            "is over 100 percent, which can never be kept"
        );
    }
    if budget.fewer_than.is_some_and(|fewer| fewer <= 0.0) {
        fault!(
            here("fewer_than"),
            "is not above 0, which can never be kept"
        );
    }
    match (budget.at_least, budget.fewer_than) {
        (None, None) => fault!(here("name"), "has neither `at_least` nor `fewer_than`"),
        (Some(least), Some(fewer)) if least >= fewer => {
            fault!(
                here("at_least"),
                "is not below `fewer_than`, which can never be kept"
            )
        }
        _ => Ok(()),
    }
}

fn check_overrides(policy: &Policy) -> Result<(), Fault> {
    let Some(overrides) = &policy.overrides else {
        return Ok(());
    };
    let members = known_role(policy, path!["override", "role"], &overrides.role)?
        .members
        .len();
    if overrides.people < 2 {
        fault!(
            path!["override", "people"],
            "is {}; it takes two at least",
            overrides.people
        );
    }
    if overrides.people as usize > members {
        fault!(
            path!["override", "people"],
            "is {}, more than the {members} people of role {:?}",
            overrides.people,
            overrides.role
        );
    }
    if overrides.signed {
        check_signers(policy, path!["override"], &overrides.role, overrides.people)?;
    }
    if let Some(rule) = overrides.passes.iter().find(|rule| !rule.can_be_passed()) {
        fault!(
            path!["override", "passes"],
            "{:?} can't be passed",
            rule.name()
        );
    }
    if overrides.severities.is_empty() {
        fault!(
            path!["override", "severities"],
            "is empty, so that nothing can be passed; leave the table out"
        );
    }
    match policy
        .budgets
        .iter()
        .find(|budget| budget.name == overrides.budget)
    {
        Some(budget) if budget.fewer_than.is_some() => Ok(()),
        Some(_) => fault!(path!["override", "budget"], "has no `fewer_than`"),
        None => fault!(
            path!["override", "budget"],
            "there is no budget {:?}",
            overrides.budget
        ),
    }
}
