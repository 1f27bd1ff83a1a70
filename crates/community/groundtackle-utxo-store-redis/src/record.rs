//! What lies under the keys, byte by byte. Numbers are big-endian.
//!
//! Each value begins with the token of the call that wrote it, eight bytes of the identifier that it
//! belongs to, and its format.
//!
//! | value | then |
//! |---|---|
//! | record | flags, head, body unless it lies apart, outputs 0 to 15 |
//! | body | inputs; ranges of further chunks of outputs. Written once |
//! | chunk | sixteen outputs |
//! | undo | height, previous tip, transactions, the coinbase that was replaced |
//! | chain | tip, digest |

use std::borrow::Borrow;

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{BlockUndo, Undo};
use groundtackle_utxo_store::{
    BlockHash, Error, MinedIn, OutPoint, Record, RecordOutput, Result, SpentBy, Tip, TxOut, Txid,
};

use crate::error::{BACKEND, corrupt};

/// Names the call that wrote a value; no two calls have the same.
pub(crate) type Token = [u8; 8];

/// The format that this software reads and writes.
pub(crate) const FORMAT: u8 = 1;

/// Outputs that lie together.
const CHUNK_BITS: u32 = 4;

/// A body of up to this many bytes lies with its record.
const BODY_INLINE: usize = 512;

/// Which chunk an output lies in; chunk 0 lies with the record.
pub(crate) const fn chunk_of(vout: u32) -> u32 {
    vout >> CHUNK_BITS
}

/// Parts of a record that never change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) inputs: Vec<OutPoint>,
    /// First and last of chunks in a row, from chunk 1 on.
    pub(crate) ranges: Vec<(u32, u32)>,
}

impl Body {
    pub(crate) fn chunks(&self) -> impl Iterator<Item = u32> {
        self.ranges.iter().flat_map(|(first, last)| *first..=*last)
    }
}

/// A record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Main {
    pub(crate) token: Token,
    /// Without inputs and outputs.
    pub(crate) head: Record,
    /// `None` where it lies apart.
    pub(crate) body: Option<Body>,
    /// Those of chunk 0.
    pub(crate) outputs: Vec<RecordOutput>,
}

/// A whole record, cut into values.
pub(crate) struct Cut {
    pub(crate) main: Vec<u8>,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) chunks: Vec<(u32, Vec<u8>)>,
}

const COINBASE: u8 = 1;
const LOCKED: u8 = 1 << 1;
const CONFLICTING: u8 = 1 << 2;
const FEE: u8 = 1 << 3;
const UNMINED: u8 = 1 << 4;
const PRESERVED: u8 = 1 << 5;
const BODY_APART: u8 = 1 << 6;

const SPENT: u8 = 1;
const FROZEN: u8 = 1 << 1;
const REASSIGNED: u8 = 1 << 2;

const ON_LONGEST_CHAIN: u8 = 1;
const KNOWN_BLOCK: u8 = 1 << 1;

const EXISTED: u8 = 1;
const ENTRY: u8 = 1 << 1;

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

/// What of an identifier lies in the value.
fn mark(id: &[u8; 32]) -> [u8; 8] {
    let mut mark = [0; 8];
    mark.iter_mut()
        .zip(id.iter().skip(8))
        .for_each(|(to, from)| *to = *from);
    mark
}

struct Writer(Vec<u8>);

impl Writer {
    fn begin(token: Token, id: &[u8; 32]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&token);
        bytes.extend_from_slice(&mark(id));
        bytes.push(FORMAT);
        Self(bytes)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    fn long(&mut self, number: u64) {
        self.bytes(&number.to_be_bytes());
    }

    /// Memory holds fewer than 2^32 of anything here.
    fn count(&mut self, count: usize) {
        self.number(u32::try_from(count).unwrap_or(u32::MAX));
    }

    fn mined(&mut self, mined: &MinedIn) {
        self.bytes(mined.block.unwrap_or(BlockHash::ZERO).as_bytes());
        self.number(mined.height);
        self.number(mined.subtree_index);
        self.byte(
            flag(mined.on_longest_chain, ON_LONGEST_CHAIN)
                | flag(mined.block.is_some(), KNOWN_BLOCK),
        );
    }

