//! Each rule of a policy, judged.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::Judge;
use crate::digest::Length;
use crate::evidence::{Fact, Resolution, RunOutcome, Vote};
use crate::gate::{Frozen, Opening};
use crate::policy::{Environment, Overrun, Policy, Quorum, Rule, Unit, WindowKind};
use crate::times;
use crate::{Form, Verdict};

impl<'a> Judge<'a> {
    pub(super) fn actor(&mut self, environment: &Environment) {
        let (policy, actor) = (&self.gate.policy, &self.request.actor);
        if !environment
            .actors
            .iter()
            .any(|role| policy.has_role(actor, role))
        {
            let detail = format!(
                "is in none of the roles that may act: {}",
                environment.actors.join(", ")
            );
            self.no_go(Rule::Actor, actor, detail);
        }
    }

    /// What one source could not look at, another may have found to be fine elsewhere.
    pub(super) fn sources(&mut self) {
        for evidence in self.evidence {
            if let Fact::Unread { detail } = &evidence.fact {
                let detail = format!("could not be read ({detail}); ask again when it can be");
                self.against(
                    Rule::Sources,
                    &evidence.source,
                    Verdict::Inconclusive,
                    detail,
                );
            }
        }
    }

    /// Where it was once, it may come back to.
    pub(super) fn rollback(&mut self) {
        let request = self.request;
        let was_there = self.evidence.iter().any(|evidence| {
            matches!(&evidence.fact, Fact::Deployment { artefact, environment, succeeded: true }
                if *artefact == request.artefact && *environment == request.environment)
        });
        if !was_there {
            let detail =
                "there is no evidence that the artefact ever ran there; roll back to one that did";
            self.against(
                Rule::Rollback,
                &request.environment,
                Verdict::Inconclusive,
                detail,
            );
        }
    }

    /// The tag is what the request says, so that evidence must say the same of the artefact.
    pub(super) fn tag(&mut self, environment: &Environment) {
        let request = self.request;
        if environment.tags.is_empty() {
            return;
        }
        if !environment
            .tags
            .iter()
            .any(|pattern| pattern.matches(&request.tag))
        {
            let patterns: Vec<_> = environment.tags.iter().map(ToString::to_string).collect();
            let detail = format!(
                "is not one of {}; such tags do not go here",
                patterns.join(", ")
            );
            self.no_go(Rule::Tag, &request.tag, detail);
        }
        let max_age = environment.platforms.as_ref().and_then(|rule| rule.max_age);
        let found = self.fresh(Rule::Tag, "artefact", max_age, |evidence| {
            match &evidence.fact {
                Fact::Artefact { artefact, tag, .. } => {
                    (*artefact == request.artefact).then_some(tag)
                }
                _ => None,
            }
        });
        for tag in found.unwrap_or_default() {
            if *tag != request.tag {
                let detail = format!("the artefact is tagged {tag:?}; ask for it by that tag");
                self.no_go(Rule::Tag, &request.tag, detail);
            }
        }
    }

    pub(super) fn order(&mut self, environment: &Environment) {
        let Some(before) = &environment.after else {
            return;
        };
        let artefact = self.request.artefact;
        match self.arrival(before) {
            None => {
                let detail =
                    format!("there is no evidence that {artefact} is there; deploy it there first");
                self.against(Rule::Order, before, Verdict::Inconclusive, detail);
            }
            Some((_, false)) => self.no_go(
                Rule::Order,
                before,
                "its last deployment there failed; fix it first",
            ),
            Some((_, true)) => {}
        }
    }

    /// When the artefact last came to an environment, and whether it runs there.
    pub(super) fn arrival(&self, place: &str) -> Option<(Timestamp, bool)> {
        let (at, found) = self.latest(|evidence| match &evidence.fact {
            Fact::Deployment {
                artefact,
                environment,
                succeeded,
            } => (*artefact == self.request.artefact && environment == place).then_some(*succeeded),
            _ => None,
        })?;
        Some((at, found.into_iter().all(|succeeded| succeeded)))
    }

