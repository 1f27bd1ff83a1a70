use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use groundtackle_release_gate::{
    Action, Deployer, Digest, Error, Evidence, EvidenceSource, Permit, PermitLedger, Request,
    Result, Retryability, Timestamp,
};

/// What one call of a source does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Finds this.
    Find(Vec<Evidence>),
    /// Fails, as a server that can't be reached.
    Fail,
    /// Never ends.
    Hang,
}

/// A source that does as it is told. Clones are the same source.
#[derive(Clone, Debug)]
pub struct ScriptedSource(Arc<Source>);

#[derive(Debug)]
struct Source {
    name: String,
    script: Mutex<Script>,
}

#[derive(Debug)]
struct Script {
    next: VecDeque<Act>,
    then: Act,
    asked: Vec<Request>,
}

impl ScriptedSource {
    /// One that finds nothing.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let script = Mutex::new(Script {
            next: VecDeque::new(),
            then: Act::Find(Vec::new()),
            asked: Vec::new(),
        });
        Self(Arc::new(Source {
            name: name.into(),
            script,
        }))
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the call after those that were told before does, once.
    pub fn then(&self, act: Act) {
        self.script().next.push_back(act);
    }

    /// What each call does from now on.
    pub fn from_now_on(&self, act: Act) {
        let mut script = self.script();
        script.next.clear();
        script.then = act;
    }

    /// What it was asked, in that order.
    #[must_use]
    pub fn asked(&self) -> Vec<Request> {
        self.script().asked.clone()
    }
}

#[async_trait]
impl EvidenceSource for ScriptedSource {
    fn name(&self) -> &str {
        &self.0.name
    }

    async fn collect(&self, request: &Request) -> Result<Vec<Evidence>> {
        let act = {
            let mut script = self.script();
            script.asked.push(request.clone());
            let then = script.then.clone();
            script.next.pop_front().unwrap_or(then)
        };
        match act {
            Act::Find(evidence) => Ok(evidence),
            Act::Fail => Err(Error::backend(
                "script",
                "reading",
                Retryability::Transient,
                "as scripted",
            )),
            Act::Hang => std::future::pending().await,
        }
    }
}

/// What a [`ScriptedDeployer`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What.
    pub artefact: Digest,
    /// Where.
    pub environment: String,
    /// Which way.
    pub action: Action,
    /// By whom.
    pub actor: String,
}

/// A deployer that does nothing but remember it, once a permit lets it. Clones are the same deployer.
#[derive(Clone, Debug)]
pub struct ScriptedDeployer(Arc<Place>);

#[derive(Debug)]
struct Place {
    ledger: PermitLedger,
    state: Mutex<Deployed>,
}

#[derive(Debug)]
struct Deployed {
    now: Timestamp,
    fails: bool,
    done: Vec<Done>,
}

impl ScriptedDeployer {
    /// One whose clock stands.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Place {
            ledger: PermitLedger::new(),
            state: Mutex::new(Deployed {
                now,
                fails: false,
                done: Vec::new(),
            }),
        }))
    }

    fn state(&self) -> MutexGuard<'_, Deployed> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets its clock.
    pub fn set_clock(&self, now: Timestamp) {
        self.state().now = now;
    }

    /// Its clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.state().now
    }

    /// Whether it fails from now on, once it has used a permit.
    pub fn fail(&self, fails: bool) {
        self.state().fails = fails;
    }

    /// All that it did, in that order.
    #[must_use]
    pub fn done(&self) -> Vec<Done> {
        self.state().done.clone()
    }
}

#[async_trait]
impl Deployer for ScriptedDeployer {
    async fn deploy(
        &self,
        artefact: &Digest,
        environment: &str,
        action: Action,
        permit: Permit,
    ) -> Result<()> {
        let clearance = permit.redeem(&self.0.ledger, artefact, environment, action, self.now())?;
        let mut state = self.state();
        if state.fails {
            return Err(Error::backend(
                "script",
                "deploying",
                Retryability::Permanent,
                "as scripted",
            ));
        }
        state.done.push(Done {
            artefact: *artefact,
            environment: environment.into(),
            action,
            actor: clearance.actor().into(),
        });
        Ok(())
    }
}
