//! The format alone: a header, then transactions with their coins.

use std::borrow::Borrow;
use std::io::{self, Read, Seek, SeekFrom, Write};

use groundtackle_chain::codec::{LongScripts, StoredCoin, read_coin, write_coin, write_varint};
use groundtackle_chain::decode::{Reader, write_compact_size};
use groundtackle_chain::{BlockHash, DecodeError, Network, OutPoint, Txid};

use super::error::SnapshotFormatError as Error;
use crate::types::Coin;

type Result<T, E = Error> = std::result::Result<T, E>;

/// The highest index that Bitcoin Core reads: its limit for numbers of this form.
pub const MAX_VOUT: u32 = 0x0200_0000;

/// The most that is read of one transaction before any digest is checked. A block of Bitcoin Core's has room for
/// about 111,111 outputs, and for 1 MB of them.
pub(super) const MAX_COINS: u64 = 1 << 20;
pub(super) const MAX_TRANSACTION_BYTES: u64 = 64 << 20;

const MAGIC: [u8; 5] = *b"utxo\xff";
const VERSION: u16 = 2;
/// Where version 2 has the number of coins.
const COUNT_AT: u64 = 5 + 2 + 4 + 32;
/// As much as is read at a time, and more than any coin has: at most 10,000 bytes of script, and some for
/// numbers.
const WINDOW_BYTES: usize = 64 << 10;
const MAX_COIN_BYTES: usize = 16 << 10;

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotHeader {
    /// 2, or 1 for files of Bitcoin Core 26 and 27.
    pub version: u16,
    /// The network; version 1 does not say.
    pub network: Option<Network>,
    /// The block that the set belongs to. Its height is not in the file.
    pub block: BlockHash,
    /// How many coins follow.
    pub coins: u64,
}

/// Reads the coins of a snapshot, version 1 or 2. Nothing in the file is believed beyond what it holds; memory:
/// 64 KiB, and the coins of one transaction, of which there are at most 1,048,576 in 64 MiB of the file. The
/// most that a block can hold is about 111,111 in 1 MB.
#[derive(Debug)]
pub struct SnapshotReader<R> {
    source: R,
    /// Read ahead; `read` of it are done.
    window: Vec<u8>,
    read: usize,
    /// Where the window begins in the file.
    window_at: u64,
    ended: bool,
    header: SnapshotHeader,
    coins_left: u64,
    failed: bool,
    last: Option<Txid>,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header. What does not begin with the format's magic is taken for version 1, which has none:
    /// whether [`SnapshotHeader::block`] is a block's hash is for the caller to judge.
    ///
    /// # Errors
    /// [`SnapshotFormatError`](super::SnapshotFormatError), by what is wrong first.
    pub fn new(source: R) -> Result<Self> {
        let mut reader = Self {
            source,
            window: Vec::new(),
            read: 0,
            window_at: 0,
            ended: false,
            header: SnapshotHeader {
                version: 1,
                network: None,
                block: BlockHash::ZERO,
                coins: 0,
            },
            coins_left: 0,
            failed: false,
            last: None,
        };
        reader.fill()?;
        if reader.rest().starts_with(&MAGIC) {
            reader.skip(MAGIC.len());
            let version = u16::from_le_bytes(reader.array()?);
            if version != VERSION {
                return Err(Error::UnknownVersion { version });
            }
            let magic = reader.array()?;
            let network = Network::from_magic(magic).ok_or(Error::UnknownNetwork { magic })?;
            reader.header.version = version;
            reader.header.network = Some(network);
        }
        reader.header.block = BlockHash::from_bytes(reader.array()?);
        reader.header.coins = u64::from_le_bytes(reader.array()?);
        reader.coins_left = reader.header.coins;
        Ok(reader)
    }

    /// What the file says of itself.
    pub const fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// How many bytes are read.
    pub const fn position(&self) -> u64 {
        self.window_at + self.read as u64
    }

    /// The coins of the next transaction, at least one, ascending by index; `None` at the end, where it was checked that the
    /// header's number of coins came and that nothing follows.
    ///
    /// # Errors
    /// [`SnapshotFormatError`](super::SnapshotFormatError), by what is wrong first. It ends the reading:
    /// from then on `Failed`.
    pub fn next_transaction(&mut self) -> Result<Option<Vec<Coin>>> {
        if self.failed {
            return Err(Error::Failed);
        }
        let read = self.read_transaction();
        self.failed = read.is_err();
        read
    }

