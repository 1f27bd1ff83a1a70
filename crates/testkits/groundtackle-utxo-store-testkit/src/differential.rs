//! One generated sequence of operations into the specification and into adapters; verdicts, records,
//! listings, set and digest compared after every step.
//!
//! Steps say what to do in terms of what there is, so that most of them reach their aim however a
//! sequence is cut: a [`Pick`] chooses among what exists at that moment. A failure is shrunk and
//! printed as a test to paste.
//!
//! `GROUNDTACKLE_TEST_SEQUENCES` says how many sequences to try (256), `GROUNDTACKLE_TEST_SEQUENCES_POSTGRES`
//! how many on one backend, here `postgres`; `GROUNDTACKLE_TEST_SEED` says which ones (a number; 0).

mod generate;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::fmt::{self, Debug, Display};
use std::num::NonZero;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use groundtackle_utxo_store::{
    Applied, BlockHash, ChainBlock, LongestChain, MemoryUtxoStore, MinedIn, NewRecord,
    NewTransaction, OutPoint, Outcome, Reassignment, Result, SpendOptions, SpendStore, Tip, Txid,
    UtxoStore, Verdict,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::harness::{Harness, Opener, Subject, all};
use crate::state::{State, unmined_all};
use generate::{sequence, step};
use world::World;

/// Chooses one of what there is: in seven of eight cases one that fits the step's purpose, if there
/// is any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pick(pub u16);

impl Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pick({})", self.0)
    }
}

impl Pick {
    fn among<T: Clone>(self, fitting: &[T], any: &[T]) -> Option<T> {
        let from = if self.0 % 8 == 7 { any } else { fitting };
        let index = usize::from(self.0 / 8).checked_rem(from.len())?;
        from.get(index).cloned()
    }

    fn of<T: Clone>(self, any: &[T]) -> T {
        self.among(any, any).expect("there are some")
    }
}

/// A transaction of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A new one.
    New {
        /// What it spends.
        inputs: Vec<Pick>,
        /// How many outputs it has; the last of more than two can't be spent.
        outputs: u8,
    },
    /// One that occurred before.
    Known(Pick),
    /// One that was pruned, if there is one of which a parent is left; otherwise one that was
    /// refused or removed.
    Gone(Pick),
}

/// By what a step's spends are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Heights above the next block.
    pub ahead: i8,
    /// Blocks until a coinbase may be spent.
    pub maturity: u8,
    /// Spend outputs of locked transactions.
    pub ignore_locked: bool,
    /// Create records locked.
    pub lock: bool,
}

impl Rules {
    /// Those of the next block.
    pub const USUAL: Self = Self {
        ahead: 0,
        maturity: 100,
        ignore_locked: false,
        lock: false,
    };
}

/// What a spender says of the outputs it spends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Nothing,
    /// The truth.
    Right,
    /// Another amount for the last one.
    Wrong,
    /// One too many.
    TooMany,
}

/// One operation. Numbers are heights relative to the tip, unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the operations of the port, with its names")]
pub enum Step {
    Submit {
        items: Vec<Item>,
        rules: Rules,
        fee: Option<u8>,
        expected: Expected,
    },
    CreateCoinbase {
        tx: Item,
        block: Pick,
        on: bool,
    },
    Seed {
        coinbase: bool,
        age: u8,
        outputs: u8,
        again: bool,
    },
    CreateConflicting {
        items: Vec<Item>,
        since: i8,
    },
    Spend {
        txids: Vec<Pick>,
        rules: Rules,
    },
    Unspend(Vec<Pick>),
    Remove(Vec<Pick>),
    SetTip,
    SetMined {
        txids: Vec<Pick>,
        block: Pick,
        subtree: u8,
        on: bool,
    },
    UnsetMined {
        txids: Vec<Pick>,
        block: Pick,
        since: i8,
    },
    SetLongestChain {
        txids: Vec<Pick>,
        block: Pick,
        on: bool,
    },
    /// With `whole`, what the transactions need of the mempool comes with them, in order.
    Connect {
        items: Vec<Item>,
        whole: bool,
        branch: u8,
        coinbase: Option<Pick>,
        may_overwrite: bool,
    },
    /// A block that was connected before: the tip, one that was taken back, one below the tip.
    ConnectKnown(Pick),
    Disconnect,
    DisconnectKnown(Pick, Pick),
    Freeze(Vec<Pick>),
    Unfreeze(Vec<Pick>),
    Reassign {
        outputs: Vec<Pick>,
        owner: u8,
        ahead: i8,
    },
    SetLocked {
        txids: Vec<Pick>,
        locked: bool,
    },
    MarkConflicting(Vec<Pick>),
    UnmarkConflicting(Vec<Pick>),
    CounterConflicting(Vec<Pick>),
    ConflictingChildren(Vec<Pick>),
    Preserve {
        txids: Vec<Pick>,
        ahead: i8,
    },
    Prune(i8),
    Unmined(i8),
    Recover,
    /// Closes persistent stores and opens them again.
    Reopen,
}

