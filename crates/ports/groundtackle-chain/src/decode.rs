//! Transactions and blocks from bytes that nobody vouches for.
//!
//! A length or count is believed only as far as there are bytes to back it, so no claim makes
//! the decoder reserve memory, and nothing here panics.

use crate::hash::{BlockHash, Txid, sha256d, sha256d_parts};
use crate::model::{Block, BlockHeader, MAX_MONEY_SAT, OutPoint, Transaction, TxOut};

/// The size of a block's header, in bytes.
pub const HEADER_BYTES: usize = 80;

/// The largest block that the framing of block files can hold, in bytes: 4 GiB - 1.
pub const MAX_FRAMED_BLOCK_BYTES: u64 = u32::MAX as u64;

// The shortest serialisations: an outpoint, an empty script and a sequence; an amount and an
// empty script; a transaction with one such input and no output.
const MIN_INPUT_BYTES: usize = 41;
const MIN_OUTPUT_BYTES: usize = 9;
const MIN_TRANSACTION_BYTES: usize = 51;

/// Why bytes are not what they should be. Offsets count bytes from the start of what was decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("{needed} bytes are needed at byte {offset}, and {available} are left")]
    Truncated {
        /// Where the bytes were needed.
        offset: usize,
        /// How many bytes were needed.
        needed: u64,
        /// How many bytes were left.
        available: usize,
    },
    /// More items are claimed than the bytes left can hold.
    #[error("{claimed} items are claimed before byte {offset}, and {available} bytes are left")]
    TooManyItems {
        /// Where the items begin.
        offset: usize,
        /// How many items were claimed.
        claimed: u64,
        /// How many bytes were left.
        available: usize,
    },
    /// Bytes follow where the end should be.
    #[error("{extra} bytes follow the end at byte {offset}")]
    TrailingBytes {
        /// Where the end should be.
        offset: usize,
        /// How many bytes follow.
        extra: usize,
    },
    /// A length or count is not written in its shortest form.
    #[error("the number before byte {offset} is not written in its shortest form")]
    NonMinimalNumber {
        /// Where the number ends.
        offset: usize,
    },
    /// A number does not fit its type or range.
    #[error("the number before byte {offset} is out of range")]
    NumberOutOfRange {
        /// Where the number ends.
        offset: usize,
    },
    /// The block is larger than the limit that was set.
    #[error("the block has {bytes} bytes, and the limit is {max_block_bytes}")]
    BlockTooLarge {
        /// The block's size, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        max_block_bytes: u64,
    },
    /// A transaction has no inputs.
    #[error("the transaction that ends or goes on at byte {offset} has no inputs")]
    NoInputs {
        /// Where the inputs should be.
        offset: usize,
    },
    /// A transaction's flag byte announces data of an unknown kind.
    #[error("the transaction's flag before byte {offset} is {flag:#04x}, and only 0x01 is known")]
    UnknownFlag {
        /// Where the flag ends.
        offset: usize,
        /// The flag.
        flag: u8,
    },
    /// A transaction is written with witnesses and has none (BIP 144 forbids that).
    #[error("the transaction before byte {offset} has a witness record without a witness")]
    SuperfluousWitness {
        /// Where the witnesses end.
        offset: usize,
    },
    /// An amount, or the sum up to it, is above 21 million coins.
    #[error(
        "output {txid}:{vout} of {value_sat} satoshis takes its transaction above 21 million coins"
    )]
    AmountTooLarge {
        /// The transaction.
        txid: Txid,
        /// The output's index.
        vout: u32,
        /// The output's amount, in satoshis.
        value_sat: u64,
    },
    /// A transaction that is no coinbase names the null outpoint.
    #[error("input {vin} of transaction {txid} names no output")]
    NullInput {
        /// The transaction.
        txid: Txid,
        /// The input's index.
        vin: usize,
    },
    /// A block has no transactions.
    #[error("the block has no transactions")]
    NoTransactions,
    /// A coinbase stands elsewhere than first, or another transaction stands first.
    #[error(
        "transaction {index} of the block, {txid}, is a coinbase and not first, or first and none"
    )]
    MisplacedCoinbase {
        /// The transaction.
        txid: Txid,
        /// Its index in the block.
        index: usize,
    },
    /// The transactions do not hash to the root that the header names.
    #[error("the transactions do not hash to the merkle root in the header")]
    MerkleRootMismatch,
    /// The same transactions are repeated so that the merkle root stays the same (CVE-2012-2459).
    #[error("the block repeats transactions at its end, which leaves its merkle root as it was")]
    RepeatedTransactions,
    /// A compressed script holds a public key that is not on the curve.
    #[error(
        "the compressed script before byte {offset} holds a public key that is not on the curve"
    )]
    KeyNotOnCurve {
        /// Where the key ends.
        offset: usize,
    },
    /// A record does not begin with the network's magic.
    #[error("the record's magic {magic:02x?} before byte {offset} is not the network's")]
    UnknownMagic {
        /// Where the magic ends.
        offset: usize,
        /// What stands in its place.
        magic: [u8; 4],
    },
    /// An undo record's checksum is wrong.
    #[error("the undo record's checksum is wrong for the previous block {previous}")]
    ChecksumMismatch {
        /// The block before the one that the record should undo.
        previous: BlockHash,
    },
}

