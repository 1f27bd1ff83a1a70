//! When it would next be allowed, and how long a go lasts, against asking at every minute.

use groundtackle_release_gate::{
    Evidence, Fact, Gate, Length, PolicyFormat, Request, Timestamp, Verdict, When,
};
use jiff::SignedDuration;
use proptest::prelude::*;

use crate::setting::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The naive way.
fn first_go(
    gate: &Gate,
    evidence: &[Evidence],
    request: &Request,
    from: Timestamp,
    minutes: u32,
) -> Option<Timestamp> {
    let mut at = from;
    for _ in 0..minutes {
        if gate.judge(evidence, request, at).verdict == Verdict::Go {
            return Some(at);
        }
        at = at.checked_add(MINUTE).unwrap();
    }
    None
}

/// Windows, a freeze, a soak, support hours and evidence that goes stale, all in whole minutes.
#[allow(clippy::too_many_arguments, reason = "each is drawn")]
fn policy(
    zone: &str,
    from: &str,
    to: &str,
    deny: &str,
    overrun: &str,
    soak: &str,
    max_age: &str,
    more: &str,
) -> Gate {
    let text = format!(
        r#"
version = 1
name = "generated"
zone = "{zone}"
max_age = "{max_age}"
permit_for = "3h"
[[role]]
name = "all"
members = ["olga"]
[[environment]]
name = "staging"
actors = ["all"]
[[environment]]
name = "production"
after = "staging"
actors = ["all"]
available = ["all"]
soak = {{ for = "{soak}" }}
[[shift]]
role = "all"
people = ["olga"]
hours = {{ zone = "UTC", from = "00:00", to = "23:00" }}
[[calendar]]
name = "holidays"
dates = ["10-25"]
[[window]]
name = "allow"
kind = "allow"
hours = {{ zone = "{zone}", from = "{from}", to = "{to}" }}
except = ["holidays"]
overrun = "{overrun}"
[[window]]
name = "deny"
kind = "deny"
hours = {{ zone = "{zone}", start = "{deny}", end = "sun 01:30" }}
[[freeze]]
name = "freeze"
zone = "{zone}"
from = "2026-10-25T02:30"
until = "2026-10-25T03:15"
{more}"#
    );
    Gate::read("generated.toml", &text, PolicyFormat::Toml).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn when_next_is_the_first_instant_at_which_the_same_evidence_passes(
        zone in prop::sample::select(vec!["Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "UTC", "Asia/Kathmandu"]),
        from in prop::sample::select(vec!["01:15", "02:20", "09:00", "22:00"]),
        to in prop::sample::select(vec!["02:45", "03:00", "17:00", "24:00"]),
        deny in prop::sample::select(vec!["thu 12:00", "sat 00:00", "sat 23:59"]),
        overrun in prop::sample::select(vec!["finish", "stop", "refuse"]),
        soak in prop::sample::select(vec!["1h", "14h", "30h"]),
        max_age in prop::sample::select(vec!["2h", "1d", "90d"]),
        // About the end of summer time in Europe, and its beginning in Australia.
        start in 0i64..26 * 24 * 60,
        takes in 1u32..120,
    ) {
        let gate = policy(zone, from, to, deny, overrun, soak, max_age, "");
        let start = at("2026-10-03T00:00:00Z").checked_add(SignedDuration::from_mins(start)).unwrap();
        first_and_as_long_as_it_says(&gate, start, Some(takes))?;
    }

    /// Windows that overlap, each with its own end of work, and what a waiver passes over.
    #[test]
    fn when_next_is_the_first_instant_of_windows_that_overlap_and_of_what_is_waived(
        to in prop::sample::select(vec!["12:00", "13:10", "24:00"]),
        overrun in prop::sample::select(vec!["finish", "stop", "refuse"]),
        second_from in prop::sample::select(vec!["00:00", "10:00", "11:30"]),
        second_to in prop::sample::select(vec!["11:00", "12:30", "23:00"]),
        second in prop::sample::select(vec!["finish", "stop", "refuse"]),
        waived in prop::sample::select(vec!["", "windows\"\nsubject = \"deny", "windows\"\nsubject = \"allow", "windows\"\nsubject = \"allow, second", "freezes"]),
        start in 0i64..26 * 24 * 60,
        takes in prop::option::of(1u32..300),
    ) {
        let mut more = format!("[[window]]\nname = \"second\"\nkind = \"allow\"\nhours = {{ zone = \"UTC\", from = \"{second_from}\", to = \"{second_to}\" }}\noverrun = \"{second}\"\n");
        if !waived.is_empty() {
            more += &format!("[[waiver]]\nrule = \"{waived}\"\nenvironment = \"production\"\nreason = \"r\"\nby = \"b\"\nuntil = \"2026-10-20T10:30:00Z\"\n");
        }
        let gate = policy("Europe/Berlin", "09:00", to, "thu 12:00", overrun, "1h", "90d", &more);
        let start = at("2026-10-03T00:00:00Z").checked_add(SignedDuration::from_mins(start)).unwrap();
        first_and_as_long_as_it_says(&gate, start, takes)?;
    }
}

fn first_and_as_long_as_it_says(
    gate: &Gate,
    start: Timestamp,
    takes: Option<u32>,
) -> Result<(), TestCaseError> {
    let request = Request {
        takes: takes.map(Length::minutes),
        ..request()
    };
    let evidence = [deployment("staging", true), blockers(&[], None)]
        .map(|fact| Evidence::new("test", start, fact));
    let found = gate.when(&evidence, &request, start);
    let naive = first_go(gate, &evidence, &request, start, 2 * 24 * 60);
    match (found, naive) {
        (When::At(found), Some(naive)) => prop_assert_eq!(found, naive),
        (When::At(found), None) => {
            prop_assert!(found.duration_since(start) >= SignedDuration::from_hours(2 * 24))
        }
        (When::Never, naive) => prop_assert_eq!(naive, None),
    }
    // A go lasts as long as it says.
    if let When::At(found) = found {
        let decision = gate.judge(&evidence, &request, found);
        let until = decision.good_until.unwrap();
        prop_assert!(until > found);
        let mut at = found;
        while at < until {
            let verdict = gate.judge(&evidence, &request, at).verdict;
            prop_assert_eq!(verdict, Verdict::Go, "{} of {}", at, until);
            at = at.checked_add(MINUTE).unwrap();
        }
    }
    Ok(())
}

#[test]
fn when_next_of_the_example_is_the_next_window_in_which_support_is_there() {
    let gate = operations();
    // On Tuesday 18:00 the next is Wednesday 09:00, before any evidence is too old but what has to be of the last hour.
    let evidence: Vec<_> = evidence()
        .into_iter()
        .map(|mut evidence| {
            if evidence.observed_at == at("2026-11-10T10:55:00Z") {
                evidence.observed_at = at("2026-11-10T16:55:00Z");
            }
            signed(evidence)
        })
        .collect();
    let evening = at("2026-11-10T17:00:00Z");
    assert_eq!(
        gate.judge(&evidence, &request(), evening).verdict,
        Verdict::Hold
    );
    assert_eq!(
        gate.when(&evidence, &request(), evening),
        When::Never,
        "the same evidence is stale by then"
    );
    let mut policy = gate.policy().clone();
    policy.max_age = Length::hours(48);
    for environment in &mut policy.environments {
        environment.approvals.clear();
        for backup in &mut environment.backups {
            backup.max_age = Length::hours(48);
        }
    }
    let gate = Gate::new(policy).unwrap();
    assert_eq!(
        gate.when(&evidence, &request(), evening),
        When::At(at("2026-11-11T08:00:00Z"))
    );
    // From Friday on, nothing until Sunday.
    let missing = without(evidence, |fact| matches!(fact, Fact::Drill { .. }));
    assert_eq!(gate.when(&missing, &request(), evening), When::Never);
}