    fn head(&mut self, head: &Record, body_apart: bool) {
        self.byte(
            flag(head.coinbase, COINBASE)
                | flag(head.locked, LOCKED)
                | flag(head.conflicting, CONFLICTING)
                | flag(head.fee_sat.is_some(), FEE)
                | flag(head.unmined_since.is_some(), UNMINED)
                | flag(head.preserve_until.is_some(), PRESERVED)
                | flag(body_apart, BODY_APART),
        );
        self.long(head.size_bytes);
        self.number(head.lock_time);
        if let Some(fee) = head.fee_sat {
            self.long(fee);
        }
        if let Some(since) = head.unmined_since {
            self.number(since);
        }
        if let Some(until) = head.preserve_until {
            self.number(until);
        }
        self.count(head.mined_in.len());
        head.mined_in.iter().for_each(|mined| self.mined(mined));
        self.count(head.conflicting_children.len());
        head.conflicting_children
            .iter()
            .for_each(|child| self.bytes(child.as_bytes()));
    }

    fn body(&mut self, body: &Body) {
        self.count(body.inputs.len());
        for outpoint in &body.inputs {
            self.bytes(outpoint.txid.as_bytes());
            self.number(outpoint.vout);
        }
        self.count(body.ranges.len());
        for (first, last) in &body.ranges {
            self.number(*first);
            self.number(*last);
        }
    }

    fn output(&mut self, output: &RecordOutput) {
        self.number(output.vout);
        self.byte(
            flag(output.spent_by.is_some(), SPENT)
                | flag(output.frozen, FROZEN)
                | flag(output.spendable_from.is_some(), REASSIGNED),
        );
        self.long(output.output.value_sat);
        if let Some(by) = output.spent_by {
            self.bytes(by.txid.as_bytes());
            self.number(by.vin);
        }
        if let Some(height) = output.spendable_from {
            self.number(height);
        }
        let script = output.output.script.as_bytes();
        self.count(script.len());
        self.bytes(script);
    }

    fn outputs(&mut self, outputs: impl IntoIterator<Item = impl Borrow<RecordOutput>>) {
        for output in outputs {
            self.output(output.borrow());
        }
    }

    fn tip(&mut self, tip: Option<&Tip>) {
        self.byte(u8::from(tip.is_some()));
        if let Some(tip) = tip {
            self.number(tip.height);
            self.bytes(tip.hash.as_bytes());
            self.number(tip.median_time_past);
        }
    }
}

