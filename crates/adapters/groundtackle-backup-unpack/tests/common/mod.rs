//! Repositories as the engine writes them, and what the set was at each block.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{
    BackUp, Entropy as _, MemoryTarget, ObjectKey, PutIf, Repository, SegmentWork, SigningKey,
    Source, SourceEnd, SystemClock, SystemEntropy, Target, Trust,
};
use groundtackle_backup_age::{AgeIdentities, AgeRecipients};
use groundtackle_backup_unpack::{At, Error, Hex, Identities};
use groundtackle_backup_utxo::{BaseSource, Journal, Journaled, SetBackup};
use groundtackle_core::Secret;
use groundtackle_utxo_store::pending::{MemoryCells, PendingConfig, PendingUtxoStore};
use groundtackle_utxo_store::{
    AlertStore, BlockHash, BlockStore, ChainBlock, MemoryUtxoStore, Reassignment, Script,
    SetReader, Tip, UtxoStore,
};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, out, script};
use groundtackle_utxo_store_testkit::mainnet;
use tempfile::TempDir;

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// It opens nothing but what these tests made.
pub(crate) fn identity() -> PathBuf {
    golden().join("throwaway-identity.txt")
}

pub(crate) fn secrets() -> AgeIdentities {
    let text = fs::read_to_string(identity()).unwrap();
    let secret = text.lines().find(|line| line.starts_with("AGE-")).unwrap();
    AgeIdentities::new([Secret::from(secret)]).unwrap()
}

/// The table of a store's coins, made here from what the store says.
pub(crate) async fn table(store: &dyn UtxoStore) -> String {
    let mut reader = SetReader::begin(store).await.unwrap();
    let mut coins = Vec::new();
    while let Some(page) = reader.next().await.unwrap() {
        coins.extend(page);
    }
    coins.sort_by_key(|coin| (*coin.outpoint.txid.as_bytes(), coin.outpoint.vout));
    let mut text = String::from("txid,vout,height,coinbase,value_sat,script_hex\n");
    for coin in coins {
        let txid = mainnet::reversed_hex(coin.outpoint.txid.as_bytes());
        let (vout, coinbase) = (coin.outpoint.vout, u8::from(coin.coinbase));
        let value = coin.output.value_sat;
        write!(text, "{txid},{vout},{},{coinbase},{value},", coin.height).unwrap();
        for byte in coin.output.script.as_bytes() {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
    }
    text
}

/// A repository, and the set at each block that was ever connected, as it was known last.
pub(crate) struct Scenario {
    pub(crate) target: MemoryTarget,
    pub(crate) trust: Hex<32>,
    pub(crate) seed: [u8; 32],
    pub(crate) sets: BTreeMap<BlockHash, (u32, String)>,
    /// By height, those of the chain.
    pub(crate) chain: BTreeMap<u32, BlockHash>,
}

struct Making {
    scenario: Scenario,
    repository: Repository,
    signer: SigningKey,
    recipients: AgeRecipients,
    store: Arc<Journaled<Arc<dyn UtxoStore>>>,
    journal: Journal,
    backup: SetBackup,
    _folder: TempDir,
}

/// Connects blocks before each segment.
#[derive(Debug)]
struct WhileBlocksCome {
    inner: BaseSource,
    store: Arc<Journaled<Arc<dyn UtxoStore>>>,
    blocks: std::vec::IntoIter<ChainBlock>,
}

#[async_trait]
impl Source for WhileBlocksCome {
    async fn next(&mut self) -> groundtackle_backup::Result<Option<SegmentWork>> {
        for block in self.blocks.by_ref().take(3) {
            self.store.connect_block(&block).await.unwrap().unwrap();
        }
        self.inner.next().await
    }

    async fn finish(&mut self) -> groundtackle_backup::Result<SourceEnd> {
        self.inner.finish().await
    }
}

impl Making {
    /// Begins with the set after these blocks.
    async fn new(inner: Arc<dyn UtxoStore>, before: &[ChainBlock]) -> Self {
        for block in before {
            inner.connect_block(block).await.unwrap().unwrap();
        }
        let target = MemoryTarget::new();
        let mut seed = [0; 32];
        SystemEntropy.fill(&mut seed).unwrap();
        let signer = SigningKey::from_seed(&seed);
        let shared = Arc::new(target.clone());
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let repository = Repository::init(shared, "main", &signer, clock, entropy);
        let folder = TempDir::new().unwrap();
        let store = Journaled::open(inner, folder.path()).await.unwrap();
        let store = Arc::new(store);
        let journal = Journal::open(folder.path()).unwrap();
        let scenario = Scenario {
            target,
            trust: Hex(signer.public().0),
            seed,
            sets: BTreeMap::new(),
            chain: BTreeMap::new(),
        };
        Self {
            scenario,
            repository: repository.await.unwrap(),
            signer,
            recipients: AgeRecipients::new(secrets().recipients()).unwrap(),
            backup: SetBackup::new(store.clone(), Some(journal.clone())),
            store,
            journal,
            _folder: folder,
        }
    }

    async fn note(&mut self) {
        let tip = self.store.tip().await.unwrap().unwrap();
        let table = table(&*self.store).await;
        self.scenario.sets.insert(tip.hash, (tip.height, table));
        self.scenario.chain.insert(tip.height, tip.hash);
    }

    async fn connect(&mut self, block: &ChainBlock) {
        self.store.connect_block(block).await.unwrap().unwrap();
        self.note().await;
    }

    fn how(&self) -> BackUp<'_> {
        BackUp {
            stream: "set",
            wrapping: &self.recipients,
            signer: &self.signer,
            workers: 2,
        }
    }

    /// Restore points are told apart by their time.
    async fn next_moment(&self) {
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }

    async fn back_up(&self) {
        self.next_moment().await;
        let how = self.how();
        let made = self.backup.back_up(&self.repository, &how);
        made.await.unwrap();
    }

    async fn back_up_base(&self) {
        self.next_moment().await;
        let how = self.how();
        let made = self.backup.back_up_base(&self.repository, &how);
        made.await.unwrap();
    }
}