/// A step in terms of the port: the same for all stores.
#[derive(Debug)]
pub(crate) enum Call {
    SpendAndCreate(Vec<NewTransaction>, SpendOptions),
    Create(Vec<NewRecord>),
    Spend(Vec<Txid>, SpendOptions),
    Unspend(Vec<Txid>),
    Remove(Vec<Txid>),
    SetTip(Tip),
    SetMined(Vec<Txid>, MinedIn),
    UnsetMined(Vec<Txid>, BlockHash, u32),
    SetLongestChain(Vec<Txid>, BlockHash, LongestChain),
    ConnectBlock(ChainBlock),
    DisconnectBlock(BlockHash, BlockHash),
    Freeze(Vec<OutPoint>),
    Unfreeze(Vec<OutPoint>),
    Reassign(Vec<Reassignment>),
    SetLocked(Vec<Txid>, bool),
    MarkConflicting(Vec<Txid>),
    UnmarkConflicting(Vec<Txid>),
    CounterConflicting(Vec<Txid>),
    ConflictingChildren(Vec<Txid>),
    Preserve(Vec<Txid>, u32),
    Prune(u32),
    Unmined(u32),
    Recover,
    Reopen,
}

/// What a store said, to be compared: one text per item, and the name of each for statistics.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    texts: Vec<String>,
    names: Vec<String>,
}

/// A verdict without its reason, which each adapter words as it likes.
fn without_reason(verdict: &Verdict) -> Verdict {
    match verdict {
        Verdict::InvalidTransaction { txid, .. } => Verdict::InvalidTransaction {
            txid: *txid,
            reason: String::new(),
        },
        Verdict::InBlock {
            block,
            txid,
            verdict,
        } => Verdict::InBlock {
            block: *block,
            txid: *txid,
            verdict: Box::new(without_reason(verdict)),
        },
        other => other.clone(),
    }
}

