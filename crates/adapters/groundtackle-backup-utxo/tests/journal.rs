//! What is journaled, what leads where, and what is refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test asserts"
)]

use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use groundtackle_backup_utxo::delta::Delta;
use groundtackle_backup_utxo::{Epoch, Journal, JournalError, Journaled};
use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{
    AlertStore, Applied, BlockHash, BlockStore, ChainBlock, Coin, ConflictStore, Error,
    LongestChain, MaintenanceStore, MemoryUtxoStore, MinedIn, NewRecord, OutPoint, Reassignment,
    Result, RetentionStore, Retryability, ScanStore, SpendOptions, SpendStore, Tip, UtxoStore,
    forward_store,
};
use groundtackle_utxo_store_testkit::builder::{BlockBuilder, TxBuilder, out, script, tip_of};
use groundtackle_utxo_store_testkit::mainnet::{self, ANSWERS, reversed_hex};
use tempfile::TempDir;

struct Subject<S = MemoryUtxoStore> {
    store: Journaled<S>,
    journal: Journal,
    folder: TempDir,
}

impl<S: UtxoStore> Subject<S> {
    async fn around(inner: S) -> Self {
        let folder = TempDir::new().unwrap();
        let store = Journaled::open(inner, folder.path()).await.unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        Self {
            store,
            journal,
            folder,
        }
    }

    fn epoch(&self) -> Epoch {
        self.journal.epoch().unwrap().expect("no call is under way")
    }

    async fn tip(&self) -> Tip {
        self.store.tip().await.unwrap().unwrap()
    }

    async fn connect(&self, block: &ChainBlock) {
        self.store.connect_block(block).await.unwrap().unwrap();
    }

    async fn disconnect(&self, block: &ChainBlock) {
        let disconnected = self.store.disconnect_block(&block.hash, &block.previous);
        disconnected.await.unwrap().unwrap();
    }

    /// Connects the block that these builders make of the tip.
    async fn next(&self, with: impl FnOnce(BlockBuilder) -> BlockBuilder) -> ChainBlock {
        let tip = self.store.tip().await.unwrap();
        let block = with(BlockBuilder::after(tip)).build();
        self.connect(&block).await;
        block
    }

    fn deltas(&self, from: BlockHash, to: BlockHash) -> Option<Vec<Delta>> {
        let chain = self.journal.chain(self.epoch(), from, to).unwrap()?;
        Some(chain.map(|delta| delta.unwrap()).collect())
    }

    /// The journal leads from an empty set to the store's.
    async fn check(&self) {
        let digest = self.store.digest().await.unwrap();
        let deltas = self
            .deltas(BlockHash::ZERO, digest.tip.unwrap().hash)
            .expect("no gap");
        let mut chained = MuHash3072::new();
        for delta in &deltas {
            delta.forwards(&mut chained);
        }
        assert_eq!(chained.digest(), digest.muhash);
    }
}

async fn subject() -> Subject {
    Subject::around(MemoryUtxoStore::new()).await
}

fn delta_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "delta"))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_chain_leads_to_every_known_set() {
    let subject = subject().await;
    let blocks = mainnet::blocks().await;
    for block in &blocks {
        subject.connect(block).await;
    }
    for answer in ANSWERS {
        let to = blocks[answer.height as usize].hash;
        let mut digest = MuHash3072::new();
        for delta in subject.deltas(BlockHash::ZERO, to).unwrap() {
            delta.forwards(&mut digest);
        }
        assert_eq!(
            reversed_hex(&digest.digest()),
            answer.muhash,
            "{}",
            answer.height
        );
    }
    let part = subject.deltas(blocks[100].hash, blocks[599].hash).unwrap();
    let heights: Vec<_> = part.iter().map(|delta| delta.tip.height).collect();
    assert_eq!(heights, (101..600).collect::<Vec<_>>());
    assert_eq!(part[0].previous, blocks[100].hash);
    assert_eq!(subject.deltas(blocks[5].hash, blocks[5].hash), Some(vec![]));
    // Backwards there is no chain.
    assert_eq!(subject.deltas(blocks[6].hash, blocks[5].hash), None);
    assert_eq!(
        subject.deltas(BlockHash::ZERO, BlockHash::from_bytes([1; 32])),
        None
    );
    subject.check().await;
}