/// Real blocks, bases at two heights, and what all blocks changed.
pub(crate) async fn chain(blocks: u32, every: u32, base_at: u32) -> Scenario {
    let blocks = &mainnet::blocks().await[..=blocks as usize];
    let mut making = Making::new(Arc::new(MemoryUtxoStore::new()), &[]).await;
    for block in blocks {
        making.connect(block).await;
        if block.height == base_at {
            making.back_up_base().await;
        } else if block.height % every == 0 {
            making.back_up().await;
        }
    }
    making.back_up().await;
    making.scenario
}

/// A base that is read while blocks come, a reorganisation, and a coin that is reassigned, which begins another epoch.
pub(crate) async fn branches(taken_back: usize) -> Scenario {
    let real = mainnet::blocks().await;
    let store = PendingUtxoStore::new(MemoryCells::new(), PendingConfig::default());
    let mut making = Making::new(Arc::new(store), &real[..=101]).await;
    let coming = real[102..=107].to_vec();
    let inner = BaseSource::begin(making.store.clone(), Some(making.journal.clone())).await;
    let mut source = WhileBlocksCome {
        inner: inner.unwrap().with_segment_bytes(4_000),
        store: making.store.clone(),
        blocks: coming.clone().into_iter(),
    };
    let how = making.how();
    let base = making.repository.back_up(&mut source, &how);
    let base = base.await.unwrap();
    let blocks = base.content.blocks().len();
    assert!(blocks >= 3, "{blocks}");
    // What the sets were meanwhile, by taking the blocks back.
    let tip = making.store.tip().await.unwrap().unwrap().height;
    for block in coming.iter().rev().filter(|block| block.height <= tip) {
        making.note().await;
        let back = making.store.disconnect_block(&block.hash, &block.previous);
        back.await.unwrap().unwrap();
    }
    let last = 107 + taken_back;
    for block in &real[102..=last] {
        making.connect(block).await;
        if block.height == 109 {
            making.back_up().await;
        }
    }
    making.back_up().await;
    for block in real[108..=last].iter().rev() {
        let back = making.store.disconnect_block(&block.hash, &block.previous);
        back.await.unwrap().unwrap();
        making.scenario.chain.remove(&block.height);
    }
    // Each spends what is old enough, and from the second on also what the one before it made.
    let mut made = None;
    let mut branch = |tip: Tip| {
        let height = tip.height + 1;
        let old = out(&real[height as usize - 105].transactions[0], 0);
        let mut spender = TxBuilder::new(height.into()).spend(old).pay_each(3, 9);
        if let Some(made) = made {
            spender = spender.spend(made);
        }
        if height.is_multiple_of(4) {
            spender = spender.pay_to(7, Script::from_bytes(vec![0x51; 300]));
        }
        let spender = spender.build();
        made = Some(out(&spender, 1));
        let block = BlockBuilder::after(Some(tip)).branch(7);
        block.with(&[&spender]).build()
    };
    for number in 0..taken_back + 2 {
        let block = branch(making.store.tip().await.unwrap().unwrap());
        making.connect(&block).await;
        if number == 4 {
            making.back_up().await;
        }
    }
    making.back_up().await;

    let coin = out(&real[60].transactions[0], 0);
    making.store.freeze(&[coin]).await.unwrap();
    let reassigned = Reassignment {
        outpoint: coin,
        script: script(77),
        spendable_from: 10,
    };
    for outcome in making.store.reassign(&[reassigned]).await.unwrap() {
        outcome.unwrap();
    }
    making.note().await;
    making.back_up().await;
    for _ in 0..3 {
        let block = branch(making.store.tip().await.unwrap().unwrap());
        making.connect(&block).await;
    }
    making.back_up().await;
    making.scenario
}