/// The name of an enum's variant.
fn variant(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn verdict_name(verdict: &Verdict) -> String {
    match verdict {
        Verdict::InBlock { verdict, .. } => format!("InBlock {}", verdict_name(verdict)),
        other => variant(other),
    }
}

impl Answer {
    /// Whether the store could not answer.
    pub(crate) fn is_error(&self) -> bool {
        self.texts.iter().any(|text| text.starts_with("error "))
    }

    fn say(&mut self, name: impl Into<String>, text: impl Into<String>) {
        self.names.push(name.into());
        self.texts.push(text.into());
    }

    fn item<T: Debug>(&mut self, outcome: &Outcome<T>, name: impl Fn(&T) -> String) {
        match outcome {
            Ok(done) => self.say(name(done), format!("{done:?}")),
            Err(verdict) => self.say(
                verdict_name(verdict),
                format!("{:?}", without_reason(verdict)),
            ),
        }
    }

    fn items<T: Debug>(answer: Result<Vec<Outcome<T>>>, name: impl Fn(&T) -> String) -> Self {
        let mut said = Self::default();
        match answer {
            Ok(items) => items.iter().for_each(|item| said.item(item, &name)),
            Err(error) => said.say(format!("error {}", variant(&error)), variant(&error)),
        }
        said
    }

    fn applied(answer: Result<Vec<Outcome<Applied>>>) -> Self {
        Self::items(answer, variant)
    }

    fn value<T: Debug>(answer: Result<T>) -> Self {
        Self::items(answer.map(|value| vec![Ok(value)]), |_| "Ok".into())
    }
}

impl Call {
    /// Whether it is done or undone as one, whatever the store.
    pub(crate) fn is_single(&self) -> bool {
        match self {
            Self::SpendAndCreate(new, _) => new.len() == 1,
            Self::Create(records) => records.len() == 1,
            Self::Spend(txids, _)
            | Self::Unspend(txids)
            | Self::Remove(txids)
            | Self::SetMined(txids, _)
            | Self::UnsetMined(txids, ..)
            | Self::SetLongestChain(txids, ..)
            | Self::SetLocked(txids, _)
            | Self::MarkConflicting(txids)
            | Self::UnmarkConflicting(txids)
            | Self::Preserve(txids, _) => txids.len() == 1,
            Self::Freeze(outpoints) | Self::Unfreeze(outpoints) => outpoints.len() == 1,
            Self::Reassign(reassignments) => reassignments.len() == 1,
            Self::ConnectBlock(_) | Self::DisconnectBlock(..) | Self::Prune(_) => false,
            Self::SetTip(_)
            | Self::CounterConflicting(_)
            | Self::ConflictingChildren(_)
            | Self::Unmined(_)
            | Self::Recover
            | Self::Reopen => true,
        }
    }

    pub(crate) fn is_block(&self) -> bool {
        matches!(self, Self::ConnectBlock(_) | Self::DisconnectBlock(..))
    }

    pub(crate) async fn apply(&self, store: &dyn UtxoStore) -> Answer {
        let some = |found: &Vec<Txid>| if found.is_empty() { "none" } else { "some" }.to_owned();
        match self {
            Self::SpendAndCreate(new, options) => {
                Answer::applied(store.spend_and_create(new, options).await)
            }
            Self::Create(records) => Answer::applied(store.create(records).await),
            Self::Spend(txids, options) => Answer::applied(store.spend(txids, options).await),
            Self::Unspend(txids) => Answer::applied(store.unspend(txids).await),
            Self::Remove(txids) => Answer::applied(store.remove(txids).await),
            Self::SetTip(tip) => Answer::value(store.set_tip(tip).await),
            Self::SetMined(txids, mined) => Answer::applied(store.set_mined(txids, mined).await),
            Self::UnsetMined(txids, block, since) => {
                Answer::applied(store.unset_mined(txids, block, *since).await)
            }
            Self::SetLongestChain(txids, block, mark) => {
                Answer::applied(store.set_longest_chain(txids, block, *mark).await)
            }
            Self::ConnectBlock(block) => {
                let answer = store.connect_block(block).await;
                Answer::items(answer.map(|one| vec![one]), |done| variant(&done.applied))
            }
            Self::DisconnectBlock(block, previous) => {
                let answer = store.disconnect_block(block, previous).await;
                Answer::items(answer.map(|one| vec![one]), |done| {
                    let kept = if done.kept_unmined > 0 { " kept" } else { "" };
                    variant(&done.applied) + kept
                })
            }
            Self::Freeze(outpoints) => Answer::applied(store.freeze(outpoints).await),
            Self::Unfreeze(outpoints) => Answer::applied(store.unfreeze(outpoints).await),
            Self::Reassign(reassignments) => Answer::applied(store.reassign(reassignments).await),
            Self::SetLocked(txids, locked) => {
                Answer::applied(store.set_locked(txids, *locked).await)
            }
            Self::MarkConflicting(txids) => {
                let name = |found: &Vec<Txid>| format!("{} marked", found.len().min(4));
                Answer::items(store.mark_conflicting(txids).await, name)
            }
            Self::UnmarkConflicting(txids) => {
                Answer::applied(store.unmark_conflicting(txids).await)
            }
            Self::CounterConflicting(txids) => {
                Answer::items(store.counter_conflicting(txids).await, some)
            }
            Self::ConflictingChildren(txids) => {
                Answer::items(store.conflicting_children(txids).await, some)
            }
            Self::Preserve(txids, until) => Answer::applied(store.preserve(txids, *until).await),
            Self::Prune(horizon) => {
                let name = |pruned: &groundtackle_utxo_store::Pruned| match pruned.records {
                    0 => "none".to_owned(),
                    _ => "some".to_owned(),
                };
                let answer = store.prune(*horizon).await;
                Answer::items(answer.map(|pruned| vec![Ok(pruned)]), name)
            }
            Self::Unmined(older_than) => {
                Answer::value(Ok(unmined_all(store, Some(*older_than), 3).await))
            }
            // What it found is the adapter's own affair.
            Self::Recover => Answer::value(store.recover().await.map(drop)),
            Self::Reopen => Answer::value(Ok(())),
        }
    }
}

/// A sequence under way, with the model.
pub(crate) struct Script {
    model: MemoryUtxoStore,
    world: World,
    steps: std::vec::IntoIter<Step>,
    /// Steps done.
    number: usize,
    /// What the model has now.
    state: State,
}

impl Script {
    /// And what a store must be given to begin with.
    pub(crate) async fn begin(steps: Vec<Step>) -> (Self, Vec<Call>) {
        let model = MemoryUtxoStore::new();
        let (mut world, prologue) = World::begin();
        for call in &prologue {
            call.apply(&model).await;
        }
        let txids: Vec<_> = world.known.iter().map(|tx| tx.txid).collect();
        let state = State::of(&model, &txids).await;
        world.learn(&Call::Recover, &state);
        let script = Self {
            model,
            world,
            steps: steps.into_iter(),
            number: 0,
            state,
        };
        (script, prologue)
    }

    /// Gives the model the next step. What it was as a call, and what the model said.
    pub(crate) async fn next(&mut self) -> Option<(Call, Answer)> {
        let step = self.steps.next()?;
        let call = self.world.resolve(&step);
        let said = call.apply(&self.model).await;
        self.state = State::after(&self.model, &self.txids(), &self.state).await;
        self.world.learn(&call, &self.state);
        self.number += 1;
        Some((call, said))
    }

    /// Gives the model and a store the next step.
    pub(crate) async fn next_applied(&mut self, store: &Subject) {
        if let Some((call, _)) = self.next().await {
            call.apply(&**store).await;
        }
    }

    /// What the model has.
    pub(crate) const fn state(&self) -> &State {
        &self.state
    }

    /// All that `store` shows of what occurred.
    pub(crate) async fn state_of(&self, store: &dyn UtxoStore) -> State {
        State::of(store, &self.txids()).await
    }

    fn txids(&self) -> Vec<Txid> {
        self.world.known.iter().map(|tx| tx.txid).collect()
    }

    /// Gives the call to an adapter and compares.
    pub(crate) async fn compare(
        &self,
        call: &Call,
        said: &Answer,
        subject: &mut Subject,
    ) -> Result<(), String> {
        let backend = subject.capabilities().backend;
        let number = self.number;
        let differs =
            |what: String| format!("{backend} differs after step {number}, {call:?}\n{what}");
        if matches!(call, Call::Reopen) && subject.capabilities().persistent {
            subject.reopen().await;
        }
        let answer = call.apply(&**subject).await;
        if answer.texts != said.texts {
            let (said, answer) = (said.texts.join("\n  "), answer.texts.join("\n  "));
            return Err(differs(format!("model:\n  {said}\nadapter:\n  {answer}")));
        }
        if let Some(difference) = self.state.difference(&self.state_of(&**subject).await) {
            return Err(differs(format!("(model, then adapter)\n{difference}")));
        }
        let outpoints = self.world.any_output();
        let ours = all(self.model.outputs(&outpoints).await);
        let theirs = all(subject.outputs(&outpoints).await);
        match ours
            .iter()
            .zip(&theirs)
            .find(|(ours, theirs)| ours != theirs)
        {
            Some((ours, theirs)) => Err(differs(format!("model: {ours:?}\nadapter: {theirs:?}"))),
            None => Ok(()),
        }
    }
}

/// The same steps for the same seed.
pub(crate) fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let steps = proptest::collection::vec(step(), count);
    let tree = steps.new_tree(&mut runner).expect("nothing is filtered");
    tree.current()
}

