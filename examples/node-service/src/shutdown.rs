//! Signals: the first one asks for an orderly end, the second one ends the process at once.

use std::io;
use std::time::Duration;

use tokio::sync::watch;

/// By convention 128 and the number of SIGINT.
const INTERRUPTED: i32 = 130;

/// Becomes ready when it is time to stop. Each task has its own.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    pub async fn stopped(&mut self) {
        // Also when nobody is left who could say so.
        let _ = self.0.wait_for(|stop| *stop).await;
    }

    /// Gives up waiting for `work` when it is time to stop. Only for work that may be dropped.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            done = work => Some(done),
        }
    }

    /// Whether to go on after this time.
    pub async fn sleep(&mut self, time: Duration) -> bool {
        self.or(tokio::time::sleep(time)).await.is_some()
    }
}

/// From now on signals don't end the process by themselves.
pub fn listen() -> io::Result<Stop> {
    let mut signals = Signals::new()?;
    let (asked, stop) = Stop::new();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("asked to stop; once more to stop at once");
        asked.send_replace(true);
        signals.next().await;
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 3]);

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
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
