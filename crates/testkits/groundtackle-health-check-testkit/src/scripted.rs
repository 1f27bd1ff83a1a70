use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use groundtackle_health_check::{Check, Observation};

/// What one run does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Finds this.
    Find(Observation),
    /// Never ends.
    Hang,
    /// Panics.
    Panic,
    /// Passes after this time.
    Slow(Duration),
    /// Blocks its thread for this time, then passes. No timeout can end it.
    Block(Duration),
}

/// A check that does as it is told, one act a run; the last one goes on for ever. Clones are the same check.
#[derive(Clone, Debug)]
pub struct Scripted(Arc<Script>);

#[derive(Debug)]
struct Script {
    acts: Vec<Act>,
    runs: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// Counts a run as under way until it is dropped.
struct UnderWay<'a>(&'a Script);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    /// A check of these acts.
    ///
    /// # Panics
    /// Without any.
    pub fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts: Vec<Act> = acts.into_iter().collect();
        assert!(!acts.is_empty(), "a script has an act");
        Self(Arc::new(Script {
            acts,
            runs: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        }))
    }

    /// Always passes.
    #[must_use]
    pub fn passing() -> Self {
        Self::new([Act::Find(Observation::pass())])
    }

    /// Always fails.
    #[must_use]
    pub fn failing() -> Self {
        Self::new([Act::Find(Observation::fail("refused"))])
    }

    /// How many runs have begun.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// How many runs were under way at once, at most.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.0.most_at_once.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Check for Scripted {
    async fn check(&self) -> Observation {
        let script = &*self.0;
        let run = script.runs.fetch_add(1, Ordering::SeqCst);
        let at_once = script.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        script.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        let _under_way = UnderWay(script);
        match &script.acts[run.min(script.acts.len() - 1)] {
            Act::Find(observation) => observation.clone(),
            Act::Hang => std::future::pending().await,
            Act::Panic => panic!("as scripted"),
            Act::Slow(time) => {
                tokio::time::sleep(*time).await;
                Observation::pass()
            }
            Act::Block(time) => {
                std::thread::sleep(*time);
                Observation::pass()
            }
        }
    }
}