/// What is left to read of a value. Nothing in it is believed.
struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn damaged(&self, detail: &str) -> Error {
        corrupt(self.what, detail)
    }

    /// Reads what each value begins with.
    fn open(what: &'static str, id: &[u8; 32], bytes: &'a [u8]) -> Result<(Token, Self)> {
        let mut reader = Self { what, rest: bytes };
        let token = reader.array()?;
        let found: [u8; 8] = reader.array()?;
        if found != mark(id) {
            return Err(Error::WrongRecord {
                backend: BACKEND,
                asked: Txid::from_bytes(*id),
                got: format!("another one ({what}, marked {found:02x?})"),
            });
        }
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(reader.damaged("it has another format"));
        }
        Ok((token, reader))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return Err(self.damaged("it is cut short"));
        };
        self.rest = rest;
        Ok(*array)
    }

    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn txid(&mut self) -> Result<Txid> {
        self.array().map(Txid::from_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.number()? as usize;
        let Some((bytes, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.damaged("it is cut short"));
        };
        self.rest = rest;
        Ok(bytes)
    }

    /// So many items as the next number says; a lie ends where the bytes do.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = self.number()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn mined(&mut self) -> Result<MinedIn> {
        let block = self.array()?;
        let (height, subtree_index, flags) = (self.number()?, self.number()?, self.byte()?);
        Ok(MinedIn {
            block: (flags & KNOWN_BLOCK != 0).then_some(BlockHash::from_bytes(block)),
            height,
            subtree_index,
            on_longest_chain: flags & ON_LONGEST_CHAIN != 0,
        })
    }

    fn head(&mut self, txid: Txid) -> Result<(Record, bool)> {
        let flags = self.byte()?;
        let (size_bytes, lock_time) = (self.long()?, self.number()?);
        let has = |flag| flags & flag != 0;
        let fee_sat = has(FEE).then(|| self.long()).transpose()?;
        let unmined_since = has(UNMINED).then(|| self.number()).transpose()?;
        let preserve_until = has(PRESERVED).then(|| self.number()).transpose()?;
        let head = Record {
            txid,
            coinbase: has(COINBASE),
            fee_sat,
            size_bytes,
            lock_time,
            inputs: Vec::new(),
            outputs: Vec::new(),
            mined_in: self.list(Self::mined)?,
            unmined_since,
            locked: has(LOCKED),
            conflicting: has(CONFLICTING),
            conflicting_children: self.list(Self::txid)?,
            preserve_until,
        };
        Ok((head, has(BODY_APART)))
    }

    fn body(&mut self) -> Result<Body> {
        let inputs = self.list(|r| Ok(OutPoint::new(r.txid()?, r.number()?)))?;
        let ranges = self.list(|r| Ok((r.number()?, r.number()?)))?;
        // What is counted out in a loop is checked: ascending, and no chunk that no output lies in.
        let mut before = 0;
        for (first, last) in &ranges {
            if *first <= before || last < first || *last > chunk_of(u32::MAX) {
                return Err(self.damaged("its chunks don't ascend"));
            }
            before = *last;
        }
        Ok(Body { inputs, ranges })
    }

    fn output(&mut self) -> Result<RecordOutput> {
        let (vout, flags, value_sat) = (self.number()?, self.byte()?, self.long()?);
        let has = |flag| flags & flag != 0;
        let spent_by = has(SPENT)
            .then(|| {
                Ok::<_, Error>(SpentBy {
                    txid: self.txid()?,
                    vin: self.number()?,
                })
            })
            .transpose()?;
        let spendable_from = has(REASSIGNED).then(|| self.number()).transpose()?;
        Ok(RecordOutput {
            vout,
            output: TxOut {
                value_sat,
                script: self.bytes()?.into(),
            },
            spent_by,
            frozen: has(FROZEN),
            spendable_from,
        })
    }

    /// Outputs up to the end.
    fn outputs(&mut self) -> Result<Vec<RecordOutput>> {
        let mut outputs: Vec<RecordOutput> = Vec::new();
        while !self.rest.is_empty() {
            let output = self.output()?;
            if outputs.last().is_some_and(|last| last.vout >= output.vout) {
                return Err(self.damaged("its outputs don't ascend"));
            }
            outputs.push(output);
        }
        Ok(outputs)
    }

    fn tip(&mut self) -> Result<Option<Tip>> {
        if self.byte()? == 0 {
            return Ok(None);
        }
        Ok(Some(Tip {
            height: self.number()?,
            hash: BlockHash::from_bytes(self.array()?),
            median_time_past: self.number()?,
        }))
    }

    fn end(&self) -> Result<()> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("it is longer than it should be"))
        }
    }
}

const fn body_bytes(body: &Body) -> usize {
    8 + 36 * body.inputs.len() + 8 * body.ranges.len()
}

/// A record's value; `body` is `None` where it lies apart.
pub(crate) fn pack_main(
    token: Token,
    head: &Record,
    body: Option<&Body>,
    outputs: impl IntoIterator<Item = impl Borrow<RecordOutput>>,
) -> Vec<u8> {
    let mut writer = Writer::begin(token, head.txid.as_bytes());
    writer.head(head, body.is_none());
    if let Some(body) = body {
        writer.body(body);
    }
    writer.outputs(outputs);
    writer.0
}

pub(crate) fn unpack_main(txid: Txid, bytes: &[u8]) -> Result<Main> {
    let (token, mut reader) = Reader::open("a record", txid.as_bytes(), bytes)?;
    let (head, body_apart) = reader.head(txid)?;
    let body = (!body_apart).then(|| reader.body()).transpose()?;
    let outputs = reader.outputs()?;
    Ok(Main {
        token,
        head,
        body,
        outputs,
    })
}

pub(crate) fn pack_body(token: Token, txid: Txid, body: &Body) -> Vec<u8> {
    let mut writer = Writer::begin(token, txid.as_bytes());
    writer.body(body);
    writer.0
}

pub(crate) fn unpack_body(txid: Txid, bytes: &[u8]) -> Result<Body> {
    let (_, mut reader) = Reader::open("a record's inputs", txid.as_bytes(), bytes)?;
    let body = reader.body()?;
    reader.end()?;
    Ok(body)
}

