//! Checks that run, and news of them that are told.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test asserts"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use groundtackle_health_check::{
    Cause, Check, Error, Event, Health, Kind, Message, Name, News, Notifications, Notifier,
    NotifyConfig, Observation, Outcome, Retryability, Schedule, Scheduler, Settings,
};
use groundtackle_health_check_testkit::{Act, Scripted};

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

/// Every 50 ms, cut off after 40.
fn quick() -> Settings {
    let schedule = Schedule::default()
        .with_period(Duration::from_millis(50))
        .with_timeout(Duration::from_millis(40))
        .with_valid_for(Some(Duration::from_secs(60)))
        .with_failures_to_down(1)
        .with_successes_to_up(1);
    Settings::default().with_schedule(schedule)
}

/// Waits for changes, at most a minute.
async fn until(health: &Health, holds: impl Fn(&Health) -> bool) {
    let mut events = health.events();
    let wait = async {
        while !holds(health) {
            events.next().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "{:?}", health.view());
}

fn cause(health: &Health, check: &str) -> (Outcome, Cause) {
    let view = health.view();
    let reading = view.reading(check).unwrap();
    (reading.outcome, reading.cause.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn one_that_hangs_panics_or_blocks_harms_no_other() {
    let (hangs, blocks, passes) = (
        Scripted::new([Act::Hang]),
        Scripted::new([
            Act::Block(Duration::from_millis(700)),
            Act::Find(Observation::pass()),
        ]),
        Scripted::passing(),
    );
    let panics = Scripted::new([Act::Panic, Act::Panic, Act::Find(Observation::pass())]);
    let health = Health::builder()
        .readiness(name("hangs"), quick(), hangs.clone())
        .readiness(name("panics"), quick(), panics.clone())
        .readiness(name("blocks"), quick(), blocks.clone())
        .readiness(name("passes"), quick(), passes.clone())
        .build()
        .unwrap();
    let mut events = health.events();
    let scheduler = Scheduler::start(&health);
    until(&health, |health| {
        cause(health, "hangs").0 == Outcome::Fail
            && ["panics", "blocks", "passes"].map(|check| cause(health, check).0)
                == [Outcome::Pass; 3]
    })
    .await;
    scheduler.stop().await.unwrap();
    assert!(hangs.runs() > 0 && passes.runs() > 0 && panics.runs() > 2);
    for check in [&hangs, &panics, &blocks, &passes] {
        assert_eq!(check.most_at_once(), 1, "one run at a time");
    }
    let mut told = Vec::new();
    drop(health);
    while let Some(Event::Check(change)) = events.next().await {
        told.push((change.name.to_string(), change.to, change.cause));
    }
    assert!(
        told.contains(&("blocks".into(), Outcome::Fail, Cause::TIMEOUT)),
        "{told:?}"
    );
}

/// What ends when it is told to has not blocked anything, though its next run is due at that moment.
#[tokio::test(start_paused = true)]
async fn one_that_hangs_for_its_whole_period_times_out_each_time() {
    let hangs = Scripted::new([Act::Hang]);
    let schedule = quick().schedule.with_timeout(Duration::from_millis(50));
    let schedule = schedule.with_jitter(0.0);
    let health = Health::builder()
        .readiness(
            name("hangs"),
            quick().with_schedule(schedule),
            hangs.clone(),
        )
        .build()
        .unwrap();
    let scheduler = Scheduler::start(&health);
    until(&health, |health| cause(health, "hangs").0 == Outcome::Fail).await;
    while hangs.runs() < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (outcome, cause) = cause(&health, "hangs");
        assert_eq!((outcome, cause), (Outcome::Fail, Cause::TIMEOUT));
    }
    scheduler.stop().await.unwrap();
}

/// Notes when it runs.
#[derive(Clone, Debug, Default)]
struct Times(Arc<Mutex<Vec<tokio::time::Instant>>>);

#[async_trait]
impl Check for Times {
    async fn check(&self) -> Observation {
        self.0.lock().unwrap().push(tokio::time::Instant::now());
        Observation::pass()
    }
}

impl Times {
    /// From each to the next, in milliseconds.
    fn apart(&self) -> Vec<u128> {
        let times = self.0.lock().unwrap();
        let apart = times.windows(2).map(|two| (two[1] - two[0]).as_millis());
        apart.collect()
    }
}

/// "Each check on its own period with jitter": some earlier, some later, none by more than it may.
#[tokio::test(start_paused = true)]
async fn each_runs_on_its_own_period_with_jitter() {
    let (often, seldom) = (Times::default(), Times::default());
    let every = |seconds: u64| {
        let schedule = Schedule::default()
            .with_period(Duration::from_secs(seconds))
            .with_jitter(0.2);
        Settings::default().with_schedule(schedule)
    };
    let health = Health::builder()
        .readiness(name("often"), every(10), often.clone())
        .readiness(name("seldom"), every(60), seldom.clone())
        .build()
        .unwrap();
    let scheduler = Scheduler::start(&health);
    tokio::time::sleep(Duration::from_secs(6_000)).await;
    scheduler.stop().await.unwrap();
    for (times, period) in [(often, 10_000_u128), (seldom, 60_000)] {
        let apart = times.apart();
        let runs = apart.len() as u128;
        assert!((6_000_000 / period).abs_diff(runs) < 40, "{runs} runs");
        // The clock of tokio goes by milliseconds.
        let (least, most) = (period * 8 / 10 - 2, period * 12 / 10 + 2);
        assert!(
            apart.iter().all(|of| (least..=most).contains(of)),
            "{apart:?}"
        );
        let early = apart.iter().filter(|of| **of < period * 95 / 100).count();
        let late = apart.iter().filter(|of| **of > period * 105 / 100).count();
        assert!(early > 10 && late > 10, "{apart:?}");
    }
}

/// It reads only: a thousand checks, of which none has run, a hundred thousand reads, and none has run.
#[test]
fn reading_runs_nothing_and_costs_microseconds() {
    let check = Scripted::new([Act::Hang]);
    let mut builder = Health::builder();
    for i in 0..1_000 {
        builder = builder.readiness(name(&format!("check {i}")), quick(), check.clone());
    }
    let health = builder.build().unwrap();
    let begin = Instant::now();
    for _ in 0..100_000 {
        assert!(!health.view().readiness.outcome.is_up());
    }
    // A view of a thousand checks that was made anew each time would take minutes.
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!((check.runs(), health.runs()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_up_that_is_complete_stays_so_and_is_not_looked_at_again() {
    let start = Scripted::new([
        Act::Find(Observation::fail("loading")),
        Act::Find(Observation::pass()),
        Act::Find(Observation::fail("never")),
    ]);
    let other = Scripted::passing();
    let health = Health::builder()
        .startup(name("blocks loaded"), quick(), start.clone())
        .readiness(name("db"), quick(), other.clone())
        .build()
        .unwrap();
    assert_eq!(health.view().readiness.cause, Cause::STARTING);
    let scheduler = Scheduler::start(&health);
    until(&health, |health| health.view().readiness.outcome.is_up()).await;
    let reading = health.view().reading("blocks loaded").unwrap().clone();
    assert_eq!(
        (reading.kind, reading.outcome, reading.cause),
        (Kind::Startup, Outcome::Pass, Cause::STARTED)
    );
    let before = other.runs();
    let wait = async {
        while other.runs() < before + 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap();
    assert_eq!(start.runs(), 2);
    drop(scheduler);
}

/// Told what is told; refuses while it is told to.
#[derive(Clone, Debug, Default)]
struct Inbox(Arc<(Mutex<Vec<Message>>, AtomicBool)>);

#[async_trait]
impl Notifier for Inbox {
    async fn notify(&self, message: &Message) -> Result<(), Error> {
        if self.0.1.load(Ordering::SeqCst) {
            return Err(Error::Notify {
                notifier: "inbox",
                action: "a delivery".into(),
                retryability: Retryability::Transient,
                source: "it is full".into(),
            });
        }
        self.0.0.lock().unwrap().push(message.clone());
        Ok(())
    }
}

impl Inbox {
    fn told(&self) -> Vec<Vec<(String, Outcome)>> {
        let messages = self.0.0.lock().unwrap();
        let item = |news: &News| match news {
            News::Check { name, outcome, .. } => Some((name.to_string(), *outcome)),
            _ => None,
        };
        messages
            .iter()
            .map(|message| message.items.iter().filter_map(item).collect())
            .collect()
    }
}

/// Time goes by at once, as nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn changes_are_told_once_grouped_and_when_they_recover() {
    let on =
        |needs: &[&str]| quick().with_depends_on(needs.iter().map(|need| name(need)).collect());
    let health = Health::builder()
        .push(name("db"), on(&[]))
        .push(name("cache"), on(&[]))
        .push(name("api"), on(&["db"]))
        .build()
        .unwrap();
    let [db, cache, api] = ["db", "cache", "api"].map(|check| health.reporter(check).unwrap());
    let inbox = Inbox::default();
    let notifications =
        Notifications::start(&health, inbox.clone(), NotifyConfig::default()).unwrap();
    let minute = || tokio::time::sleep(Duration::from_secs(60));
    minute().await;
    for check in [&db, &cache, &api] {
        check.report(Observation::pass());
    }
    minute().await;
    assert!(inbox.told().is_empty(), "nothing is down yet");
    // The child's failure comes first, and is told as part of its parent's.
    api.report(Observation::fail("http-500"));
    cache.report(Observation::fail("refused"));
    db.report(Observation::fail("refused"));
    minute().await;
    for check in [&db, &cache] {
        check.report(Observation::fail("refused"));
    }
    minute().await;
    let first = vec![
        ("db".into(), Outcome::Fail),
        ("cache".into(), Outcome::Fail),
    ];
    assert_eq!(
        inbox.told(),
        std::slice::from_ref(&first),
        "once, together, and not of what it hides"
    );
    for check in [&db, &cache, &api] {
        check.report(Observation::pass());
    }
    minute().await;
    let second = vec![
        ("db".into(), Outcome::Pass),
        ("cache".into(), Outcome::Pass),
    ];
    assert_eq!(inbox.told(), [first, second]);
    // Down and up again within the wait is no news.
    db.report(Observation::fail("refused"));
    db.report(Observation::pass());
    minute().await;
    assert_eq!(
        (
            inbox.told().len(),
            notifications.sent(),
            notifications.lost()
        ),
        (2, 4, 0)
    );
}

/// A delivery is repeated later and later, as often as it may be; messages come no closer than they may, and with no more in them.
#[tokio::test(start_paused = true)]
async fn retries_back_off_and_messages_are_limited() {
    #[derive(Clone, Debug)]
    struct Refuses(Times, Inbox);

    #[async_trait]
    impl Notifier for Refuses {
        async fn notify(&self, message: &Message) -> Result<(), Error> {
            self.0.check().await;
            self.1.notify(message).await
        }
    }

    let mut builder = Health::builder();
    for i in 0..50 {
        builder = builder.push(name(&format!("check {i}")), quick());
    }
    let health = builder.build().unwrap();
    let (times, inbox) = (Times::default(), Inbox::default());
    inbox.0.1.store(true, Ordering::SeqCst);
    let retry = NotifyConfig::default()
        .retry
        .with_max_attempts(6)
        .with_initial_delay(Duration::from_secs(1))
        .with_max_delay(Duration::from_secs(60))
        .with_max_elapsed(Duration::from_secs(600));
    let config = NotifyConfig::default()
        .with_min_interval(Duration::from_secs(3_600))
        .with_max_items(20)
        .with_retry(retry);
    let told = Refuses(times.clone(), inbox.clone());
    let notifications = Notifications::start(&health, told, config).unwrap();
    for i in 0..50 {
        let check = health.reporter(&format!("check {i}")).unwrap();
        check.report(Observation::fail("refused"));
    }
    tokio::time::sleep(Duration::from_secs(1_800)).await;
    let delays = times.apart();
    assert_eq!(delays.len(), 5, "six attempts: {delays:?}");
    // Twice as long each time, give or take what is random of it.
    assert!(
        delays[0] < 2_000 && delays[4] > 4 * delays[0] && delays.iter().sum::<u128>() > 10_000,
        "{delays:?}"
    );
    assert_eq!((notifications.sent(), notifications.lost()), (0, 20));
    inbox.0.1.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(4 * 3_600)).await;
    let lengths: Vec<usize> = inbox.told().iter().map(Vec::len).collect();
    assert_eq!(lengths, [20, 20, 10]);
    assert!(
        times.apart()[5..].iter().all(|of| *of >= 3_600_000),
        "{:?}",
        times.apart()
    );
    assert_eq!((notifications.sent(), notifications.lost()), (50, 20));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_told_is_counted_and_told_later() {
    let health = Health::builder().push(name("db"), quick()).build().unwrap();
    let db = health.reporter("db").unwrap();
    let inbox = Inbox::default();
    inbox.0.1.store(true, Ordering::SeqCst);
    let notifications =
        Notifications::start(&health, inbox.clone(), NotifyConfig::default()).unwrap();
    db.report(Observation::fail("refused"));
    let wait = async {
        while notifications.lost() < 2 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), wait)
        .await
        .unwrap();
    inbox.0.1.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(inbox.told(), [[("db".to_owned(), Outcome::Fail)]]);
    let message = inbox.0.0.lock().unwrap()[0].clone();
    assert!(message.lost >= 2, "{message:?}");
}
