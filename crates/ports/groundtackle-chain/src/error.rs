//! What can go wrong while a source reads its chain.

use std::io;
use std::path::PathBuf;

use groundtackle_core::{ByteSize, Retryability};

use crate::decode::DecodeError;
use crate::hash::BlockHash;
use crate::network::Network;
use crate::pow::ProofOfWorkError;

/// Why a source could not give its next block. Offsets are in bytes from the start of the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read.
    #[error("{} could not be read; check that it exists and may be read", file.display())]
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A source that is not part of this crate failed.
    #[error("{name} could not give its next block")]
    Source {
        /// The source.
        name: String,
        /// How long the failure lives.
        retryability: Retryability,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runtime shut down while files were read.
    #[error("reading stopped because the runtime shuts down")]
    Stopped,
    /// A directory holds no block files.
    #[error("{} holds no blk*.dat file; name the node's blocks directory", directory.display())]
    NoBlockFiles {
        /// The directory, or nothing if no path was given.
        directory: PathBuf,
    },
    /// A file is empty.
    #[error("{} is empty; copy it again", file.display())]
    EmptyFile {
        /// The file.
        file: PathBuf,
    },
    /// The obfuscation key has the wrong length.
    #[error("{} has {bytes} bytes, and a key has 8; copy it again from the node", file.display())]
    XorKeyLength {
        /// The key's file.
        file: PathBuf,
        /// Its length, in bytes.
        bytes: u64,
    },
    /// A file is neither a block file nor hexadecimal text nor a block.
    #[error(
        "{} is neither a block file of {network} nor hexadecimal text nor a raw block; \
         if the node obfuscates its files, xor.dat must lie beside them",
        file.display()
    )]
    UnknownFormat {
        /// The file.
        file: PathBuf,
        /// The network that was asked for.
        network: Network,
    },
    /// A record belongs to another network.
    #[error(
        "{} holds blocks of {found} at offset {offset}, and {expected} was asked for",
        file.display()
    )]
    WrongNetwork {
        /// The file.
        file: PathBuf,
        /// Where the record begins, in bytes.
        offset: u64,
        /// The network that was asked for.
        expected: Network,
        /// The network that the record belongs to.
        found: Network,
    },
    /// Bytes that begin no record stand where one should.
    #[error(
        "{} has bytes at offset {offset} that begin no record; \
         copy the file again while the node is stopped",
        file.display()
    )]
    NotARecord {
        /// The file.
        file: PathBuf,
        /// Where the bytes stand.
        offset: u64,
    },
    /// A record claims more bytes than its file has, or is not filled yet.
    #[error(
        "{} claims a record of {claimed} bytes at offset {offset} and has {available} bytes \
         for it; the node was still writing or the copy broke off: copy again while the node is \
         stopped, stop before this block, or set tolerate_partial_tail",
        file.display()
    )]
    PartialRecord {
        /// The file.
        file: PathBuf,
        /// Where the record begins, in bytes.
        offset: u64,
        /// The block's claimed size, in bytes.
        claimed: u64,
        /// The bytes that are there for it.
        available: u64,
    },
    /// A block is larger than the limit that was set.
    #[error(
        "the block at offset {offset} of {} has {bytes} bytes, and max_block_size is \
         {max_block_size}",
        file.display()
    )]
    BlockTooLarge {
        /// The file.
        file: PathBuf,
        /// Where the block begins, in bytes.
        offset: u64,
        /// Its size, in bytes.
        bytes: u64,
        /// The limit.
        max_block_size: ByteSize,
    },
    /// A line of hexadecimal text is none, or is too short for a block.
    #[error("the line at offset {offset} of {} is not a block in hexadecimal", file.display())]
    NotHex {
        /// The file.
        file: PathBuf,
        /// Where the line begins, in bytes.
        offset: u64,
    },
    /// A header's proof of work does not count.
    #[error(
        "block {hash} at offset {offset} of {} has no valid proof of work; \
         check the network, and copy the file again",
        file.display()
    )]
    ProofOfWork {
        /// The file.
        file: PathBuf,
        /// Where the block's header begins, in bytes.
        offset: u64,
        /// The block.
        hash: BlockHash,
        /// What is wrong.
        source: ProofOfWorkError,
    },
    /// A block's body is damaged.
    #[error(
        "block {height} ({hash}) at offset {offset} of {} is damaged; copy the file again",
        file.display()
    )]
    Body {
        /// The file.
        file: PathBuf,
        /// Where the block begins, in bytes.
        offset: u64,
        /// The block's height.
        height: u32,
        /// The block.
        hash: BlockHash,
        /// What is wrong.
        source: DecodeError,
    },
    /// A file changed after its headers were read.
    #[error(
        "{} changed at offset {offset}, where block {height} ({hash}) was; open the source again",
        file.display()
    )]
    Changed {
        /// The file.
        file: PathBuf,
        /// Where the block was, in bytes.
        offset: u64,
        /// The block's height.
        height: u32,
        /// The block.
        hash: BlockHash,
    },
    /// The files have no block to start from.
    #[error(
        "none of the {blocks} blocks in the files is or follows block {height} ({hash}); \
         check the network, and add the files that hold the blocks after it"
    )]
    StartNotFound {
        /// How many blocks the files have.
        blocks: usize,
        /// The height of the block to start from.
        height: u32,
        /// The block to start from.
        hash: BlockHash,
    },
    /// The block to start from has another height in the files.
    #[error("block {hash} has height {actual}, and {given} was given; correct the start")]
    StartHeight {
        /// The block to start from.
        hash: BlockHash,
        /// The height that was given.
        given: u32,
        /// The height by the files.
        actual: u32,
    },
    /// The block to start from was left by the chain of most work.
    #[error(
        "block {height} ({hash}) is not on the chain of most work, which ends in {tip}; \
         disconnect back to block {fork_height} ({fork_hash}) and start after that"
    )]
    StaleStart {
        /// The height of the block to start from.
        height: u32,
        /// The block to start from.
        hash: BlockHash,
        /// The last block on the chain of most work.
        tip: BlockHash,
        /// The height of the last block that both chains share.
        fork_height: u32,
        /// The last block that both chains share.
        fork_hash: BlockHash,
    },
    /// The times before the start are not known, so median times can't be told.
    #[error(
        "the times of {needed} blocks up to {height} are needed for median times, and {found} are \
         known; add the files with these blocks, or give their times with the start"
    )]
    UnknownTimes {
        /// The height of the block to start from.
        height: u32,
        /// How many times are needed.
        needed: usize,
        /// How many are known.
        found: usize,
    },
    /// A block is missing: the chain ends, and later blocks connect to nothing.
    #[error(
        "the chain ends with block {height} ({hash}), but the block at offset {offset} of {} is \
         later and follows {missing}, which no file has; add the missing file, or end at {height}",
        file.display()
    )]
    Gap {
        /// The height where the chain ends.
        height: u32,
        /// The block where the chain ends.
        hash: BlockHash,
        /// The block that is missing.
        missing: BlockHash,
        /// The file with a block that follows the missing one.
        file: PathBuf,
        /// Where that block begins, in bytes.
        offset: u64,
    },
    /// The chain ends before the height that was asked for.
    #[error("the chain ends with block {height} ({hash}), and {to} was asked for; add later files")]
    EndsEarly {
        /// The height where the chain ends.
        height: u32,
        /// The block where the chain ends.
        hash: BlockHash,
        /// The height that was asked for.
        to: u32,
    },
}

impl Error {
    /// The error of a source that is not part of this crate: `name` says which
    /// source.
    pub fn from_source(
        name: impl Into<String>,
        retryability: Retryability,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Source {
            name: name.into(),
            retryability,
            source: source.into(),
        }
    }

    /// How long the error lives. Reading applies nothing, so files give no indeterminate error.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::Source { retryability, .. } => *retryability,
            Self::Io { source, .. }
                if !matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                Retryability::Transient
            }
            _ => Retryability::Permanent,
        }
    }

    pub(crate) fn io(file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { file, source }
    }
}
