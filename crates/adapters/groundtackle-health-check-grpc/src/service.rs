use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use groundtackle_health_check::{Audience, Health, Outcome, View};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::config::GrpcHealthConfig;

/// Names of services are short; a request has nothing else.
const MAX_REQUEST_BYTES: usize = 4_096;

const LEAST_PERIOD: Duration = Duration::from_millis(10);

/// The service, to be added to a server of tonic, or as a route to one of axum. Answers come from what is known: no request runs a
/// check.
pub fn service(health: Health, config: GrpcHealthConfig) -> HealthServer<GrpcHealth> {
    let watches = config.max_watches.min(Semaphore::MAX_PERMITS);
    let watches = Arc::new(Semaphore::new(watches));
    HealthServer::new(GrpcHealth {
        health,
        config: Arc::new(config),
        watches,
    })
    .max_decoding_message_size(MAX_REQUEST_BYTES)
}

/// What is known of a service, as `grpc.health.v1.Health`.
#[derive(Clone, Debug)]
pub struct GrpcHealth {
    health: Health,
    config: Arc<GrpcHealthConfig>,
    watches: Arc<Semaphore>,
}

const fn serving(up: bool) -> ServingStatus {
    if up {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

impl GrpcHealth {
    /// `None`: there is no such service, or not for this audience.
    fn status(&self, service: &str) -> Option<ServingStatus> {
        let view = self.health.view();
        match service {
            "" | "readiness" => Some(serving(view.readiness.outcome.is_up())),
            // A process is restarted because it is known to be dead, and for no other reason.
            "liveness" => Some(serving(view.liveness.outcome != Outcome::Fail)),
            "startup" => Some(serving(view.startup.outcome.is_up())),
            name if self.may_see(&view, name) => {
                let verdict = view.subset(name)?;
                Some(serving(verdict.outcome.is_up()))
            }
            _ => None,
        }
    }

    fn may_see(&self, view: &View, name: &str) -> bool {
        if self.config.all_checks || view.subsets.contains_key(name) {
            return true;
        }
        let reading = view.reading(name);
        reading.is_some_and(|reading| Audience::Stranger.sees(reading).is_some())
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for GrpcHealth {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.status(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("there is no such service"))?;
        Ok(Response::new(answer(status)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let permit = self.watches.clone().try_acquire_owned();
        let permit =
            permit.map_err(|_| Status::resource_exhausted("there are too many watches"))?;
        let mut ticks = interval(self.config.watch_period.max(LEAST_PERIOD));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch {
            of: self.clone(),
            service: request.into_inner().service,
            told: None,
            ticks,
            begun: Instant::now(),
            _permit: permit,
        };
        Ok(Response::new(Box::pin(unfold(Some(watch), next))))
    }
}

struct Watch {
    of: GrpcHealth,
    service: String,
    told: Option<ServingStatus>,
    ticks: Interval,
    begun: Instant,
    _permit: OwnedSemaphorePermit,
}

/// The next change; the first one comes at once.
async fn next(
    watch: Option<Watch>,
) -> Option<(Result<HealthCheckResponse, Status>, Option<Watch>)> {
    let mut watch = watch?;
    loop {
        watch.ticks.tick().await;
        if watch.begun.elapsed() >= watch.of.config.max_watch_age {
            let ended = Status::unavailable("the watch is over, begin another");
            return Some((Err(ended), None));
        }
        let status = watch.of.status(&watch.service);
        let status = status.unwrap_or(ServingStatus::ServiceUnknown);
        if watch.told != Some(status) {
            watch.told = Some(status);
            return Some((Ok(answer(status)), Some(watch)));
        }
    }
}
