//! Real blocks through journal, backups and restores.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use groundtackle_backup::{
    At, BackUp, Content, Error, Goal, Hex, Manifest, MemoryTarget, ObjectKey, Pack, Plan, PutIf,
    Repository, Result, Retryability, SegmentWork, SigningKey, Source, SourceEnd, SystemClock,
    SystemEntropy, Target, Trust,
};
use groundtackle_backup_testkit::{Call, Faulty};
use groundtackle_backup_utxo::{BaseSource, Journal, Journaled, Made, SetBackup, StoreSink, fold};
use groundtackle_utxo_store::pending::{MemoryCells, PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::{
    AlertStore, BlockStore, ChainBlock, MemoryUtxoStore, Reassignment, ScanStore, SpendStore,
    UtxoStore, UtxoStoreExt, unfinished_copy,
};
use groundtackle_utxo_store_embedded::{EmbeddedUtxoStore, EmbeddedUtxoStoreConfig};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, out, script, tip_of};
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

mod common;

use common::{Open, assert_is, connect, synced};

struct Place {
    target: Arc<MemoryTarget>,
    repository: Repository,
    signer: SigningKey,
}

impl Place {
    async fn new() -> Self {
        let target = Arc::new(MemoryTarget::new());
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        Repository::init(target.clone(), "main", &signer, clock, entropy)
            .await
            .unwrap();
        let trust = Trust::new([signer.public()]).unwrap();
        Self {
            repository: Repository::open(target.clone(), trust).await.unwrap(),
            target,
            signer,
        }
    }

    async fn exchange(&self, key: &ObjectKey, body: Bytes) {
        self.target.remove(key).await.unwrap().unwrap();
        let put = self.target.put(key, body, &PutIf::Absent, None);
        put.await.unwrap().unwrap();
    }

    const fn how(&self) -> BackUp<'_> {
        BackUp {
            stream: "set",
            wrapping: &Open,
            signer: &self.signer,
            workers: 2,
        }
    }

    async fn back_up(&self, backup: &SetBackup) -> Made {
        backup.back_up(&self.repository, &self.how()).await.unwrap()
    }

    async fn points(&self) -> Vec<Manifest> {
        let points = self.repository.points().await.unwrap();
        assert!(points.unusable.is_empty());
        points.usable
    }

    async fn restore(&self, at: At, into: Arc<dyn UtxoStore>) -> Result<Goal> {
        let plan = Plan::find(&self.points().await, "set", at)?;
        let mut sink = StoreSink::new(into);
        let restored = self.repository.restore(&plan, &Open, &mut sink, 2);
        restored.await.map(|restored| restored.goal)
    }
}

type Journals = Arc<Journaled<Arc<dyn UtxoStore>>>;

async fn journaled(store: Arc<dyn UtxoStore>, folder: &Path) -> (Journals, SetBackup) {
    let journaled = Arc::new(Journaled::open(store, folder).await.unwrap());
    let journal = Journal::open(folder).unwrap();
    let backup = SetBackup::new(journaled.clone(), Some(journal));
    (journaled, backup)
}

fn embedded(folder: &Path) -> EmbeddedUtxoStore {
    EmbeddedUtxoStore::open(folder.join("store"), EmbeddedUtxoStoreConfig::default()).unwrap()
}

/// Where the journal does not reach, no manifest is read a second time.
#[tokio::test(flavor = "multi_thread")]
async fn restore_points_are_listed_once_for_a_base() {
    let blocks = mainnet::blocks().await;
    let mut lists = Vec::new();
    for by_itself in [true, false] {
        let (folder, memory) = (TempDir::new().unwrap(), MemoryTarget::new());
        let target = Faulty::new(memory.clone(), 1);
        let inner: Arc<dyn UtxoStore> = Arc::new(embedded(folder.path()));
        let (store, backup) = journaled(inner, &folder.path().join("journal")).await;
        let signer = SigningKey::random(&SystemEntropy).unwrap();
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let shared = Arc::new(target.clone());
        let repository = Repository::init(shared, "main", &signer, clock, entropy);
        let place = Place {
            target: Arc::new(memory),
            repository: repository.await.unwrap(),
            signer,
        };
        for block in &blocks[..3] {
            connect(&*store, block).await;
        }
        let before = target.calls(Call::List);
        if by_itself {
            let made = place.back_up(&backup).await;
            assert!(matches!(made, Made::Base(_)), "{made:?}");
        } else {
            let how = place.how();
            let made = backup.back_up_base(&place.repository, &how);
            made.await.unwrap();
        }
        lists.push(target.calls(Call::List) - before);
    }
    assert_eq!(lists[0], lists[1]);
    assert!(lists[0] > 0);
}

