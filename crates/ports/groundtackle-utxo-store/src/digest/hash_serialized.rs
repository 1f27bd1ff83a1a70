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

#[cfg(test)]
mod tests {
    use super::super::tests::{display, first_coin};
    use super::*;

    fn element(txid: u8, vout: u32) -> Vec<u8> {
        [&[txid; 32][..], &vout.to_le_bytes(), b"coin"].concat()
    }

    #[test]
    fn digests_nothing_as_core_does() {
        let expected = "56944c5d3f98413ef45cf54545538103cc9f298e0575820ad3591376e2e0f65d";
        assert_eq!(display(HashSerialized3::new().finish()), expected);
    }

    #[test]
    fn digests_the_first_coin_of_mainnet() {
        let mut digest = HashSerialized3::new();
        digest.update(&first_coin()).unwrap();
        let expected = "b911fd5864945251985ebc2820ff542df1cebe84255ee476684fa9d026a1b578";
        assert_eq!(display(digest.finish()), expected);
    }

    #[test]
    fn orders_vouts_as_numbers() {
        let mut digest = HashSerialized3::new();
        let elements = [
            element(1, 0),
            element(1, 1),
            element(1, 256),
            element(1, 16512),
            element(2, 0),
        ];
        for element in &elements {
            digest.update(element).unwrap();
        }
        let expected: [u8; 32] = Sha256::digest(Sha256::digest(elements.concat())).into();
        assert_eq!(digest.finish(), expected);
    }

    #[test]
    fn refuses_what_is_not_above_the_last_and_stays_as_it_was() {
        let mut digest = HashSerialized3::new();
        digest.update(&element(2, 7)).unwrap();
        let before = digest.clone();
        for (txid, vout) in [(2, 7), (2, 6), (1, 8)] {
            let error = digest.update(&element(txid, vout)).unwrap_err();
            let outpoint = ElementOutpoint {
                txid: [txid; 32],
                vout,
            };
            let previous = ElementOutpoint {
                txid: [2; 32],
                vout: 7,
            };
            assert_eq!(
                error,
                HashSerializedError::OutOfOrder { outpoint, previous }
            );
        }
        let error = digest.update(&element(3, 0)[..35]).unwrap_err();
        assert_eq!(error, HashSerializedError::TooShort { len: 35 });
        assert_eq!(digest.finish(), before.finish());
    }

    #[test]
    fn names_outpoints_as_the_rpc_interface_does() {
        let outpoint = ElementOutpoint::parse(&first_coin()).unwrap();
        let expected = "0e3e2357e806b6cdb1f70b54c3a3a17b6714ee1f0e68bebb44a74b1efd512098:0";
        assert_eq!(outpoint.to_string(), expected);
    }
}
