//! Connections, used on threads where they may wait for the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use groundtackle_core::fail_point;
use groundtackle_utxo_store::{Error, Result, Retryability};
use rusqlite::Connection;
use tokio::sync::{Semaphore, TryAcquireError};
use tokio::task::spawn_blocking;

use crate::database::{BACKEND, Fault, during};

/// Calls that may wait for their turn; more are refused.
const QUEUE: usize = 1024;

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) path: PathBuf,
    room: Semaphore,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    pub(crate) fn new(path: &Path, idle: Vec<Connection>) -> Arc<Self> {
        let (path, room) = (path.to_owned(), Semaphore::new(QUEUE));
        let turns = Arc::new(Semaphore::new(idle.len()));
        let idle = Mutex::new(idle);
        Arc::new(Self {
            path,
            room,
            turns,
            idle,
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The error of a call after one of which it is not known whether it was carried out.
    pub(crate) fn poisoned(&self) -> Error {
        let store = self.path.display().to_string();
        Error::Poisoned { store }
    }

    /// Whether calls are refused since then.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.room.is_closed()
    }

    /// Waits for a connection's turn, and for its answer. Who goes before his turn has changed nothing.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let _room = self.room.try_acquire().map_err(|refused| match refused {
            TryAcquireError::NoPermits => Error::overloaded(BACKEND, action),
            TryAcquireError::Closed => self.poisoned(),
        })?;
        let (turn, pool) = (self.turns.clone().acquire_owned().await, self.clone());
        let call = move || {
            let _turn = turn;
            let connection = pool.idle().pop().ok_or_else(|| pool.poisoned())?;
            let done = work(&connection).map_err(|fault| during(fault, action, &pool.path));
            match done.as_ref().map_err(Error::retryability) {
                // Nothing is written behind a log that may have a hole.
                Err(Retryability::Indeterminate) => pool.room.close(),
                _ => pool.idle().push(connection),
            }
            done
        };
        let lost = |lost| {
            self.room.close();
            let doubt = Retryability::Indeterminate;
            Err(Error::backend(BACKEND, action, doubt, lost))
        };
        spawn_blocking(call).await.unwrap_or_else(lost)
    }

    /// The same in one transaction: when it has written anything, that is on the disk.
    pub(crate) async fn transact<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let work = move |connection: &Connection| {
            let change = connection.unchecked_transaction()?;
            let before = change.total_changes();
            // What goes wrong before the commit is rolled back.
            let answer = work(&change)?;
            if change.total_changes() > before {
                fail_point("sqlite.commit.drawn");
                let doubt = Retryability::Indeterminate;
                let doubt = |error| Error::backend(BACKEND, action, doubt, error);
                change.commit().map_err(doubt)?;
                fail_point("sqlite.commit.done");
            }
            Ok(answer)
        };
        self.ask(action, work).await
    }
}