/// Fifty heights of the real chain, and both its ends, from bases and deltas of uneven lengths; into memory and into an
/// embedded store.
#[tokio::test(flavor = "multi_thread")]
async fn any_height_of_the_real_chain_restores() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let inner: Arc<dyn UtxoStore> = Arc::new(embedded(folder.path()));
    let (store, backup) = journaled(inner, &folder.path().join("journal")).await;
    let place = Place::new().await;
    let (mut bases, mut deltas) = (0, 0);
    for block in &blocks {
        connect(&*store, block).await;
        let height = block.height;
        if height == 300 {
            let how = place.how();
            backup.back_up_base(&place.repository, &how).await.unwrap();
            bases += 1;
        } else if height.is_multiple_of(37) || height == 599 {
            match place.back_up(&backup).await {
                Made::Base(_) => bases += 1,
                Made::Delta(_) => deltas += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(matches!(place.back_up(&backup).await, Made::Nothing));
    assert_eq!((bases, deltas), (2, 17));

    let mut seed = 3_u64;
    let mut heights = vec![0, 599];
    while heights.len() < 52 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        heights.push((seed >> 33) as u32 % 600);
    }
    for height in heights {
        let into = Arc::new(MemoryUtxoStore::new());
        let goal = place
            .restore(At::Height(height), into.clone())
            .await
            .unwrap();
        assert_eq!(goal.position.height, height);
        assert_is(&*into, &digests[&height]).await;
        let folder = TempDir::new().unwrap();
        let into = Arc::new(embedded(folder.path()));
        place
            .restore(At::Height(height), into.clone())
            .await
            .unwrap();
        assert_is(&*into, &digests[&height]).await;
        // And it goes on from there.
        if let Some(next) = blocks.get(height as usize + 1) {
            connect(&*into, next).await;
            assert_is(&*into, &digests[&(height + 1)]).await;
        }
    }
    for answer in mainnet::ANSWERS {
        let into = Arc::new(MemoryUtxoStore::new());
        place
            .restore(At::Height(answer.height), into.clone())
            .await
            .unwrap();
        answer.check(&into.statistics(Default::default()).await.unwrap());
    }
}

/// Twenty blocks are taken back, and another branch is connected, in the middle of restore points.
#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_leaves_the_chain_and_the_branch() {
    let (blocks, mut digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let inner: Arc<dyn UtxoStore> = Arc::new(MemoryUtxoStore::new());
    let (store, backup) = journaled(inner, folder.path()).await;
    let place = Place::new().await;
    for block in &blocks {
        connect(&*store, block).await;
        if block.height % 50 == 49 {
            place.back_up(&backup).await;
        }
    }
    let abandoned = digests.clone();
    for block in blocks[580..].iter().rev() {
        let back = store.disconnect_block(&block.hash, &block.previous).await;
        back.unwrap().unwrap();
    }
    let mut coin = None;
    let mut hashes = BTreeMap::new();
    for height in 580..610_u32 {
        let tip = store.tip().await.unwrap();
        let mut block = BlockBuilder::after(tip).branch(7);
        if let Some(coin) = coin {
            let spender = TxBuilder::new(u64::from(height))
                .spend(coin)
                .pay_each(3, 9)
                .build();
            block = block.with(&[&spender]);
        }
        let block = block.build();
        connect(&*store, &block).await;
        // Its own coinbase is too young; one of the real chain is not.
        coin = (height < 609).then(|| out(&blocks[height as usize - 500].transactions[0], 0));
        digests.insert(height, store.digest().await.unwrap());
        hashes.insert(height, tip_of(&block));
        if height == 590 {
            let made = place.back_up(&backup).await;
            assert!(matches!(made, Made::Delta(_)), "{made:?}");
        }
    }
    let made = place.back_up(&backup).await;
    assert!(matches!(made, Made::Delta(_)), "{made:?}");
    for height in [49, 50, 300, 579, 580, 585, 590, 591, 599, 600, 609] {
        let into = Arc::new(MemoryUtxoStore::new());
        let goal = place
            .restore(At::Height(height), into.clone())
            .await
            .unwrap();
        if let Some(tip) = hashes.get(&height) {
            assert_eq!(goal.position.hash, Hex(*tip.hash.as_bytes()));
        }
        assert_is(&*into, &digests[&height]).await;
    }
    for height in [580, 590, 599_u32] {
        let into = Arc::new(MemoryUtxoStore::new());
        let hash = Hex(*blocks[height as usize].hash.as_bytes());
        place.restore(At::Block(hash), into.clone()).await.unwrap();
        assert_is(&*into, &abandoned[&height]).await;
    }
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &store.digest().await.unwrap()).await;
}

