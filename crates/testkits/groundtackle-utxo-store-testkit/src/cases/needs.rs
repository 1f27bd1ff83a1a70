//! What a case needs of an adapter or a harness, and what is missing otherwise.

use crate::harness::Subject;

type Answer = Result<(), &'static str>;

fn need(there: bool, otherwise: &'static str) -> Answer {
    if there { Ok(()) } else { Err(otherwise) }
}

pub(crate) fn persistent(store: &Subject) -> Answer {
    need(
        store.capabilities().persistent,
        "the adapter keeps nothing across a restart",
    )
}

pub(crate) fn snapshot_scan(store: &Subject) -> Answer {
    need(
        store.capabilities().snapshot_scan,
        "the adapter's scans are no snapshots",
    )
}

pub(crate) fn ordered_scan(store: &Subject) -> Answer {
    need(
        store.capabilities().ordered_scan,
        "the adapter's scans have no order",
    )
}

pub(crate) fn limited_batches(store: &Subject) -> Answer {
    need(
        store.capabilities().max_batch_items.is_some(),
        "the adapter takes batches of any size",
    )
}

pub(crate) fn counted_round_trips(store: &Subject) -> Answer {
    need(
        store.round_trips().is_some(),
        "the harness counts no round trips",
    )
}

pub(crate) fn addressed(store: &Subject) -> Answer {
    need(
        store.capabilities().persistent && store.address().is_some(),
        "the harness gives no address for another process to open and die at",
    )
}
