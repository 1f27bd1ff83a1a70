use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use groundtackle_utxo_store::{
    Applied, BlockHash, ChainBlock, Connected, Disconnected, Error, Fields, NewRecord,
    NewTransaction, OutPoint, Outcome, OutputView, Record, Result, SlotState, SpendOptions, Tip,
    Transaction, Txid, UtxoStore, UtxoStoreExt,
};

use crate::builder::{BlockBuilder, TxBuilder, tip_of};
use crate::state::State;

/// What the author of an adapter tells the kit: where stores can lie and how one is opened.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// The adapter.
    type Store: UtxoStore;

    /// Where one store lies, apart from all others: a directory, a schema, a key prefix. Dropping
    /// it cleans up. `()` for an adapter that keeps nothing.
    type Place: Send + Sync + 'static;

    /// Why there is nothing to test with on this machine, such as a server: every case is skipped then,
    /// says so, and counts. `None`: there is all that is needed.
    fn missing(&self) -> Option<String> {
        None
    }

    /// A place for a new store.
    async fn place(&self) -> Self::Place;

    /// Opens the store that lies at `place`, or creates it there, under
    /// [`UnspendableRule::Core`](groundtackle_utxo_store::UnspendableRule::Core). A persistent
    /// adapter is opened at one place several times, one after another: dropping a store closes it.
    async fn open(&self, place: &Self::Place) -> Result<Self::Store>;

    /// Round trips to the backend so far, for adapters that have one: from a proxy, a counting
    /// client, the server's statistics. `None`: not counted, and the case says that it was skipped.
    fn round_trips(&self, _place: &Self::Place) -> Option<u64> {
        None
    }

    /// Round trips that one call may take, whatever the number of its items below
    /// [`max_batch_items`](groundtackle_utxo_store::Capabilities::max_batch_items): the adapter's
    /// own promise. A cascade may take this many for each generation.
    fn round_trips_per_call(&self) -> u64 {
        8
    }

    /// How another process finds `place`: the crash cases kill one that works there. `None`: it
    /// can't, and they are skipped. The address has no line breaks.
    fn address(&self, _place: &Self::Place) -> Option<String> {
        None
    }

    /// Opens the store at an address that [`address`](Self::address) gave, in another process.
    async fn open_at(&self, address: &str) -> Result<Self::Store> {
        Err(Error::invalid_request(format!(
            "the harness can't open {address}: it gives addresses, so it must implement open_at"
        )))
    }

    /// The adapter's write points: names that it passes to `groundtackle_core::fail_point`, between
    /// any two effects that a crash could separate. A process is killed at each.
    fn write_points(&self) -> &'static [&'static str] {
        &[]
    }

    /// Kills the backend (SIGKILL) and starts it again on what it left. Returns whether the harness
    /// can: it must not be the backend of other cases under way.
    async fn kill_backend(&self, _place: &Self::Place) -> bool {
        false
    }

    /// Arms or disarms a fault of the backend at `place`. Returns whether the harness can: `false`
    /// skips what depends on it, and says so.
    async fn set_fault(&self, _place: &Self::Place, _fault: Fault, _armed: bool) -> bool {
        false
    }
}

/// A fault of a backend that cases ask a harness for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing answers, and what is sent is not applied.
    Unreachable,
    /// A read of the first transaction's record gets the second one's.
    WrongRecord(Txid, Txid),
}

pub(crate) type Place = Arc<dyn Any + Send + Sync>;

/// A [`Harness`] without its types, so that cases are compiled once and not for each adapter.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    async fn place(&self) -> Place;
    async fn open(&self, place: &Place) -> Result<Arc<dyn UtxoStore>>;
    fn round_trips(&self, place: &Place) -> Option<u64>;
    fn round_trips_per_call(&self) -> u64;
    fn address(&self, place: &Place) -> Option<String>;
    async fn open_at(&self, address: &str) -> Result<Arc<dyn UtxoStore>>;
    fn write_points(&self) -> &'static [&'static str];
    async fn kill_backend(&self, place: &Place) -> bool;
    async fn set_fault(&self, place: &Place, fault: Fault, armed: bool) -> bool;
}

fn typed<H: Harness>(place: &Place) -> &H::Place {
    place.downcast_ref().expect("a place of this harness")
}

#[async_trait]
impl<H: Harness> Opener for H {
    async fn place(&self) -> Place {
        Arc::new(Harness::place(self).await)
    }

    async fn open(&self, place: &Place) -> Result<Arc<dyn UtxoStore>> {
        Ok(Arc::new(Harness::open(self, typed::<H>(place)).await?))
    }

    fn round_trips(&self, place: &Place) -> Option<u64> {
        Harness::round_trips(self, typed::<H>(place))
    }

    fn round_trips_per_call(&self) -> u64 {
        Harness::round_trips_per_call(self)
    }