/// What a decoder of blocks accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecodeOptions {
    /// Refuse larger blocks, in bytes. Default: [`MAX_FRAMED_BLOCK_BYTES`], because chains of this
    /// family have blocks of gigabytes.
    pub max_block_bytes: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            max_block_bytes: MAX_FRAMED_BLOCK_BYTES,
        }
    }
}

/// Reads numbers and byte strings from a slice, and checks every bound.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `data`.
    pub const fn new(data: &'a [u8]) -> Self {
        Self {
            rest: data,
            length: data.len(),
        }
    }

    /// How many bytes have been read.
    pub const fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// The bytes that have not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; then nothing was read.
    pub fn bytes(&mut self, count: u64) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = usize::try_from(count)
            .ok()
            .and_then(|count| self.rest.split_at_checked(count))
            .ok_or_else(|| self.truncated(count))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; then nothing was read.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or_else(|| self.truncated(N as u64))?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Four bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little-endian.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A CompactSize: the number of one to nine bytes that stands before lists and strings.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], or [`DecodeError::NonMinimalNumber`].
    pub fn compact_size(&mut self) -> Result<u64, DecodeError> {
        let (value, least) = match self.u8()? {
            0xfd => (u16::from_le_bytes(self.array()?).into(), 0xfd),
            0xfe => (self.u32()?.into(), 0x1_0000),
            0xff => (self.u64()?, 0x1_0000_0000),
            small => (small.into(), 0),
        };
        if value < least {
            return Err(DecodeError::NonMinimalNumber {
                offset: self.position(),
            });
        }
        Ok(value)
    }

    /// A CompactSize that counts items of at least `min_item_bytes` each, which the bytes left
    /// can hold: memory may be reserved for so many.
    ///
    /// # Errors
    /// As [`Self::compact_size`], and [`DecodeError::TooManyItems`].
    pub fn count(&mut self, min_item_bytes: usize) -> Result<usize, DecodeError> {
        let claimed = self.compact_size()?;
        let available = self.rest.len();
        usize::try_from(claimed)
            .ok()
            .filter(|count| count.saturating_mul(min_item_bytes) <= available)
            .ok_or(DecodeError::TooManyItems {
                offset: self.position(),
                claimed,
                available,
            })
    }

    /// A CompactSize and so many bytes.
    ///
    /// # Errors
    /// As [`Self::compact_size`] and [`Self::bytes`].
    pub fn prefixed_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.compact_size()?;
        self.bytes(length)
    }

    /// Checks that everything has been read.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(DecodeError::TrailingBytes {
                offset: self.position(),
                extra,
            }),
        }
    }

    fn truncated(&self, needed: u64) -> DecodeError {
        DecodeError::Truncated {
            offset: self.position(),
            needed,
            available: self.rest.len(),
        }
    }

    // What was read since `earlier`, a clone of this reader.
    fn since(&self, earlier: &Self) -> &'a [u8] {
        let length = earlier.rest.len().saturating_sub(self.rest.len());
        earlier.rest.get(..length).unwrap_or_default()
    }
}

