//! Drawing up what one script carries out.

use std::collections::{BTreeMap, HashMap};

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::draft::{Changes, Reads};
use groundtackle_utxo_store::{Error, Record, RecordOutput, Result, Tip, Txid};
use redis::Cmd;

use crate::error::corrupt;
use crate::read::{
    Keys, Member, Stored, View, body_field, bucket_of, chunk_field, height_member, unmined_member,
};
use crate::record::{self, Main, Token, chunk_of};

/// What one command of the script has at most: Lua returns no more than some thousand values.
const GROUP: usize = 1_000;

/// A key, or its index.
pub(crate) enum Key {
    At(usize),
    Named(Vec<u8>),
}

impl From<usize> for Key {
    fn from(index: usize) -> Self {
        Self::At(index)
    }
}

impl From<Vec<u8>> for Key {
    fn from(name: Vec<u8>) -> Self {
        Self::Named(name)
    }
}

/// A command of a hash.
struct HashCommand {
    name: &'static str,
    key: usize,
    field: Vec<u8>,
    /// None to unset the field.
    value: Option<Vec<u8>>,
}

/// Reads and commands under change.
pub(crate) struct Change {
    keys: Vec<Vec<u8>>,
    indexes: HashMap<Vec<u8>, usize>,
    /// Of buckets.
    bucket_indexes: HashMap<u32, usize>,
    /// As the script takes them.
    expects: Vec<u8>,
    /// In order.
    commands: Vec<HashCommand>,
    removed: BTreeMap<usize, Vec<Member>>,
    added: BTreeMap<usize, Vec<Member>>,
    /// Buckets that hold something.
    buckets: Vec<u32>,
    /// Nothing is to stay: buckets are not marked, and what is added goes again.
    probes: bool,
    bytes: usize,
    /// It frees memory, so that it may be carried out when there is none.
    pub(crate) frees: bool,
}

impl Change {
    pub(crate) fn new(keys: &Keys) -> Self {
        let mut change = Self {
            keys: Vec::new(),
            indexes: HashMap::new(),
            bucket_indexes: HashMap::new(),
            expects: Vec::new(),
            commands: Vec::new(),
            removed: BTreeMap::new(),
            added: BTreeMap::new(),
            buckets: Vec::new(),
            probes: false,
            bytes: 0,
            frees: false,
        };
        change.key(keys.calls());
        change.key(keys.buckets());
        change
    }

    /// The key's index, as Lua counts.
    fn key(&mut self, key: impl Into<Key>) -> usize {
        let keys = &mut self.keys;
        match key.into() {
            Key::At(index) => index,
            Key::Named(key) => *self.indexes.entry(key).or_insert_with_key(|key| {
                keys.push(key.clone());
                keys.len()
            }),
        }
    }

    /// That of the bucket of a transaction.
    fn bucket(&mut self, keys: &Keys, txid: &Txid) -> usize {
        let number = bucket_of(txid);
        *self.bucket_indexes.entry(number).or_insert_with(|| {
            self.keys.push(keys.bucket(number));
            self.keys.len()
        })
    }

    /// The value must be the one with this token, or none.
    pub(crate) fn expect(&mut self, key: impl Into<Key>, field: &[u8], token: Option<Token>) {
        let key = self.key(key);
        let token = token.as_ref().map_or(&[][..], |token| token);
        // There are fewer keys than 2^24, and no longer field than a record's.
        self.expects.extend(three_bytes(key));
        for part in [field, token] {
            self.expects.push(u8::try_from(part.len()).unwrap_or(0));
            self.expects.extend_from_slice(part);
        }
    }

    fn command(
        &mut self,
        name: &'static str,
        key: impl Into<Key>,
        field: Vec<u8>,
        value: Option<Vec<u8>>,
    ) {
        self.bytes += field.len() + value.as_ref().map_or(0, Vec::len);
        let key = self.key(key);
        self.commands.push(HashCommand {
            name,
            key,
            field,
            value,
        });
    }

    pub(crate) fn set(&mut self, key: impl Into<Key>, field: Vec<u8>, value: Vec<u8>) {
        self.command("HSET", key, field, Some(value));
    }

    pub(crate) fn unset(&mut self, key: impl Into<Key>, field: Vec<u8>) {
        self.command("HDEL", key, field, None);
    }

    pub(crate) fn add(&mut self, key: Vec<u8>, member: Member) {
        self.bytes += member.len();
        let key = self.key(key);
        self.added.entry(key).or_default().push(member);
    }

    /// Before anything is added.
    pub(crate) fn remove(&mut self, key: Vec<u8>, member: Member) {
        self.bytes += member.len();
        let key = self.key(key);
        self.removed.entry(key).or_default().push(member);
    }

    /// The record itself must be as it was, or not be there.
    pub(crate) fn expect_main(&mut self, keys: &Keys, txid: &Txid, token: Option<Token>) {
        let bucket = self.bucket(keys, txid);
        self.expect(bucket, txid.as_bytes(), token);
    }

