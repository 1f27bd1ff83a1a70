//! Keys, and reading what lies under them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{BlockUndo, Loaded, Reads, TxidHash, TxidMap};
use groundtackle_utxo_store::{BlockHash, OutPoint, Record, RecordOutput, Result, Tip, Txid};
use redis::{Cmd, Value};

use crate::connection::Link;
use crate::error::{Failed, corrupt};
use crate::record::{self, Body, Main, Token, chunk_of};

/// The names of all keys. The braces keep them in one slot of a server that has slots.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        pub(crate) fn $name(&self) -> Vec<u8> {
            format!("{}{}", self.prefix, stringify!($name)).into_bytes()
        }
    )+};
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: format!("{{{prefix}}}:"),
        }
    }

    names! {
        /// Hash: each lane's last call.
        calls,
        /// Hash: format, rule, chain.
        settings,
        /// Sorted set: identifier and height of each unmined transaction.
        unmined,
        /// Sorted set: height and identifier, where a pruning has to look.
        expiring,
        /// Hash: undo data by block.
        undo,
        /// Sorted set: height and hash of blocks with undo data.
        heights,
        /// Bits: buckets that ever held something.
        buckets,
    }

    /// Hash: the records whose identifiers begin with two bytes. Field: an identifier for the
    /// record; with `i` for a body that lies apart; with a number for a chunk of outputs.
    pub(crate) fn bucket(&self, number: u32) -> Vec<u8> {
        // Asked for so often that `format!` shows.
        let digits = b"0123456789abcdef";
        let digit = |shift: u32| digits.get((number >> shift & 15) as usize).copied();
        let mut key = Vec::with_capacity(self.prefix.len() + 6);
        key.extend_from_slice(self.prefix.as_bytes());
        key.extend_from_slice(b"r:");
        key.extend([12, 8, 4, 0].into_iter().filter_map(digit));
        key
    }
}

pub(crate) fn bucket_of(txid: &Txid) -> u32 {
    match txid.as_bytes() {
        [a, b, ..] => u32::from(u16::from_be_bytes([*a, *b])),
    }
}

pub(crate) fn body_field(txid: &Txid) -> Vec<u8> {
    [txid.as_bytes().as_slice(), b"i"].concat()
}

/// Chunk 0 is the record's own.
pub(crate) fn chunk_field(txid: &Txid, chunk: u32) -> Vec<u8> {
    match chunk {
        0 => txid.as_bytes().to_vec(),
        _ => [txid.as_bytes().as_slice(), &chunk.to_be_bytes()].concat(),
    }
}

/// A member of a sorted set.
pub(crate) type Member = [u8; 36];

pub(crate) fn unmined_member(txid: &Txid, since: u32) -> Member {
    let mut member = [0; 36];
    let (head, tail) = member.split_at_mut(32);
    head.copy_from_slice(txid.as_bytes());
    tail.copy_from_slice(&since.to_be_bytes());
    member
}

pub(crate) fn height_member(height: u32, id: &[u8; 32]) -> Member {
    let mut member = [0; 36];
    let (head, tail) = member.split_at_mut(4);
    head.copy_from_slice(&height.to_be_bytes());
    tail.copy_from_slice(id);
    member
}

/// Height and identifier from a member.
pub(crate) fn split_height_member(member: &[u8]) -> Result<(u32, [u8; 32])> {
    member
        .split_first_chunk()
        .and_then(|(height, id)| Some((u32::from_be_bytes(*height), id.try_into().ok()?)))
        .ok_or_else(|| corrupt("a sorted set", "a member has another length"))
}

/// The members from the beginning up to a height, that included.
pub(crate) fn up_to_height(key: Vec<u8>, height: u32, limit: usize) -> Cmd {
    let mut above = b"[".to_vec();
    above.extend_from_slice(&height_member(height, &[0xff; 32]));
    let mut command = redis::cmd("ZRANGEBYLEX");
    command.arg(key).arg("-").arg(above);
    command.arg("LIMIT").arg(0).arg(limit);
    command
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(corrupt("an answer", "it is no list")),
    }
}

pub(crate) fn bytes(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        _ => Err(corrupt("an answer", "it is no bytes")),
    }
}

pub(crate) fn members(value: Value) -> Result<Vec<Vec<u8>>> {
    let members = array(value)?.into_iter();
    members.filter_map(|v| bytes(v).transpose()).collect()
}

/// A record, as far as it was read.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its body is in `body`.
    pub(crate) main: Main,
    /// Whether the body lies with the record.
    pub(crate) inline: bool,
    /// `None` where it lies apart and was not asked for.
    pub(crate) body: Option<Body>,
    pub(crate) chunks: BTreeMap<u32, (Token, Vec<RecordOutput>)>,
}