/// Appends a CompactSize.
pub fn write_compact_size(out: &mut Vec<u8>, value: u64) {
    if let Ok(value @ ..=0xfc) = u8::try_from(value) {
        out.push(value);
    } else if let Ok(value) = u16::try_from(value) {
        out.push(0xfd);
        out.extend(value.to_le_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        out.push(0xfe);
        out.extend(value.to_le_bytes());
    } else {
        out.push(0xff);
        out.extend(value.to_le_bytes());
    }
}

impl BlockHeader {
    /// From the 80 bytes of the wire.
    pub fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Self {
        // The array has exactly the bytes that are read, so the fallback is never taken.
        Self::read(&mut Reader::new(bytes)).unwrap_or_default()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version: i32::from_le_bytes(reader.array()?),
            previous: BlockHash::from_bytes(reader.array()?),
            merkle_root: reader.array()?,
            time: reader.u32()?,
            bits: reader.u32()?,
            nonce: reader.u32()?,
        })
    }

    /// The 80 bytes of the wire.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let fields = self
            .version
            .to_le_bytes()
            .into_iter()
            .chain(*self.previous.as_bytes())
            .chain(self.merkle_root)
            .chain(
                [self.time, self.bits, self.nonce]
                    .into_iter()
                    .flat_map(u32::to_le_bytes),
            );
        let mut bytes = [0; HEADER_BYTES];
        bytes
            .iter_mut()
            .zip(fields)
            .for_each(|(byte, field)| *byte = field);
        bytes
    }

    /// The block's hash.
    pub fn hash(&self) -> BlockHash {
        BlockHash::from_bytes(sha256d(&self.to_bytes()))
    }
}

/// Decodes one transaction, with or without witnesses, and nothing after it.
///
/// # Errors
/// [`DecodeError`], by what is wrong first.
pub fn decode_transaction(bytes: &[u8]) -> Result<Transaction, DecodeError> {
    let mut reader = Reader::new(bytes);
    let transaction = read_transaction(&mut reader)?;
    reader.finish()?;
    Ok(transaction)
}