#[tokio::test]
async fn what_a_reorganisation_left_is_never_taken() {
    let subject = subject().await;
    for _ in 0..30 {
        subject.next(|block| block).await;
    }
    let fork = subject.tip().await;
    let mut left = Vec::new();
    for _ in 0..20 {
        left.push(subject.next(|block| block).await);
    }
    for block in left.iter().rev() {
        subject.disconnect(block).await;
    }
    let mut taken = Vec::new();
    for _ in 0..21 {
        taken.push(subject.next(|block| block.branch(1)).await.hash);
    }
    let tip = subject.tip().await;
    let deltas = subject.deltas(fork.hash, tip.hash).unwrap();
    let hashes: Vec<_> = deltas.iter().map(|delta| delta.tip.hash).collect();
    assert_eq!(hashes, taken);
    subject.check().await;
    // A restore point on the branch that was left leads nowhere: back first, and then on.
    assert_eq!(subject.deltas(left[3].hash, tip.hash), None);
    assert_eq!(subject.deltas(fork.hash, left[3].hash).unwrap().len(), 4);
}

#[tokio::test]
async fn a_delta_has_the_net_effect_of_its_block() {
    let subject = subject().await;
    subject.next(|block| block).await;
    let earlier = TxBuilder::coinbase(77).pay(5).pay(6).build();
    let coins = |block: &ChainBlock| block.transactions[0].clone();
    let first = subject.next(|block| block).await;
    subject.next(|block| block.coinbase(&earlier)).await;
    for _ in 0..100 {
        subject.next(|block| block).await;
    }
    // The middle output of three is spent, by a transaction that is not in a block: it is in the set still.
    let unconfirmed = TxBuilder::new(1).spend(out(&earlier, 2)).pay(3).build();
    let height = subject.tip().await.height + 1;
    let spend = [unconfirmed.clone().into()];
    subject
        .store
        .spend_and_create(&spend, &SpendOptions::at(height))
        .await
        .unwrap()[0]
        .clone()
        .unwrap();
    let spent_one = TxBuilder::new(2).spend(out(&earlier, 1)).pay(4).build();
    subject.next(|block| block.with(&[&spent_one])).await;

    let parent = TxBuilder::new(3)
        .spend(out(&coins(&first), 0))
        .pay(8)
        .pay(9)
        .pay_nobody()
        .build();
    let child = TxBuilder::new(4)
        .spend(out(&parent, 0))
        .spend(out(&spent_one, 0))
        .pay(7)
        .build();
    let block = subject
        .next(|block| {
            block
                .coinbase(&earlier)
                .coinbase_may_overwrite()
                .with(&[&parent, &child])
        })
        .await;
    let delta = subject
        .deltas(block.previous, block.hash)
        .unwrap()
        .remove(0);
    assert_eq!(
        (delta.tip, delta.previous),
        (tip_of(&block), block.previous)
    );
    let names = |coins: &[Coin]| {
        coins
            .iter()
            .map(|coin| (coin.outpoint, coin.height))
            .collect::<Vec<_>>()
    };
    let h = block.height;
    assert_eq!(
        names(&delta.created),
        [
            (out(&earlier, 0), h),
            (out(&earlier, 1), h),
            (out(&earlier, 2), h),
            (out(&parent, 1), h),
            (out(&child, 0), h)
        ]
    );
    assert_eq!(
        names(&delta.spent),
        [
            (out(&earlier, 0), 2),
            (out(&earlier, 2), 2),
            (out(&coins(&first), 0), 1),
            (out(&spent_one, 0), h - 1)
        ]
    );
    subject.check().await;
    subject.disconnect(&block).await;
    subject.check().await;
}

/// Its owner is another one before a block ever holds it.
#[tokio::test]
async fn a_coin_is_journaled_as_the_store_has_it() {
    let subject = subject().await;
    subject.next(|block| block).await;
    let first = subject.next(|block| block).await;
    for _ in 0..100 {
        subject.next(|block| block).await;
    }
    let from = subject.tip().await;
    let tx = TxBuilder::new(1)
        .spend(out(&first.transactions[0], 0))
        .pay(8)
        .build();
    let options = SpendOptions::at(from.height + 1);
    subject
        .store
        .spend_and_create(&[tx.clone().into()], &options)
        .await
        .unwrap()[0]
        .clone()
        .unwrap();
    subject.store.freeze(&[out(&tx, 0)]).await.unwrap()[0]
        .clone()
        .unwrap();
    let owner = Reassignment {
        outpoint: out(&tx, 0),
        script: script(4_711),
        spendable_from: 5,
    };
    let mut digest = MuHash3072::new();
    for delta in subject.deltas(BlockHash::ZERO, from.hash).unwrap() {
        delta.forwards(&mut digest);
    }
    subject.store.reassign(&[owner]).await.unwrap()[0]
        .clone()
        .unwrap();
    let block = subject.next(|block| block.with(&[&tx])).await;
    let deltas = subject.deltas(from.hash, block.hash).unwrap();
    assert_eq!(deltas[0].created[1].output.script, script(4_711));
    deltas[0].forwards(&mut digest);
    assert_eq!(
        digest.digest(),
        subject.store.digest().await.unwrap().muhash
    );
}