/// A store that went back to an earlier restore point's block: that is the latest then.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_went_back_is_the_latest() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let place = Place::new().await;
    for block in &blocks[..20] {
        connect(&*store, block).await;
        if matches!(block.height, 10 | 19) {
            place.back_up(&backup).await;
        }
    }
    for block in blocks[11..20].iter().rev() {
        let back = store.disconnect_block(&block.hash, &block.previous).await;
        back.unwrap().unwrap();
    }
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    assert!(matches!(place.back_up(&backup).await, Made::Nothing));
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &digests[&10]).await;
}

/// What a restore has to keep in memory does not grow for ever; and the deltas before a base and after it stay linked.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_base_comes_now_and_then() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let backup = backup.with_base_after(25);
    let place = Place::new().await;
    let mut made = String::new();
    for block in &blocks[..100] {
        connect(&*store, block).await;
        if block.height % 10 == 9 {
            made.push(match place.back_up(&backup).await {
                Made::Base(_) => 'B',
                Made::Delta(_) => 'd',
                other => panic!("{other:?}"),
            });
        }
    }
    // A block of this time makes one coin; the first delta after a base goes on from the last delta before it.
    assert_eq!(made, "BdddBddBdd");
    let points = place.points().await;
    let bases = points
        .iter()
        .filter(|point| matches!(point.content, Content::Base { .. }));
    for base in bases.map(|base| base.point).collect::<Vec<_>>() {
        let others: Vec<_> = points
            .iter()
            .filter(|point| point.point == base || matches!(point.content, Content::Delta { .. }))
            .cloned()
            .collect();
        let hash = digests[&99].tip.unwrap().hash;
        let plan = Plan::find(&others, "set", At::Block(Hex(*hash.as_bytes()))).unwrap();
        assert_eq!(plan.base.point, base);
    }
}

/// What fills a store is what it must be, or the store says that it is unfinished; and only an empty one is filled.
#[tokio::test(flavor = "multi_thread")]
async fn restores_are_whole_or_unfinished() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let place = Place::new().await;
    for block in &blocks[..200] {
        connect(&*store, block).await;
    }
    let made = place.back_up(&backup).await;
    let Made::Base(manifest) = made else {
        panic!("{made:?}");
    };
    assert!(matches!(manifest.content, Content::Base { .. }));
    // The store to fill loses what it is told: the digest says so.
    let into = Arc::new(MemoryUtxoStore::new());
    let plan = Plan::find(&place.points().await, "set", At::Latest).unwrap();
    let mut forged = plan.clone();
    forged.set.coins += 1;
    let mut sink = StoreSink::new(into.clone());
    let restored = place.repository.restore(&forged, &Open, &mut sink, 1).await;
    assert!(matches!(
        restored,
        Err(groundtackle_backup::Error::Differs { .. })
    ));
    assert_eq!(into.tip().await.unwrap(), None);
    let unfinished = unfinished_copy(&*into).await.unwrap();
    assert_eq!(unfinished, Some((digests[&199].tip.unwrap().hash, 199)));
    // The same restore finishes it.
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &digests[&199]).await;
    let error = place.restore(At::Latest, into.clone()).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("not empty"), "{source}");
    assert_is(&*into, &digests[&199]).await;
}

/// Connects a block before each segment.
#[derive(Debug)]
struct WhileBlocksCome {
    inner: BaseSource,
    store: Journals,
    blocks: std::vec::IntoIter<ChainBlock>,
    connected: u32,
}

#[async_trait]
impl Source for WhileBlocksCome {
    async fn next(&mut self) -> Result<Option<SegmentWork>> {
        if let Some(block) = self.blocks.next() {
            connect(&*self.store, &block).await;
            self.connected += 1;
        }
        self.inner.next().await
    }