    fn read_transaction(&mut self) -> Result<Option<Vec<Coin>>> {
        self.fill()?;
        if self.coins_left == 0 {
            return match self.rest().is_empty() {
                true => Ok(None),
                false => Err(Error::TrailingBytes {
                    offset: self.position(),
                }),
            };
        }
        let mut coins = Vec::new();
        let offset = self.position();
        let txid = Txid::from_bytes(self.array()?);
        if self.last.replace(txid) == Some(txid) {
            return Err(Error::RepeatedTransaction { txid, offset });
        }
        if self.header.version == 1 {
            self.read_v1(txid, offset, &mut coins)?;
        } else {
            let start = offset;
            let offset = self.position();
            let claimed = self.compact_size(txid)?;
            let left = self.coins_left;
            if !(1..=left).contains(&claimed) {
                return Err(Error::CoinsPerTransaction {
                    txid,
                    offset,
                    claimed,
                    left,
                });
            }
            for _ in 0..claimed {
                self.check_size(txid, start, claimed)?;
                self.fill()?;
                let offset = self.position();
                let vout = self.compact_size(txid)?;
                coins.push(self.coin(txid, vout, offset)?);
            }
        }
        // Core's order of indexes is by their bytes.
        coins.sort_by_key(|coin| coin.outpoint.vout);
        check_transaction(&coins, self.position())?;
        Ok(Some(coins))
    }

    /// One coin after another, each with its outpoint: as many as are of this transaction.
    fn read_v1(&mut self, txid: Txid, start: u64, coins: &mut Vec<Coin>) -> Result<()> {
        loop {
            self.check_size(txid, start, coins.len() as u64 + 1)?;
            let offset = self.position();
            let vout = u32::from_le_bytes(self.array()?);
            coins.push(self.coin(txid, vout.into(), offset)?);
            self.fill()?;
            if self.coins_left == 0 || !self.rest().starts_with(txid.as_bytes()) {
                return Ok(());
            }
            self.skip(32);
        }
    }

    fn check_size(&self, txid: Txid, start: u64, coins: u64) -> Result<()> {
        match coins > MAX_COINS || self.position() - start > MAX_TRANSACTION_BYTES {
            true => Err(Error::LargeTransaction {
                txid,
                offset: start,
            }),
            false => Ok(()),
        }
    }

    /// A coin after its index, which began at `offset`.
    fn coin(&mut self, txid: Txid, vout: u64, offset: u64) -> Result<Coin> {
        let vout = match u32::try_from(vout) {
            Ok(vout @ ..=MAX_VOUT) => vout,
            _ => return Err(Error::VoutTooLarge { txid, vout, offset }),
        };
        let outpoint = OutPoint::new(txid, vout);
        let offset = self.position();
        let mut reader = Reader::new(self.rest());
        let stored = match read_coin(&mut reader, LongScripts::Keep) {
            Ok(stored) => stored,
            Err(DecodeError::Truncated { .. }) if self.ended => return Err(self.truncated()),
            // The window holds any coin but one with a script that is too long.
            Err(DecodeError::Truncated { .. }) => {
                return Err(Error::Unspendable { outpoint, offset });
            }
            Err(source) => {
                return Err(Error::Coin {
                    outpoint,
                    offset,
                    source,
                });
            }
        };
        let read = reader.position();
        self.skip(read);
        self.coins_left = self.coins_left.saturating_sub(1);
        if stored.output.script.is_unspendable() {
            return Err(Error::Unspendable { outpoint, offset });
        }
        Ok(Coin {
            outpoint,
            output: stored.output,
            height: stored.height,
            coinbase: stored.coinbase,
        })
    }

    fn compact_size(&mut self, txid: Txid) -> Result<u64> {
        let offset = self.position();
        let mut reader = Reader::new(self.rest());
        let value = reader.compact_size().map_err(|source| match source {
            DecodeError::Truncated { .. } => self.truncated(),
            source => Error::Number {
                txid,
                offset,
                source,
            },
        })?;
        let read = reader.position();
        self.skip(read);
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = *self.rest().first_chunk().ok_or_else(|| self.truncated())?;
        self.skip(N);
        Ok(bytes)
    }

    #[cfg(test)]
    pub(super) const fn buffered_bytes(&self) -> usize {
        self.window.capacity()
    }

    fn rest(&self) -> &[u8] {
        self.window.get(self.read..).unwrap_or_default()
    }

    const fn skip(&mut self, bytes: usize) {
        self.read += bytes;
    }

    fn truncated(&self) -> Error {
        Error::Truncated {
            offset: self.window_at + self.window.len() as u64,
            coins_left: self.coins_left,
        }
    }

    /// Afterwards the window has all of the next coin, or all that is left of the file.
    fn fill(&mut self) -> Result<()> {
        if self.ended || self.rest().len() >= MAX_COIN_BYTES {
            return Ok(());
        }
        self.window.drain(..self.read);
        self.window_at += self.read as u64;
        self.read = 0;
        let missing = WINDOW_BYTES.saturating_sub(self.window.len());
        let offset = self.window_at + self.window.len() as u64;
        let mut source = (&mut self.source).take(missing as u64);
        let read = source
            .read_to_end(&mut self.window)
            .map_err(|source| Error::Io { offset, source })?;
        self.ended = read < missing;
        Ok(())
    }
}

