//! What a service's health says of a release.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{Health, Measure, Name, Objective, Observation, Settings, Window};
use groundtackle_health_check_testkit::FaultClock;
use groundtackle_release_gate::{
    Budget, Error, EvidenceSource, Fact, Form, Gate, Request, Timestamp, Unit, Verdict,
};
use groundtackle_release_gate_health::{HealthEvidence, HealthEvidenceConfig};
use groundtackle_release_gate_testkit::request;

/// The first instant of a quarter, in UTC.
const QUARTER: &str = "2026-10-01T00:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

struct Service {
    health: Health,
    clock: FaultClock,
}

impl Service {
    /// Two checks, of which one is of a subset, and an objective of the quarter.
    fn start(at: Timestamp) -> Self {
        let clock = FaultClock::at(at.as_millisecond().try_into().unwrap());
        let objective = Objective {
            name: name("availability"),
            subset: None,
            target: 0.99,
            measure: Measure::Availability,
            window: Window::Quarter,
            alerts: Vec::new(),
        };
        let health = Health::builder()
            .clock(Arc::new(clock.clone()))
            .push(name("disk"), Settings::default())
            .push(
                name("peers"),
                Settings::default().with_subsets(vec![name("chain")]),
            )
            .objective(objective)
            .build()
            .unwrap();
        Self { health, clock }
    }

    fn report(&self, check: &str, observation: &Observation) {
        let reporter = self.health.reporter(check).unwrap();
        for _ in 0..5 {
            reporter.report(observation.clone());
        }
    }

    fn all(&self, observation: &Observation) {
        self.report("disk", observation);
        self.report("peers", observation);
    }

    /// Watches it for so long.
    fn watch(&self, seconds: u64, observation: &Observation) {
        for _ in 0..seconds {
            self.all(observation);
            self.clock.advance(Duration::from_secs(1));
            self.health.tick();
        }
        self.all(observation);
    }

    async fn ask(&self, config: &str, request: &Request) -> Result<Vec<Fact>, Error> {
        let config: HealthEvidenceConfig = toml::from_str(config).unwrap();
        let source = HealthEvidence::new(self.health.clone(), config)?;
        let found = source.collect(request).await?;
        let now = self.health.view().unix_millis;
        for evidence in &found {
            assert_eq!(evidence.observed_at.as_millisecond(), now as i64);
        }
        Ok(found.into_iter().map(|evidence| evidence.fact).collect())
    }
}

fn pass() -> Observation {
    Observation::pass()
}

const ITEM: &str = "environment = \"production\"\n[[item]]\nid = \"disk-headroom\"\ncheck = \"disk\"\nowner = \"olga\"\n";

