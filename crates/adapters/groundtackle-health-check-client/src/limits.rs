use groundtackle_health_check::Observation;

/// From where on something is `Warn`, and from where on it is `Fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits<T> {
    /// `Warn`.
    pub warn: T,
    /// `Fail`.
    pub fail: T,
}

impl Limits<u8> {
    /// Hundredths of `most` that are used, and must be below both limits.
    #[must_use]
    pub fn full(
        self,
        cause: &'static str,
        used: u64,
        most: u64,
        detail: &str,
    ) -> Option<Observation> {
        let reached = |pct: u8| u128::from(used) * 100 >= u128::from(most) * u128::from(pct);
        judge(reached(self.warn), reached(self.fail), cause, detail)
    }
}

impl Limits<u32> {
    /// A number that must be below neither limit. The detail begins with it and `what`, and ends with what it should be.
    #[must_use]
    pub fn few(self, cause: &'static str, count: u64, what: &str) -> Option<Observation> {
        let below = |limit: u32| count < u64::from(limit);
        let wanted = self.warn.max(self.fail);
        let detail = format!("{count} {what}, and should be {wanted}");
        judge(below(self.warn), below(self.fail), cause, &detail)
    }
}

fn judge(warn: bool, fail: bool, cause: &'static str, detail: &str) -> Option<Observation> {
    match (warn, fail) {
        (_, true) => Some(Observation::fail(cause).with_detail(detail)),
        (true, false) => Some(Observation::warn(cause).with_detail(detail)),
        (false, false) => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test asserts")]
mod tests {
    use groundtackle_health_check::Outcome;

    use super::*;

    fn outcome(seen: Option<Observation>) -> Outcome {
        seen.map_or(Outcome::Pass, |seen| seen.outcome)
    }

    #[test]
    fn a_limit_that_is_reached_is_told() {
        let pct = Limits { warn: 80, fail: 95 };
        for (used, expected) in [
            (79, Outcome::Pass),
            (80, Outcome::Warn),
            (94, Outcome::Warn),
            (95, Outcome::Fail),
            (u64::MAX, Outcome::Fail),
        ] {
            assert_eq!(outcome(pct.full("full", used, 100, "")), expected, "{used}");
        }
        // Of nothing all is used.
        assert_eq!(outcome(pct.full("full", 0, 0, "")), Outcome::Fail);
        let least = Limits {
            warn: 3_u32,
            fail: 2,
        };
        for (count, expected) in [(3, Outcome::Pass), (2, Outcome::Warn), (1, Outcome::Fail)] {
            assert_eq!(outcome(least.few("few", count, "")), expected, "{count}");
        }
        let seen = least.few("few", 1, "copies are there").unwrap();
        assert_eq!(
            seen.detail.as_deref().unwrap(),
            "1 copies are there, and should be 3"
        );
    }
}
