//! The answer.

mod rules;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::decision::{
    Action, Decision, Obligation, Passed, ROLLBACKS, Reason, Request, Verdict, When,
};
use crate::digest::{Digest, Length};
use crate::evidence::{Evidence, Fact, evidence_digest};
use crate::gate::Gate;
use crate::hours::HORIZON;
use crate::policy::{Overrides, Rule, Severity};

/// How many instants are tried for [`Gate::when`].
const MAX_TRIES: usize = 10_000;

impl Gate {
    /// Whether it may, by this evidence, at this instant. Every reason is given, not the first alone.
    ///
    /// The order of the evidence does not count. Of several pieces about the same thing the latest counts, and all of them
    /// where they are from the same instant; of open blockers and incidents the latest of each source.
    pub fn judge(&self, evidence: &[Evidence], request: &Request, instant: Timestamp) -> Decision {
        let mut judge = Judge::new(self, evidence, request, instant);
        judge.all();
        let mut decision = judge.decide();
        decision.evidence = evidence_digest(evidence);
        decision
    }

    /// The first instant, `from` included, at which the same evidence would give go.
    pub fn when(&self, evidence: &[Evidence], request: &Request, from: Timestamp) -> When {
        let limit = from.saturating_add(HORIZON).unwrap_or(Timestamp::MAX);
        let mut at = from;
        for _ in 0..MAX_TRIES {
            let mut judge = Judge::new(self, evidence, request, at);
            judge.all();
            let decision = judge.decide();
            if decision.verdict == Verdict::Go {
                return When::At(at);
            }
            // Before the last of them nothing can be go.
            let ends: Option<Vec<_>> = decision
                .reasons
                .iter()
                .map(|reason| reason.holds_until)
                .collect();
            match ends.and_then(|ends| ends.into_iter().max()) {
                Some(next) if next > at && next <= limit => at = next,
                _ => break,
            }
        }
        When::Never
    }
}

struct Judge<'a> {
    gate: &'a Gate,
    evidence: &'a [Evidence],
    request: &'a Request,
    now: Timestamp,
    reasons: Vec<Reason>,
    warnings: Vec<String>,
    good_until: Timestamp,
    stop_at: Option<Timestamp>,
}

impl<'a> Judge<'a> {
    fn new(gate: &'a Gate, evidence: &'a [Evidence], request: &'a Request, now: Timestamp) -> Self {
        Self {
            gate,
            evidence,
            request,
            now,
            reasons: Vec::new(),
            warnings: Vec::new(),
            good_until: gate.policy.permit_for.after(now),
            stop_at: None,
        }
    }

    fn against(&mut self, rule: Rule, subject: &str, verdict: Verdict, detail: impl Into<String>) {
        self.against_until(rule, subject, verdict, detail, None);
    }

    fn against_until(
        &mut self,
        rule: Rule,
        subject: &str,
        verdict: Verdict,
        detail: impl Into<String>,
        holds_until: Option<Timestamp>,
    ) {
        self.reasons.push(Reason {
            rule,
            subject: subject.into(),
            verdict,
            detail: detail.into(),
            holds_until,
        });
    }

    fn no_go(&mut self, rule: Rule, subject: &str, detail: impl Into<String>) {
        self.against(rule, subject, Verdict::NoGo, detail);
    }

