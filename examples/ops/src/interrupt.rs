//! Ctrl-C: the first one asks to stop after the current block, the second one stops at once.

use std::io;

use tokio::sync::watch;

use crate::failure::{Exit, Failure, Result};
use crate::report::note;

#[derive(Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// From now on signals don't end the process by themselves.
    pub fn listen() -> Result<Self> {
        let mut signals = Signals::new().map_err(|source| Failure::System {
            what: "signals could not be listened to",
            source,
        })?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            signals.next().await;
            note("stopping after the current block or check; once more to stop at once");
            sender.send_replace(true);
            signals.next().await;
            std::process::exit(Exit::Interrupted as i32);
        });
        Ok(Self(receiver))
    }

    /// Whether to stop.
    pub fn check(&self) -> Result<()> {
        if *self.0.borrow() {
            return Err(Failure::Interrupted);
        }
        Ok(())
    }

    /// Gives up waiting for `work` when it is time to stop. Only for work that may be dropped.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            // The sender lives as long as the runtime.
            _ = self.0.wait_for(|stop| *stop) => Err(Failure::Interrupted),
            done = work => Ok(done),
        }
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
