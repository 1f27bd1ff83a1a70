//! What is watched, put together and checked.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::check::{Check, Heartbeat, Kind, Settings};
use crate::clock::{Clock, SystemClock};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::health::{Definition, Health, Source};
use crate::ledger::{self, Ledger, LedgerStorage};
use crate::maintenance::{Declared, Maintenance};
use crate::objective::Objective;
use crate::outcome::Name;

/// As many checks as a process may have.
const MAX_CHECKS: usize = 10_000;

/// As many maintenances as may be declared.
pub(crate) const MAX_MAINTENANCES: usize = 1000;

/// Puts a [`Health`] together.
#[derive(Debug)]
pub struct Builder {
    clock: Arc<dyn Clock>,
    definitions: Vec<Definition>,
    objectives: Vec<Objective>,
    maintenances: Vec<Maintenance>,
    storage: Option<Arc<dyn LedgerStorage>>,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            definitions: Vec::new(),
            objectives: Vec::new(),
            maintenances: Vec::new(),
            storage: None,
        }
    }
}

impl Builder {
    /// Takes the time from here. Give heartbeats the same clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn define(mut self, name: Name, kind: Kind, settings: Settings, source: Source) -> Self {
        self.definitions.push(Definition {
            name,
            kind,
            settings,
            source,
        });
        self
    }

    /// The process must be restarted if this is silent.
    #[must_use]
    pub fn liveness(self, name: Name, heartbeat: Heartbeat) -> Self {
        self.define(
            name,
            Kind::Liveness,
            Settings::default(),
            Source::Beats(heartbeat),
        )
    }

    /// The service can't do its work while this fails.
    #[must_use]
    pub fn readiness(self, name: Name, settings: Settings, check: impl Check) -> Self {
        self.define(
            name,
            Kind::Readiness,
            settings,
            Source::Pull(Arc::new(check)),
        )
    }

    /// The service has not started until this is up once.
    #[must_use]
    pub fn startup(self, name: Name, settings: Settings, check: impl Check) -> Self {
        self.define(name, Kind::Startup, settings, Source::Pull(Arc::new(check)))
    }

    /// A readiness check that nobody runs: real traffic, or the end of a job, reports by a [`Reporter`](crate::Reporter). Results age as
    /// others do; of the schedule, `period`, `timeout` and `jitter` only give the default of `valid_for`.
    #[must_use]
    pub fn push(self, name: Name, settings: Settings) -> Self {
        self.define(name, Kind::Readiness, settings, Source::Push)
    }

    /// A service level to keep.
    #[must_use]
    pub fn objective(mut self, objective: Objective) -> Self {
        self.objectives.push(objective);
        self
    }

    /// A maintenance, declared when this is built, or earlier if the ledger knows it.
    #[must_use]
    pub fn maintenance(mut self, maintenance: Maintenance) -> Self {
        self.maintenances.push(maintenance);
        self
    }

    /// Where service levels outlive the process. Without it, what was before the start is unmeasured.
    /// An objective is known by its name: once this is persisted, minutes of objectives that are not there any more are dropped.
    #[must_use]
    pub fn ledger(mut self, storage: Arc<dyn LedgerStorage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Checks that all fits together, and reads the ledger, which blocks.
    ///
    /// # Errors
    /// `Duplicate`, `NotFound`, `Cycle`, `Invalid`, `TooMany`, `CannotFire`; `Empty` for an objective about no checks; those of the
    /// ledger.
    pub fn build(self) -> Result<Health> {
        if self.definitions.len() > MAX_CHECKS {
            return Err(Error::TooMany {
                what: "checks",
                limit: MAX_CHECKS,
            });
        }
        for Definition { name, settings, .. } in &self.definitions {
            settings
                .schedule
                .validate(&format!("check {:?}", name.as_str()))?;
        }
        let node = |of: &Definition| (of.name.clone(), of.settings.depends_on.clone());
        let graph = Graph::new(self.definitions.iter().map(node))?;
        for Definition { name, settings, .. } in &self.definitions {
            let is_liveness = |need: &&Name| {
                let found = self.definitions.iter().find(|of| of.name == **need);
                found.is_some_and(|of| of.kind == Kind::Liveness)
            };
            if let Some(need) = settings.depends_on.iter().find(is_liveness) {
                let problem = format!(
                    "names {:?}, which is liveness: a process that is dead shows nothing",
                    need.as_str()
                );
                return Err(Error::invalid(
                    format!("check {:?}", name.as_str()),
                    "depends_on",
                    problem,
                ));
            }
        }
        ledger::validate(&self.objectives)?;
        let members = self
            .objectives
            .iter()
            .map(|of| members(of, &self.definitions));
        let members = members.collect::<Result<Vec<_>>>()?;
        let mut ledger = Ledger::new(&self.objectives);
        let now = self.clock.now();
        if let Some(storage) = &self.storage {
            storage.load(&mut |entry| ledger.restore(entry))?;
            ledger.trim(now.unix_millis);
        }
        let health = Health::new(
            self.clock,
            self.definitions,
            graph,
            ledger,
            members,
            self.storage,
        );
        let mut names = BTreeSet::new();
        for maintenance in self.maintenances {
            if !names.insert(maintenance.name.clone()) {
                let name = maintenance.name;
                return Err(Error::Duplicate {
                    what: "maintenance",
                    name,
                });
            }
            health.declare_at(Declared {
                maintenance,
                declared_unix_millis: now.unix_millis,
            })?;
        }
        Ok(health)
    }
}

/// Which checks an objective is about.
fn members(objective: &Objective, definitions: &[Definition]) -> Result<Vec<usize>> {
    let is_in = |of: &Definition| {
        of.kind == Kind::Readiness
            && match &objective.subset {
                Some(subset) => of.settings.subsets.contains(subset),
                None => of.settings.required,
            }
    };
    let of = definitions.iter().enumerate().filter(|(_, of)| is_in(of));
    let of: Vec<usize> = of.map(|(i, _)| i).collect();
    if of.is_empty() {
        return Err(Error::Empty {
            what: format!(
                "the set of checks of objective {:?}",
                objective.name.as_str()
            ),
            way_out: "name a subset that readiness checks are part of",
        });
    }
    Ok(of)
}