    fn address(&self, place: &Place) -> Option<String> {
        Harness::address(self, typed::<H>(place))
    }

    async fn open_at(&self, address: &str) -> Result<Arc<dyn UtxoStore>> {
        Ok(Arc::new(Harness::open_at(self, address).await?))
    }

    fn write_points(&self) -> &'static [&'static str] {
        Harness::write_points(self)
    }

    async fn kill_backend(&self, place: &Place) -> bool {
        Harness::kill_backend(self, typed::<H>(place)).await
    }

    async fn set_fault(&self, place: &Place, fault: Fault, armed: bool) -> bool {
        Harness::set_fault(self, typed::<H>(place), fault, armed).await
    }
}

/// The store under test in a place of its own, and what cases do with it over and over. A failure
/// of the store itself fails the case; verdicts are returned.
pub struct Subject {
    opener: Arc<dyn Opener>,
    // Before the place, so that the store is closed when the place is cleaned up.
    store: Option<Arc<dyn UtxoStore>>,
    place: Place,
    /// Transactions that the case has to do with.
    noted: Mutex<BTreeSet<Txid>>,
    /// The test's name, as the test runner has it.
    test: String,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Deref for Subject {
    type Target = dyn UtxoStore;

    fn deref(&self) -> &Self::Target {
        self.store.as_deref().expect("the store is open")
    }
}

/// The only item of an answer.
pub fn one<T: fmt::Debug>(answer: Result<Vec<T>>) -> T {
    let mut items = all(answer);
    assert_eq!(items.len(), 1, "one result per item");
    items.remove(0)
}

/// The items of an answer.
pub fn all<T>(answer: Result<T>) -> T {
    answer.unwrap_or_else(|error| panic!("the store failed: {error:?}"))
}

impl Subject {
    /// A new store of an adapter.
    pub async fn of(harness: impl Harness) -> Self {
        Self::open(Arc::new(harness)).await
    }

    pub(crate) fn opener(&self) -> Arc<dyn Opener> {
        self.opener.clone()
    }

    pub(crate) async fn open(opener: Arc<dyn Opener>) -> Self {
        let place = opener.place().await;
        let store = all(opener.open(&place).await);
        Self {
            opener,
            place,
            store: Some(store),
            noted: Mutex::default(),
            test: String::new(),
        }
    }

    /// A place for a new store that is not opened yet.
    pub(crate) async fn unopened(&self) -> Self {
        Self {
            opener: self.opener.clone(),
            place: self.opener.place().await,
            store: None,
            noted: Mutex::default(),
            test: self.test.clone(),
        }
    }

    pub(crate) fn set_test(&mut self, name: &str, module: &str) {
        self.test = match module.split_once("::") {
            Some((_, module)) => format!("{module}::{name}"),
            None => name.into(),
        };
    }

    /// The test's name, as the test runner has it.
    pub(crate) fn test(&self) -> &str {
        &self.test
    }

    /// How another process finds the place, if it can.
    pub(crate) fn address(&self) -> Option<String> {
        self.opener.address(&self.place)
    }

    /// Kills the backend and starts it again, if the harness can.
    pub(crate) async fn kill_backend(&self) -> bool {
        self.opener.kill_backend(&self.place).await
    }

    /// The adapter's write points.
    pub(crate) fn write_points(&self) -> &'static [&'static str] {
        self.opener.write_points()
    }

    /// Another new store of the same adapter.
    pub async fn another(&self) -> Self {
        Self::open(self.opener.clone()).await
    }

    pub(crate) fn close(&mut self) {
        let store = self.store.take();
        assert!(
            store.is_none_or(|store| Arc::strong_count(&store) == 1),
            "a case shares the store beyond its tasks"
        );
    }

    /// Closes the store and opens it again at the same place.
    pub async fn reopen(&mut self) {
        self.close();
        self.store = Some(all(self.opener.open(&self.place).await));
        all(self.recover().await);
    }

    /// What a process does that begins after a crash.
    pub async fn restart(&mut self) {
        if self.capabilities().persistent {
            self.reopen().await;
        } else {
            all(self.recover().await);
        }
    }

    /// The store, for tasks.
    pub fn share(&self) -> Arc<dyn UtxoStore> {
        self.store.clone().expect("the store is open")
    }

    /// Round trips so far, if the harness counts them.
    pub fn round_trips(&self) -> Option<u64> {
        self.opener.round_trips(&self.place)
    }

    /// Round trips that a call may take.
    pub fn round_trips_per_call(&self) -> u64 {
        self.opener.round_trips_per_call()
    }

    /// Arms or disarms a fault, if the harness can.
    pub async fn set_fault(&self, fault: Fault, armed: bool) -> bool {
        self.opener.set_fault(&self.place, fault, armed).await
    }

    /// Makes [`state`](Self::state) include a transaction.
    pub fn note(&self, txid: Txid) {
        self.noted.lock().expect("no panic").insert(txid);
    }