    async fn finish(&mut self) -> Result<SourceEnd> {
        self.inner.finish().await
    }
}

/// A store of single records, whose scans are no snapshots: each block takes outputs of all ages, also of the block
/// before, and makes some.
#[tokio::test(flavor = "multi_thread")]
async fn a_base_read_while_blocks_come_is_exact() {
    let real = mainnet::blocks().await;
    for seed in 0..2_u64 {
        let folder = TempDir::new().unwrap();
        let inner = PendingUtxoStore::new(MemoryCells::new(), PendingConfig::default());
        assert!(!inner.capabilities().snapshot_scan);
        let (store, backup) = journaled(Arc::new(inner), folder.path()).await;
        let mut random = seed + 1;
        let mut unspent = Vec::new();
        let mut blocks = real.clone();
        let spent = |txid| {
            let inputs = real.iter().flat_map(|block| &block.transactions);
            inputs
                .flat_map(|tx| &tx.inputs)
                .any(|input| input.txid == txid)
        };
        let mut olds = real[1..500]
            .iter()
            .filter(|block| !spent(block.transactions[0].txid));
        for height in 600..660_u64 {
            let mut transactions = Vec::new();
            for number in 0..8 {
                // One of the real chain that is old enough and that nobody spent, and others of any age.
                let old = olds.next().unwrap();
                let tag = height * 100 + number as u64;
                let mut tx = TxBuilder::new(tag)
                    .pay_each(40, 7)
                    .spend(out(&old.transactions[0], 0));
                for _ in 0..unspent.len().min(10) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    tx = tx.spend(unspent.swap_remove((random >> 33) as usize % unspent.len()));
                }
                transactions.push(tx.build());
            }
            for tx in &transactions {
                unspent.extend((0..40).map(|vout| out(tx, vout)));
            }
            let tip = blocks.last().map(tip_of);
            let all: Vec<_> = transactions.iter().collect();
            blocks.push(BlockBuilder::after(tip).with(&all).build());
        }
        let mut digests = BTreeMap::new();
        let reference = MemoryUtxoStore::new();
        for block in &blocks {
            connect(&reference, block).await;
            digests.insert(block.height, reference.digest().await.unwrap());
        }
        for block in &blocks[..630] {
            connect(&*store, block).await;
        }
        let place = Place::new().await;
        let inner = BaseSource::begin(store.clone(), Some(Journal::open(folder.path()).unwrap()));
        let coming = blocks[630..650].to_vec();
        let mut source = WhileBlocksCome {
            inner: inner.await.unwrap().with_segment_bytes(60_000),
            store: store.clone(),
            blocks: coming.into_iter(),
            connected: 0,
        };
        let made = place
            .repository
            .back_up(&mut source, &place.how())
            .await
            .unwrap();
        let Content::Base {
            position, during, ..
        } = &made.content
        else {
            panic!("{:?}", made.content);
        };
        // Some while it was read.
        assert!(during.len() >= 2, "{}", during.len());
        let first = 629 + source.connected;
        let position = *position;
        assert!(position.height <= first, "{position:?}");
        for block in &blocks[630 + source.connected as usize..] {
            connect(&*store, block).await;
        }
        let delta = place.back_up(&backup).await;
        assert!(matches!(delta, Made::Delta(_)), "{delta:?}");
        for height in ((position.height - 3)..660).step_by(3) {
            let into = Arc::new(MemoryUtxoStore::new());
            place
                .restore(At::Height(height), into.clone())
                .await
                .unwrap();
            assert_is(&*into, &digests[&height]).await;
        }
    }
}