/// Writes a snapshot of version 2.
#[derive(Debug)]
pub struct SnapshotWriter<W> {
    sink: W,
    coins: u64,
    written: u64,
    encoded: Vec<u8>,
}

impl<W: Write + Seek> SnapshotWriter<W> {
    /// Begins a snapshot of the set at `block`, at the start of `sink`.
    ///
    /// # Errors
    /// When `sink` fails.
    pub fn new(sink: W, network: Network, block: &BlockHash) -> Result<Self> {
        let mut writer = Self {
            sink,
            coins: 0,
            written: 0,
            encoded: Vec::new(),
        };
        let parts: [&[u8]; 5] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &network.magic(),
            block.as_bytes(),
            // Known at the end.
            &[0; 8],
        ];
        parts.iter().try_for_each(|part| writer.put(part))?;
        Ok(writer)
    }

    /// Appends the coins of one transaction, in any order. For a file like Bitcoin Core's, transactions come
    /// ascending by the bytes of their identifier.
    ///
    /// # Errors
    /// When a coin has no place in a snapshot, or the coins are not of one transaction and each once, and then nothing was written; or when the sink fails.
    pub fn add(&mut self, coins: &[Coin]) -> Result<()> {
        let mut encoded = std::mem::take(&mut self.encoded);
        encoded.clear();
        encode_transaction(&mut encoded, coins, self.written)?;
        self.add_encoded(coins.len() as u64, &encoded)?;
        self.encoded = encoded;
        Ok(())
    }

    /// Appends a transaction with so many coins, as [`encode_transaction`] wrote it.
    pub(super) fn add_encoded(&mut self, coins: u64, encoded: &[u8]) -> Result<()> {
        self.coins += coins;
        self.put(encoded)
    }

    /// Completes the header. The coins written, and the sink, which is not flushed.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn finish(mut self) -> Result<(u64, W)> {
        let coins = self.coins.to_le_bytes();
        let complete = |sink: &mut W| -> io::Result<()> {
            sink.seek(SeekFrom::Start(COUNT_AT))?;
            sink.write_all(&coins)?;
            sink.seek(SeekFrom::End(0))?;
            Ok(())
        };
        complete(&mut self.sink).map_err(|source| Error::Io {
            offset: COUNT_AT,
            source,
        })?;
        Ok((self.coins, self.sink))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let offset = self.written;
        self.sink
            .write_all(bytes)
            .map_err(|source| Error::Io { offset, source })?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Whether coins are of one transaction, and each comes once; equal ones are next to each other. `offset` is for
/// errors.
fn check_transaction<C: Borrow<Coin>>(coins: &[C], offset: u64) -> Result<()> {
    for pair in coins.windows(2) {
        let [one, other] = pair else { continue };
        let (one, other) = (one.borrow(), other.borrow());
        let outpoint = other.outpoint;
        if one.outpoint == outpoint {
            return Err(Error::RepeatedCoin { outpoint, offset });
        }
        let of = |coin: &Coin| (coin.outpoint.txid, coin.height, coin.coinbase);
        if of(one) != of(other) {
            return Err(Error::MixedTransaction { outpoint, offset });
        }
    }
    Ok(())
}

/// Appends the coins of one transaction in Core's order: by the bytes of their index's VARINT, which from
/// 16,512 on is another one than by number. Nothing for no coins. `offset` is for errors.
pub(super) fn encode_transaction(out: &mut Vec<u8>, coins: &[Coin], offset: u64) -> Result<()> {
    let Some(first) = coins.first() else {
        return Ok(());
    };
    let txid = first.outpoint.txid;
    let mut in_order: Vec<_> = coins.iter().collect();
    in_order.sort_by_cached_key(|coin| {
        let mut bytes = Vec::new();
        write_varint(&mut bytes, coin.outpoint.vout.into());
        bytes
    });
    check_transaction(&in_order, offset)?;
    out.extend_from_slice(txid.as_bytes());
    write_compact_size(out, coins.len() as u64);
    for coin in in_order {
        let outpoint = coin.outpoint;
        if outpoint.vout > MAX_VOUT {
            let vout = outpoint.vout.into();
            return Err(Error::VoutTooLarge { txid, vout, offset });
        }
        if coin.output.script.is_unspendable() {
            return Err(Error::Unspendable { outpoint, offset });
        }
        write_compact_size(out, outpoint.vout.into());
        let stored = StoredCoin {
            height: coin.height,
            coinbase: coin.coinbase,
            output: coin.output.clone(),
        };
        write_coin(out, &stored).map_err(|source| Error::Unencodable { outpoint, source })?;
    }
    Ok(())
}
