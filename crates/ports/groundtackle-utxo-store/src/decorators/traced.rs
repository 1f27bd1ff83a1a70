use std::time::Instant;

use async_trait::async_trait;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, debug_span};

use crate::store::{SetScan, UtxoStore, forward_store};
use crate::types::{
    Coin, Connected, Cursor, Disconnected, Health, Page, Pruned, Record, Recovered, SetDigest, Tip,
    UnminedTransaction,
};
use crate::verdict::Outcome;
use crate::{Error, Result};

/// Spans and metrics of every call, as listed in `docs/telemetry.md`. They carry no keys and no
/// scripts.
#[derive(Debug)]
pub struct Traced<S> {
    inner: S,
}

impl<S: UtxoStore> Traced<S> {
    /// Around `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    fn inner(&self) -> &S {
        &self.inner
    }
}

/// How many items of an answer are verdicts.
trait Tally {
    fn refused(&self) -> usize {
        0
    }
}

impl<T> Tally for Vec<Outcome<T>> {
    fn refused(&self) -> usize {
        self.iter().filter(|outcome| outcome.is_err()).count()
    }
}

impl Tally for Outcome<Connected> {
    fn refused(&self) -> usize {
        usize::from(self.is_err())
    }
}

impl Tally for Outcome<Disconnected> {
    fn refused(&self) -> usize {
        usize::from(self.is_err())
    }
}

impl Tally for Vec<Option<Record>> {}
impl Tally for Option<Tip> {}
impl Tally for () {}
impl Tally for Page<UnminedTransaction> {}
impl Tally for Page<Coin> {}
impl Tally for Pruned {}
impl Tally for SetDigest {}
impl Tally for Recovered {}
impl Tally for Health {}
impl Tally for Box<dyn SetScan> {}

async fn observe<T: Tally>(
    operation: &'static str,
    backend: &'static str,
    items: usize,
    span: Span,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let begin = Instant::now();
    let answer = call.instrument(span.clone()).await;
    let elapsed_secs = begin.elapsed().as_secs_f64();
    let (outcome, refused) = match &answer {
        Ok(answer) => ("ok", answer.refused()),
        Err(Error::Overloaded { .. }) => ("overloaded", 0),
        Err(_) => ("error", 0),
    };
    span.record("elapsed_secs", elapsed_secs)
        .record("outcome", outcome)
        .record("refused", refused);
    if let Err(error) = &answer {
        debug!(parent: &span, %error, retryability = %error.retryability(), "the store could not answer");
    }
    // The field names are the ones that tracing-opentelemetry's metrics layer makes instruments of.
    debug!(
        target: "groundtackle::metrics",
        {
            histogram.utxo_store_call_duration_seconds = elapsed_secs,
            monotonic_counter.utxo_store_items_total = items as u64,
            monotonic_counter.utxo_store_refused_total = refused as u64,
            operation,
            backend,
            outcome,
        },
        "call"
    );
    answer
}

macro_rules! traced {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        traced!($self, whole, $name, $part.len(), || $call)
    }};
    ($self:ident, whole, $name:ident, $items:expr, || $call:expr) => {{
        let items = $items;
        let backend = $self.inner.capabilities().backend;
        let span = debug_span!(
            concat!("utxo_store.", stringify!($name)),
            backend,
            items,
            elapsed_secs = Empty,
            outcome = Empty,
            refused = Empty
        );
        observe(stringify!($name), backend, items, span, $call).await
    }};
    ($self:ident, scan, $name:ident, $items:expr, || $call:expr) => {{
        let backend = $self.inner.capabilities().backend;
        let inner: Result<Box<dyn SetScan>> = traced!($self, whole, $name, $items, || $call);
        Ok(Box::new(TracedScan {
            backend,
            inner: inner?,
        }))
    }};
}

forward_store!([S: UtxoStore] Traced<S>, inner, traced);

#[derive(Debug)]
struct TracedScan {
    backend: &'static str,
    inner: Box<dyn SetScan>,
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl SetScan for TracedScan {
    fn tip(&self) -> Option<Tip> {
        self.inner.tip()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<Page<Coin>> {
        let backend = self.backend;
        let span = debug_span!(
            "utxo_store.scan_page",
            backend,
            items = limit,
            elapsed_secs = Empty,
            outcome = Empty,
            refused = Empty
        );
        observe(
            "scan_page",
            backend,
            limit,
            span,
            self.inner.page(partition, after, limit),
        )
        .await
    }
}