#[tokio::test]
async fn a_check_is_an_item_of_the_checklist_there_and_nowhere_else() {
    for (observation, passed) in [
        (pass(), true),
        // Somebody should look at it first.
        (Observation::warn("nearly-full"), false),
        (Observation::fail("full"), false),
    ] {
        let service = Service::start(at(QUARTER));
        service.all(&observation);
        let item = Fact::Item {
            id: "disk-headroom".into(),
            artefact: request().artefact,
            form: Form::Probe,
            passed,
            by: "olga".into(),
        };
        assert_eq!(service.ask(ITEM, &request()).await.unwrap(), [item]);
        let elsewhere = Request {
            environment: "staging".into(),
            ..request()
        };
        assert_eq!(service.ask(ITEM, &elsewhere).await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_is_not_known_is_an_error() {
    let service = Service::start(at(QUARTER));
    let never = service.ask(ITEM, &request()).await.unwrap_err();
    assert!(never.to_string().contains("disk"), "{never}");
    service.all(&pass());
    service.ask(ITEM, &request()).await.unwrap();
    // It was known, and is too old.
    service.clock.advance(Duration::from_secs(24 * 3600));
    let stale = service.ask(ITEM, &request()).await.unwrap_err();
    let cause = std::error::Error::source(&stale).unwrap().to_string();
    assert!(cause.contains("stale"), "{cause}");
    let blockers = "environment = \"production\"\nblockers = [\"chain\"]\n";
    service.ask(blockers, &request()).await.unwrap_err();
}

#[tokio::test]
async fn what_fails_is_a_blocker_until_it_is_up_again() {
    let config = "environment = \"staging\"\nblockers = [\"chain\", \"disk\"]\n";
    let service = Service::start(at("2026-11-10T00:00:00Z"));
    service.all(&pass());
    let blockers = |open: &[&str], closed: &str| Fact::Blockers {
        artefact: request().artefact,
        environment: "staging".into(),
        open: open
            .iter()
            .map(|&name| name.into())
            .collect::<BTreeSet<String>>(),
        last_closed_at: Some(at(closed)),
    };
    service.watch(60, &pass());
    assert_eq!(
        service.ask(config, &request()).await.unwrap(),
        [blockers(&[], "2026-11-10T00:00:00Z")]
    );
    service.report("peers", &Observation::fail("no-peers"));
    assert_eq!(
        service.ask(config, &request()).await.unwrap(),
        [blockers(&["chain"], "2026-11-10T00:00:00Z")]
    );
    service.clock.advance(Duration::from_secs(1));
    service.report("peers", &pass());
    assert_eq!(
        service.ask(config, &request()).await.unwrap(),
        [blockers(&[], "2026-11-10T00:01:01Z")]
    );
}

fn level(more: &str) -> String {
    format!(
        "environment = \"production\"\n[[level]]\nname = \"uptime\"\nobjective = \"availability\"\n{more}"
    )
}

async fn uptime(service: &Service, more: &str) -> Option<(f64, Timestamp)> {
    match &service.ask(&level(more), &request()).await.unwrap()[..] {
        [] => None,
        [Fact::Measure { name, value, since }] if name == "uptime" => Some((*value, *since)),
        found => panic!("{found:?}"),
    }
}

#[tokio::test]
async fn a_service_level_is_a_figure_of_the_quarter() {
    let service = Service::start(at(QUARTER));
    assert_eq!(uptime(&service, "").await, None, "nothing was measured");
    service.all(&pass());
    service.watch(900, &pass());
    service.watch(100, &Observation::fail("down"));
    // Levels are counted every ten seconds.
    service.watch(10, &pass());
    let (value, since) = uptime(&service, "").await.unwrap();
    assert!((value - 90.0).abs() < 1.5, "{value}");
    assert_eq!(since, at(QUARTER));
}

#[tokio::test]
async fn what_nobody_measured_was_not_up() {
    // The process began an hour into the quarter.
    let service = Service::start(at("2026-10-01T01:00:00Z"));
    service.all(&pass());
    service.watch(1200, &pass());
    let (value, _) = uptime(&service, "").await.unwrap();
    assert!((value - 25.0).abs() < 1.5, "{value}");
    let (value, _) = uptime(&service, "unmeasured_is_down = false\n")
        .await
        .unwrap();
    assert!((value - 100.0).abs() < 0.01, "{value}");
}

#[tokio::test]
async fn what_the_service_has_not_is_refused() {
    let service = Service::start(at(QUARTER));
    service.all(&pass());
    for (config, why) in [
        (ITEM.replace("check = \"disk\"", "check = \"disc\""), "disc"),
        (
            "environment = \"a\"\nblockers = [\"chains\"]\n".into(),
            "chains",
        ),
        (level("").replace("availability", "latency"), "latency"),
    ] {
        let error = service.ask(&config, &request()).await.unwrap_err();
        assert!(
            matches!(error, Error::InvalidRequest { .. }) && error.to_string().contains(why),
            "{error}"
        );
    }
    let unknown = toml::from_str::<HealthEvidenceConfig>(&ITEM.replace("owner", "owned_by"));
    assert!(unknown.unwrap_err().to_string().contains("unknown field"));
}

/// A quarter's bad days in a rolling window look better than they are.
#[tokio::test]
async fn a_level_over_rolling_days_is_no_figure_of_the_quarter() {
    let clock = FaultClock::at(
        at("2026-11-10T00:00:00Z")
            .as_millisecond()
            .try_into()
            .unwrap(),
    );
    let objective = |window| Objective {
        name: name("availability"),
        subset: None,
        target: 0.99,
        measure: Measure::Availability,
        window,
        alerts: Vec::new(),
    };
    let mut policy = groundtackle_release_gate_testkit::policy();
    policy.environments[0].budgets.push("uptime".into());
    let policy = policy.with_budget(Budget {
        name: "uptime".into(),
        unit: Unit::Percent,
        at_least: Some(99.0),
        fewer_than: None,
        max_age: None,
    });
    let gate = Gate::new(policy).unwrap();
    for (window, verdict) in [
        (Window::Quarter, Verdict::Go),
        (Window::RollingDays(90), Verdict::Inconclusive),
    ] {
        let health = Health::builder()
            .clock(Arc::new(clock.clone()))
            .push(name("disk"), Settings::default())
            .objective(objective(window))
            .build()
            .unwrap();
        let service = Service {
            health,
            clock: clock.clone(),
        };
        service.report("disk", &pass());
        for _ in 0..60 {
            service.clock.advance(Duration::from_secs(1));
            service.health.tick();
        }
        let config = toml::from_str(&level("unmeasured_is_down = false\n")).unwrap();
        let source = HealthEvidence::new(service.health.clone(), config).unwrap();
        let found = source.collect(&request()).await.unwrap();
        let now = found[0].observed_at;
        let decision = gate.judge(&found, &request(), now);
        assert_eq!(decision.verdict, verdict, "{:#?}", decision.reasons);
    }
}

#[test]
fn two_services_of_one_environment_have_a_name_each() {
    let service = Service::start(at(QUARTER));
    let named = |name: &str| {
        let text = format!("environment = \"production\"\n{name}");
        let config = toml::from_str(&text).unwrap();
        HealthEvidence::new(service.health.clone(), config)
            .unwrap()
            .name()
            .to_owned()
    };
    assert_eq!(named(""), "health production");
    assert_eq!(named("name = \"node\""), "health production node");
}
