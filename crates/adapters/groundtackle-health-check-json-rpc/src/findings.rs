use groundtackle_health_check::{Observation, Outcome};

/// What the signals of one check say, together.
#[derive(Clone, Debug, Default)]
pub struct Findings(Vec<Observation>);

impl Findings {
    /// One more. What passes need not be said.
    pub fn add(&mut self, seen: Observation) {
        if seen.outcome != Outcome::Pass {
            self.0.push(seen);
        }
    }

    /// One more, if it is one.
    pub fn maybe(&mut self, seen: Option<Observation>) {
        seen.into_iter().for_each(|seen| self.add(seen));
    }

    /// The worst of them: of `Fail`, `Unknown` and `Warn`, in this order, the one that came first, with the details of all. `Pass` with
    /// `summary`, if there is none.
    #[must_use]
    pub fn sum(self, summary: impl AsRef<str>) -> Observation {
        let mut all = self.0;
        // Stable: of those alike the first stays first.
        all.sort_by_key(|seen| std::cmp::Reverse(seen.outcome));
        let details: Vec<&str> = all
            .iter()
            .filter_map(|seen| seen.detail.as_deref())
            .collect();
        let detail = details.join("; ");
        match all.first() {
            Some(worst) if detail.is_empty() => worst.clone(),
            Some(worst) => Observation::new(worst.outcome, worst.cause.clone()).with_detail(detail),
            None => Observation::pass().with_detail(summary),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_told_with_all_details() {
        let mut findings = Findings::default();
        assert_eq!(findings.clone().sum("fine").outcome, Outcome::Pass);
        findings.add(Observation::warn("old").with_detail("a"));
        findings.add(Observation::pass().with_detail("b"));
        findings.maybe(Some(Observation::unknown("hidden").with_detail("c")));
        findings.maybe(None);
        let seen = findings.clone().sum("fine");
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (Outcome::Unknown, "hidden")
        );
        findings.add(Observation::fail("first"));
        findings.add(Observation::fail("second").with_detail("d"));
        let seen = findings.sum("fine");
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (Outcome::Fail, "first")
        );
        assert_eq!(seen.detail.as_deref().unwrap(), "d; c; a");
    }
}
