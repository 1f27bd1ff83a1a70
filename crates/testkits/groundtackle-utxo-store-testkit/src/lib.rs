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
pub mod differential;
mod harness;
pub mod mainnet;
pub mod state;
mod victim;
pub mod wrappers;

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use cases::chain::check_full_block;
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
            halves::creates_without_spending,
            halves::creating_again_is_judged_by_content,
            halves::create_names_what_is_invalid,
            halves::a_conflicting_transaction_can_take_its_inputs,
            halves::only_conflicting_transactions_give_back,
            halves::remove_evicts_unmined_transactions,
            halves::reads_records_in_order_with_the_fields_asked_for,
            halves::reads_outputs_for_validators,
            blocks::the_tip_is_one_value,
            blocks::mined_transactions_name_their_blocks,
            blocks::unset_mined_forgets_one_block,
            blocks::marks_move_between_branches,
            blocks::connecting_spends_creates_and_marks,
            blocks::a_refused_block_changes_nothing,
            blocks::a_genesis_block_creates_nothing,
            blocks::duplicate_coinbases_replace_and_return,
            blocks::disconnecting_takes_back_exactly,
            blocks::marks_are_kept_on_disconnect,
            blocks::what_is_mined_elsewhere_stays_mined,
            blocks::disconnecting_names_what_is_in_the_way,
            blocks::a_reorganisation_leaves_one_branch,
            blocks::blocks_are_judged_where_the_mempool_was_not,
            alerts::nothing_spends_frozen_outputs,
            alerts::unfreezing_opens_an_output,
            alerts::reassigned_outputs_have_a_new_owner,
            alerts::a_reassignment_outlives_freeze_and_spend,
            conflicts::locks_bind_transactions_and_not_blocks,
            conflicts::marking_takes_all_descendants,
            conflicts::unmarking_needs_every_input,
            conflicts::names_what_a_transaction_would_displace,
            conflicts::a_block_displaces_what_conflicts_with_it,
            retention::lists_unmined_transactions_in_pages,
            retention::the_unmined_listing_goes_on_while_writers_do,
            retention::a_foreign_cursor_is_an_error,
            retention::preserved_transactions_stay,
            retention::prune_removes_what_is_spent_below_the_horizon,
            retention::prune_waits_for_the_highest_block,
            retention::prune_removes_conflicts_that_are_over,
            retention::pruned_blocks_cannot_be_disconnected,
            scanning::the_set_ignores_the_mempool,
            scanning::pages_have_each_coin_once,
            scanning::coins_come_in_order if ordered_scan,
            scanning::cursors_resume_in_a_later_scan,
            scanning::a_cursor_belongs_to_its_partition,
            scanning::a_scan_sees_one_moment if snapshot_scan,
            scanning::the_digest_is_that_of_a_scan,
            scanning::statistics_count_the_set,
            scanning::copies_are_whole_or_unfinished,
            snapshots::snapshots_are_those_of_bitcoin_core,
            snapshots::imports_are_whole_or_unfinished,
            upkeep::recovery_is_safe_at_any_time,
            upkeep::a_healthy_store_says_so,
            upkeep::everything_outlives_a_restart if persistent,
            upkeep::larger_batches_are_an_error if limited_batches,
            upkeep::a_dropped_spend_is_done_or_undone,
            upkeep::dropped_calls_can_be_repeated,
            formats::what_nobody_can_spend_is_in_no_set,
            formats::scripts_come_back_byte_for_byte,
            formats::amounts_come_back_exactly,
            formats::a_coin_spent_in_its_own_block_leaves_no_trace,
            formats::indexes_are_ordered_as_numbers if ordered_scan,
            races::exactly_one_of_many_spenders_wins,
            races::take_overs_leave_one_holder,
            races::blocks_and_transactions_meet,
            races::prunes_and_reorganisations_meet,
            crashes::killed_at_each_write_point if addressed,
            crashes::killed_at_any_moment if addressed,
            crashes::killed_while_connecting_the_real_chain if addressed,
            crashes::the_backend_is_killed,
            incidents::first_seen,
            incidents::idempotent_respend,
            incidents::half_open_heights,
            incidents::no_recordless_spender,
            incidents::unspend_touches_nothing_else,
            incidents::round_trips if counted_round_trips,
            incidents::prune_keeps_what_is_needed,
            incidents::wide_transactions,
            incidents::verdict_or_failure,
            incidents::names_the_culprit,
            incidents::bounded_pressure,
            incidents::wrong_record,
            incidents::resumable_import,
            incidents::comparable_digest,
            incidents::crash_safe_cascades,
            incidents::every_node_healthy,
            incidents::backends_agree,
            chain::chain_oracle,
            chain::real_chain,
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
                $crate::run_in($harness, stringify!($case), module_path!());
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

/// Runs one case by its name, in a runtime of its own with several threads. To be called by a test
/// of that name in the root of a test program: crash cases start it again by its name.
///
/// # Panics
/// When the store breaks the promise, or there is no such case.
pub fn run<H: Harness>(harness: H, name: &str) {
    run_in(harness, name, "");
}

/// The same in a test of `module`.
#[doc(hidden)]
pub fn run_in<H: Harness>(harness: H, name: &str, module: &str) {
    let case = CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("there is no case {name}"));
    if let Some(reason) = harness.missing() {
        static SKIPPED: AtomicUsize = AtomicUsize::new(0);
        let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
        let reason = format!(
            "{reason} (NOTHING WAS TESTED in {count} of {} cases so far)",
            CASES.len()
        );
        return skipped(name, &reason);
    }
    runtime().block_on(async {
        if let Some(task) = victim::task() {
            return victim::work(&harness, &task).await;
        }
        let mut subject = Subject::of(harness).await;
        subject.set_test(name, module);
        match case.need.iter().try_for_each(|need| need(&subject)) {
            Ok(()) => (case.run)(subject).await,
            Err(reason) => skipped(name, reason),
        }
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system grants threads")
}

/// Past the test runner's capture: what is not tested must be seen.
fn skipped(case: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {case}: {reason}").expect("standard error is open");
}