/// How often each operation had each outcome.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Sequences that ran to their end.
    pub sequences: u64,
    /// Steps of them.
    pub steps: u64,
    /// By operation, then by outcome: a verdict's name, `Now`, `Before`, …
    pub outcomes: BTreeMap<String, BTreeMap<String, u64>>,
}

impl Coverage {
    fn add(&mut self, other: Self) {
        self.sequences += other.sequences;
        self.steps += other.steps;
        for (operation, outcomes) in other.outcomes {
            let all = self.outcomes.entry(operation).or_default();
            for (outcome, times) in outcomes {
                *all.entry(outcome).or_default() += times;
            }
        }
    }
}

impl Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} sequences, {} steps", self.sequences, self.steps)?;
        for (operation, outcomes) in &self.outcomes {
            write!(f, "{operation}:")?;
            for (outcome, times) in outcomes {
                write!(f, " {outcome} {times},")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Adapters to compare with the specification, side by side.
#[derive(Default)]
pub struct Differential {
    openers: Vec<Arc<dyn Opener>>,
}

impl Debug for Differential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Differential")
            .field("adapters", &self.openers.len())
            .finish()
    }
}

impl Differential {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an adapter.
    #[must_use]
    pub fn with(mut self, harness: impl Harness) -> Self {
        self.openers.push(Arc::new(harness));
        self
    }

    pub(crate) fn of(subject: &Subject) -> Self {
        Self {
            openers: vec![subject.opener()],
        }
    }

    /// Tries as many sequences as the environment says.
    ///
    /// # Panics
    /// When an adapter differs, with the shortest sequence found that shows it.
    pub fn run(&self) -> Coverage {
        self.run_for("")
    }