#[tokio::test]
async fn what_changes_the_set_without_a_block_ends_the_epoch() {
    let subject = subject().await;
    subject.next(|block| block).await;
    let block = subject.next(|block| block).await;
    let coinbase = &block.transactions[0];
    let spend = TxBuilder::new(1)
        .spend(OutPoint::new(TxBuilder::new(9).build().txid, 0))
        .pay(1)
        .build();
    let mined = MinedIn {
        block: Some(block.hash),
        height: 1,
        subtree_index: 0,
        on_longest_chain: true,
    };
    let store = &subject.store;
    let owner = Reassignment {
        outpoint: out(coinbase, 0),
        script: script(1),
        spendable_from: 5,
    };
    let conflicting = |tx| NewRecord::Conflicting {
        tx,
        fee_sat: None,
        unmined_since: 1,
    };

    let before = subject.epoch();
    store.create(&[conflicting(spend.clone())]).await.unwrap()[0]
        .clone()
        .unwrap();
    store
        .spend_and_create(&[], &SpendOptions::at(2))
        .await
        .unwrap();
    store.freeze(&[owner.outpoint]).await.unwrap()[0]
        .clone()
        .unwrap();
    store.set_locked(&[coinbase.txid], true).await.unwrap()[0]
        .clone()
        .unwrap();
    store.remove(&[spend.txid]).await.unwrap()[0]
        .clone()
        .unwrap();
    store.preserve(&[coinbase.txid], 9).await.unwrap()[0]
        .clone()
        .unwrap();
    store.prune(0).await.unwrap();
    store.recover().await.unwrap();
    store.flush().await.unwrap();
    store.set_mined(&[], &mined).await.unwrap();
    assert_eq!(subject.epoch(), before);
    subject.check().await;

    let mut epochs = vec![before];
    let mut ended = |what: &str| {
        let epoch = subject.epoch();
        assert!(!epochs.contains(&epoch), "{what}");
        epochs.push(epoch);
    };
    store.reassign(&[owner]).await.unwrap()[0].clone().unwrap();
    ended("reassign");
    store.set_mined(&[coinbase.txid], &mined).await.unwrap()[0]
        .clone()
        .unwrap();
    ended("set_mined");
    store
        .set_longest_chain(
            &[coinbase.txid],
            &block.hash,
            LongestChain::Off { unmined_since: 1 },
        )
        .await
        .unwrap()[0]
        .clone()
        .unwrap();
    ended("set_longest_chain");
    store
        .unset_mined(&[coinbase.txid], &block.hash, 1)
        .await
        .unwrap()[0]
        .clone()
        .unwrap();
    ended("unset_mined");
    store
        .create(&[conflicting(spend), TxBuilder::new(5).pay(1).seed(1)])
        .await
        .unwrap()[1]
        .clone()
        .unwrap();
    ended("create");
    store.set_tip(&tip_of(&block)).await.unwrap();
    ended("set_tip");

    // From a restore point of an earlier epoch nothing leads on; from one of this epoch it does.
    let next = subject.next(|block| block).await;
    for epoch in &epochs[..epochs.len() - 1] {
        assert!(
            subject
                .journal
                .chain(*epoch, block.hash, next.hash)
                .unwrap()
                .is_none()
        );
        assert!(
            subject
                .journal
                .chain(*epoch, BlockHash::ZERO, next.hash)
                .unwrap()
                .is_none()
        );
    }
    assert_eq!(subject.deltas(block.hash, next.hash).unwrap().len(), 1);
    assert_eq!(subject.deltas(BlockHash::ZERO, next.hash), None);
    // What the first epoch had is there as long as nobody forgets it.
    assert!(
        subject
            .journal
            .chain(before, BlockHash::ZERO, block.hash)
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn blocks_past_the_journal_leave_a_gap() {
    let subject = subject().await;
    let genesis = subject.next(|block| block).await;
    let past = BlockBuilder::after(tip_of(&genesis)).build();
    subject
        .store
        .inner()
        .connect_block(&past)
        .await
        .unwrap()
        .unwrap();
    // To connect it again writes nothing down: what it spent might be gone by now.
    let again = subject.store.connect_block(&past).await.unwrap().unwrap();
    assert_eq!(again.applied, Applied::Before);
    let next = subject.next(|block| block).await;
    assert_eq!(subject.deltas(genesis.hash, next.hash), None);
    assert_eq!(subject.deltas(past.hash, next.hash).unwrap().len(), 1);
    // A block that is refused is in no journal.
    let refused = BlockBuilder::after(tip_of(&genesis)).branch(3).build();
    subject
        .store
        .connect_block(&refused)
        .await
        .unwrap()
        .unwrap_err();
    let missing = TxBuilder::new(1)
        .spend(OutPoint::new(TxBuilder::new(9).build().txid, 0))
        .pay(1)
        .build();
    let refused = BlockBuilder::after(tip_of(&next)).with(&[&missing]).build();
    subject
        .store
        .connect_block(&refused)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(delta_files(subject.folder.path()).len(), 2);
    assert!(!subject.folder.path().join("intent").exists());
}

/// Its delta takes several segments.
#[tokio::test]
async fn a_block_may_have_any_size() {
    let subject = subject().await;
    subject.next(|block| block).await;
    let large = TxBuilder::coinbase(1).pay_each(250_000, 1).build();
    let block = subject.next(|block| block.coinbase(&large)).await;
    let delta = subject
        .deltas(block.previous, block.hash)
        .unwrap()
        .remove(0);
    let names: Vec<_> = delta.created.iter().map(|coin| coin.outpoint).collect();
    assert_eq!(
        names,
        (0..250_001)
            .map(|vout| out(&large, vout))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn forgotten_blocks_lead_nowhere() {
    let subject = subject().await;
    let mut blocks = Vec::new();
    for _ in 0..10 {
        blocks.push(subject.next(|block| block).await);
    }
    assert_eq!(subject.journal.forget_through(4).unwrap(), 5);
    assert_eq!(subject.journal.forget_through(4).unwrap(), 0);
    assert_eq!(
        subject
            .deltas(blocks[4].hash, blocks[9].hash)
            .unwrap()
            .len(),
        5
    );
    assert_eq!(subject.deltas(blocks[3].hash, blocks[9].hash), None);
}

#[tokio::test]
async fn a_damaged_file_is_named() {
    let subject = subject().await;
    let mut blocks = Vec::new();
    for _ in 0..4 {
        blocks.push(subject.next(|block| block).await);
    }
    let read = || -> Result<usize, JournalError> {
        let chain = subject
            .journal
            .chain(subject.epoch(), BlockHash::ZERO, blocks[3].hash)?;
        let deltas: Vec<_> = chain.expect("it was there").collect::<Result<_, _>>()?;
        Ok(deltas.len())
    };
    assert_eq!(read().unwrap(), 4);
    let path = delta_files(subject.folder.path())[2].clone();
    let good = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], what: String| {
        fs::write(&path, bytes).unwrap();
        let error = read().expect_err(&what);
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        refused(&bytes, format!("byte {at} changed"));
        refused(&good[..at], format!("cut at {at}"));
    }
    refused(&[&good[..], &[0]].concat(), "a byte more".into());
    // The file of another block.
    let other = fs::read(&delta_files(subject.folder.path())[1]).unwrap();
    refused(&other, "another one".into());
    let mut newer = good.clone();
    newer[7] = 2;
    fs::write(&path, &newer).unwrap();
    assert!(matches!(
        read(),
        Err(JournalError::NewerFormat { found: 2, .. })
    ));
    fs::write(&path, &good).unwrap();
    assert_eq!(read().unwrap(), 4);

    let Subject { store, folder, .. } = subject;
    drop(store);
    for name in ["EPOCH", "intent"] {
        fs::write(folder.path().join(name), "?").unwrap();
        let error = Journaled::open(MemoryUtxoStore::new(), folder.path())
            .await
            .unwrap_err();
        assert_eq!(error.retryability(), Retryability::Permanent);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(name), "{cause}");
        fs::remove_file(folder.path().join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_journal_has_one_writer_and_many_readers() {
    let subject = subject().await;
    let open = || Journaled::open(MemoryUtxoStore::new(), subject.folder.path());
    assert!(matches!(open().await, Err(Error::InUse { .. })));
    // For as long as a process takes to die it is waited for.
    let other = TempDir::new().unwrap();
    let path = other.path().join("LOCK");
    let dying = fs::File::create(&path).unwrap();
    dying.lock().unwrap();
    let dies = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(dying);
    });
    Journaled::open(MemoryUtxoStore::new(), other.path())
        .await
        .unwrap();
    dies.join().unwrap();
    let nothing = TempDir::new().unwrap();
    assert!(matches!(
        Journal::open(nothing.path()),
        Err(JournalError::NotFound { .. })
    ));
    let Subject { store, folder, .. } = subject;
    drop(store);
    Journaled::open(MemoryUtxoStore::new(), folder.path())
        .await
        .unwrap();
}

#[test]
fn epochs_are_text_too() {
    let epoch = Epoch::from_bytes(*b"0123456789abcdef");
    assert_eq!(epoch.to_string().parse(), Ok(epoch));
    for text in ["", "12", &"+".repeat(32), &"g".repeat(32), &"1".repeat(33)] {
        assert!(text.parse::<Epoch>().is_err(), "{text}");
    }
}

/// Loses the answer to calls, or never gives one.
#[derive(Debug)]
struct Doubtful {
    inner: MemoryUtxoStore,
    fault: AtomicU8,
}

const LOSE: u8 = 1;
const HANG: u8 = 2;

impl Doubtful {
    fn inner(&self) -> &MemoryUtxoStore {
        &self.inner
    }

    async fn answer<T>(&self, answer: Result<T>) -> Result<T> {
        match self.fault.swap(0, Ordering::Relaxed) {
            LOSE => Err(Error::backend(
                "doubtful",
                "connect",
                Retryability::Indeterminate,
                "gone",
            )),
            HANG => std::future::pending().await,
            _ => answer,
        }
    }
}

macro_rules! doubtful {
    ($self:ident, whole, connect_block, $items:expr, || $call:expr) => {
        $self.answer($call.await).await
    };
    ($self:ident, whole, set_tip, $items:expr, || $call:expr) => {
        $self.answer($call.await).await
    };
    ($self:ident, chunked, $name:ident, $items:expr, |$part:ident| $call:expr) => {{
        let $part = $items;
        $call.await
    }};
    ($self:ident, $kind:ident, $name:ident, $items:expr, || $call:expr) => {
        $call.await
    };
}

forward_store!([] Doubtful, inner, doubtful);

/// As far as it goes until it waits for something.
async fn begin_and_drop(call: impl Future) {
    let mut call = pin!(call);
    let done = poll_fn(|context| Poll::Ready(call.as_mut().poll(context).is_ready())).await;
    assert!(!done);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_or_a_dropped_call_loses_no_delta() {
    let doubtful = Doubtful {
        inner: MemoryUtxoStore::new(),
        fault: AtomicU8::new(0),
    };
    let subject = Subject::around(doubtful).await;
    subject.next(|block| block).await;
    let first = subject.next(|block| block).await;
    for _ in 0..100 {
        subject.next(|block| block).await;
    }
    let store = &subject.store;
    let fault = |fault| store.inner().fault.store(fault, Ordering::Relaxed);
    let spend = TxBuilder::new(1)
        .spend(out(&first.transactions[0], 0))
        .pay(1)
        .build();
    let block = BlockBuilder::after(subject.tip().await)
        .with(&[&spend])
        .build();
    fault(LOSE);
    store.connect_block(&block).await.unwrap_err();
    let repeated = store.connect_block(&block).await.unwrap().unwrap();
    assert_eq!(repeated.applied, Applied::Before);
    subject.check().await;
    let delta = subject
        .deltas(block.previous, block.hash)
        .unwrap()
        .remove(0);
    assert_eq!(delta.spent.len(), 1);

    // Not repeated: the next call of any kind finishes it.
    fault(HANG);
    let block = BlockBuilder::after(subject.tip().await).build();
    begin_and_drop(store.connect_block(&block)).await;
    subject.next(|block| block).await;
    subject.check().await;
    fault(LOSE);
    let block = BlockBuilder::after(subject.tip().await).build();
    store.connect_block(&block).await.unwrap_err();
    subject.disconnect(&block).await;
    assert!(subject.deltas(block.previous, block.hash).is_some());
    subject.check().await;

    // A call that ends the epoch and is dropped: there is none until the next one begins another.
    let before = subject.epoch();
    fault(HANG);
    let tip = subject.tip().await;
    begin_and_drop(store.set_tip(&tip)).await;
    assert_eq!(subject.journal.epoch().unwrap(), None);
    subject.next(|block| block).await;
    assert_ne!(subject.epoch(), before);
}
