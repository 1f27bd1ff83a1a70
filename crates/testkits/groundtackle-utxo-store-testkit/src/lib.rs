#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test kit asserts"
)]

pub mod builder;
mod cases;
mod harness;
pub mod state;

use std::future::Future;
use std::io::Write;
use std::pin::Pin;

pub use harness::{Fault, Harness, Subject, all, one};

/// Makes a `#[test]` of every case, against the stores of a [`Harness`].
///
/// ```
/// # use groundtackle_utxo_store::{MemoryUtxoStore, Result};
/// # struct MemoryHarness;
/// # #[async_trait::async_trait]
/// # impl groundtackle_utxo_store_testkit::Harness for MemoryHarness {
/// #     type Store = MemoryUtxoStore;
/// #     type Place = ();
/// #     async fn place(&self) {}
/// #     async fn open(&self, _: &()) -> Result<MemoryUtxoStore> { Ok(MemoryUtxoStore::new()) }
/// # }
/// groundtackle_utxo_store_testkit::conformance!(MemoryHarness);
/// ```
#[macro_export]
macro_rules! conformance {
    ($harness:expr $(,)?) => {
        $crate::__each_case! { test $harness }
    };
}

/// All cases, listed once. A case that is not here is dead code, which the compiler reports.
/// `if` names what a case needs of the adapter or the harness, from the module `needs`.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_case {
    ($($what:tt)*) => {
        $crate::__expand! { [$($what)*]
            spending::spends_all_inputs_and_creates_the_record,
            spending::spends_all_or_nothing,
            spending::a_child_may_follow_its_parent_in_one_batch,
            spending::answers_in_order,
            spending::names_each_fault_of_an_input,
            spending::names_each_fault_of_a_transaction,
            spending::the_lowest_faulty_input_decides,
            spending::faults_of_one_outpoint_come_in_order,
            spending::repeating_is_without_effect,
            spending::a_pruned_transaction_is_refused,
            spending::options_are_kept,
            incidents::first_seen,
            incidents::idempotent_respend,
            incidents::half_open_heights,
            incidents::no_recordless_spender,
            incidents::names_the_culprit,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __expand {
    ([test $harness:expr] $($module:ident::$case:ident $(if $need:ident)?,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run($harness, stringify!($case));
            }
        )*
    };
    ([table] $($module:ident::$case:ident $(if $need:ident)?,)*) => {
        &[$(Case {
            name: stringify!($case),
            need: &[$($crate::cases::needs::$need)?],
            run: |subject| Box::pin($crate::cases::$module::$case(subject)),
        }),*]
    };
}

type Need = fn(&Subject) -> Result<(), &'static str>;

struct Case {
    name: &'static str,
    need: &'static [Need],
    run: fn(Subject) -> Pin<Box<dyn Future<Output = ()> + Send>>,
}

const CASES: &[Case] = __each_case!(table);

/// Runs one case by its name, in a runtime of its own with several threads. What `conformance!`
/// expands to.
///
/// # Panics
/// When the store breaks the promise, or there is no such case.
pub fn run<H: Harness>(harness: H, name: &str) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system grants threads");
    runtime.block_on(async {
        let subject = Subject::new(harness).await;
        match case.need.iter().try_for_each(|need| need(&subject)) {
            Ok(()) => (case.run)(subject).await,
            Err(reason) => skipped(name, reason),
        }
    });
}

/// Past the test runner's capture: what is not tested must be seen.
fn skipped(case: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {case}: {reason}").expect("standard error is open");
}
