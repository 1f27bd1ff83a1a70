//! What a harness can do beyond opening stores is used where it is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use groundtackle_utxo_store::{MemoryUtxoStore, Result};
use groundtackle_utxo_store_testkit::wrappers::{Counting, Unreachable};
use groundtackle_utxo_store_testkit::{Fault, Harness, run};

/// Each call is a round trip to a backend that can be cut off.
struct Hooked {
    round_trips_per_call: u64,
}

struct Backend {
    store: Arc<Unreachable<MemoryUtxoStore>>,
    calls: Arc<AtomicU64>,
}

#[async_trait]
impl Harness for Hooked {
    type Store = Counting<Arc<Unreachable<MemoryUtxoStore>>>;
    type Place = Backend;

    async fn place(&self) -> Backend {
        Backend {
            store: Arc::new(Unreachable::new(MemoryUtxoStore::new(), false)),
            calls: Arc::default(),
        }
    }

    async fn open(&self, place: &Backend) -> Result<Self::Store> {
        Ok(Counting::new(place.store.clone(), place.calls.clone()))
    }

    fn round_trips(&self, place: &Backend) -> Option<u64> {
        Some(place.calls.load(Ordering::Relaxed))
    }

    fn round_trips_per_call(&self) -> u64 {
        self.round_trips_per_call
    }

    async fn set_fault(&self, place: &Backend, fault: Fault, armed: bool) -> bool {
        place.store.cut(armed && fault == Fault::Unreachable);
        fault == Fault::Unreachable
    }
}

#[test]
fn round_trips_are_held_against_the_declared_bound() {
    let round_trips_per_call = 1;
    run(
        Hooked {
            round_trips_per_call,
        },
        "round_trips",
    );
}

#[test]
#[should_panic(expected = "round trips, above 0 a call")]
fn round_trips_above_the_bound_fail() {
    let round_trips_per_call = 0;
    run(
        Hooked {
            round_trips_per_call,
        },
        "round_trips",
    );
}

#[test]
fn a_backend_can_be_cut_off() {
    for case in ["verdict_or_failure", "every_node_healthy"] {
        let round_trips_per_call = 1;
        run(
            Hooked {
                round_trips_per_call,
            },
            case,
        );
    }
}

#[test]
#[should_panic(expected = "there is no case nonsense")]
fn an_unknown_case_fails() {
    let round_trips_per_call = 1;
    run(
        Hooked {
            round_trips_per_call,
        },
        "nonsense",
    );
}