/// What changes the set past the blocks ends the epoch: a base that was being read is not listed, the next backup is a base,
/// and what was before stays reachable.
#[tokio::test(flavor = "multi_thread")]
async fn what_blocks_do_not_show_begins_anew() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let place = Place::new().await;
    for block in &blocks[..150] {
        connect(&*store, block).await;
        if block.height % 50 == 49 {
            place.back_up(&backup).await;
        }
    }
    let journal = Journal::open(folder.path()).unwrap();
    let mut source = BaseSource::begin(store.clone(), Some(journal))
        .await
        .unwrap();
    let coin = out(&blocks[20].transactions[0], 0);
    store.freeze(&[coin]).await.unwrap();
    let reassigned = Reassignment {
        outpoint: coin,
        script: script(77),
        spendable_from: 10,
    };
    for outcome in store.reassign(&[reassigned]).await.unwrap() {
        outcome.unwrap();
    }
    let error = place
        .repository
        .back_up(&mut source, &place.how())
        .await
        .unwrap_err();
    assert_eq!(error.retryability(), Retryability::Transient, "{error:?}");
    let points = place.points().await.len();
    let after = store.digest().await.unwrap();
    assert_ne!(after.muhash, digests[&149].muhash);
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    assert_eq!(place.points().await.len(), points + 1);
    for block in &blocks[150..160] {
        connect(&*store, block).await;
    }
    assert!(matches!(place.back_up(&backup).await, Made::Delta(_)));
    for height in [49, 80, 148, 149, 159_u32] {
        let into = Arc::new(MemoryUtxoStore::new());
        place
            .restore(At::Height(height), into.clone())
            .await
            .unwrap();
        let wanted = match height {
            149 => after,
            159 => store.digest().await.unwrap(),
            _ => digests[&height],
        };
        assert_is(&*into, &wanted).await;
    }
}

/// A change that went past the journal is no block and ends no epoch: the digest tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_past_the_journal_is_noticed() {
    let (blocks, _) = synced().await;
    let folder = TempDir::new().unwrap();
    let inner = Arc::new(embedded(folder.path()));
    let (store, backup) = journaled(inner.clone(), &folder.path().join("journal")).await;
    let place = Place::new().await;
    for block in &blocks[..50] {
        connect(&*store, block).await;
    }
    place.back_up(&backup).await;
    let coin = out(&blocks[20].transactions[0], 0);
    let reassigned = Reassignment {
        outpoint: coin,
        script: script(77),
        spendable_from: 10,
    };
    inner.freeze(&[coin]).await.unwrap();
    inner
        .reassign(&[reassigned])
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let error = backup
        .back_up(&place.repository, &place.how())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("past the journal"), "{error}");
    connect(&*store, &blocks[50]).await;
    let error = backup
        .back_up(&place.repository, &place.how())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("past the journal"), "{error}");
    assert_eq!(place.points().await.len(), 1);
    // As the message says.
    drop((store, backup));
    let another = TempDir::new().unwrap();
    let (store, backup) = journaled(inner, another.path()).await;
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &store.digest().await.unwrap()).await;
}

/// Without a journal each backup is a base, and one that was made while blocks came is refused.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_there_are_bases() {
    let (blocks, digests) = synced().await;
    let place = Place::new().await;
    let store = Arc::new(PendingUtxoStore::new(
        MemoryCells::new(),
        PendingConfig::default(),
    ));
    let backup = SetBackup::new(store.clone(), None);
    for block in &blocks[..20] {
        connect(&*store, block).await;
    }
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    let mut source = BaseSource::begin(store.clone(), None).await.unwrap();
    connect(&*store, &blocks[20]).await;
    let error = place
        .repository
        .back_up(&mut source, &place.how())
        .await
        .unwrap_err();
    let reason = std::error::Error::source(&error).unwrap().to_string();
    assert!(reason.contains("moved on"), "{reason}");
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &digests[&19]).await;
}

/// Between a block's connection and its delta a backup waits; without it, the block would have cost a new base.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_under_way_is_waited_for() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let journal = folder.path().join("journal");
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), &journal).await;
    let place = Place::new().await;
    for block in &blocks[..10] {
        connect(&*store, block).await;
    }
    assert!(matches!(place.back_up(&backup).await, Made::Base(_)));
    connect(&*store, &blocks[10]).await;
    // As the writer leaves it in the middle: its intent is there, the delta is not.
    let name = format!("{:010}-", 10);
    let entries = std::fs::read_dir(&journal).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let delta = paths.find(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(&name)
    });
    let (delta, aside, intent) = (
        delta.unwrap(),
        folder.path().join("aside"),
        journal.join("intent"),
    );
    std::fs::rename(&delta, &aside).unwrap();
    std::fs::write(&intent, "").unwrap();
    let writer = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        std::fs::rename(&aside, &delta).unwrap();
        std::fs::remove_file(&intent).unwrap();
    };
    let (made, ()) = tokio::join!(place.back_up(&backup), writer);
    let Made::Delta(manifest) = made else {
        panic!("{made:?}");
    };
    assert_eq!(manifest.content.position().unwrap().height, 10);
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &digests[&10]).await;
}

