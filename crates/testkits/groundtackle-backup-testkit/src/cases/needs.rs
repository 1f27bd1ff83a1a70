//! What a case needs of an adapter or a harness, and what is missing otherwise.

use crate::harness::Subject;

type Answer = Result<(), &'static str>;

fn need(there: bool, otherwise: &'static str) -> Answer {
    if there { Ok(()) } else { Err(otherwise) }
}

pub(crate) fn conditional_put(target: &Subject) -> Answer {
    need(
        target.capabilities().conditional_put,
        "the adapter has no conditional put: a repository on it has one writer",
    )
}

pub(crate) fn object_lock(target: &Subject) -> Answer {
    need(
        target.capabilities().object_lock,
        "the adapter has no locks",
    )
}

pub(crate) fn no_object_lock(target: &Subject) -> Answer {
    need(
        !target.capabilities().object_lock,
        "the adapter has locks, and other cases are about them",
    )
}

pub(crate) fn stalls(target: &Subject) -> Answer {
    need(
        target.upload_memory_bytes() > 0,
        "the harness can't make its backend stand still",
    )
}
