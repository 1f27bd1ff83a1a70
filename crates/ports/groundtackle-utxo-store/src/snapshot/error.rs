//! What is wrong with a snapshot file, or kept it from being read or written.

use std::io;
use std::path::PathBuf;

use groundtackle_chain::codec::EncodeCoinError;
use groundtackle_chain::{BlockHash, DecodeError, Network, OutPoint, Txid};
use groundtackle_core::Retryability;

use super::format::{MAX_COINS, MAX_TRANSACTION_BYTES, MAX_VOUT};
use crate::error::Error;

/// Bytes that are no snapshot, or coins that have no place in one. Offsets count bytes from the start of the
/// file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotFormatError {
    /// The system failed.
    #[error("the file could not be read or written at byte {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// The system's error.
        source: io::Error,
    },
    /// Reading went on after an error.
    #[error("reading this file failed before: begin anew at its start")]
    Failed,
    /// A version that this software does not read.
    #[error(
        "the snapshot has version {version}, and 1 and 2 are known: use a newer version of this software"
    )]
    UnknownVersion {
        /// The version that the file claims.
        version: u16,
    },
    /// A network that this software does not know.
    #[error("the snapshot's network magic {magic:02x?} is none of Bitcoin's networks")]
    UnknownNetwork {
        /// The magic.
        magic: [u8; 4],
    },
    /// The file ends early.
    #[error(
        "the file ends at byte {offset}, and {coins_left} coins are to come: copy the file again"
    )]
    Truncated {
        /// Where it ends.
        offset: u64,
        /// Coins that the header promises and that did not come.
        coins_left: u64,
    },
    /// Something follows the last coin.
    #[error(
        "bytes follow the last coin at byte {offset}: the header has a wrong count, or the file is damaged"
    )]
    TrailingBytes {
        /// Where the file should end.
        offset: u64,
    },
    /// A count or an index is not written as it should be.
    #[error(
        "the number of coins or index of a coin of transaction {txid} at byte {offset} is damaged"
    )]
    Number {
        /// The transaction.
        txid: Txid,
        /// Where the number begins.
        offset: u64,
        /// What is wrong; its offsets count from there.
        source: DecodeError,
    },
    /// A transaction claims more coins than the header leaves for it, or none.
    #[error(
        "transaction {txid} claims {claimed} coins at byte {offset}, and the header leaves 1 to {left} for it"
    )]
    CoinsPerTransaction {
        /// The transaction.
        txid: Txid,
        /// Where the claim begins.
        offset: u64,
        /// The coins it claims.
        claimed: u64,
        /// The coins to come, by the header.
        left: u64,
    },
    /// A transaction with more coins, or more bytes of them, than any block holds.
    #[error(
        "transaction {txid} at byte {offset} has more than {MAX_COINS} coins, or more than {MAX_TRANSACTION_BYTES} bytes \
         of them, and no block has room for that: the file is damaged or forged"
    )]
    LargeTransaction {
        /// The transaction.
        txid: Txid,
        /// Where it begins.
        offset: u64,
    },
    /// An index that no transaction has.
    #[error("coin {txid}:{vout} at byte {offset} has an index above {MAX_VOUT}")]
    VoutTooLarge {
        /// The transaction.
        txid: Txid,
        /// The index.
        vout: u64,
        /// Where the index begins.
        offset: u64,
    },
    /// A coin that can't be decoded.
    #[error("coin {outpoint} at byte {offset} is damaged")]
    Coin {
        /// The coin.
        outpoint: OutPoint,
        /// Where its height begins.
        offset: u64,
        /// What is wrong; its offsets count from there.
        source: DecodeError,
    },
    /// A coin that can't be encoded.
    #[error("coin {outpoint} has no place in a snapshot")]
    Unencodable {
        /// The coin.
        outpoint: OutPoint,
        /// What is wrong with it.
        source: EncodeCoinError,
    },
    /// A coin that Bitcoin Core's set never has.
    #[error(
        "coin {outpoint} at byte {offset} can't be spent by Bitcoin Core's rule (OP_RETURN first, or more than 10000 \
         bytes), so its format has no place for it: copy such a set from store to store"
    )]
    Unspendable {
        /// The coin.
        outpoint: OutPoint,
        /// Where it begins, or would begin.
        offset: u64,
    },
    /// The coins of one transaction differ in height or coinbase flag; on writing, maybe in identifier.
    #[error(
        "coin {outpoint} before byte {offset} has another identifier, height or coinbase flag than the other coins of its \
         transaction"
    )]
    MixedTransaction {
        /// The coin.
        outpoint: OutPoint,
        /// Where the transaction's coins end.
        offset: u64,
    },
    /// A transaction that comes twice.
    #[error("transaction {txid} comes again at byte {offset}")]
    RepeatedTransaction {
        /// The transaction.
        txid: Txid,
        /// Where it begins the second time.
        offset: u64,
    },
    /// A coin that comes twice.
    #[error("coin {outpoint} before byte {offset} comes twice")]
    RepeatedCoin {
        /// The coin.
        outpoint: OutPoint,
        /// Where the transaction's coins end.
        offset: u64,
    },
}