    /// All that can be seen of the transactions noted, and of the set.
    pub async fn state(&self) -> State {
        let noted: Vec<Txid> = self
            .noted
            .lock()
            .expect("no panic")
            .iter()
            .copied()
            .collect();
        State::of(&**self, &noted).await
    }

    /// The height of the block after the tip.
    pub async fn next_height(&self) -> u32 {
        all(self.tip().await).map_or(1, |tip| tip.height + 1)
    }

    /// Creates a record.
    pub async fn put(&self, record: NewRecord) -> Outcome<Applied> {
        self.note(record.txid());
        one(self.create(&[record]).await)
    }

    /// `count` confirmed outputs of one new transaction, which may be spent at any height.
    pub async fn coins(&self, tag: u64, count: u32) -> Vec<OutPoint> {
        let record = TxBuilder::new(tag).pay_each(count as usize, 1_000).seed(1);
        let txid = record.txid();
        assert_eq!(self.put(record).await, Ok(Applied::Now));
        (0..count).map(|vout| OutPoint::new(txid, vout)).collect()
    }

    /// One confirmed output.
    pub async fn coin(&self, tag: u64) -> OutPoint {
        self.coins(tag, 1).await.remove(0)
    }

    /// Spends and creates under the usual rules of the next block.
    pub async fn submit(&self, tx: &Transaction) -> Outcome<Applied> {
        let options = SpendOptions::at(self.next_height().await);
        self.submit_under(tx, options).await
    }

    /// Spends and creates.
    pub async fn submit_under(&self, tx: &Transaction, options: SpendOptions) -> Outcome<Applied> {
        self.note(tx.txid);
        let new = NewTransaction::from(tx.clone());
        one(self.spend_and_create(&[new], &options).await)
    }

    /// Spends and creates a batch.
    pub async fn submit_all(&self, transactions: &[&Transaction]) -> Vec<Outcome<Applied>> {
        let new: Vec<_> = transactions
            .iter()
            .map(|tx| NewTransaction::from(Transaction::clone(tx)))
            .collect();
        transactions.iter().for_each(|tx| self.note(tx.txid));
        let options = SpendOptions::at(self.next_height().await);
        all(self.spend_and_create(&new, &options).await)
    }

    /// Spends and creates what must be accepted.
    pub async fn accept(&self, builder: TxBuilder) -> Transaction {
        let tx = builder.build();
        assert_eq!(self.submit(&tx).await, Ok(Applied::Now));
        tx
    }

    /// Begins a chain at height 200, where seeded coins have long been ripe.
    pub async fn begin_chain(&self) -> Tip {
        let tip = Tip {
            height: 200,
            hash: BlockHash::from_bytes([200; 32]),
            median_time_past: 1_231_126_505,
        };
        all(self.set_tip(&tip).await);
        tip
    }

    /// A block after the tip.
    pub async fn next_block(&self) -> BlockBuilder {
        BlockBuilder::after(all(self.tip().await))
    }

    /// Connects a block.
    pub async fn connect(&self, block: &ChainBlock) -> Outcome<Connected> {
        block.transactions.iter().for_each(|tx| self.note(tx.txid));
        all(self.connect_block(block).await)
    }

    /// Connects a block that must be accepted, and returns it.
    pub async fn connected(&self, builder: BlockBuilder) -> ChainBlock {
        let block = builder.build();
        let connected = self.connect(&block).await.expect("the block is good");
        assert_eq!(connected.applied, Applied::Now);
        assert_eq!(all(self.tip().await), Some(tip_of(&block)));
        block
    }

    /// Connects a block of these transactions.
    pub async fn mine(&self, transactions: &[&Transaction]) -> ChainBlock {
        self.connected(self.next_block().await.with(transactions))
            .await
    }

    /// Takes a block back.
    pub async fn disconnect(&self, block: &ChainBlock) -> Outcome<Disconnected> {
        all(self.disconnect_block(&block.hash, &block.previous).await)
    }

    /// A whole record that must be there.
    pub async fn whole_record(&self, txid: Txid) -> Record {
        let record = self.find_record(txid).await;
        record.unwrap_or_else(|| panic!("{txid} should be on record"))
    }

    /// A whole record.
    pub async fn find_record(&self, txid: Txid) -> Option<Record> {
        let record = one(self.records(&[txid], Fields::ALL).await);
        assert!(
            record.as_ref().is_none_or(|record| record.txid == txid),
            "another record than asked"
        );
        record
    }

    /// An output that must be there.
    pub async fn view(&self, outpoint: OutPoint) -> OutputView {
        let view = all(self.output(outpoint).await).expect("the output is there");
        assert_eq!(view.outpoint, outpoint, "another output than asked");
        view
    }

    /// The state of an output that must be there.
    pub async fn slot(&self, outpoint: OutPoint) -> SlotState {
        self.view(outpoint).await.state
    }
}
