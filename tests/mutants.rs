//! The conformance kit's own test: wrong versions of the in-memory store, each of which fails the case that names
//! what is wrong with it. What is not in that store can't be wrong there: the cases `round_trips`, `wrong_record`
//! and `bounded_pressure` are about wrappers of the kit and of the port, whose own tests break them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use groundtackle_utxo_store::Result;
use groundtackle_utxo_store_testkit::{Harness, run};

#[allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "a copy, changed by the build script"
)]
mod memory {
    include!(concat!(env!("OUT_DIR"), "/memory.rs"));

    use super::is_mutant;
}

const MUTANTS: &[(&str, &str, &str)] = include!("mutants/list.rs");
const NONE: usize = usize::MAX;

/// Which one is at work. Cases run in threads of their own, so it holds for the process.
static AT_WORK: AtomicUsize = AtomicUsize::new(NONE);

fn is_mutant(number: usize) -> bool {
    AT_WORK.load(Ordering::Relaxed) == number
}

struct MutantHarness;

#[async_trait]
impl Harness for MutantHarness {
    type Store = memory::MemoryUtxoStore;
    type Place = ();

    async fn place(&self) {}

    async fn open(&self, _place: &()) -> Result<Self::Store> {
        Ok(Self::Store::new())
    }
}

/// One test, since one mutant at a time is at work.
#[test]
fn each_is_killed_by_the_case_that_names_it() {
    let mut survivors = Vec::new();
    for (number, (case, is, _)) in MUTANTS.iter().enumerate() {
        AT_WORK.store(NONE, Ordering::Relaxed);
        run(MutantHarness, case);
        AT_WORK.store(number, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| run(MutantHarness, case))) {
            Err(_) => println!("killed by {case}: {is:?}"),
            Ok(()) => survivors.push(format!("{case}: {is:?}")),
        }
    }
    assert!(survivors.is_empty(), "survived:\n{}", survivors.join("\n"));
    println!("{} of {} killed", MUTANTS.len(), MUTANTS.len());
}