/// An export or import that did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The store failed, or can't be used so.
    #[error("the store failed, or can't be used like this")]
    Store(#[from] Error),
    /// The system failed.
    #[error("{}: {doing} failed", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The file is written and whole, and it has its name: that may not outlive a loss of power.
    #[error(
        "{} is there and whole, but its folder could not be made durable: check the disk, then export again and ask for \
         the file to be replaced",
        file.display()
    )]
    NotDurable {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file to write is there already; it was left alone.
    #[error("{} is there already: name another file, or ask for it to be replaced", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The file is damaged, or the set has a coin that no snapshot can hold.
    #[error("{} is no whole snapshot", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        source: SnapshotFormatError,
    },
    /// The file does not begin as a snapshot does.
    #[error(
        "{} is no snapshot of {network}: {block}, which would be its block, has no proof of work there; check the file \
         and the network",
        file.display()
    )]
    NotASnapshot {
        /// The file.
        file: PathBuf,
        /// The network that was asked for.
        network: Network,
        /// What stands where the block should.
        block: BlockHash,
    },
    /// The snapshot is of another network.
    #[error("{} is a snapshot of {found}, and {wanted} was asked for", file.display())]
    WrongNetwork {
        /// The file.
        file: PathBuf,
        /// The network that was asked for.
        wanted: Network,
        /// The file's network.
        found: Network,
    },
    /// The snapshot is of another block.
    #[error("{} is a snapshot of block {found}, and {wanted} was asked for", file.display())]
    WrongBlock {
        /// The file.
        file: PathBuf,
        /// The block that was asked for.
        wanted: BlockHash,
        /// The file's block.
        found: BlockHash,
    },
    /// The height that was given can't be the block's.
    #[error("block {block} can't have height {given}: {because}")]
    WrongHeight {
        /// The file's block.
        block: BlockHash,
        /// The height that was given.
        given: u32,
        /// What tells.
        because: String,
    },
    /// Neither the file nor its block says the height.
    #[error(
        "the height of block {block} is not known, and a set without coins does not tell: give the height"
    )]
    UnknownHeight {
        /// The file's block.
        block: BlockHash,
    },
    /// There is nothing to compare the file with.
    #[error(
        "no digest is built in for block {block} of {network}: give the muhash or hash_serialized_3 that gettxoutsetinfo \
         of a node that you trust says for that block"
    )]
    NoDigest {
        /// The file's block.
        block: BlockHash,
        /// The network.
        network: Network,
    },
    /// The order of the file's transactions does not allow for the digest that was given.
    #[error(
        "the transactions of {} are not in order, and hash_serialized_3 needs one: give the muhash instead",
        file.display()
    )]
    NotInOrder {
        /// The file.
        file: PathBuf,
    },
    /// The file's set is another one. The store was left alone.
    #[error(
        "{} has the {digest} {found}, and {wanted} was expected: the file is damaged or forged, or the digest is of \
         another block; nothing was written",
        file.display()
    )]
    WrongDigest {
        /// The file.
        file: PathBuf,
        /// `muhash` or `hash_serialized_3`.
        digest: &'static str,
        /// The digest that was expected, as Bitcoin Core displays it.
        wanted: String,
        /// The file's, likewise.
        found: String,
    },
}

impl SnapshotError {
    /// The error of an import that has written something: none that says that nothing was applied.
    pub(super) fn after_effect(self) -> Self {
        let error = match self {
            Self::Store(error) if error.retryability() == Retryability::Transient => error,
            known if known.retryability() != Retryability::Transient => return known,
            io => Error::backend("snapshot", "reading the file", Retryability::Transient, io),
        };
        error.after_effect("snapshot", "an import").into()
    }

    /// Whether the call may be repeated. Imports and exports go on, or begin anew, where they stopped.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::Store(error) => error.retryability(),
            Self::Io { source, .. }
            | Self::Format {
                source: SnapshotFormatError::Io { source, .. },
                ..
            } if !matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ReadOnlyFilesystem
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::Unsupported
            ) =>
            {
                Retryability::Transient
            }
            Self::NotDurable { .. } => Retryability::Indeterminate,
            _ => Retryability::Permanent,
        }
    }
}