    /// Who made the changes, where approvals or reviews ask for it.
    pub(super) fn changes(&mut self, environment: &Environment) -> Option<BTreeSet<&'a str>> {
        let reviews = environment.reviews.as_ref();
        let approvals = environment.approvals.first();
        let (rule, quorum) = match (reviews, approvals) {
            (Some(reviews), _) => (Rule::Reviews, reviews),
            (None, Some(approvals)) => (Rule::Approvals, approvals),
            (None, None) => return None,
        };
        let wanted = self.request.artefact;
        let found = self.fresh(
            rule,
            "changes",
            quorum.max_age,
            |evidence| match &evidence.fact {
                Fact::Changes { artefact, changes } => (*artefact == wanted).then_some(changes),
                _ => None,
            },
        )?;
        let policy = &self.gate.policy;
        let all: Vec<_> = found.iter().flat_map(|changes| changes.iter()).collect();
        // Nobody can be told from an author where no author is named.
        if all.is_empty()
            || found.iter().any(|changes| changes.is_empty())
            || all.iter().any(|change| change.authors.is_empty())
        {
            let detail = "no change is named, or one without its authors; collect all changes since the release before";
            self.against(rule, "changes", Verdict::Inconclusive, detail);
            return None;
        }
        if let Some(reviews) = reviews {
            for change in &all {
                let looked = change.reviewers.iter().filter(|person| {
                    policy.has_role(person, &reviews.role) && !change.authors.contains(*person)
                });
                let looked = looked.count();
                if looked < reviews.at_least as usize {
                    let detail = format!(
                        "{looked} of role {} looked at it, {} must have; authors don't count",
                        reviews.role, reviews.at_least
                    );
                    self.no_go(Rule::Reviews, &change.id, detail);
                }
            }
        }
        Some(
            all.iter()
                .flat_map(|change| change.authors.iter().map(String::as_str))
                .collect(),
        )
    }

    pub(super) fn approvals(&mut self, quorum: &Quorum, authors: Option<&BTreeSet<&'a str>>) {
        // What is missing is a reason already.
        let Some(authors) = authors else { return };
        let (policy, request) = (&self.gate.policy, self.request);
        let max_age = quorum.max_age.unwrap_or(policy.max_age);
        let mut expiries: Vec<(Timestamp, &str)> = Vec::new();
        let mut unsigned = 0;
        for evidence in self.evidence {
            if let Fact::Approval {
                artefact,
                environment,
                by,
            } = &evidence.fact
                && *artefact == request.artefact
                && *environment == request.environment
                && policy.has_role(by, &quorum.role)
                && !authors.contains(by.as_str())
            {
                if quorum.signed && !evidence.is_signed_by(policy.keys(by)) {
                    unsigned += 1;
                    continue;
                }
                let expiry = max_age.after(evidence.observed_at);
                match expiries.iter_mut().find(|(_, person)| person == by) {
                    Some((last, _)) => *last = expiry.max(*last),
                    None => expiries.push((expiry, by)),
                }
            }
        }
        let given = expiries.len();
        expiries.retain(|(expiry, _)| *expiry > self.now);
        let enough = quorum.at_least as usize;
        if expiries.len() < enough {
            let stale = given.saturating_sub(expiries.len());
            // Approvals that ran out were evidence once; without them nothing is known.
            let verdict = if given >= enough {
                Verdict::Inconclusive
            } else {
                Verdict::NoGo
            };
            let mut detail = format!(
                "{} of role {} approved, {} must have ({stale} ran out; authors don't count)",
                expiries.len(),
                quorum.role,
                quorum.at_least
            );
            if unsigned > 0 {
                detail +=
                    &format!("; {unsigned} more are not signed by who is said to have given them");
            }
            return self.against(Rule::Approvals, &quorum.role, verdict, detail);
        }
        // As long as enough of them count.
        expiries.sort_unstable();
        if let Some((expiry, _)) = expiries.iter().rev().nth(enough.saturating_sub(1)) {
            self.good_until = self.good_until.min(*expiry);
        }
    }

    pub(super) fn meeting(&mut self, environment: &Environment) {
        let Some(rule) = &environment.meeting else {
            return;
        };
        let (policy, request) = (&self.gate.policy, self.request);
        let found = self.fresh(
            Rule::Meeting,
            "go/no-go",
            rule.max_age,
            |evidence| match &evidence.fact {
                Fact::Meeting {
                    artefact,
                    environment,
                    votes,
                    minutes,
                } => (*artefact == request.artefact && *environment == request.environment)
                    .then_some((votes, minutes)),
                _ => None,
            },
        );
        for (votes, minutes) in found.unwrap_or_default() {
            if minutes.trim().is_empty() {
                self.against(
                    Rule::Meeting,
                    "minutes",
                    Verdict::Inconclusive,
                    "there are none; write them",
                );
            }
            for seat in &rule.quorum {
                let there = votes
                    .keys()
                    .filter(|person| policy.has_role(person, &seat.role))
                    .count();
                if there < seat.at_least as usize {
                    let detail = format!(
                        "{there} of the role were there, {} must have been",
                        seat.at_least
                    );
                    self.no_go(Rule::Meeting, &seat.role, detail);
                }
            }
            let against: Vec<_> = votes
                .iter()
                .filter(|(_, vote)| **vote == Vote::NoGo)
                .collect();
            for (person, _) in &against {
                self.no_go(Rule::Meeting, person, "said no-go");
            }
            if against.is_empty() && !votes.values().any(|vote| *vote == Vote::Go) {
                self.no_go(Rule::Meeting, "go/no-go", "nobody said go");
            }
        }
    }

    pub(super) fn checklist(&mut self, environment: &Environment) {
        let policy = &self.gate.policy;
        let wanted = self.request.artefact;
        for item in &environment.checklist {
            let found =
                self.fresh(
                    Rule::Checklist,
                    &item.id,
                    item.max_age,
                    |evidence| match &evidence.fact {
                        Fact::Item {
                            id,
                            artefact,
                            form,
                            passed,
                            by,
                        } => (*id == item.id && *artefact == wanted && *form == item.form)
                            .then_some((*passed, by, evidence)),
                        _ => None,
                    },
                );
            for (passed, by, evidence) in found.unwrap_or_default() {
                if !policy.has_role(by, &item.owner) {
                    let detail =
                        format!("was ticked by {by}; {} owns it ({})", item.owner, item.list);
                    self.no_go(Rule::Checklist, &item.id, detail);
                } else if !passed {
                    let detail = format!("was found not to be done ({})", item.list);
                    self.no_go(Rule::Checklist, &item.id, detail);
                } else if item.signed && !evidence.is_signed_by(policy.keys(by)) {
                    let detail = format!("is not signed by {by}; sign it");
                    self.against(Rule::Checklist, &item.id, Verdict::Inconclusive, detail);
                } else if item.form == Form::Document && evidence.digest.is_none() {
                    let detail = "the evidence does not name the document's digest";
                    self.against(Rule::Checklist, &item.id, Verdict::Inconclusive, detail);
                }
            }
        }
    }

    pub(super) fn pipelines(&mut self, environment: &Environment) {
        for rule in &environment.pipelines {
            let found =
                self.fresh(
                    Rule::Pipelines,
                    &rule.name,
                    rule.max_age,
                    |evidence| match &evidence.fact {
                        Fact::Pipeline {
                            name,
                            outcome,
                            reported_to,
                            resolved,
                        } => (*name == rule.name).then_some((*outcome, reported_to, *resolved)),
                        _ => None,
                    },
                );
            for (outcome, reported_to, resolved) in found.unwrap_or_default() {
                match outcome {
                    RunOutcome::Passed => {}
                    RunOutcome::Running => {
                        let detail = "has not ended; wait for it";
                        self.against(Rule::Pipelines, &rule.name, Verdict::Inconclusive, detail);
                    }
                    RunOutcome::Failed => {
                        if let Some(place) = &rule.report_to
                            && !reported_to.contains(place)
                        {
                            let detail = format!("failed, and was not reported to {place}");
                            self.no_go(Rule::Pipelines, &rule.name, detail);
                        }
                        if !matches!(resolved, Some(Resolution::Fixed | Resolution::RolledBack)) {
                            let detail = "failed, and was neither fixed nor rolled back";
                            self.no_go(Rule::Pipelines, &rule.name, detail);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn tests(&mut self, environment: &Environment) {
        let wanted = self.request.artefact;
        for rule in &environment.tests {
            let found =
                self.fresh(
                    Rule::Tests,
                    &rule.suite,
                    rule.max_age,
                    |evidence| match &evidence.fact {
                        Fact::Test {
                            suite,
                            artefact,
                            passed,
                        } => (*suite == rule.suite && *artefact == wanted).then_some(*passed),
                        _ => None,
                    },
                );
            if found.is_some_and(|found| !found.into_iter().all(|passed| passed)) {
                self.no_go(Rule::Tests, &rule.suite, "failed for this artefact");
            }
        }
    }

    pub(super) fn platforms(&mut self, environment: &Environment) {
        let Some(rule) = &environment.platforms else {
            return;
        };
        let wanted = self.request.artefact;
        let found = self.fresh(
            Rule::Platforms,
            "artefact",
            rule.max_age,
            |evidence| match &evidence.fact {
                Fact::Artefact {
                    artefact,
                    platforms,
                    ..
                } => (*artefact == wanted).then_some(platforms),
                _ => None,
            },
        );
        for platforms in found.unwrap_or_default() {
            for missing in rule.all_of.difference(platforms) {
                self.no_go(
                    Rule::Platforms,
                    missing,
                    "was not built; build it for this platform too",
                );
            }
        }
    }

    pub(super) fn soak(&mut self, environment: &Environment) {
        let (Some(rule), Some(before)) = (&environment.soak, &environment.after) else {
            return;
        };
        let wanted = self.request.artefact;
        let found = self.fresh_of_each(
            Rule::Soak,
            before,
            rule.max_age,
            |evidence| match &evidence.fact {
                Fact::Blockers {
                    artefact,
                    environment,
                    open,
                    last_closed_at,
                } => (*artefact == wanted && environment == before)
                    .then_some((open, *last_closed_at)),
                _ => None,
            },
        );
        // That it is not there is a reason of the order already.
        let Some((arrived, true)) = self.arrival(before) else {
            return;
        };
        for (open, closed) in found.unwrap_or_default() {
            for blocker in open {
                self.no_go(
                    Rule::Soak,
                    blocker,
                    format!("is open in {before}; close it"),
                );
            }
            let done = rule.length.after(closed.unwrap_or(arrived).max(arrived));
            let replaced = self.replaced(before, arrived);
            if replaced.is_some_and(|replaced| replaced < done) {
                let detail = format!(
                    "was replaced there before it had run for {}; deploy it there again",
                    rule.length
                );
                self.no_go(Rule::Soak, before, detail);
            } else if self.now < done {
                let detail = format!("has to run without a blocker for {} there", rule.length);
                self.against_until(Rule::Soak, before, Verdict::Hold, detail, Some(done));
            }
        }
    }

    /// When another artefact first came to an environment after an instant.
    fn replaced(&self, place: &str, after: Timestamp) -> Option<Timestamp> {
        let others = self.evidence.iter().filter(|evidence| {
            matches!(&evidence.fact, Fact::Deployment { artefact, environment, succeeded: true }
                if *artefact != self.request.artefact && environment == place)
        });
        let times = others.map(|evidence| evidence.observed_at);
        times.filter(|at| *at > after).min()
    }

    pub(super) fn parity(&mut self, environment: &Environment) {
        let (Some(rule), Some(before)) = (&environment.parity, &environment.after) else {
            return;
        };
        let mut settings = |place: &str| {
            self.fresh(
                Rule::Parity,
                place,
                rule.max_age,
                |evidence| match &evidence.fact {
                    Fact::Settings {
                        environment,
                        values,
                    } => (environment == place).then_some(values),
                    _ => None,
                },
            )
        };
        let (Some(there), Some(here)) = (settings(before), settings(&environment.name)) else {
            return;
        };
        for key in &rule.keys {
            for (there, here) in there
                .iter()
                .flat_map(|there| here.iter().map(move |here| (there, here)))
            {
                match (there.get(key), here.get(key)) {
                    (Some(a), Some(b)) if a == b => {}
                    (Some(_), Some(_)) => {
                        let detail = format!("differs between {before} and {}", environment.name);
                        self.no_go(Rule::Parity, key, detail);
                    }
                    _ => {
                        let detail = "is not known of both environments; collect it";
                        self.against(Rule::Parity, key, Verdict::Inconclusive, detail);
                    }
                }
            }
        }
    }

    /// Whether it is kept; a reason where it is not, and a warning at the last one that is allowed.
    pub(super) fn budget(&mut self, name: &str) -> bool {
        let before = self.reasons.len();
        let policy = &self.gate.policy;
        let Some(budget) = policy.budgets.iter().find(|budget| budget.name == name) else {
            return false;
        };
        let quarter = policy.zone.quarter_of(self.now);
        let found = self.fresh(
            Rule::Budgets,
            name,
            budget.max_age,
            |evidence| match &evidence.fact {
                Fact::Measure {
                    name: measured,
                    value,
                    since,
                } => (measured == name).then_some((*value, *since)),
                _ => None,
            },
        );
        for (value, since) in found.unwrap_or_default() {
            let at = self.latest(|evidence| match &evidence.fact {
                Fact::Measure { name: measured, .. } => (measured == name).then_some(()),
                _ => None,
            });
            // Of a longer time a count is no less; a share of it, or what there has to be enough of, may look better than the quarter's.
            let grows = budget.unit != Unit::Percent && budget.at_least.is_none();
            let from_its_beginning = since == quarter || grows && since < quarter;
            let whole = from_its_beginning && at.is_some_and(|(at, _)| at >= quarter);
            let possible = value.is_finite()
                && value >= 0.0
                && (budget.unit != Unit::Percent || value <= 100.0);
            if !whole || !possible {
                let detail = "was not measured for this quarter from its beginning; measure it";
                self.against(Rule::Budgets, name, Verdict::Inconclusive, detail);
                continue;
            }
            if let Some(least) = budget.at_least {
                if value < least {
                    self.no_go(
                        Rule::Budgets,
                        name,
                        format!("is {value}, and must be {least} at least"),
                    );
                } else if budget.unit == Unit::Percent && least < 100.0 {
                    let left = (value - least) / (100.0 - least);
                    if left < 0.1 {
                        self.warnings.push(format!("{name}: less than a tenth of the error budget is left ({value}, at least {least})"));
                    }
                }
            }
            if let Some(fewer) = budget.fewer_than {
                let last = match budget.unit {
                    Unit::Count => fewer - 1.0,
                    Unit::Hours | Unit::Percent => fewer * 0.9,
                };
                if value >= fewer {
                    self.no_go(
                        Rule::Budgets,
                        name,
                        format!("is {value}, and must be below {fewer}"),
                    );
                } else if value >= last {
                    self.warnings.push(format!(
                        "{name}: {value} is the last that is allowed (below {fewer})"
                    ));
                }
            }
            self.good_until = self.good_until.min(next_quarter(policy, self.now));
        }
        self.reasons.len() == before
    }

    pub(super) fn backups(&mut self, environment: &Environment) {
        for rule in &environment.backups {
            self.fresh(
                Rule::Backups,
                &rule.name,
                Some(rule.max_age),
                |evidence| match &evidence.fact {
                    Fact::Backup { name } => (*name == rule.name).then_some(()),
                    _ => None,
                },
            );
            let drills = self.fresh(
                Rule::Drills,
                &rule.name,
                Some(rule.drill_max_age),
                |evidence| match &evidence.fact {
                    Fact::Drill { name, passed } => (*name == rule.name).then_some(*passed),
                    _ => None,
                },
            );
            if drills.is_some_and(|drills| !drills.into_iter().all(|passed| passed)) {
                self.no_go(
                    Rule::Drills,
                    &rule.name,
                    "the last restore drill failed; make one that passes",
                );
            }
        }
    }

    pub(super) fn incidents(&mut self, environment: &Environment) {
        let Some(rule) = &environment.incidents else {
            return;
        };
        let found =
            self.fresh_of_each(
                Rule::Incidents,
                "open",
                rule.max_age,
                |evidence| match &evidence.fact {
                    Fact::Incidents { open } => Some(open),
                    _ => None,
                },
            );
        for (name, severity) in found.unwrap_or_default().into_iter().flatten() {
            if rule.block.contains(severity) {
                self.no_go(Rule::Incidents, name, "is open; resolve it");
            }
        }
    }

    pub(super) fn rota(&mut self, environment: &Environment) {
        let gate = self.gate;
        for role in &environment.available {
            let shifts: Vec<_> = gate
                .shifts
                .iter()
                .filter(|shift| shift.role == *role)
                .collect();
            let now = self.now;
            let changes = shifts.iter().map(|shift| shift.hours.next_change(now));
            if !shifts.iter().any(|shift| shift.hours.contains(now)) {
                let until = changes.flatten().min();
                self.against_until(
                    Rule::Rota,
                    role,
                    Verdict::Hold,
                    "nobody of the role is available",
                    until,
                );
            } else if let Some(end) = changes.map(|end| end.unwrap_or(Timestamp::MAX)).min() {
                // Somebody may come as another goes; until the first of both it is certain.
                self.good_until = self.good_until.min(end);
            }
        }
    }

    pub(super) fn windows(&mut self) {
        let gate = self.gate;
        let here = |names: &[String]| names.is_empty() || names.contains(&self.request.environment);
        let openings: Vec<&Opening> = gate
            .openings
            .iter()
            .filter(|o| here(&o.environments))
            .collect();
        let freezes: Vec<&Frozen> = gate
            .freezes
            .iter()
            .filter(|f| here(&f.environments))
            .collect();
        let now = self.now;
        // What stops it now may be passed over; what comes later is judged all the same.
        let (frozen, later): (Vec<&Frozen>, Vec<&Frozen>) = freezes
            .into_iter()
            .filter(|freeze| now < freeze.until)
            .partition(|freeze| freeze.from <= now);
        for freeze in &frozen {
            let detail = format!("nothing goes out until {}", freeze.until);
            let until = Some(freeze.until);
            self.against_until(Rule::Freezes, &freeze.name, Verdict::Hold, detail, until);
        }
        let first_change = |all: &[&Opening]| {
            let changes = all.iter().filter_map(|o| o.hours.next_change(now));
            changes.min()
        };
        // What was passed over ends; or another window, which may be stricter, begins.
        let mut changes: Vec<Timestamp> = frozen.iter().map(|freeze| freeze.until).collect();
        let (denying, rest): (Vec<&Opening>, Vec<&Opening>) = openings
            .into_iter()
            .partition(|o| o.kind == WindowKind::Deny && o.hours.contains(now));
        for deny in &denying {
            let until = deny.hours.next_change(now);
            changes.extend(until);
            let detail = "nothing goes out in these hours";
            self.against_until(Rule::Windows, &deny.name, Verdict::Hold, detail, until);
        }
        let (allow, deny): (Vec<&Opening>, Vec<&Opening>) = rest
            .iter()
            .copied()
            .partition(|opening| opening.kind == WindowKind::Allow);
        let (open, shut): (Vec<&Opening>, Vec<&Opening>) = allow
            .into_iter()
            .partition(|opening| opening.hours.contains(now));
        let opens = first_change(&shut);
        changes.extend(opens);
        let outside = open.is_empty() && !shut.is_empty();
        if outside {
            let names: Vec<_> = shut.iter().map(|opening| opening.name.as_str()).collect();
            let detail = "things go out in these hours alone";
            let names = names.join(", ");
            self.against_until(Rule::Windows, &names, Verdict::Hold, detail, opens);
            changes.extend(first_change(&deny));
            changes.extend(later.iter().map(|freeze| freeze.from));
        }
        if let Some(change) = changes.into_iter().min() {
            self.good_until = self.good_until.min(change);
        }
        if outside {
            return;
        }
        if rest.is_empty() && later.is_empty() {
            return;
        }
        let takes = self.request.takes.map(|takes| takes.after(now));
        let overrun = open.iter().map(|opening| opening.overrun).max();
        let mut until = takes.unwrap_or(now).max(self.good_until);
        if overrun == Some(Overrun::Stop) {
            until = until.max(Length::hours(7 * 24).after(now));
        }
        let closes = times::closes(&rest, &later, now, until);
        self.good_until = self.good_until.min(closes);
        match overrun {
            Some(Overrun::Refuse) => {
                let strict: Vec<_> = open
                    .iter()
                    .copied()
                    .filter(|opening| opening.overrun == Overrun::Refuse)
                    .collect();
                let name = strict.first().map_or("", |opening| opening.name.as_str());
                // One that is open still may not refuse.
                let until = first_change(&strict).map_or(closes, |change| change.min(closes));
                match takes {
                    None => {
                        let detail = "refuses what it can't see finished; the request must say how long it takes";
                        self.against_until(Rule::Windows, name, Verdict::NoGo, detail, Some(until));
                    }
                    Some(end) if end > closes => {
                        let detail = format!("closes at {closes}, before it would be finished");
                        self.against_until(Rule::Windows, name, Verdict::Hold, detail, Some(until));
                    }
                    Some(end) => {
                        // Right after the last instant at which it could begin.
                        let spare = closes
                            .duration_since(end)
                            .saturating_add(SignedDuration::from_nanos(1));
                        let last = now.saturating_add(spare).unwrap_or(Timestamp::MAX);
                        self.good_until = self.good_until.min(last);
                    }
                }
            }
            Some(Overrun::Stop) => self.stop_at = Some(closes),
            Some(Overrun::Finish) | None => {}
        }
    }
}

fn next_quarter(policy: &Policy, now: Timestamp) -> Timestamp {
    // Some days into the next one, whose beginning is asked for.
    let later = SignedDuration::from_hours(24 * 100);
    let start = policy.zone.quarter_of(now);
    start
        .saturating_add(later)
        .map_or(Timestamp::MAX, |later| policy.zone.quarter_of(later))
}
