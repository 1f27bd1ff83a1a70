//! The store's errors and the codec's, as those of a backup.

use groundtackle_backup::{Error, Retryability};

use crate::codec::CodecError;
use crate::journal::JournalError;

/// What the store said while doing `action`.
pub(crate) fn of_store(action: &str) -> impl Fn(groundtackle_utxo_store::Error) -> Error + '_ {
    move |error| {
        let retryability = error.retryability();
        Error::backend("the UTXO store", action, retryability, error)
    }
}

/// Bytes that were written as a segment, and are none.
pub(crate) fn of_codec(error: CodecError) -> Error {
    Error::backend(
        "the coin codec",
        "reading a segment",
        Retryability::Permanent,
        error,
    )
}

/// What the journal said.
pub(crate) fn of_journal(error: JournalError) -> Error {
    of_store("reading the journal")(error.into())
}