pub(crate) fn pack_chunk(
    token: Token,
    txid: Txid,
    outputs: impl IntoIterator<Item = impl Borrow<RecordOutput>>,
) -> Vec<u8> {
    let mut writer = Writer::begin(token, txid.as_bytes());
    writer.outputs(outputs);
    writer.0
}

pub(crate) fn unpack_chunk(txid: Txid, bytes: &[u8]) -> Result<(Token, Vec<RecordOutput>)> {
    let (token, mut reader) = Reader::open("a chunk of outputs", txid.as_bytes(), bytes)?;
    Ok((token, reader.outputs()?))
}

/// A whole record's values. Its outputs ascend.
pub(crate) fn cut(token: Token, record: &Record) -> Cut {
    let mut body = Body {
        inputs: record.inputs.clone(),
        ranges: Vec::new(),
    };
    let mut chunks = Vec::new();
    let mut first: &[RecordOutput] = &[];
    for outputs in record
        .outputs
        .chunk_by(|a, b| chunk_of(a.vout) == chunk_of(b.vout))
    {
        let chunk = outputs.first().map_or(0, |output| chunk_of(output.vout));
        if chunk == 0 {
            first = outputs;
            continue;
        }
        match body.ranges.last_mut() {
            Some((_, last)) if *last + 1 == chunk => *last = chunk,
            _ => body.ranges.push((chunk, chunk)),
        }
        chunks.push((chunk, pack_chunk(token, record.txid, outputs)));
    }
    let apart = body_bytes(&body) > BODY_INLINE;
    Cut {
        main: pack_main(token, record, (!apart).then_some(&body), first),
        body: apart.then(|| pack_body(token, record.txid, &body)),
        chunks,
    }
}

pub(crate) fn pack_undo(token: Token, block: &BlockHash, undo: &BlockUndo) -> Vec<u8> {
    let mut writer = Writer::begin(token, block.as_bytes());
    writer.number(undo.height);
    writer.tip(undo.previous.as_ref());
    writer.count(undo.transactions.len());
    for (txid, how) in &undo.transactions {
        writer.bytes(txid.as_bytes());
        let Undo::Existed {
            unmined_since,
            entry,
            fee_sat,
        } = how
        else {
            writer.byte(0);
            continue;
        };
        writer.byte(
            EXISTED
                | flag(entry.is_some(), ENTRY)
                | flag(unmined_since.is_some(), UNMINED)
                | flag(fee_sat.is_some(), FEE),
        );
        if let Some(entry) = entry {
            writer.mined(entry);
        }
        if let Some(since) = unmined_since {
            writer.number(*since);
        }
        if let Some(fee) = fee_sat {
            writer.long(*fee);
        }
    }
    if let Some(record) = &undo.replaced_coinbase {
        writer.bytes(record.txid.as_bytes());
        writer.head(record, false);
        writer.body(&Body {
            inputs: record.inputs.clone(),
            ranges: Vec::new(),
        });
        writer.outputs(&record.outputs);
    }
    writer.0
}

pub(crate) fn unpack_undo(block: &BlockHash, bytes: &[u8]) -> Result<(Token, BlockUndo)> {
    let (token, mut reader) = Reader::open("a block's undo data", block.as_bytes(), bytes)?;
    let height = reader.number()?;
    let previous = reader.tip()?;
    let transactions = reader.list(|reader| {
        let (txid, flags) = (reader.txid()?, reader.byte()?);
        let has = |flag| flags & flag != 0;
        if !has(EXISTED) {
            return Ok((txid, Undo::Created));
        }
        let entry = has(ENTRY).then(|| reader.mined()).transpose()?;
        let unmined_since = has(UNMINED).then(|| reader.number()).transpose()?;
        let fee_sat = has(FEE).then(|| reader.long()).transpose()?;
        let how = Undo::Existed {
            unmined_since,
            entry,
            fee_sat,
        };
        Ok((txid, how))
    })?;
    let mut replaced_coinbase = None;
    if !reader.rest.is_empty() {
        let txid = reader.txid()?;
        let (head, _) = reader.head(txid)?;
        replaced_coinbase = Some(Box::new(Record {
            inputs: reader.body()?.inputs,
            outputs: reader.outputs()?,
            ..head
        }));
    }
    let undo = BlockUndo {
        height,
        previous,
        transactions,
        replaced_coinbase,
    };
    Ok((token, undo))
}