    /// The same, where the environment may name another number for one backend.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_for(&self, backend: &str) -> Coverage {
        let number = |name: &str| {
            let text = env::var(name).ok()?;
            let number = text.parse();
            Some(number.unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
        };
        let sequences = "GROUNDTACKLE_TEST_SEQUENCES";
        let own = number(&format!("{sequences}_{}", backend.to_uppercase()));
        let sequences = own.or_else(|| number(sequences)).unwrap_or(256);
        self.run_sequences(sequences, number("GROUNDTACKLE_TEST_SEED").unwrap_or(0))
    }

    /// Tries this many sequences on several threads; the same ones for the same
    /// seed.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_sequences(&self, sequences: u64, seed: u64) -> Coverage {
        // Twice the cores: adapters wait for disks and servers.
        let threads = 2 * thread::available_parallelism().map_or(1, NonZero::get);
        let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
        let work = || {
            let _stop = StopOnPanic(&over);
            let mut coverage = Coverage::default();
            while !over.load(Ordering::Relaxed) {
                let part = next.fetch_add(1, Ordering::Relaxed);
                let left = sequences
                    .saturating_sub(part.saturating_mul(PART))
                    .min(PART);
                if left == 0 {
                    break;
                }
                coverage.add(self.run_part(left, [seed, part]));
            }
            coverage
        };
        let run = || {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let mut coverage = Coverage::default();
                for thread in threads {
                    let part = thread.join();
                    coverage.add(part.unwrap_or_else(|panic| resume_unwind(panic)));
                }
                coverage
            })
        };
        match Handle::try_current() {
            Ok(_) => block_in_place(run),
            Err(_) => run(),
        }
    }

    fn run_part(&self, sequences: u64, seed: [u64; 2]) -> Coverage {
        let config = Config {
            cases: sequences as u32,
            max_shrink_iters: 4_096,
            failure_persistence: None,
            ..Config::default()
        };
        let mut bytes = [0; 32];
        for (bytes, seed) in bytes.chunks_exact_mut(8).zip(seed) {
            bytes.copy_from_slice(&seed.to_le_bytes());
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let coverage = Mutex::new(Coverage::default());
        // Each sequence is one task; waking other threads would take a fifth of the time.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system grants a runtime");
        let outcome = TestRunner::new_with_rng(config, rng).run(&sequence(), |steps| {
            let mut seen = Coverage::default();
            let driven = runtime.block_on(self.drive(steps, &mut seen));
            driven.map_err(TestCaseError::fail)?;
            coverage.lock().expect("no panic").add(seen);
            Ok(())
        });
        match outcome {
            Ok(()) => coverage.into_inner().expect("no panic"),
            Err(TestError::Fail(reason, steps)) => panic!("{reason}\n{}", as_test(&steps)),
            Err(TestError::Abort(reason)) => panic!("{reason}"),
        }
    }

    /// Runs one sequence: what a failure prints.
    ///
    /// # Panics
    /// When an adapter differs.
    pub fn replay(&self, steps: &[Step]) {
        blocking(self.drive(steps.to_vec(), &mut Coverage::default()))
            .unwrap_or_else(|difference| panic!("{difference}"));
    }

    async fn drive(&self, steps: Vec<Step>, coverage: &mut Coverage) -> Result<(), String> {
        let (mut script, prologue) = Script::begin(steps).await;
        let mut subjects = Vec::new();
        for opener in &self.openers {
            let subject = Subject::open(opener.clone()).await;
            for call in &prologue {
                call.apply(&*subject).await;
            }
            subjects.push(subject);
        }
        while let Some((call, said)) = script.next().await {
            for subject in &mut subjects {
                script.compare(&call, &said, subject).await?;
            }
            let outcomes = coverage.outcomes.entry(variant(&call)).or_default();
            for name in said.names {
                *outcomes.entry(name).or_default() += 1;
            }
            coverage.steps += 1;
        }
        coverage.sequences += 1;
        Ok(())
    }
}

/// Sequences from one seed.
const PART: u64 = 32;

/// Tells the other threads that one has found a difference.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs in the runtime that there is, or in one of its own.
fn blocking<T>(work: impl Future<Output = T>) -> T {
    match Handle::try_current() {
        Ok(handle) => block_in_place(|| handle.block_on(work)),
        Err(_) => crate::runtime().block_on(work),
    }
}

/// A test to paste.
fn as_test(steps: &[Step]) -> String {
    let steps = format!("{steps:?}").replace('[', "vec![");
    format!(
        "the shortest sequence found; as a test:\n\n\
         #[test]\nfn regression() {{\n    \
         use groundtackle_utxo_store_testkit::differential::{{Differential, Expected::*, Item::*, Pick, Rules, Step::*}};\n    \
         Differential::new().with(HARNESS).replay(&{steps});\n}}\n"
    )
}
