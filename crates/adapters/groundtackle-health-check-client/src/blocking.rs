use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// Makes calls that block and that nobody can end, one at a time: while one hangs (a network file system, a resolver) the others
/// wait, so that threads don't pile up. Clones share the turn.
#[derive(Clone, Debug)]
pub struct Blocking(Arc<Semaphore>);

impl Default for Blocking {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl Blocking {
    /// What the call returns; `None` if it panics, or the runtime ends.
    ///
    /// **Cancel safety**: dropped while it waits for its turn, nothing is called; dropped later, the call goes on and its result is
    /// lost.
    pub async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = self.0.clone().acquire_owned().await.ok()?;
        let called = spawn_blocking(move || {
            let _permit = permit;
            call()
        });
        called.await.ok()
    }
}
