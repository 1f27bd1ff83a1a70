use groundtackle_core::ByteSize;
use groundtackle_utxo_store::UnspendableRule;
use serde::{Deserialize, Serialize};

/// When an acknowledged change is on the disk, power failure included. A killed process loses
/// nothing that was acknowledged, with either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Durability {
    /// When the call returns: one `fsync` a call that changes something.
    #[default]
    Batch,
    /// When the next block is connected or disconnected, the next tip is set, or
    /// [`flush`](groundtackle_utxo_store::MaintenanceStore::flush) returns.
    Block,
}

/// How an embedded store is opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct EmbeddedUtxoStoreConfig {
    /// Create the store if there is none; otherwise that is an error. Default true.
    pub create: bool,
    /// When changes are durable. Default `batch`.
    pub durability: Durability,
    /// Memory for blocks read from the disk. Default 256 MiB.
    pub cache: ByteSize,
    /// Memory for records not yet sorted into files; more of it means fewer and larger files.
    /// Default 64 MiB.
    pub write_buffer: ByteSize,
    /// Refuse changes, whole and undamaged, when the file system has less room left. Keep enough for
    /// the engine to tidy up. Default 128 MiB.
    pub min_free: ByteSize,
    /// Keep the set's digest from change to change: a digest then costs nothing to ask for, and each
    /// created or spent coin a few microseconds. Otherwise a digest is a scan. Fixed when the
    /// store is created. Default true.
    pub incremental_digest: bool,
    /// Which outputs get no slot. Fixed when the store is created. Default `core`.
    pub unspendable: UnspendableRule,
}

impl Default for EmbeddedUtxoStoreConfig {
    fn default() -> Self {
        Self {
            create: true,
            durability: Durability::default(),
            cache: ByteSize::mib(256),
            write_buffer: ByteSize::mib(64),
            min_free: ByteSize::mib(128),
            incremental_digest: true,
            unspendable: UnspendableRule::default(),
        }
    }
}

macro_rules! setters {
    ($($setter:ident $field:ident: $type:ty),+ $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub const fn $setter(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )+};
}

impl EmbeddedUtxoStoreConfig {
    setters! {
        with_create create: bool,
        with_durability durability: Durability,
        with_cache cache: ByteSize,
        with_write_buffer write_buffer: ByteSize,
        with_min_free min_free: ByteSize,
        with_incremental_digest incremental_digest: bool,
        with_unspendable unspendable: UnspendableRule,
    }
}