/// The chain's value belongs to no transaction.
const CHAIN: [u8; 32] = [b'c'; 32];

pub(crate) fn pack_chain(token: Token, tip: Option<&Tip>, muhash: &MuHash3072) -> Vec<u8> {
    let mut writer = Writer::begin(token, &CHAIN);
    writer.tip(tip);
    writer.bytes(&muhash.to_bytes());
    writer.0
}

pub(crate) fn unpack_chain(bytes: &[u8]) -> Result<(Token, Option<Tip>, MuHash3072)> {
    let (token, mut reader) = Reader::open("the chain's value", &CHAIN, bytes)?;
    let tip = reader.tip()?;
    let muhash = MuHash3072::from_bytes(&reader.array()?)
        .ok_or_else(|| reader.damaged("its digest is none"))?;
    reader.end()?;
    Ok((token, tip, muhash))
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn txid() -> impl Strategy<Value = Txid> {
        any::<[u8; 32]>().prop_map(Txid::from_bytes)
    }

    fn mined() -> impl Strategy<Value = MinedIn> {
        let block = option::of(any::<[u8; 32]>().prop_map(BlockHash::from_bytes));
        (block, any::<(u32, u32, bool)>()).prop_map(
            |(block, (height, subtree_index, on_longest_chain))| MinedIn {
                block,
                height,
                subtree_index,
                on_longest_chain,
            },
        )
    }

    fn output() -> impl Strategy<Value = RecordOutput> {
        let spent_by = option::of((txid(), any::<u32>()));
        let script = vec(any::<u8>(), 0..40);
        (spent_by, script, any::<(u64, bool, Option<u32>)>()).prop_map(
            |(spent_by, script, (value_sat, frozen, spendable_from))| RecordOutput {
                vout: 0,
                output: TxOut {
                    value_sat,
                    script: script.into(),
                },
                spent_by: spent_by.map(|(txid, vin)| SpentBy { txid, vin }),
                frozen,
                spendable_from,
            },
        )
    }

    fn record() -> impl Strategy<Value = Record> {
        let vout = prop_oneof![0..80_u32, any::<u32>()];
        (
            (txid(), vec((txid(), any::<u32>()), 0..30)),
            btree_map(vout, output(), 0..60),
            vec(mined(), 0..4),
            vec(txid(), 0..4),
            any::<(bool, bool, bool, u64, u32)>(),
            any::<(Option<u64>, Option<u32>, Option<u32>)>(),
        )
            .prop_map(
                |((txid, inputs), outputs, mined_in, conflicting_children, plain, optional)| {
                    let (coinbase, locked, conflicting, size_bytes, lock_time) = plain;
                    let (fee_sat, unmined_since, preserve_until) = optional;
                    let outputs = outputs.into_iter();
                    Record {
                        txid,
                        coinbase,
                        fee_sat,
                        size_bytes,
                        lock_time,
                        inputs: inputs.iter().map(|(t, v)| OutPoint::new(*t, *v)).collect(),
                        outputs: outputs
                            .map(|(vout, output)| RecordOutput { vout, ..output })
                            .collect(),
                        mined_in,
                        unmined_since,
                        locked,
                        conflicting,
                        conflicting_children,
                        preserve_until,
                    }
                },
            )
    }

    fn undo() -> impl Strategy<Value = BlockUndo> {
        let how = prop_oneof![
            Just(Undo::Created),
            (any::<(Option<u32>, Option<u64>)>(), option::of(mined())).prop_map(
                |((unmined_since, fee_sat), entry)| Undo::Existed {
                    unmined_since,
                    entry,
                    fee_sat,
                }
            ),
        ];
        let tip = any::<(u32, [u8; 32], u32)>().prop_map(|(height, hash, median)| Tip {
            height,
            hash: BlockHash::from_bytes(hash),
            median_time_past: median,
        });
        let transactions = vec((txid(), how), 0..8);
        let replaced = option::of(record().prop_map(Box::new));
        (any::<u32>(), option::of(tip), transactions, replaced).prop_map(
            |(height, previous, transactions, replaced_coinbase)| BlockUndo {
                height,
                previous,
                transactions,
                replaced_coinbase,
            },
        )
    }

    const TOKEN: Token = *b"a token.";

    /// Puts a record together again, as a reader does.
    fn joined(txid: Txid, cut: &Cut) -> Record {
        let main = unpack_main(txid, &cut.main).unwrap();
        assert_eq!(main.token, TOKEN);
        let body = main
            .body
            .unwrap_or_else(|| unpack_body(txid, cut.body.as_ref().unwrap()).unwrap());
        let mut outputs = main.outputs;
        assert!(body.chunks().eq(cut.chunks.iter().map(|(chunk, _)| *chunk)));
        for (chunk, bytes) in &cut.chunks {
            let (token, part) = unpack_chunk(txid, bytes).unwrap();
            assert_eq!(token, TOKEN);
            assert!(part.iter().all(|output| chunk_of(output.vout) == *chunk));
            outputs.extend(part);
        }
        Record {
            inputs: body.inputs,
            outputs,
            ..main.head
        }
    }

    proptest! {
        #[test]
        fn records_read_as_they_were_written(record in record()) {
            let cut = cut(TOKEN, &record);
            prop_assert_eq!(joined(record.txid, &cut), record.clone());
            let other = Txid::from_bytes([1; 32]);
            let wrong = |e: &Error| matches!(e, Error::WrongRecord { asked, .. } if *asked == other);
            prop_assert!(unpack_main(other, &cut.main).as_ref().is_err_and(wrong));
            for (_, chunk) in &cut.chunks {
                prop_assert!(unpack_chunk(other, chunk).as_ref().is_err_and(wrong));
            }
        }

        #[test]
        fn undo_data_reads_as_it_was_written(undo in undo(), block in any::<[u8; 32]>()) {
            let block = BlockHash::from_bytes(block);
            let bytes = pack_undo(TOKEN, &block, &undo);
            prop_assert_eq!(unpack_undo(&block, &bytes).unwrap(), (TOKEN, undo));
        }

        #[test]
        fn what_is_cut_short_is_not_believed(record in record(), undo in undo(), at in any::<prop::sample::Index>()) {
            let block = BlockHash::ZERO;
            let bytes = pack_undo(TOKEN, &block, &undo);
            let short = &bytes[..at.index(bytes.len())];
            prop_assert!(unpack_undo(&block, short).map_or(true, |(_, other)| other != undo));
            let main = cut(TOKEN, &record).main;
            let short = &main[..at.index(main.len())];
            let whole = unpack_main(record.txid, &main).unwrap();
            prop_assert!(unpack_main(record.txid, short).map_or(true, |other| other != whole));
        }

        /// Bytes from outside never panic, nor do they ask for more memory than they have bytes for.
        #[test]
        fn any_bytes_are_judged(tail in vec(any::<u8>(), 0..200), flip in any::<(prop::sample::Index, u8)>(), record in record()) {
            let id = [0; 32];
            let mut bytes = Writer::begin(TOKEN, &id).0;
            bytes.extend(tail);
            drop(unpack_main(Txid::from_bytes(id), &bytes));
            drop(unpack_body(Txid::from_bytes(id), &bytes));
            drop(unpack_chunk(Txid::from_bytes(id), &bytes));
            drop(unpack_undo(&BlockHash::from_bytes(id), &bytes));
            drop(unpack_chain(&bytes));
            let mut main = cut(TOKEN, &record).main;
            let at = flip.0.index(main.len());
            main[at] ^= flip.1;
            drop(unpack_main(record.txid, &main));
        }
    }

    #[test]
    fn the_chain_reads_as_it_was_written() {
        let tip = Tip {
            height: 7,
            hash: BlockHash::from_bytes([9; 32]),
            median_time_past: 11,
        };
        for tip in [None, Some(tip)] {
            let bytes = pack_chain(TOKEN, tip.as_ref(), &MuHash3072::new());
            let (token, read, muhash) = unpack_chain(&bytes).unwrap();
            assert_eq!((token, read), (TOKEN, tip));
            assert_eq!(muhash.digest(), MuHash3072::new().digest());
            assert!(unpack_chain(&bytes[..bytes.len() - 1]).is_err());
        }
    }
}
