//! What a client of gRPC's health protocol gets, from a server on a socket.
#![allow(clippy::unwrap_used, reason = "a test asserts")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use groundtackle_health_check::{
    Health, Heartbeat, Name, Observation, Schedule, Scheduler, Settings,
};
use groundtackle_health_check_grpc::pb::HealthCheckRequest;
use groundtackle_health_check_grpc::pb::health_check_response::ServingStatus;
use groundtackle_health_check_grpc::pb::health_client::HealthClient;
use groundtackle_health_check_grpc::{GrpcHealthConfig, service};
use groundtackle_health_check_testkit::{Act, FaultClock, Scripted};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Streaming};

type Client = HealthClient<Channel>;
type Watch = Streaming<groundtackle_health_check_grpc::pb::HealthCheckResponse>;

fn name(text: &str) -> Name {
    text.try_into().unwrap()
}

/// One result counts.
fn quick() -> Settings {
    let schedule = Schedule::default()
        .with_failures_to_down(1)
        .with_successes_to_up(1);
    Settings::default().with_schedule(schedule)
}

async fn serve(health: &Health, config: GrpcHealthConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().add_service(service(health.clone(), config));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn connect(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    HealthClient::new(endpoint.connect().await.unwrap())
}

async fn check(client: &mut Client, service: &str) -> Result<ServingStatus, Code> {
    let service = service.to_owned();
    let answer = client.check(HealthCheckRequest { service }).await;
    answer
        .map(|answer| answer.into_inner().status())
        .map_err(|status| status.code())
}

async fn watch(client: &mut Client, service: &str) -> Result<Watch, Code> {
    let service = service.to_owned();
    let answer = client.watch(HealthCheckRequest { service }).await;
    answer
        .map(|answer| answer.into_inner())
        .map_err(|status| status.code())
}

async fn told(watch: &mut Watch) -> Result<ServingStatus, Code> {
    let next = tokio::time::timeout(Duration::from_secs(60), watch.message()).await;
    match next.unwrap() {
        Ok(message) => Ok(message.unwrap().status()),
        Err(status) => Err(status.code()),
    }
}

use ServingStatus::{NotServing, ServiceUnknown, Serving};

#[tokio::test]
async fn nothing_serves_until_it_is_ready_and_unknown_services_are_not_found() {
    let clock = FaultClock::default();
    let beats = Heartbeat::new(Arc::new(clock.clone()), Duration::from_secs(60));
    let health = Health::builder()
        .clock(Arc::new(clock.clone()))
        .liveness(name("loop"), beats.clone())
        .startup(name("loaded"), quick(), Scripted::passing())
        .push(name("wallet"), quick().with_subsets(vec![name("money")]))
        .push(name("page"), quick().with_public(true))
        .build()
        .unwrap();
    let mut client = connect(serve(&health, GrpcHealthConfig::default()).await).await;
    for service in ["", "readiness", "startup", "money", "page"] {
        assert_eq!(
            check(&mut client, service).await,
            Ok(NotServing),
            "{service}"
        );
    }
    assert_eq!(check(&mut client, "liveness").await, Ok(Serving));
    // One is not public, the other does not exist: nobody can tell which.
    for service in ["wallet", "nobody", "Money", " "] {
        assert_eq!(check(&mut client, service).await, Err(Code::NotFound));
    }
    let long = "x".repeat(5_000);
    assert_eq!(check(&mut client, &long).await, Err(Code::OutOfRange));

    health
        .reporter("wallet")
        .unwrap()
        .report(Observation::pass());
    assert_eq!(check(&mut client, "money").await, Ok(Serving));
    assert_eq!(check(&mut client, "").await, Ok(NotServing));
    // Everything is ready only once it has started.
    health
        .reporter("page")
        .unwrap()
        .report(Observation::warn("slow"));
    assert_eq!(check(&mut client, "page").await, Ok(Serving));
    assert_eq!(check(&mut client, "").await, Ok(NotServing));
    let scheduler = Scheduler::start(&health);
    let mut watching = watch(&mut client, "startup").await.unwrap();
    while told(&mut watching).await != Ok(Serving) {}
    assert_eq!(check(&mut client, "").await, Ok(Serving));
    assert_eq!(check(&mut client, "readiness").await, Ok(Serving));
    scheduler.stop().await.unwrap();

    // A dead database does not make the process dead; a silent loop does.
    health
        .reporter("wallet")
        .unwrap()
        .report(Observation::fail("refused"));
    assert_eq!(check(&mut client, "").await, Ok(NotServing));
    assert_eq!(check(&mut client, "liveness").await, Ok(Serving));
    clock.advance(Duration::from_secs(61));
    assert_eq!(check(&mut client, "liveness").await, Ok(NotServing));
    beats.beat();
    clock.advance(Duration::from_secs(1));
    assert_eq!(check(&mut client, "liveness").await, Ok(Serving));
}

#[tokio::test]
async fn operators_may_ask_for_single_checks() {
    let health = Health::builder()
        .push(name("wallet"), quick())
        .build()
        .unwrap();
    let config = GrpcHealthConfig::default().with_all_checks(true);
    let mut client = connect(serve(&health, config).await).await;
    assert_eq!(check(&mut client, "wallet").await, Ok(NotServing));
    assert_eq!(check(&mut client, "other").await, Err(Code::NotFound));
}

#[tokio::test]
async fn a_watch_tells_each_change_and_that_results_get_too_old() {
    let clock = FaultClock::default();
    let settings = quick().with_subsets(vec![name("money")]);
    let health = Health::builder()
        .clock(Arc::new(clock.clone()))
        .push(name("wallet"), settings)
        .build()
        .unwrap();
    let config = GrpcHealthConfig::default().with_watch_period(Duration::from_millis(20));
    let mut client = connect(serve(&health, config).await).await;
    let mut all = watch(&mut client, "").await.unwrap();
    let mut money = watch(&mut client, "money").await.unwrap();
    let mut nobody = watch(&mut client, "wallet").await.unwrap();
    assert_eq!(told(&mut all).await, Ok(NotServing));
    assert_eq!(told(&mut money).await, Ok(NotServing));
    assert_eq!(told(&mut nobody).await, Ok(ServiceUnknown));
    let wallet = health.reporter("wallet").unwrap();
    for (seen, status) in [
        (Observation::pass(), Serving),
        (Observation::fail("refused"), NotServing),
        (Observation::warn("slow"), Serving),
    ] {
        wallet.report(seen);
        assert_eq!(told(&mut all).await, Ok(status));
        assert_eq!(told(&mut money).await, Ok(status));
    }
    clock.advance(Duration::from_secs(24 * 3600));
    assert_eq!(told(&mut money).await, Ok(NotServing));
    // It stays, and had nothing to tell.
    let more = tokio::time::timeout(Duration::from_millis(100), nobody.message()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn watches_are_bounded_in_number_and_time() {
    let health = Health::builder()
        .push(name("wallet"), quick())
        .build()
        .unwrap();
    let config = GrpcHealthConfig::default()
        .with_max_watches(2)
        .with_watch_period(Duration::ZERO)
        .with_max_watch_age(Duration::from_secs(2));
    let address = serve(&health, config).await;
    let mut client = connect(address).await;
    let mut first = watch(&mut client, "").await.unwrap();
    let second = watch(&mut client, "").await.unwrap();
    // Another client has no more of them.
    let mut other = connect(address).await;
    assert_eq!(
        watch(&mut other, "").await.err(),
        Some(Code::ResourceExhausted)
    );
    // One that is dropped makes room.
    drop(second);
    let begun = std::time::Instant::now();
    let third = loop {
        match watch(&mut other, "").await {
            Ok(watch) => break watch,
            Err(code) => assert_eq!(code, Code::ResourceExhausted),
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    };
    assert_eq!(told(&mut first).await, Ok(NotServing));
    assert_eq!(told(&mut first).await, Err(Code::Unavailable));
    drop(third);
}

#[tokio::test]
async fn requests_run_no_check() {
    let check_of = Scripted::new([Act::Hang]);
    let health = Health::builder()
        .readiness(name("hangs"), quick().with_public(true), check_of.clone())
        .build()
        .unwrap();
    let mut client = connect(serve(&health, GrpcHealthConfig::default()).await).await;
    for _ in 0..500 {
        assert_eq!(check(&mut client, "hangs").await, Ok(NotServing));
    }
    assert_eq!((check_of.runs(), health.runs()), (0, 0));
}

#[test]
fn a_config_reads_from_text_and_refuses_what_it_does_not_know() {
    let config: GrpcHealthConfig =
        toml::from_str("all_checks = true\nmax_watches = 3\nwatch_period = \"1s\"").unwrap();
    let same = GrpcHealthConfig::default()
        .with_all_checks(true)
        .with_max_watches(3)
        .with_watch_period(Duration::from_secs(1));
    assert_eq!(config, same);
    let error = toml::from_str::<GrpcHealthConfig>("watches = 3").unwrap_err();
    assert!(error.to_string().contains("watches"), "{error}");
}

/// Kubernetes probes by the manifests of the guide, whose services are asked for here.
#[tokio::test]
async fn the_services_of_the_guide_are_there() {
    let guide = include_str!("../../../../docs/kubernetes-probes.md");
    let health = Health::builder()
        .push(name("wallet"), quick().with_subsets(vec![name("serving")]))
        .build()
        .unwrap();
    let mut client = connect(serve(&health, GrpcHealthConfig::default()).await).await;
    let services = guide.lines().filter_map(|line| {
        let service = line.trim_start().strip_prefix("service: ")?;
        Some(service.trim())
    });
    let mut asked = 0;
    for service in services {
        assert!(check(&mut client, service).await.is_ok(), "{service:?}");
        asked += 1;
    }
    assert!(asked >= 3, "{asked}");
}
