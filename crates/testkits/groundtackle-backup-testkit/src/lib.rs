#![doc = include_str!("../README.md")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test kit asserts"
)]

mod cases;
mod content;
mod faulty;
mod harness;

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use content::content;
pub use faulty::{Call, Fault, Faulty};
use harness::Subject;
pub use harness::TargetHarness;

/// Makes a `#[test]` of every case, against the targets of a [`TargetHarness`].
///
/// ```
/// # use groundtackle_backup::{MemoryTarget, Result};
/// # struct MemoryHarness;
/// # #[async_trait::async_trait]
/// # impl groundtackle_backup_testkit::TargetHarness for MemoryHarness {
/// #     type Target = MemoryTarget;
/// #     type Place = MemoryTarget;
/// #     async fn place(&self) -> MemoryTarget { MemoryTarget::new() }
/// #     async fn open(&self, place: &MemoryTarget) -> Result<MemoryTarget> { Ok(place.clone()) }
/// # }
/// groundtackle_backup_testkit::target_conformance!(MemoryHarness);
/// ```
#[macro_export]
macro_rules! target_conformance {
    ($harness:expr $(,)?) => {
        $crate::__each_target_case! { test $harness }
    };
}

/// All cases, listed once. A case that is not here is dead code, which the compiler reports.
/// `if` names what a case needs of the adapter or the harness, from the module `needs`.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_target_case {
    ($($what:tt)*) => {
        $crate::__expand_target! { [$($what)*]
            objects::what_is_put_comes_back,
            objects::parts_have_the_length_asked_for,
            objects::a_range_beyond_the_end_is_corrupt,
            objects::what_is_not_there_is_none,
            objects::an_empty_object_is_an_object,
            objects::the_longest_keys_work,
            objects::tags_tell_contents_apart,
            objects::removed_objects_are_gone,
            objects::removing_is_idempotent,
            objects::every_handle_sees_the_same,
            objects::what_is_acknowledged_outlives_a_restart,
            objects::dropped_puts_are_whole_or_not_there,
            conditions::absent_means_absent,
            conditions::unchanged_means_unchanged,
            conditions::exactly_one_of_many_creates if conditional_put,
            conditions::exactly_one_of_many_replaces if conditional_put,
            conditions::no_count_is_lost if conditional_put,
            conditions::readers_see_the_whole_old_or_the_whole_new,
            listings::keys_come_in_the_order_of_their_bytes,
            listings::a_prefix_is_any_text,
            listings::pages_join_without_gap_or_overlap,
            listings::more_than_a_thousand_are_listed,
            listings::listed_once_acknowledged,
            listings::what_stays_is_listed_once_beside_writers,
            uploads::large_objects_come_back,
            uploads::objects_of_every_size_come_back,
            uploads::an_upload_without_bytes_is_an_empty_object,
            uploads::nothing_is_seen_before_the_end,
            uploads::one_of_two_uploads_finishes,
            uploads::exactly_one_of_many_uploads_finishes if conditional_put,
            uploads::an_upload_replaces_nothing,
            uploads::dropped_and_aborted_uploads_leave_nothing,
            uploads::unfinished_uploads_are_removed,
            uploads::uploads_under_way_are_not_removed,
            uploads::a_removed_upload_makes_no_object_in_part,
            uploads::memory_is_bounded if stalls,
            locks::locked_objects_stay_until_then if object_lock,
            locks::locked_uploads_stay_until_then if object_lock,
            locks::a_shorter_lock_does_not_shorten if object_lock,
            locks::a_longer_lock_extends if object_lock,
            locks::what_is_not_there_cannot_be_locked if object_lock,
            locks::locks_are_refused_where_there_are_none if no_object_lock,
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __expand_target {
    ([test $harness:expr] $($module:ident::$case:ident $(if $need:ident)?,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::run_target($harness, stringify!($case));
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

const CASES: &[Case] = __each_target_case!(table);

/// The names of all cases.
pub fn target_cases() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|case| case.name)
}

/// Runs one case by its name, in a runtime of its own with several threads.
///
/// # Panics
/// When the target breaks the promise, or there is no such case.
pub fn run_target<H: TargetHarness>(harness: H, name: &str) {
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
        let subject = Subject::of(harness).await;
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
