//! The decorators around a store that fails as it is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use groundtackle_chain::{OutPoint, Script, Transaction, TxOut, Txid};
use groundtackle_core::{RetryConfig, Retryability};

use super::{Bounded, BoundedConfig, Retrying, Traced};
use crate::store::forward_store;
use crate::{
    Applied, Error, MemoryUtxoStore, MinedIn, NewRecord, Result, ScanStore, SetScan, SpendOptions,
    SpendStore, UtxoStore,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is applied.
    Overloaded,
    /// All is applied, and the answer is lost.
    LostAnswer,
    Permanent,
}

/// Fails each call as the script says, then works.
#[derive(Debug, Default)]
struct Faulty {
    inner: MemoryUtxoStore,
    script: Mutex<VecDeque<Fault>>,
    calls: AtomicUsize,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
    most_items: AtomicUsize,
    pages: AtomicUsize,
}

impl Faulty {
    fn with(faults: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(faults.iter().copied().collect()),
            ..Self::default()
        })
    }

    fn inner(&self) -> &MemoryUtxoStore {
        &self.inner
    }

    async fn run<T>(&self, items: usize, call: impl Future<Output = Result<T>>) -> Result<T> {
        let fault = self.script.lock().unwrap().pop_front();
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.most_items.fetch_max(items, Ordering::SeqCst);
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = match fault {
            Some(Fault::Overloaded) => Err(Error::overloaded("faulty", "work")),
            Some(Fault::Permanent) => Err(Error::backend(
                "faulty",
                "work",
                Retryability::Permanent,
                "broken",
            )),
            Some(Fault::LostAnswer) => {
                call.await?;
                Err(Error::backend(
                    "faulty",
                    "work",
                    Retryability::Indeterminate,
                    "lost",
                ))
            }
            None => call.await,
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

macro_rules! faulty {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $self.run($part.len(), $call).await
    }};
    ($self:ident, whole, $name:ident, $items:expr, || $call:expr) => {
        $self.run(1, $call).await
    };
    ($self:ident, scan, $name:ident, $items:expr, || $call:expr) => {{
        let fail_first_pages = $self.pages.load(Ordering::SeqCst);
        let inner = $self.run(1, $call).await?;
        Ok(Box::new(FaultyScan {
            inner,
            failures: AtomicUsize::new(fail_first_pages),
        }))
    }};
}

forward_store!([] Faulty, inner, faulty);

#[derive(Debug)]
struct FaultyScan {
    inner: Box<dyn SetScan>,
    failures: AtomicUsize,
}

#[async_trait::async_trait]
impl SetScan for FaultyScan {
    fn tip(&self) -> Option<crate::Tip> {
        self.inner.tip()
    }

    fn partitions(&self) -> u32 {
        self.inner.partitions()
    }

    async fn page(
        &self,
        partition: u32,
        after: Option<&crate::Cursor>,
        limit: usize,
    ) -> Result<crate::Page<crate::Coin>> {
        if self.failures.load(Ordering::SeqCst) > 0 {
            self.failures.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::overloaded("faulty", "page"));
        }
        self.inner.page(partition, after, limit).await
    }
}

fn coinbase(number: u8) -> NewRecord {
    let output = TxOut {
        value_sat: 50,
        script: Script::from_bytes(vec![0x51]),
    };
    NewRecord::Coinbase {
        tx: Transaction {
            txid: Txid::from_bytes([number; 32]),
            inputs: Vec::new(),
            outputs: vec![output],
            lock_time: 0,
            size_bytes: 100,
            coinbase: true,
        },
        mined: MinedIn {
            block: None,
            height: 1,
            subtree_index: 0,
            on_longest_chain: true,
        },
    }
}

fn spender(number: u8, parent: u8) -> Transaction {
    Transaction {
        txid: Txid::from_bytes([number; 32]),
        inputs: vec![OutPoint::new(Txid::from_bytes([parent; 32]), 0)],
        outputs: Vec::new(),
        lock_time: 0,
        size_bytes: 100,
        coinbase: false,
    }
}