    /// What was read of a record must be as it was.
    pub(crate) fn expect_record(&mut self, keys: &Keys, txid: &Txid, stored: Option<&Stored>) {
        self.expect_main(keys, txid, stored.map(|stored| stored.main.token));
        let bucket = self.bucket(keys, txid);
        for (chunk, (token, _)) in stored.iter().flat_map(|stored| &stored.chunks) {
            self.expect(bucket, &chunk_field(txid, *chunk), Some(*token));
        }
    }

    /// All that was read must be as it was.
    pub(crate) fn expect_view(&mut self, keys: &Keys, view: &View) {
        for (txid, stored) in &view.records {
            self.expect_record(keys, txid, stored.as_ref());
        }
        for (block, undo) in &view.undo {
            let token = undo.as_ref().map(|(token, _)| *token);
            self.expect(keys.undo(), block.as_bytes(), token);
        }
        if let Some(chain) = &view.chain {
            self.expect(keys.settings(), b"chain", Some(chain.token));
        }
    }

    /// Removes a record that was read whole.
    pub(crate) fn delete(&mut self, keys: &Keys, txid: &Txid, stored: &Stored) {
        let bucket = self.bucket(keys, txid);
        self.unset(bucket, chunk_field(txid, 0));
        // One that lies with its record costs nothing to unset.
        self.unset(bucket, body_field(txid));
        for chunk in stored.chunks.keys() {
            self.unset(bucket, chunk_field(txid, *chunk));
        }
        if let Some(since) = stored.main.head.unmined_since {
            self.remove(keys.unmined(), unmined_member(txid, since));
        }
    }

    fn insert(&mut self, keys: &Keys, token: Token, record: &Record) {
        let txid = &record.txid;
        let bucket = self.bucket(keys, txid);
        let cut = record::cut(token, record);
        self.set(bucket, chunk_field(txid, 0), cut.main);
        if let Some(body) = cut.body {
            self.set(bucket, body_field(txid), body);
        }
        for (chunk, value) in cut.chunks {
            self.set(bucket, chunk_field(txid, chunk), value);
        }
        if let Some(since) = record.unmined_since {
            self.add(keys.unmined(), unmined_member(txid, since));
        }
        self.bytes += 3;
        self.buckets.push(bucket_of(txid));
    }

    pub(crate) fn chain(
        &mut self,
        keys: &Keys,
        token: Token,
        tip: Option<&Tip>,
        muhash: &MuHash3072,
    ) {
        let value = record::pack_chain(token, tip, muhash);
        self.set(keys.settings(), b"chain".to_vec(), value);
    }

    /// Each command once, without effect: a script that may not do one of them would end in its middle. So
    /// what adds comes behind what takes away, which comes once more.
    pub(crate) fn probe(keys: &Keys) -> Self {
        let mut change = Self::new(keys);
        let nothing = b"probe".to_vec();
        change.unset(keys.calls(), nothing.clone());
        change.set(keys.calls(), nothing.clone(), Vec::new());
        change.unset(keys.calls(), nothing);
        // That of no transaction.
        change.add(keys.unmined(), [0; 36]);
        change.remove(keys.unmined(), [0; 36]);
        // Behind that of the last bucket.
        change.buckets.push(1 << 16);
        change.probes = true;
        change
    }

    /// Refuses what the server would have to take as one command beyond its limits.
    pub(crate) fn check_size(&self, most: u64) -> Result<()> {
        if self.bytes as u64 <= most {
            return Ok(());
        }
        Err(Error::invalid_request(format!(
            "the call writes {} bytes, and one may write {most}; send less at a time, or raise max_write together with the server's client-query-buffer-limit",
            self.bytes
        )))
    }

    pub(crate) fn evaluate(&self, sha: &str, lane: &str, number: u64, now: u64) -> Cmd {
        let mut command = Cmd::with_capacity(
            64 + self.keys.len() + self.commands.len(),
            4_096
                + 32 * self.keys.len()
                + self.expects.len()
                + 4 * self.commands.len()
                + self.bytes,
        );
        command.arg("EVALSHA").arg(sha).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key.as_slice());
        }
        command
            .arg(lane)
            .arg(format!("{number:016x}"))
            .arg(now)
            .arg(self.expects.as_slice());
        for run in self.commands.chunk_by(|a, b| a.name == b.name) {
            let name = run.first().map_or("", |command| command.name);
            let mut fields = Vec::with_capacity(40 * run.len());
            for HashCommand { key, field, .. } in run {
                fields.extend(three_bytes(*key));
                fields.push(u8::try_from(field.len()).unwrap_or(0));
                fields.extend_from_slice(field);
            }
            command.arg(name).arg(run.len()).arg(fields);
            for value in run.iter().filter_map(|command| command.value.as_ref()) {
                command.arg(value.as_slice());
            }
        }
        let (removed, added) = (("ZREM", &self.removed), ("ZADD", &self.added));
        let once_more = self.probes.then_some(removed);
        for (name, sets) in [removed, added].into_iter().chain(once_more) {
            for (key, members) in sets {
                for members in members.chunks(GROUP) {
                    let mut packed = members.concat();
                    if self.probes && name == "ZREM" {
                        // What a refused probe of an earlier version has left.
                        packed.extend(b"probe");
                    }
                    command.arg(name).arg(members.len()).arg(*key).arg(packed);
                }
            }
        }
        for buckets in self.buckets.chunks(GROUP) {
            let offsets: Vec<u8> = buckets
                .iter()
                .flat_map(|bucket| three_bytes(*bucket as usize))
                .collect();
            command.arg("BITFIELD").arg(buckets.len()).arg(BUCKETS);
            command.arg(offsets).arg(u8::from(!self.probes));
        }
        command
    }
}

