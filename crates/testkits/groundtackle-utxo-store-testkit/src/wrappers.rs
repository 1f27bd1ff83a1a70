//! Stores around a store that make trouble, or count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use groundtackle_utxo_store::{
    Error, OutPoint, Result, Retryability, Txid, UtxoStore, forward_store,
};

/// Counts the calls that reach the store: its round trips, if each call is one.
#[derive(Debug)]
pub struct Counting<S> {
    inner: S,
    calls: Arc<AtomicU64>,
}

impl<S: UtxoStore> Counting<S> {
    /// Around `inner`, counting in `calls`. Pages of a scan are not counted.
    pub const fn new(inner: S, calls: Arc<AtomicU64>) -> Self {
        Self { inner, calls }
    }

    fn inner(&self) -> &S {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

forward_store!([S: UtxoStore] Counting<S>, inner);

/// A backend that can do so much at a time and no more: a call above its limits fails, and nothing
/// of it is applied.
#[derive(Debug)]
pub struct Overloaded<S> {
    inner: S,
    max_in_flight: usize,
    max_batch_items: usize,
    in_flight: AtomicUsize,
    refused: AtomicU64,
}

impl<S: UtxoStore> Overloaded<S> {
    /// Around `inner`, with limits.
    pub const fn new(inner: S, max_in_flight: usize, max_batch_items: usize) -> Self {
        Self {
            inner,
            max_in_flight,
            max_batch_items,
            in_flight: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Calls refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn inner(&self) -> &S {
        &self.inner
    }

    async fn call<T>(
        &self,
        name: &'static str,
        items: usize,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        let answer = if others >= self.max_in_flight || items > self.max_batch_items {
            self.refused.fetch_add(1, Ordering::Relaxed);
            Err(Error::overloaded("overloaded", name))
        } else {
            // Others arrive meanwhile.
            tokio::task::yield_now().await;
            call.await
        };
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        answer
    }
}

macro_rules! overloaded {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $self.call(stringify!($name), $part.len(), $call).await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $self.call(stringify!($name), 1, $call).await
    };
}

forward_store!([S: UtxoStore] Overloaded<S>, inner, overloaded);

/// A backend that can be cut off: calls fail before they are applied or, `late`, after.
#[derive(Debug)]
pub struct Unreachable<S> {
    inner: S,
    cut: AtomicBool,
    late: bool,
}

impl<S: UtxoStore> Unreachable<S> {
    /// Around `inner`, reachable to begin with.
    pub const fn new(inner: S, late: bool) -> Self {
        Self {
            inner,
            cut: AtomicBool::new(false),
            late,
        }
    }

    /// Cuts it off, or joins it again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    fn inner(&self) -> &S {
        &self.inner
    }

    async fn call<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if !self.cut.load(Ordering::Relaxed) {
            return call.await;
        }
        let retryability = if self.late {
            drop(call.await);
            Retryability::Indeterminate
        } else {
            Retryability::Transient
        };
        Err(Error::backend(
            "unreachable",
            name,
            retryability,
            "no answer",
        ))
    }
}

macro_rules! unreachable_store {
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $self.call(stringify!($name), $call).await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $self.call(stringify!($name), $call).await
    };
}

forward_store!([S: UtxoStore] Unreachable<S>, inner, unreachable_store);

/// A backend that answers a read of one transaction with another one's record.
#[derive(Debug)]
pub struct Misfiled<S> {
    inner: S,
    asked: Txid,
    got: Txid,
}

impl<S: UtxoStore> Misfiled<S> {
    /// Around `inner`: who asks for `asked` gets `got`.
    pub const fn new(inner: S, asked: Txid, got: Txid) -> Self {
        Self { inner, asked, got }
    }

    fn inner(&self) -> &S {
        &self.inner
    }

    fn other(&self, txid: Txid) -> Txid {
        if txid == self.asked { self.got } else { txid }
    }
}

macro_rules! misfiled {
    ($self:ident, chunked, records, $items:expr, |$part:ident| $call:expr) => {{
        let others: Vec<_> = $items.iter().map(|txid| $self.other(*txid)).collect();
        let $part = others.as_slice();
        $call.await
    }};
    ($self:ident, chunked, outputs, $items:expr, |$part:ident| $call:expr) => {{
        let other = |asked: &OutPoint| OutPoint::new($self.other(asked.txid), asked.vout);
        let others: Vec<_> = $items.iter().map(other).collect();
        let $part = others.as_slice();
        $call.await
    }};
    ($($call:tt)*) => {
        groundtackle_utxo_store::__straight!($($call)*)
    };
}

forward_store!([S: UtxoStore] Misfiled<S>, inner, misfiled);