fn retrying(store: &Arc<Faulty>, attempts: u32) -> Retrying<Arc<Faulty>> {
    Retrying::new(
        store.clone(),
        RetryConfig::default().with_max_attempts(attempts),
    )
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_not_seen() {
    let store = Faulty::with(&[Fault::Overloaded, Fault::Overloaded]);
    let answer = retrying(&store, 5).create(&[coinbase(1)]).await.unwrap();
    assert_eq!(answer, [Ok(Applied::Now)]);
    assert_eq!(store.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_settled_by_asking_again() {
    let store = Faulty::with(&[]);
    retrying(&store, 5).create(&[coinbase(1)]).await.unwrap();
    store.script.lock().unwrap().push_back(Fault::LostAnswer);
    let spends = [spender(2, 1).into()];
    let answer = retrying(&store, 5)
        .spend_and_create(&spends, &SpendOptions::at(200))
        .await
        .unwrap();
    // The first attempt did it.
    assert_eq!(answer, [Ok(Applied::Before)]);
}

#[tokio::test(start_paused = true)]
async fn giving_up_says_so_and_is_not_repeated_by_an_outer_layer() {
    let store = Faulty::with(&[
        Fault::LostAnswer,
        Fault::Overloaded,
        Fault::Overloaded,
        Fault::Overloaded,
    ]);
    let outer = Retrying::new(
        retrying(&store, 3),
        RetryConfig::default().with_max_attempts(3),
    )
    .unwrap();
    let error = outer.create(&[coinbase(1)]).await.unwrap_err();
    assert_eq!(store.calls.load(Ordering::SeqCst), 3);
    assert!(
        matches!(error, Error::GaveUp { attempts: 3, .. }),
        "{error:?}"
    );
    // One attempt may have been applied, whatever the last one says.
    assert_eq!(error.retryability(), Retryability::Indeterminate);
}

#[tokio::test(start_paused = true)]
async fn giving_up_on_what_was_never_applied_is_permanent() {
    let store = Faulty::with(&[Fault::Overloaded, Fault::Overloaded]);
    let error = retrying(&store, 2)
        .create(&[coinbase(1)])
        .await
        .unwrap_err();
    assert_eq!(error.retryability(), Retryability::Permanent);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_get_better_is_not_repeated() {
    let store = Faulty::with(&[Fault::Permanent]);
    let error = retrying(&store, 5)
        .create(&[coinbase(1)])
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Backend { .. }),
        "the error itself, not a wrapped one: {error:?}"
    );
    assert_eq!(store.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn pages_of_a_scan_are_repeated_too() {
    let store = Faulty::with(&[]);
    store.pages.store(2, Ordering::SeqCst);
    store.create(&[coinbase(1)]).await.unwrap();
    let scan = retrying(&store, 5).scan().await.unwrap();
    let page = scan.page(0, None, 10).await.unwrap();
    assert_eq!(page.items.len(), 1);
}

#[test]
fn a_senseless_schedule_is_refused() {
    let config = RetryConfig::default().with_max_attempts(0);
    assert!(matches!(
        Retrying::new(MemoryUtxoStore::new(), config),
        Err(Error::InvalidRequest { .. })
    ));
}

fn bounded(store: &Arc<Faulty>, config: BoundedConfig) -> Arc<Bounded<Arc<Faulty>>> {
    Arc::new(Bounded::new(store.clone(), config).unwrap())
}

#[tokio::test]
async fn large_batches_are_split_in_order() {
    let store = Faulty::with(&[]);
    let bounded = bounded(&store, BoundedConfig::default().with_max_batch_items(16));
    let records: Vec<_> = (1..=100).map(coinbase).collect();
    let answers = bounded.create(&records).await.unwrap();
    assert_eq!(answers, vec![Ok(Applied::Now); 100]);
    assert_eq!(store.most_items.load(Ordering::SeqCst), 16);
    // A child in a later part than its parent.
    let chain: Vec<_> = (101..=120).map(|n| spender(n, n - 100).into()).collect();
    let answers = bounded
        .spend_and_create(&chain, &SpendOptions::at(200))
        .await
        .unwrap();
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn an_empty_batch_is_answered() {
    let store = Faulty::with(&[]);
    assert_eq!(
        bounded(&store, BoundedConfig::default())
            .create(&[])
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn calls_in_flight_are_bounded() {
    let store = Faulty::with(&[]);
    let bounded = bounded(&store, BoundedConfig::default().with_max_in_flight(3));
    let calls = (1..=50).map(|n| {
        let bounded = bounded.clone();
        tokio::spawn(async move { bounded.create(&[coinbase(n)]).await.unwrap() })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(store.most_in_flight.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn callers_that_wait_are_bounded() {
    let store = Faulty::with(&[]);
    let bounded = bounded(
        &store,
        BoundedConfig::default()
            .with_max_in_flight(1)
            .with_max_waiting(2),
    );
    let calls = (1..=10).map(|n| {
        let bounded = bounded.clone();
        tokio::spawn(async move { bounded.create(&[coinbase(n)]).await })
    });
    let mut refused = 0;
    for call in calls.collect::<Vec<_>>() {
        if let Err(error) = call.await.unwrap() {
            assert!(matches!(error, Error::Overloaded { .. }));
            refused += 1;
        }
    }
    // One works and two wait; all of them were there before the first was done.
    assert_eq!(refused, 7);
}

#[tokio::test]
async fn pressure_halves_the_limits_and_calm_raises_them() {
    let store = Faulty::with(&[Fault::Overloaded, Fault::Overloaded, Fault::Overloaded]);
    let config = BoundedConfig::default()
        .with_max_in_flight(8)
        .with_max_batch_items(64)
        .with_min_batch_items(16);
    let bounded = bounded(&store, config);
    for _ in 0..3 {
        bounded.create(&[coinbase(1)]).await.unwrap_err();
    }
    assert_eq!(bounded.limits(), (1, 16));
    for n in (0..=u8::MAX).cycle().take(400) {
        bounded.create(&[coinbase(n)]).await.unwrap();
    }
    assert_eq!(bounded.limits(), (8, 64));
    // The permits followed: as many as the limit are there again.
    let calls = (1..=50).map(|n| {
        let bounded = bounded.clone();
        tokio::spawn(async move { bounded.create(&[coinbase(n)]).await.unwrap() })
    });
    store.most_in_flight.store(0, Ordering::SeqCst);
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(store.most_in_flight.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn a_part_that_fails_after_another_was_applied_leaves_doubt() {
    let store = Faulty::with(&[]);
    let bounded = bounded(&store, BoundedConfig::default().with_max_batch_items(16));
    let records: Vec<_> = (1..=40).map(coinbase).collect();
    bounded.create(&records[..16]).await.unwrap();
    store.script.lock().unwrap().extend([Fault::Overloaded]);
    let error = bounded.create(&records).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Transient,
        "the first part failed, so nothing was applied"
    );
    let store = Faulty::with(&[]);
    let bounded = Arc::new(
        Bounded::new(
            Late(store),
            BoundedConfig::default().with_max_batch_items(16),
        )
        .unwrap(),
    );
    let error = bounded.create(&records).await.unwrap_err();
    assert_eq!(
        error.retryability(),
        Retryability::Indeterminate,
        "{error:?}"
    );
}

/// Overloaded from the second call on.
#[derive(Debug)]
struct Late(Arc<Faulty>);

impl Late {
    fn inner(&self) -> &Arc<Faulty> {
        if self.0.calls.load(Ordering::SeqCst) == 1 {
            self.0.script.lock().unwrap().push_back(Fault::Overloaded);
        }
        &self.0
    }
}

macro_rules! late {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

forward_store!([] Late, inner, late);

#[test]
fn senseless_limits_are_refused() {
    for config in [
        BoundedConfig::default().with_max_in_flight(0),
        BoundedConfig::default().with_min_batch_items(0),
        BoundedConfig::default()
            .with_max_batch_items(8)
            .with_min_batch_items(9),
    ] {
        assert!(matches!(
            Bounded::new(MemoryUtxoStore::new(), config),
            Err(Error::InvalidRequest { .. })
        ));
    }
}

/// Collects what a tracing subscriber sees.
mod seen {
    use std::fmt::Debug;
    use std::sync::Mutex;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Default)]
    pub(super) struct Seen(pub(super) Mutex<Vec<String>>);

    struct Fields<'a>(&'a Mutex<Vec<String>>, String);

    impl Visit for Fields<'_> {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0
                .lock()
                .unwrap()
                .push(format!("{}{}={value:?}", self.1, field.name()));
        }
    }

    impl Subscriber for &'static Seen {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            self.0
                .lock()
                .unwrap()
                .push(format!("span {}", span.metadata().name()));
            span.record(&mut Fields(&self.0, String::new()));
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, values: &Record<'_>) {
            values.record(&mut Fields(&self.0, String::new()));
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            event.record(&mut Fields(
                &self.0,
                format!("{} ", event.metadata().target()),
            ));
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }
}

#[tokio::test]
async fn spans_and_metrics_are_as_documented_and_carry_no_keys() {
    let seen: &'static seen::Seen = Box::leak(Box::default());
    let store = Traced::new(MemoryUtxoStore::new());
    let guard = tracing::subscriber::set_default(seen);
    store.create(&[coinbase(0xab)]).await.unwrap();
    store
        .spend(&[Txid::from_bytes([0xcd; 32])], &SpendOptions::at(200))
        .await
        .unwrap();
    store.scan().await.unwrap().page(0, None, 7).await.unwrap();
    drop(guard);
    let seen = seen.0.lock().unwrap();
    for expected in [
        "span utxo_store.create",
        "span utxo_store.spend",
        "span utxo_store.scan",
        "span utxo_store.scan_page",
        "items=1",
        "items=7",
        "refused=1",
        "backend=\"memory\"",
        "outcome=\"ok\"",
        "groundtackle::metrics operation=\"spend\"",
        "groundtackle::metrics monotonic_counter.utxo_store_items_total=1",
        "groundtackle::metrics monotonic_counter.utxo_store_refused_total=1",
    ] {
        assert!(
            seen.iter().any(|line| line == expected),
            "{expected} is missing in {seen:#?}"
        );
    }
    assert!(
        seen.iter()
            .any(|line| line.contains("histogram.utxo_store_call_duration_seconds="))
    );
    assert!(seen.iter().any(|line| line.starts_with("elapsed_secs=")));
    assert!(
        !seen
            .iter()
            .any(|line| line.contains("abab") || line.contains("cdcd")),
        "keys leak: {seen:#?}"
    );
    // Every operation of the store has a row in the docs.
    let docs = include_str!("../../../../../docs/telemetry.md");
    for span in seen.iter().filter_map(|line| line.strip_prefix("span ")) {
        assert!(
            docs.contains(&format!("`{span}`")),
            "{span} is not in docs/telemetry.md"
        );
    }
}

fn takes_any(_: &dyn UtxoStore) {}

#[test]
fn decorators_and_pointers_are_stores() {
    takes_any(&Traced::new(
        Retrying::new(Arc::new(MemoryUtxoStore::new()), RetryConfig::default()).unwrap(),
    ));
    let boxed: Box<dyn UtxoStore> = Box::new(MemoryUtxoStore::new());
    takes_any(&boxed);
}
