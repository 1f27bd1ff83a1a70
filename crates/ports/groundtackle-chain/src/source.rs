//! Where blocks come from.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Error;
use crate::model::ChainBlock;

/// Gives the blocks of a chain, one after another.
///
/// Order: each block's `previous` is the hash of the block before it, and its height one more.
#[async_trait]
pub trait BlockSource: Debug + Send {
    /// The next block, or `None` where the chain ends for now.
    ///
    /// **Idempotency**: each call gives a later block; after an error the next call tries the
    /// same block again.
    ///
    /// **Cancel safety**: safe. If the future is dropped, the next call gives the same block.
    ///
    /// # Errors
    /// [`Error`]; which ones depends on the source.
    async fn next_block(&mut self) -> Result<Option<ChainBlock>, Error>;
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: BlockSource + ?Sized> BlockSource for $pointer {
            async fn next_block(&mut self) -> Result<Option<ChainBlock>, Error> {
                (**self).next_block().await
            }
        }
    )*};
}

forward!(&mut S, Box<S>);
