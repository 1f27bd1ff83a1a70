//! Logs on standard error; spans and metrics to a collector, over OTLP.

use std::io::IsTerminal;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tonic::metadata::{MetadataKey, MetadataMap};
use tracing_opentelemetry::{MetricsLayer, OpenTelemetryLayer};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt, registry};

use crate::config::{Config, LogFormat, Telemetry as Otel};
use crate::failure::{Failure, Result, While};

/// Where the libraries say what they measured: `docs/telemetry.md` of Groundtackle.
const METRICS: &str = "groundtackle::metrics";

/// What is sent has to be told when it ends.
#[derive(Debug, Default)]
pub struct Telemetry {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

/// Needs a runtime.
pub fn start(config: &Config) -> Result<Telemetry> {
    let started = match &config.telemetry.endpoint {
        Some(endpoint) => exporters(&config.telemetry, endpoint)?,
        None => Telemetry::default(),
    };
    let filter = |text: &str, key| {
        EnvFilter::try_new(text)
            .map_err(|error| Failure::config(format!("filter of [{key}]: {error}")))
    };
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let spans = match &started.spans {
        Some(provider) => {
            let layer = OpenTelemetryLayer::new(provider.tracer("node-service"));
            Some(layer.with_filter(filter(&config.telemetry.filter, "telemetry")?))
        }
        None => None,
    };
    let measured = Targets::new().with_target(METRICS, tracing::Level::DEBUG);
    let metrics = started.metrics.clone();
    let metrics = metrics.map(|provider| MetricsLayer::new(provider).with_filter(measured));
    registry()
        .with(lines.with_filter(filter(&config.log.filter, "log")?))
        .with(spans)
        .with(metrics)
        .try_init()
        .when("starting the log")?;
    Ok(started)
}

fn exporters(config: &Otel, endpoint: &str) -> Result<Telemetry> {
    let mut headers = MetadataMap::new();
    for (name, value) in &config.headers {
        let bad = || Failure::config(format!("telemetry.headers: {name:?} is no header"));
        let key: MetadataKey<_> = name.to_lowercase().parse().map_err(|_| bad())?;
        headers.insert(key, value.expose().parse().map_err(|_| bad())?);
    }
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .build();
    let sending = || format!("sending telemetry to {endpoint}");
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(config.timeout)
        .with_metadata(headers.clone())
        .build()
        .when(sending())?;
    let metrics = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(config.timeout)
        .with_metadata(headers)
        .build()
        .when(sending())?;
    let reader = PeriodicReader::builder(metrics)
        .with_interval(config.metrics_every)
        .build();
    Ok(Telemetry {
        // The queue is bounded: what a collector does not take in time is dropped, and the service goes on.
        spans: Some(
            SdkTracerProvider::builder()
                .with_batch_exporter(spans)
                .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                    config.sampled,
                ))))
                .with_resource(resource.clone())
                .build(),
        ),
        metrics: Some(
            SdkMeterProvider::builder()
                .with_reader(reader)
                .with_resource(resource)
                .build(),
        ),
    })
}

impl Telemetry {
    /// Sends what is left. Blocks, while the runtime goes on.
    pub fn stop(self) {
        let spans = self.spans.map(|provider| provider.shutdown());
        let metrics = self.metrics.map(|provider| provider.shutdown());
        for failed in [spans, metrics]
            .into_iter()
            .flatten()
            .filter_map(Result::err)
        {
            tracing::warn!(error = %failed, "the last telemetry was not delivered");
        }
    }
}
