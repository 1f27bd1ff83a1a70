//! The digest of a sorted set.

use std::fmt;

use sha2::{Digest, Sha256};

/// Core's `hash_serialized_3`: the double SHA-256 of all elements, one after the other.
///
/// The digest depends on the order, so the elements must come by txid bytes, then by vout as a number. This differs
/// from the key order of Core's database, which compares the bytes of the encoded vout.
#[derive(Clone, Debug, Default)]
pub struct HashSerialized3 {
    hasher: Sha256,
    last: Option<ElementOutpoint>,
}

impl HashSerialized3 {
    /// The digest of no elements so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an element.
    ///
    /// # Errors
    ///
    /// The element does not start with an outpoint, or its outpoint is not above the one before. The element is then
    /// left out and the state is as it was.
    pub fn update(&mut self, element: &[u8]) -> Result<(), HashSerializedError> {
        let outpoint = ElementOutpoint::parse(element)
            .ok_or(HashSerializedError::TooShort { len: element.len() })?;
        if let Some(previous) = self.last
            && outpoint <= previous
        {
            return Err(HashSerializedError::OutOfOrder { outpoint, previous });
        }
        self.last = Some(outpoint);
        self.hasher.update(element);
        Ok(())
    }

    /// The digest in internal byte order; Core displays it reversed.
    pub fn finish(self) -> [u8; 32] {
        Sha256::digest(self.hasher.finalize()).into()
    }
}

/// The outpoint an element starts with. Orders as [`HashSerialized3`] wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ElementOutpoint {
    /// Transaction id in internal byte order.
    pub txid: [u8; 32],
    /// Index of the output.
    pub vout: u32,
}

impl ElementOutpoint {
    fn parse(element: &[u8]) -> Option<Self> {
        let (txid, rest) = element.split_first_chunk()?;
        let vout = u32::from_le_bytes(*rest.first_chunk()?);
        Some(Self { txid: *txid, vout })
    }
}

/// `txid:vout` as the RPC interface writes it, the txid's bytes reversed.
impl fmt::Display for ElementOutpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.txid.iter().rev() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ":{}", self.vout)
    }
}

/// Why [`HashSerialized3`] refused an element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HashSerializedError {
    /// The element has no room for an outpoint.
    #[error("an element of {len} bytes does not start with an outpoint of 36 bytes")]
    TooShort {
        /// Length of the element in bytes.
        len: usize,
    },
    /// The element's outpoint is not above the one before.
    #[error(
        "outpoint {outpoint} came after {previous}; feed each outpoint once, by txid bytes and then by vout"
    )]
    OutOfOrder {
        /// The refused outpoint.
        outpoint: ElementOutpoint,
        /// The last accepted outpoint.
        previous: ElementOutpoint,
    },
}
