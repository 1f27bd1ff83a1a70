//! A store on a Redis server that is stopped, hung, restarted, and whose password changes; and stores as the port's own.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_core::RetryConfig;
use groundtackle_health_check::{Check, Health, Name, Outcome, Schedule, Scheduler, Settings};
use groundtackle_health_check_testkit::{CheckHarness, State};
use groundtackle_health_check_utxo_store::{UtxoStoreCheck, UtxoStoreCheckConfig};
use groundtackle_testkit_servers::{Redis, RedisOptions};
use groundtackle_utxo_store::{BlockStore, MemoryUtxoStore};
use groundtackle_utxo_store_redis::{Durability, RedisUtxoStore, RedisUtxoStoreConfig, Tls};
use groundtackle_utxo_store_testkit::builder::BlockBuilder;

const PASSWORD: &str = "s3cr3t-pa55";

fn start() -> Redis {
    Redis::start(RedisOptions {
        append_fsync: Some("always"),
        password: Some(PASSWORD.into()),
        ..RedisOptions::default()
    })
}

async fn check(redis: &str) -> UtxoStoreCheck<RedisUtxoStore> {
    let config = RedisUtxoStoreConfig::new(redis)
        .with_tls(Tls::Off)
        .with_durability(Durability::None)
        .with_retry(
            RetryConfig::default()
                .with_max_attempts(2)
                .with_max_elapsed(Duration::from_secs(1)),
        );
    let store = RedisUtxoStore::open(config).await.unwrap();
    store
        .connect_block(&BlockBuilder::after(None).build())
        .await
        .unwrap()
        .unwrap();
    UtxoStoreCheck::new(store, UtxoStoreCheckConfig::default())
}

struct Store(Mutex<(Redis, bool)>);

#[async_trait]
impl CheckHarness for Store {
    async fn check(&self) -> Arc<dyn Check> {
        let url = self.0.lock().unwrap().0.url();
        Arc::new(check(&url).await)
    }

    async fn make(&self, state: State) -> bool {
        let (redis, runs) = &mut *self.0.lock().unwrap();
        redis.thaw();
        match (state, *runs) {
            (State::Broken, true) => redis.stop(),
            (State::Working | State::Silent, false) => redis.restart(),
            _ => {}
        }
        if state == State::Silent {
            redis.freeze();
        }
        *runs = state != State::Broken;
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.into()]
    }
}

groundtackle_health_check_testkit::check_conformance!(Store(Mutex::new((start(), true))));

/// Waits until the check reads so, and says why.
async fn until(health: &Health, outcome: Outcome) -> String {
    let begun = Instant::now();
    loop {
        let view = health.view();
        let reading = view.reading("store").unwrap();
        if reading.outcome == outcome {
            return reading.cause.to_string();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it stays {reading:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_the_server_is_seen_and_passes() {
    let mut redis = start();
    let schedule = Schedule::default()
        .with_period(Duration::from_secs(2))
        .with_timeout(Duration::from_secs(1))
        .with_failures_to_down(1)
        .with_successes_to_up(1);
    let health = Health::builder()
        .readiness(
            Name::try_from("store").unwrap(),
            Settings::default().with_schedule(schedule),
            check(&redis.url()).await,
        )
        .build()
        .unwrap();
    let scheduler = Scheduler::start(&health);
    assert_eq!(until(&health, Outcome::Pass).await, "ok");
    redis.stop();
    let seen = until(&health, Outcome::Fail).await;
    assert!(
        ["not-ready", "no-answer"].contains(&seen.as_str()),
        "{seen}"
    );
    redis.restart();
    assert_eq!(until(&health, Outcome::Pass).await, "ok");
    redis.freeze();
    assert_eq!(until(&health, Outcome::Fail).await, "timeout");
    redis.thaw();
    assert_eq!(until(&health, Outcome::Pass).await, "ok");
    let password = |old: &str, new: &str| {
        // Who is connected stays so: throw them out.
        let set = redis.command_as(old, &["CONFIG", "SET", "requirepass", new]);
        assert!(set.starts_with("+OK"), "{set}");
        redis.command_as(new, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    };
    password(PASSWORD, "another");
    let seen = until(&health, Outcome::Fail).await;
    assert!(
        ["not-ready", "no-answer"].contains(&seen.as_str()),
        "{seen}"
    );
    password("another", PASSWORD);
    assert_eq!(until(&health, Outcome::Pass).await, "ok");
    scheduler.stop().await.unwrap();
}

#[tokio::test]
async fn an_empty_store_and_an_old_tip_are_told() {
    let store = Arc::new(MemoryUtxoStore::new());
    let look = async |config: UtxoStoreCheckConfig| {
        let seen = UtxoStoreCheck::new(store.clone(), config).check().await;
        (seen.outcome, seen.cause.to_string())
    };
    let told = |outcome, cause: &str| (outcome, cause.to_owned());
    let default = UtxoStoreCheckConfig::default;
    assert_eq!(look(default()).await, told(Outcome::Fail, "empty"));
    assert_eq!(
        look(default().with_may_be_empty(true)).await,
        told(Outcome::Pass, "ok")
    );
    store
        .connect_block(&BlockBuilder::after(None).build())
        .await
        .unwrap()
        .unwrap();
    let (hour, ages) = (
        Some(Duration::from_secs(3600)),
        Some(Duration::from_secs(10_000_000_000)),
    );
    assert_eq!(look(default()).await, told(Outcome::Pass, "ok"));
    assert_eq!(
        look(default().with_warn_tip_age(hour)).await,
        told(Outcome::Warn, "stale-tip")
    );
    assert_eq!(
        look(default().with_fail_tip_age(hour)).await,
        told(Outcome::Fail, "stale-tip")
    );
    let both = default().with_warn_tip_age(ages).with_fail_tip_age(ages);
    assert_eq!(look(both).await, told(Outcome::Pass, "ok"));
}