/// All objects.
pub(crate) async fn objects(target: &MemoryTarget) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    for info in target.list("", None, usize::MAX).await.unwrap().objects {
        let body = target.read(&info.key, 0..info.bytes).await.unwrap();
        objects.push((info.key.to_string(), body.unwrap().to_vec()));
    }
    objects
}

pub(crate) fn write(objects: &[(String, Vec<u8>)], folder: &Path) {
    for (key, body) in objects {
        let path = folder.join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }
}

/// All objects in a folder.
pub(crate) fn read(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = path.strip_prefix(folder).unwrap().to_str().unwrap();
                objects.push((key.replace('\\', "/"), fs::read(&path).unwrap()));
            }
        }
    }
    objects.sort();
    objects
}

pub(crate) async fn target_of(objects: &[(String, Vec<u8>)]) -> MemoryTarget {
    let target = MemoryTarget::new();
    for (key, body) in objects {
        let key = ObjectKey::try_from(key.as_str()).unwrap();
        let put = target.put(&key, body.clone().into(), &PutIf::Absent, None);
        put.await.unwrap().unwrap();
    }
    target
}

/// What the unpacker makes of it; nothing is left behind.
pub(crate) fn unpack(folder: &Path, trust: Hex<32>, at: At) -> Result<String, Error> {
    let place = TempDir::new().unwrap();
    let out = place.path().join("coins.csv");
    let identities = Identities::read(&identity()).unwrap();
    let repository = groundtackle_backup_unpack::Repository::open(folder, &[trust]);
    let done = repository.and_then(|repository| repository.unpack(None, at, &identities, &out));
    let left = fs::read_dir(place.path()).unwrap().count();
    assert_eq!(left, usize::from(done.is_ok()));
    done.map(|(_, set)| {
        let table = fs::read_to_string(out).unwrap();
        assert_eq!(table.lines().count() as u64, set.coins + 1);
        table
    })
}

/// What the engine makes of it.
pub(crate) async fn restore(
    objects: &[(String, Vec<u8>)],
    trust: Hex<32>,
    at: At,
) -> groundtackle_backup::Result<String> {
    let target = Arc::new(target_of(objects).await);
    let trust = Trust::new([groundtackle_backup::Hex(trust.0)]).unwrap();
    let repository = Repository::open(target, trust).await?;
    let at = match at {
        At::Latest => groundtackle_backup::At::Latest,
        At::Height(height) => groundtackle_backup::At::Height(height),
        At::Block(hash) => groundtackle_backup::At::Block(groundtackle_backup::Hex(hash.0)),
    };
    let points = repository.points().await?;
    assert!(points.unusable.is_empty());
    let plan = points.plan("set", at)?;
    let store = Arc::new(MemoryUtxoStore::new());
    let mut sink = groundtackle_backup_utxo::StoreSink::new(store.clone());
    let restored = repository.restore(&plan, &secrets(), &mut sink, 1).await?;
    assert!(restored.passed_over.is_empty(), "{restored:?}");
    Ok(table(&*store).await)
}