/// The set of the latest block, written as a base from what lies in the repository; and the node goes on as if nothing
/// had happened, without a base of its own.
#[tokio::test(flavor = "multi_thread")]
async fn restore_points_are_folded_without_the_store() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    // A fold is a base, so no other one is due.
    let backup = backup.with_base_after(150);
    let place = Place::new().await;
    let fold = async || fold(&place.repository, &Open, &place.how()).await.unwrap();
    let mut bases = 0;
    for block in &blocks[..301] {
        connect(&*store, block).await;
        if !block.height.is_multiple_of(20) {
            continue;
        }
        match place.back_up(&backup).await {
            Made::Base(_) => bases += 1,
            Made::Delta(delta) if block.height % 100 == 60 => {
                let folded = fold().await.unwrap();
                assert!(folded.passed_over.is_empty());
                let base = folded.base;
                assert_eq!(base.created_unix_millis, delta.created_unix_millis);
                assert_eq!(base.content.position(), delta.content.position());
                assert_eq!(base.content.set(), delta.content.set());
                let muhash = |point: &Manifest| point.content.set().unwrap().muhash.0;
                assert_eq!(muhash(&base), digests[&block.height].muhash);
                let plan = Plan::find(&place.points().await, "set", At::Latest).unwrap();
                assert_eq!((plan.base.point, plan.steps.len()), (base.point, 0));
                // There is nothing left to fold, nor to back up.
                assert!(fold().await.is_none());
                assert!(matches!(place.back_up(&backup).await, Made::Nothing));
            }
            _ => {}
        }
    }
    assert_eq!(bases, 1);
    for height in (0..=300).step_by(7).chain([160, 260, 300]) {
        let into = Arc::new(MemoryUtxoStore::new());
        place
            .restore(At::Height(height), into.clone())
            .await
            .unwrap();
        assert_is(&*into, &digests[&height]).await;
    }
    let into = Arc::new(MemoryUtxoStore::new());
    place.restore(At::Latest, into.clone()).await.unwrap();
    assert_is(&*into, &digests[&300]).await;
}

/// Rolled up and folded, and only what is needed for the latest is left.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_rolled_up_is_read_as_before() {
    let (blocks, digests) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let place = Place::new().await;
    for block in &blocks[..100] {
        connect(&*store, block).await;
        place.back_up(&backup).await;
    }
    for window in [10, 40] {
        let window = NonZeroU32::new(window).unwrap();
        let made = place
            .repository
            .roll_up(window, &Open, &place.how())
            .await
            .unwrap();
        assert!(!made.is_empty());
    }
    let plan = Plan::find(&place.points().await, "set", At::Latest).unwrap();
    assert_eq!(plan.points().len(), 1 + 2 + 1 + 10);
    for (height, digest) in digests.range(..100) {
        let into = Arc::new(MemoryUtxoStore::new());
        place
            .restore(At::Height(*height), into.clone())
            .await
            .unwrap();
        assert_is(&*into, digest).await;
    }
    assert!(matches!(place.back_up(&backup).await, Made::Nothing));
    connect(&*store, &blocks[100]).await;
    assert!(matches!(place.back_up(&backup).await, Made::Delta(_)));
}

/// What is damaged makes no base.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_read_is_not_folded() {
    let (blocks, _) = synced().await;
    let folder = TempDir::new().unwrap();
    let (store, backup) = journaled(Arc::new(MemoryUtxoStore::new()), folder.path()).await;
    let place = Place::new().await;
    for block in &blocks[..30] {
        connect(&*store, block).await;
        if matches!(block.height, 20 | 29) {
            place.back_up(&backup).await;
        }
    }
    let points = place.points().await;
    assert_eq!(points.len(), 2);
    for point in &points {
        let pack = Pack::key(&point.packs[0].id).unwrap();
        let length = point.packs[0].bytes;
        let whole = place.target.read(&pack, 0..length).await.unwrap().unwrap();
        let mut damaged = whole.to_vec();
        damaged[40] ^= 1;
        place.exchange(&pack, damaged.into()).await;
        let folded = fold(&place.repository, &Open, &place.how()).await;
        assert!(matches!(folded, Err(Error::Corrupt { .. })), "{folded:?}");
        assert_eq!(place.points().await, points);
        place.exchange(&pack, whole).await;
    }
    let folded = fold(&place.repository, &Open, &place.how()).await;
    assert!(folded.unwrap().is_some());
    assert_eq!(place.points().await.len(), 3);
}