/// Where [`Change::new`] puts the key.
const BUCKETS: usize = 2;

/// Of a number below 2^24.
fn three_bytes(number: usize) -> impl Iterator<Item = u8> {
    let bytes = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    bytes.into_iter().skip(1)
}

fn unread(txid: &Txid) -> Error {
    corrupt(
        format!("the record of {txid}"),
        "it changes and was not read",
    )
}

/// What `changes` come to over what was read; or what has to be read for it. The digest may take as long as
/// the rest.
pub(crate) fn draw_up(
    keys: &Keys,
    token: Token,
    view: &View,
    changes: &Changes,
    digest: impl FnOnce() -> Option<MuHash3072>,
) -> Result<Result<Change, Reads>> {
    let mut change = Change::new(keys);
    let mut missing = Reads::new();
    change.expect_view(keys, view);
    let stored = |txid: &Txid| {
        let stored = view.records.get(txid).and_then(Option::as_ref);
        stored.ok_or_else(|| unread(txid))
    };
    for txid in &changes.deleted {
        let stored = stored(txid)?;
        if !stored.has_all_outputs() {
            missing.whole(*txid);
        }
        change.delete(keys, txid, stored);
    }
    let mut mains: BTreeMap<Txid, (&Stored, &Record, Vec<&RecordOutput>)> = BTreeMap::new();
    let mut chunks: BTreeMap<(Txid, u32), Vec<&RecordOutput>> = BTreeMap::new();
    for head in &changes.heads {
        let stored = stored(&head.txid)?;
        let outputs = stored.main.outputs.iter().collect();
        mains.insert(head.txid, (stored, head, outputs));
    }
    for (txid, slot) in &changes.slots {
        let stored = stored(txid)?;
        let outputs = match chunk_of(slot.vout) {
            0 => {
                let Main { head, outputs, .. } = &stored.main;
                let main = mains.entry(*txid);
                let main = main.or_insert_with(|| (stored, head, outputs.iter().collect()));
                &mut main.2
            }
            chunk => {
                let (_, outputs) = stored.chunks.get(&chunk).ok_or_else(|| unread(txid))?;
                chunks
                    .entry((*txid, chunk))
                    .or_insert_with(|| outputs.iter().collect())
            }
        };
        let place = outputs.iter_mut().find(|output| output.vout == slot.vout);
        *place.ok_or_else(|| unread(txid))? = slot;
    }
    for (txid, (stored, head, outputs)) in &mains {
        let inline = stored.inline.then_some(stored.body.as_ref()).flatten();
        let value = record::pack_main(token, head, inline, outputs.iter().copied());
        let bucket = change.bucket(keys, txid);
        change.set(bucket, chunk_field(txid, 0), value);
        let before = stored.main.head.unmined_since;
        if before != head.unmined_since {
            if let Some(since) = before {
                change.remove(keys.unmined(), unmined_member(txid, since));
            }
            if let Some(since) = head.unmined_since {
                change.add(keys.unmined(), unmined_member(txid, since));
            }
        }
    }
    for ((txid, chunk), outputs) in &chunks {
        let value = record::pack_chunk(token, *txid, outputs.iter().copied());
        let bucket = change.bucket(keys, txid);
        change.set(bucket, chunk_field(txid, *chunk), value);
    }
    for record in &changes.inserted {
        change.insert(keys, token, record);
    }
    for (height, txid) in &changes.expiring {
        change.add(keys.expiring(), height_member(*height, txid.as_bytes()));
    }
    if let Some((block, undo)) = &changes.undo {
        let field = block.as_bytes();
        if let Some(Some((_, before))) = view.undo.get(block) {
            change.unset(keys.undo(), field.to_vec());
            change.remove(keys.heights(), height_member(before.height, field));
        }
        if let Some(undo) = undo {
            let value = record::pack_undo(token, block, undo);
            change.set(keys.undo(), field.to_vec(), value);
            change.add(keys.heights(), height_member(undo.height, field));
        }
    }
    if let (Some(muhash), Some(chain)) = (digest(), &view.chain) {
        let tip = changes.tip.unwrap_or(chain.tip);
        change.chain(keys, token, tip.as_ref(), &muhash);
    }
    if missing.is_empty() {
        Ok(Ok(change))
    } else {
        Ok(Err(missing))
    }
}