impl Stored {
    pub(crate) fn has_all_outputs(&self) -> bool {
        let has = |chunk| self.chunks.contains_key(&chunk);
        self.body
            .as_ref()
            .is_some_and(|body| body.chunks().all(has))
    }

    /// The outputs that were read, ascending.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &RecordOutput> {
        let further = self.chunks.values().flat_map(|(_, outputs)| outputs);
        self.main.outputs.iter().chain(further)
    }

    pub(crate) fn output(&self, vout: u32) -> Option<&RecordOutput> {
        let outputs = match chunk_of(vout) {
            0 => &self.main.outputs,
            chunk => &self.chunks.get(&chunk)?.1,
        };
        outputs.iter().find(|output| output.vout == vout)
    }

    pub(crate) fn record(&self) -> Record {
        let body = self.body.as_ref();
        Record {
            inputs: body.map(|body| body.inputs.clone()).unwrap_or_default(),
            outputs: self.outputs().cloned().collect(),
            ..self.main.head.clone()
        }
    }
}

/// The chain's value.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) token: Token,
    pub(crate) tip: Option<Tip>,
    pub(crate) muhash: MuHash3072,
}

impl Chain {
    pub(crate) fn read(value: Value) -> Result<Self> {
        let bytes = bytes(value)?.ok_or_else(|| corrupt("the chain's value", "it is missing"))?;
        let (token, tip, muhash) = record::unpack_chain(&bytes)?;
        Ok(Self { token, tip, muhash })
    }
}

pub(crate) fn chain_command(keys: &Keys) -> Cmd {
    let mut command = redis::cmd("HGET");
    command.arg(keys.settings()).arg("chain");
    command
}

/// What a call has read so far.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) records: TxidMap<Option<Stored>>,
    pub(crate) undo: HashMap<BlockHash, Option<(Token, BlockUndo)>>,
    pub(crate) chain: Option<Chain>,
    pub(crate) rounds: usize,
    /// What is read in one round is of one moment.
    pub(crate) one_moment: bool,
    pub(crate) presumed: HashSet<Txid, TxidHash>,
}

/// One record's fields to read.
struct Want {
    txid: Txid,
    body: bool,
    chunks: Vec<u32>,
}

impl Want {
    fn fields(&self) -> usize {
        1 + usize::from(self.body) + self.chunks.len()
    }

    fn command(&self, keys: &Keys) -> Cmd {
        // One answer alone is no list.
        let mut command = redis::cmd(match self.fields() {
            1 => "HGET",
            _ => "HMGET",
        });
        command.arg(keys.bucket(bucket_of(&self.txid)));
        command.arg(self.txid.as_bytes().as_slice());
        if self.body {
            command.arg(body_field(&self.txid));
        }
        for chunk in &self.chunks {
            command.arg(chunk_field(&self.txid, *chunk));
        }
        command
    }
}

impl View {
    /// Takes transactions to be new: they are not read, but expected not to be there when something is
    /// written.
    pub(crate) fn presume_new(&mut self, txids: &[Txid]) {
        self.records.extend(txids.iter().map(|txid| (*txid, None)));
        self.presumed.extend(txids);
    }

    /// Reads what is asked for, in one round trip, and one more where records of many outputs are
    /// read whole. Says `false` where something that was read before has changed.
    pub(crate) async fn read(
        &mut self,
        link: &Link,
        keys: &Keys,
        action: &str,
        reads: &Reads,
        chain: bool,
    ) -> Result<bool, Failed> {
        let mut chunks: BTreeMap<Txid, BTreeSet<u32>> = BTreeMap::new();
        for OutPoint { txid, vout } in &reads.slots {
            chunks.entry(*txid).or_default().insert(chunk_of(*vout));
        }
        let wants: Vec<_> = reads
            .records
            .iter()
            .filter(|txid| !self.presumed.contains(txid))
            .map(|txid| Want {
                txid: *txid,
                body: reads.inputs.contains(txid) || reads.outputs.contains(txid),
                chunks: chunks
                    .remove(txid)
                    .into_iter()
                    .flatten()
                    .filter(|chunk| *chunk > 0)
                    .collect(),
            })
            .collect();
        let chain = chain && self.chain.is_none();
        let mut commands: Vec<Cmd> = wants.iter().map(|want| want.command(keys)).collect();
        for block in &reads.undo {
            let mut command = redis::cmd("HGET");
            command.arg(keys.undo()).arg(block.as_bytes().as_slice());
            commands.push(command);
        }
        if chain {
            commands.push(chain_command(keys));
        }
        let mut answers = self.ask(link, action, commands).await?;
        if chain && let Some(answer) = answers.pop() {
            self.chain = Some(Chain::read(answer)?);
        }
        let mut answers = answers.into_iter();
        let mut same = true;
        for (want, answer) in wants.iter().zip(answers.by_ref()) {
            same &= self.put(want, answer)?;
        }
        for (block, answer) in reads.undo.iter().zip(answers) {
            let undo = bytes(answer)?.map(|bytes| record::unpack_undo(block, &bytes));
            self.undo.insert(*block, undo.transpose()?);
        }
        Ok(same && self.read_rest(link, keys, action, &reads.outputs).await?)
    }

