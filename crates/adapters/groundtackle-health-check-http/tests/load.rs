//! A thousand checks of which one hangs, one panics and one is slow, and a million requests.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use groundtackle_health_check::{Health, Name, Schedule, Scheduler, Settings};
use groundtackle_health_check_http::{HttpHealthConfig, router};
use groundtackle_health_check_testkit::{Act, Scripted};
use tower::ServiceExt;

const CHECKS: u32 = 1_000;
const REQUESTS: u32 = 1_000_000;
const PERIOD: Duration = Duration::from_secs(1);

/// Memory that is resident, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_requests_run_no_check_and_leave_memory_as_it_was() {
    // One that panics each second says nothing new.
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.to_string().contains("as scripted") {
            told(panic);
        }
    }));
    let schedule = Schedule::default().with_period(PERIOD).with_timeout(PERIOD);
    let mut builder = Health::builder();
    for i in 0..CHECKS {
        let (check, required) = match i {
            0 => (Scripted::new([Act::Hang]), false),
            1 => (Scripted::new([Act::Panic]), false),
            2 => (Scripted::new([Act::Slow(Duration::from_millis(300))]), true),
            _ => (Scripted::passing(), true),
        };
        let settings = Settings::default()
            .with_schedule(schedule.clone())
            .with_required(required);
        let name = Name::try_from(format!("check {i}")).unwrap();
        builder = builder.readiness(name, settings, check);
    }
    let health = builder.build().unwrap();
    let scheduler = Scheduler::start(&health);
    let mut events = health.events();
    let ready = async {
        while !health.view().readiness.outcome.is_up() {
            events.next().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ready)
        .await
        .unwrap();
    let routes = router(health.clone(), HttpHealthConfig::default());
    let ask = async |requests: u32| {
        for _ in 0..requests {
            let request = Request::get("/readyz").body(Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
    };
    // What is made once is made by now.
    ask(REQUESTS / 10).await;
    let (before, runs, begun) = (resident(), health.runs(), Instant::now());
    ask(REQUESTS).await;
    let (after, ran, took) = (resident(), health.runs() - runs, begun.elapsed());
    // Each at most once in a period less its jitter.
    let most = f64::from(CHECKS) * (took.as_secs_f64() / 0.9 + 1.0);
    assert!((ran as f64) < most, "{ran} runs in {took:?}");
    assert!(
        after < before + (4 << 20),
        "{before} bytes before, {after} after"
    );
    scheduler.stop().await.unwrap();
}