    /// The latest of what `pick` takes; all of it that is from the same instant.
    fn latest<T>(&self, pick: impl Fn(&'a Evidence) -> Option<T>) -> Option<(Timestamp, Vec<T>)> {
        let mut found: Option<(Timestamp, Vec<T>)> = None;
        for evidence in self.evidence {
            let Some(value) = pick(evidence) else {
                continue;
            };
            match &mut found {
                Some((at, _)) if evidence.observed_at < *at => {}
                Some((at, all)) if evidence.observed_at == *at => all.push(value),
                _ => found = Some((evidence.observed_at, vec![value])),
            }
        }
        found
    }

    /// As [`latest`](Self::latest), no older than it may be; what is missing or stale is a reason.
    fn fresh<T>(
        &mut self,
        rule: Rule,
        subject: &str,
        max_age: Option<Length>,
        pick: impl Fn(&'a Evidence) -> Option<T>,
    ) -> Option<Vec<T>> {
        let max_age = max_age.unwrap_or(self.gate.policy.max_age);
        let Some((at, found)) = self.latest(pick) else {
            self.against(
                rule,
                subject,
                Verdict::Inconclusive,
                "there is no evidence; collect it",
            );
            return None;
        };
        let stale_at = max_age.after(at);
        if self.now >= stale_at {
            let detail = format!("the evidence of {at} is older than {max_age}; collect it anew");
            self.against(rule, subject, Verdict::Inconclusive, detail);
            return None;
        }
        self.good_until = self.good_until.min(stale_at);
        Some(found)
    }

    /// As [`fresh`](Self::fresh), of each source by itself: what one of them found is not undone by another that did not look there.
    fn fresh_of_each<T>(
        &mut self,
        rule: Rule,
        subject: &str,
        max_age: Option<Length>,
        pick: impl Fn(&'a Evidence) -> Option<T>,
    ) -> Option<Vec<T>> {
        let known = self
            .evidence
            .iter()
            .filter(|evidence| pick(evidence).is_some());
        let sources: BTreeSet<&str> = known.map(|evidence| evidence.source.as_str()).collect();
        if sources.is_empty() {
            return self.fresh(rule, subject, max_age, pick);
        }
        let mut all = Vec::new();
        let mut whole = true;
        for source in sources {
            let own = |evidence: &'a Evidence| match evidence.source == source {
                true => pick(evidence),
                false => None,
            };
            match self.fresh(rule, subject, max_age, own) {
                Some(found) => all.extend(found),
                None => whole = false,
            }
        }
        whole.then_some(all)
    }

    fn all(&mut self) {
        let gate = self.gate;
        self.clock();
        let environments = gate.policy.environments.iter();
        let Some(environment) = environments
            .into_iter()
            .find(|e| e.name == self.request.environment)
        else {
            let detail = "the policy has no such environment; name one that it has";
            let name = self.request.environment.clone();
            return self.no_go(Rule::Environment, &name, detail);
        };
        self.actor(environment);
        if self.request.action == Action::Rollback {
            return self.rollback();
        }
        self.sources();
        self.tag(environment);
        self.order(environment);
        let authors = self.changes(environment);
        for approvals in &environment.approvals {
            self.approvals(approvals, authors.as_ref());
        }
        self.meeting(environment);
        self.checklist(environment);
        self.pipelines(environment);
        self.tests(environment);
        self.platforms(environment);
        self.soak(environment);
        self.parity(environment);
        for name in &environment.budgets {
            self.budget(name);
        }
        self.backups(environment);
        self.incidents(environment);
        self.rota(environment);
        self.windows();
    }

    /// Evidence from after the instant is of a clock that is wrong, or of another question.
    fn clock(&mut self) {
        let latest = self
            .evidence
            .iter()
            .filter(|evidence| evidence.observed_at > self.now);
        if let Some(latest) = latest.max_by_key(|evidence| evidence.observed_at) {
            let detail = format!(
                "evidence is from {}, after the instant that is asked for; check the clocks",
                latest.observed_at
            );
            let until = Some(latest.observed_at);
            self.against_until(
                Rule::Clock,
                &latest.source,
                Verdict::Inconclusive,
                detail,
                until,
            );
        }
    }

    /// What waivers and overrides pass, and the worst of what is left.
    fn decide(mut self) -> Decision {
        let mut passed = Vec::new();
        let mut obligations = Vec::new();
        self.waive(&mut passed);
        if self.request.action == Action::Rollback {
            obligations.push(Obligation::Count {
                budget: ROLLBACKS.into(),
            });
        } else {
            self.override_reasons(&mut passed, &mut obligations);
        }
        let worst = self.reasons.iter().map(|reason| reason.verdict).max();
        let verdict = worst.unwrap_or(Verdict::Go);
        let go = verdict == Verdict::Go;
        Decision {
            verdict,
            request: self.request.clone(),
            instant: self.now,
            policy: self.gate.digest,
            evidence: Digest([0; 32]),
            reasons: self.reasons,
            passed,
            warnings: self.warnings,
            obligations,
            good_until: go.then_some(self.good_until),
            stop_at: self.stop_at.filter(|_| go),
        }
    }

    fn waive(&mut self, passed: &mut Vec<Passed>) {
        let gate = self.gate;
        let (kept, rest) = std::mem::take(&mut self.reasons)
            .into_iter()
            .partition::<Vec<_>, _>(|reason| {
                !reason.rule.can_be_passed() || reason.verdict == Verdict::Inconclusive
            });
        self.reasons = kept;
        for reason in rest {
            let waiver = gate.policy.waivers.iter().find(|waiver| {
                waiver.rule == reason.rule
                    && waiver.environment == self.request.environment
                    && waiver
                        .subject
                        .as_ref()
                        .is_none_or(|subject| *subject == reason.subject)
                    && self.now < waiver.until
            });
            match waiver {
                Some(waiver) => {
                    self.good_until = self.good_until.min(waiver.until);
                    let by = format!(
                        "waiver of {} until {}: {}",
                        waiver.by, waiver.until, waiver.reason
                    );
                    passed.push(Passed { reason, by });
                }
                None => self.reasons.push(reason),
            }
        }
        self.reasons.sort_by_key(|reason| reason.rule);
    }

    fn override_reasons(&mut self, passed: &mut Vec<Passed>, obligations: &mut Vec<Obligation>) {
        let gate = self.gate;
        let Some(rules) = &gate.policy.overrides else {
            return;
        };
        let passes = |reason: &Reason| {
            rules.passes.contains(&reason.rule) && reason.verdict != Verdict::Inconclusive
        };
        if !self.reasons.iter().any(passes) {
            return;
        }
        for (incident, severity) in self.overridden() {
            let given = match self.override_of(rules, incident, severity) {
                Ok(given) => given,
                Err(fault) => {
                    self.warnings
                        .push(format!("override for {incident:?} does not count: {fault}"));
                    continue;
                }
            };
            // Each spends one, so that there must be one left.
            let before = self.reasons.len();
            if !self.budget(&rules.budget) {
                // What an override lacks speaks against the override alone.
                self.reasons.truncate(before);
                self.warnings.push(format!(
                    "override for {incident:?} does not count: budget {} does not allow it",
                    rules.budget
                ));
                return;
            }
            self.good_until = self.good_until.min(given.ends);
            let by = format!(
                "override of {} for {incident}: {}",
                given.people.join(" and "),
                given.reason
            );
            let (gone, kept) = std::mem::take(&mut self.reasons)
                .into_iter()
                .partition::<Vec<_>, _>(passes);
            self.reasons = kept;
            passed.extend(gone.into_iter().map(|reason| Passed {
                reason,
                by: by.clone(),
            }));
            obligations.push(Obligation::OpenIncident {
                incident: incident.into(),
                severity,
                reason: given.reason,
            });
            obligations.push(Obligation::Count {
                budget: rules.budget.clone(),
            });
            return;
        }
    }

    /// The incidents for which anything is overridden here, whatever it is worth.
    fn overridden(&self) -> BTreeSet<(&'a str, Severity)> {
        let request = self.request;
        let each = self
            .evidence
            .iter()
            .filter_map(|evidence| match &evidence.fact {
                Fact::Override {
                    artefact,
                    environment,
                    incident,
                    severity,
                    ..
                } => (*artefact == request.artefact && *environment == request.environment)
                    .then_some((incident.as_str(), *severity)),
                _ => None,
            });
        each.collect()
    }

    /// All that was said for an incident: those who may, what they say, and until when enough of them do.
    fn override_of(
        &self,
        rules: &Overrides,
        incident: &str,
        severity: Severity,
    ) -> Result<Given<'a>, String> {
        let (policy, request) = (&self.gate.policy, self.request);
        if !rules.severities.contains(&severity) {
            return Err("incidents of that severity pass nothing".into());
        }
        if incident.trim().is_empty() {
            return Err("it names no incident".into());
        }
        let mut ends: BTreeMap<&'a str, Timestamp> = BTreeMap::new();
        let mut reasons = BTreeSet::new();
        let (mut unsigned, mut silent) = (0, 0);
        for evidence in self.evidence {
            let Fact::Override {
                artefact,
                environment,
                incident: named,
                severity: found,
                reason,
                by,
            } = &evidence.fact
            else {
                continue;
            };
            if *artefact != request.artefact
                || *environment != request.environment
                || named != incident
                || *found != severity
            {
                continue;
            }
            if reason.trim().is_empty() {
                silent += 1;
                continue;
            }
            let end = rules.max_age.after(evidence.observed_at);
            for person in by {
                if !policy.has_role(person, &rules.role) {
                    continue;
                }
                if rules.signed && !evidence.is_signed_by(policy.keys(person)) {
                    unsigned += 1;
                    continue;
                }
                reasons.insert((evidence.observed_at, reason.as_str()));
                let last = ends.entry(person).or_insert(end);
                *last = end.max(*last);
            }
        }
        let enough = rules.people as usize;
        let given = ends.len();
        ends.retain(|_, end| *end > self.now);
        let mut times: Vec<_> = ends.values().copied().collect();
        times.sort_unstable();
        match times.iter().rev().nth(enough.saturating_sub(1)) {
            Some(end) => Ok(Given {
                people: ends.into_keys().collect(),
                reason: reasons
                    .into_iter()
                    .map(|(_, reason)| reason)
                    .collect::<Vec<_>>()
                    .join("; "),
                ends: *end,
            }),
            None => Err(format!(
                "{enough} of role {} are needed, and {} count ({} ran out, {unsigned} did not sign, {silent} gave no reason)",
                rules.role,
                times.len(),
                given.saturating_sub(times.len())
            )),
        }
    }
}

/// An override that counts.
struct Given<'a> {
    people: Vec<&'a str>,
    reason: String,
    ends: Timestamp,
}
