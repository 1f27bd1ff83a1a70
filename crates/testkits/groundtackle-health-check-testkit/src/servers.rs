use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use groundtackle_health_check::Check;

use crate::checks::{CheckHarness, State};

/// How a server is broken, and how it is well again.
#[derive(Debug)]
pub struct Faults<S> {
    /// Ends it: what is sent is refused.
    pub stop: fn(&mut S),
    /// Starts it again, where it was, after it was stopped.
    pub start: fn(&mut S),
    /// Lets it take what is sent and never answer.
    pub hang: fn(&mut S),
    /// Lets it go on; nothing, if it was not hung.
    pub resume: fn(&mut S),
}

impl<S> Clone for Faults<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Faults<S> {}

/// A harness around a real server, which is stopped, hung and started again. Where there is none, all cases are skipped.
pub struct ServerHarness<S> {
    server: Result<Mutex<(S, bool)>, String>,
    faults: Faults<S>,
    check: fn(&S) -> Arc<dyn Check>,
    secrets: Vec<String>,
}

impl<S> ServerHarness<S> {
    /// Around a server that runs, or why there is none on this machine.
    #[must_use]
    pub fn new(
        server: Result<S, String>,
        faults: Faults<S>,
        check: fn(&S) -> Arc<dyn Check>,
    ) -> Self {
        Self {
            server: server.map(|server| Mutex::new((server, true))),
            faults,
            check,
            secrets: Vec::new(),
        }
    }

    /// With a secret that the check is given.
    #[must_use]
    pub fn with_secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self
    }
}

impl<S> fmt::Debug for ServerHarness<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHarness").finish_non_exhaustive()
    }
}

#[async_trait]
impl<S: Send + 'static> CheckHarness for ServerHarness<S> {
    fn missing(&self) -> Option<String> {
        self.server.as_ref().err().cloned()
    }

    async fn check(&self) -> Arc<dyn Check> {
        let server = self.server.as_ref().expect("without one, nothing is run");
        (self.check)(&server.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    async fn make(&self, state: State) -> bool {
        let Ok(server) = &self.server else {
            return false;
        };
        let (server, runs) = &mut *server.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = &self.faults;
        (faults.resume)(server);
        match (state, *runs) {
            (State::Broken, true) => (faults.stop)(server),
            (State::Working | State::Silent, false) => (faults.start)(server),
            _ => {}
        }
        if state == State::Silent {
            (faults.hang)(server);
        }
        *runs = state != State::Broken;
        true
    }

    fn secrets(&self) -> Vec<String> {
        self.secrets.clone()
    }
}