/// Reads one transaction, with or without witnesses.
///
/// A coinbase is recognised by its single input, which names [`OutPoint::NULL`].
///
/// # Errors
/// [`DecodeError`], by what is wrong first.
pub fn read_transaction(reader: &mut Reader<'_>) -> Result<Transaction, DecodeError> {
    let start = reader.clone();
    let version = reader.array::<4>()?;
    let mut body = reader.clone();
    let mut input_count = reader.count(MIN_INPUT_BYTES)?;
    let with_witness = input_count == 0;
    if with_witness {
        match reader.u8()? {
            0 => {
                return Err(DecodeError::NoInputs {
                    offset: reader.position(),
                });
            }
            1 => {}
            flag => {
                return Err(DecodeError::UnknownFlag {
                    offset: reader.position(),
                    flag,
                });
            }
        }
        body = reader.clone();
        input_count = reader.count(MIN_INPUT_BYTES)?;
        if input_count == 0 {
            return Err(DecodeError::NoInputs {
                offset: reader.position(),
            });
        }
    }

    let mut inputs = Vec::with_capacity(input_count);
    for _ in 0..input_count {
        inputs.push(OutPoint::new(
            Txid::from_bytes(reader.array()?),
            reader.u32()?,
        ));
        reader.prefixed_bytes()?;
        reader.array::<4>()?;
    }

    let output_count = reader.count(MIN_OUTPUT_BYTES)?;
    let mut outputs = Vec::with_capacity(output_count);
    let mut total_sat = 0_u64;
    let mut too_large = None;
    for vout in 0..output_count {
        let value_sat = reader.u64()?;
        total_sat = total_sat.saturating_add(value_sat);
        if total_sat > MAX_MONEY_SAT {
            too_large.get_or_insert((vout, value_sat));
        }
        outputs.push(TxOut {
            value_sat,
            script: reader.prefixed_bytes()?.into(),
        });
    }
    let body = reader.since(&body);

    if with_witness {
        let mut any = false;
        for _ in 0..input_count {
            let items = reader.count(1)?;
            any |= items > 0;
            for _ in 0..items {
                reader.prefixed_bytes()?;
            }
        }
        if !any {
            return Err(DecodeError::SuperfluousWitness {
                offset: reader.position(),
            });
        }
    }
    let lock_time = reader.array::<4>()?;

    let txid = Txid::from_bytes(sha256d_parts([&version, body, &lock_time]));
    if let Some((vout, value_sat)) = too_large {
        let vout = u32::try_from(vout).unwrap_or(u32::MAX);
        return Err(DecodeError::AmountTooLarge {
            txid,
            vout,
            value_sat,
        });
    }
    let coinbase = inputs == [OutPoint::NULL];
    if coinbase {
        inputs = Vec::new();
    } else if let Some(vin) = inputs.iter().position(|input| *input == OutPoint::NULL) {
        return Err(DecodeError::NullInput { txid, vin });
    }
    Ok(Transaction {
        txid,
        inputs,
        outputs,
        lock_time: u32::from_le_bytes(lock_time),
        size_bytes: reader.since(&start).len() as u64,
        coinbase,
    })
}

/// Decodes one block and nothing after it, and checks that its first transaction and no other is
/// a coinbase, and that the transactions hash to the header's merkle root.
///
/// Proof of work is not checked here, see
/// [`Network::check_proof_of_work`](crate::Network::check_proof_of_work).
///
/// # Errors
/// [`DecodeError`], by what is wrong first.
pub fn decode_block(bytes: &[u8], options: &DecodeOptions) -> Result<Block, DecodeError> {
    if bytes.len() as u64 > options.max_block_bytes {
        return Err(DecodeError::BlockTooLarge {
            bytes: bytes.len() as u64,
            max_block_bytes: options.max_block_bytes,
        });
    }
    let mut reader = Reader::new(bytes);
    let header = BlockHeader::read(&mut reader)?;
    let count = reader.count(MIN_TRANSACTION_BYTES)?;
    let mut transactions = Vec::with_capacity(count);
    for index in 0..count {
        let transaction = read_transaction(&mut reader)?;
        if transaction.coinbase != (index == 0) {
            return Err(DecodeError::MisplacedCoinbase {
                txid: transaction.txid,
                index,
            });
        }
        transactions.push(transaction);
    }
    reader.finish()?;
    if transactions.is_empty() {
        return Err(DecodeError::NoTransactions);
    }
    let root = merkle_root(transactions.iter().map(|transaction| transaction.txid))?;
    if root != header.merkle_root {
        return Err(DecodeError::MerkleRootMismatch);
    }
    Ok(Block {
        hash: header.hash(),
        header,
        transactions,
    })
}

/// The merkle root of these transactions, in internal order; all zero for none.
///
/// # Errors
/// [`DecodeError::RepeatedTransactions`] where a shorter list has the same root (CVE-2012-2459).
pub fn merkle_root(txids: impl IntoIterator<Item = Txid>) -> Result<[u8; 32], DecodeError> {
    let mut level: Vec<[u8; 32]> = txids.into_iter().map(|txid| *txid.as_bytes()).collect();
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] if left == right => Err(DecodeError::RepeatedTransactions),
                [left, right] => Ok(sha256d_parts([left, right])),
                // The last of an odd number pairs with itself.
                odd => Ok(odd
                    .first()
                    .map_or([0; 32], |last| sha256d_parts([last, last]))),
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(level.first().copied().unwrap_or_default())
}