    /// The chunks of records of many outputs: which there are is known by now.
    async fn read_rest(
        &mut self,
        link: &Link,
        keys: &Keys,
        action: &str,
        whole: &BTreeSet<Txid>,
    ) -> Result<bool, Failed> {
        let rest = whole.iter().filter_map(|txid| {
            let stored = self.records.get(txid)?.as_ref()?;
            let chunks: Vec<_> = stored.body.as_ref()?.chunks().collect();
            (!chunks.is_empty()).then_some(Want {
                txid: *txid,
                body: true,
                chunks,
            })
        });
        let wants: Vec<_> = rest.collect();
        if wants.is_empty() {
            return Ok(true);
        }
        let commands: Vec<_> = wants.iter().map(|want| want.command(keys)).collect();
        let answers = self.ask(link, action, commands).await?;
        let mut same = true;
        for (want, answer) in wants.iter().zip(answers) {
            same &= self.put(want, answer)?;
        }
        Ok(same)
    }

    async fn ask(
        &mut self,
        link: &Link,
        action: &str,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Value>, Failed> {
        if !commands.is_empty() {
            self.rounds += 1;
        }
        link.ask_all(action, commands, self.one_moment).await
    }

    fn put(&mut self, want: &Want, answer: Value) -> Result<bool> {
        let txid = want.txid;
        let answer = match want.fields() {
            1 => vec![answer],
            _ => array(answer)?,
        };
        let mut fields = answer.into_iter().map(bytes);
        let mut next = || fields.next().transpose().map(Option::flatten);
        let main = next()?
            .map(|bytes| record::unpack_main(txid, &bytes))
            .transpose()?;
        let before = self.records.remove(&txid);
        let token = |stored: &Option<Stored>| stored.as_ref().map(|stored| stored.main.token);
        let mut same = before
            .as_ref()
            .is_none_or(|before| token(before) == main.as_ref().map(|main| main.token));
        let Some(mut main) = main else {
            self.records.insert(txid, None);
            return Ok(same);
        };
        let mut body = main.body.take();
        let inline = body.is_some();
        let (known_body, mut chunks) = match before.flatten() {
            Some(before) => (before.body, before.chunks),
            None => (None, BTreeMap::new()),
        };
        if want.body {
            let apart = next()?;
            if body.is_none() {
                let bytes = apart.ok_or_else(|| {
                    corrupt(format!("the record of {txid}"), "its inputs are missing")
                })?;
                body = Some(record::unpack_body(txid, &bytes)?);
            }
        }
        for chunk in &want.chunks {
            let Some(bytes) = next()? else { continue };
            let read = record::unpack_chunk(txid, &bytes)?;
            same &= chunks.get(chunk).is_none_or(|(token, _)| *token == read.0);
            chunks.insert(*chunk, read);
        }
        let body = body.or(known_body);
        let stored = Stored {
            main,
            inline,
            body,
            chunks,
        };
        self.records.insert(txid, Some(stored));
        Ok(same)
    }

    /// Hands over what `reads` asked for, and what came with it.
    pub(crate) fn tell(&self, loaded: &mut Loaded, mut reads: Reads) {
        let found: Vec<_> = reads
            .records
            .iter()
            .filter_map(|txid| Some((*txid, self.records.get(txid)?.as_ref()?)))
            .collect();
        for (txid, stored) in &found {
            if stored.body.is_some() && !stored.has_all_outputs() {
                reads.inputs.insert(*txid);
            }
        }
        let blocks = reads.undo.clone();
        loaded.asked(reads);
        for (_, stored) in found {
            match stored.has_all_outputs() {
                true => loaded.put_whole(stored.record()),
                false => loaded.put_record(stored.record()),
            }
        }
        for block in blocks {
            if let Some(Some((_, undo))) = self.undo.get(&block) {
                loaded.put_undo(block, undo.clone());
            }
        }
        if let Some(chain) = &self.chain {
            loaded.set_tip(chain.tip);
        }
    }
}
