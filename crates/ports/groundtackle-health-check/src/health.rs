//! What is known of all checks, and how it becomes known.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::broadcast;

use crate::builder::{Builder, MAX_MAINTENANCES};
use crate::check::{Check, Heartbeat, Kind, Settings};
use crate::clock::{Clock, Moment};
use crate::error::{Error, Result};
use crate::events::{AlertChange, CAPACITY, CheckChange, Event, EventStream};
use crate::graph::Graph;
use crate::hysteresis::Hysteresis;
use crate::ledger::{Ledger, LedgerEntry, LedgerStorage, Measured};
use crate::maintenance::{Declared, Maintenance};
use crate::objective::ServiceLevel;
use crate::outcome::{Cause, Name, Observation, Outcome};
use crate::view::{Reading, Verdict, View, Waiting};

/// For this long a view counts as what was, in the ledger: whoever did not look for longer did not measure.
const MEASURE_GAP_MILLIS: u64 = 10_000;

/// The two clocks may drift this far apart between two looks; beyond it one has stepped, and nothing was measured.
const STEP_MILLIS: u64 = 1_000;

/// While a heartbeat is silent, how soon it is noticed that it is back.
const SILENT_MILLIS: u64 = 100;

/// How often service levels are counted.
const LEVELS_MILLIS: u64 = 10_000;

/// How often the ledger's storage is written anew, without what no window reaches.
const REPLACE_MILLIS: u64 = 86_400_000;

#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: Name,
    pub(crate) kind: Kind,
    pub(crate) settings: Settings,
    pub(crate) source: Source,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Beats(Heartbeat),
    Pull(Arc<dyn Check>),
    Push,
}

/// The health of a service: what is watched, what is known of it, and what it has come to. Clones are the same one.
///
/// Reading never runs a check: it gives what is known, in microseconds.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    definitions: Vec<Definition>,
    graph: Graph,
    core: Mutex<Core>,
    view: RwLock<Arc<View>>,
    events: broadcast::Sender<Event>,
    storage: Option<Arc<dyn LedgerStorage>>,
    /// When the storage was last written anew; held while it is written at all.
    storing: Mutex<u64>,
    runs: AtomicU64,
}

#[derive(Debug)]
struct Core {
    states: Vec<State>,
    ledger: Ledger,
    /// Of each objective, the checks that it is about.
    members: Vec<Vec<usize>>,
    levels: Arc<[ServiceLevel]>,
    levels_at: Option<Moment>,
    /// For how many milliseconds from the last view on no check's result gets too old.
    holds_for_millis: u64,
}

#[derive(Debug)]
struct State {
    hysteresis: Hysteresis,
    last: Option<(Moment, Observation)>,
    /// A startup check that was up.
    started: bool,
    /// What it needs has failed: how it is can't be told from what it finds.
    suppressed: bool,
    depends_on: Arc<[Name]>,
    subsets: Arc<[Name]>,
}

/// What a check says of itself, and for how long.
struct Own {
    outcome: Outcome,
    cause: Cause,
    left_millis: u64,
}

impl Health {
    /// Begins to put one together.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        definitions: Vec<Definition>,
        graph: Graph,
        ledger: Ledger,
        members: Vec<Vec<usize>>,
        storage: Option<Arc<dyn LedgerStorage>>,
    ) -> Self {
        let now = clock.now();
        let states = definitions.iter().map(|of| State {
            hysteresis: Hysteresis::new(
                of.settings.schedule.failures_to_down,
                of.settings.schedule.successes_to_up,
            ),
            last: None,
            started: false,
            suppressed: false,
            depends_on: of.settings.depends_on.clone().into(),
            subsets: of.settings.subsets.clone().into(),
        });
        let mut core = Core {
            states: states.collect(),
            ledger,
            members,
            levels: Arc::from([]),
            levels_at: None,
            holds_for_millis: 0,
        };
        core.count_levels(now);
        let (view, holds_for) = look(&mut core, &definitions, &graph, None, now);
        core.holds_for_millis = holds_for;
        Self(Arc::new(Inner {
            clock,
            definitions,
            graph,
            core: Mutex::new(core),
            view: RwLock::new(Arc::new(view)),
            events: broadcast::channel(CAPACITY).0,
            storage,
            // Never by this process: one that is started anew each hour must not let it grow.
            storing: Mutex::new(0),
            runs: AtomicU64::new(0),
        }))
    }

    /// What is known now. It runs no check, touches no disk and no network, and costs microseconds at most; however often it is
    /// called, nothing else is asked.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        let now = self.0.clock.now();
        let view = self.current();
        if now.millis_since(view.at) < view.good_for_millis {
            return view;
        }
        self.refresh(&mut self.core(), now)
    }

    /// Notices what has changed by time alone: results that have got too old, alerts. The [`Scheduler`](crate::Scheduler) does it
    /// once a second; time between two calls that are more than 10 seconds apart is unmeasured beyond them.
    pub fn tick(&self) {
        let now = self.0.clock.now();
        let mut core = self.core();
        self.look_again(&mut core, now, true);
    }

    /// Changes from now on.
    #[must_use]
    pub fn events(&self) -> EventStream {
        EventStream::new(self.0.events.subscribe())
    }

    /// The order in which things start: each check after all that it needs.
    pub fn start_order(&self) -> impl Iterator<Item = &Name> {
        self.0.graph.start_order()
    }

    /// Whoever reports for a check that was registered with [`Builder::push`].
    ///
    /// # Errors
    /// `NotFound` if there is no such check.
    pub fn reporter(&self, name: &str) -> Result<Reporter> {
        let is_it = |of: &Definition| of.name.as_str() == name && matches!(of.source, Source::Push);
        let check = self.0.definitions.iter().position(is_it);
        let check = check.ok_or_else(|| Error::NotFound {
            what: "a reporter".into(),
            wanted: "check registered with push",
            name: name.into(),
        })?;
        let health = self.clone();
        Ok(Reporter { health, check })
    }

    /// Declares a maintenance, as of now. One that is known already keeps its earlier declaration. Blocks if there is a storage
    /// for the ledger: it lies there when this returns.
    ///
    /// # Errors
    /// `Invalid`, `NotFound` for a check that is not there, `TooMany`; those of the ledger, then it is not declared.
    pub fn declare(&self, maintenance: Maintenance) -> Result<()> {
        self.declare_at(Declared {
            maintenance,
            declared_unix_millis: self.0.clock.now().unix_millis,
        })
    }

    pub(crate) fn declare_at(&self, declared: Declared) -> Result<()> {
        declared.maintenance.validate()?;
        for check in &declared.maintenance.checks {
            if !self.0.definitions.iter().any(|of| of.name == *check) {
                return Err(Error::NotFound {
                    what: format!("maintenance {:?}", declared.maintenance.name.as_str()),
                    wanted: "check",
                    name: check.as_str().into(),
                });
            }
        }
        let storing = self
            .0
            .storing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        {
            let core = self.core();
            let known = core.ledger.declared();
            if known
                .iter()
                .any(|known| known.maintenance == declared.maintenance)
            {
                return Ok(());
            }
            if known.len() >= MAX_MAINTENANCES {
                return Err(Error::TooMany {
                    what: "maintenances",
                    limit: MAX_MAINTENANCES,
                });
            }
        }
        if let Some(storage) = &self.0.storage {
            storage.append(&[LedgerEntry::Maintenance(declared.clone())])?;
        }
        let mut core = self.core();
        core.ledger.declare(declared);
        drop(storing);
        self.refresh(&mut core, self.0.clock.now());
        Ok(())
    }

    /// The maintenances that are known, over and to come.
    #[must_use]
    pub fn maintenances(&self) -> Vec<Declared> {
        self.core().ledger.declared().to_vec()
    }

    /// Writes to the storage what the ledger has beyond it: minutes that are over, or with `all` also the one under way. Blocks. The
    /// [`Scheduler`](crate::Scheduler) does it every minute.
    ///
    /// # Errors
    /// Those of the storage. What was not written is written the next time.
    pub fn persist(&self, all: bool) -> Result<()> {
        let Some(storage) = &self.0.storage else {
            return Ok(());
        };
        let now = self.0.clock.now().unix_millis;
        let mut replaced = self
            .0
            .storing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let unstored = self.core().ledger.unstored(now, all);
        if !unstored.is_empty() {
            storage.append(&unstored)?;
            self.core().ledger.stored(&unstored);
        }
        if now.abs_diff(*replaced) >= REPLACE_MILLIS {
            let entries = {
                let mut core = self.core();
                core.ledger.trim(now);
                core.ledger.entries()
            };
            storage.replace(&entries)?;
            *replaced = now;
        }
        Ok(())
    }

    /// How many runs of checks have begun.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.0.runs.load(Ordering::Relaxed)
    }

    /// Checks that are to be run, by their index.
    pub(crate) fn pulled(&self) -> Vec<(usize, Arc<dyn Check>)> {
        let all = self.0.definitions.iter().enumerate();
        all.filter_map(|(i, of)| match &of.source {
            Source::Pull(check) => Some((i, check.clone())),
            Source::Beats(_) | Source::Push => None,
        })
        .collect()
    }

    pub(crate) fn settings(&self, check: usize) -> Settings {
        let of = self.0.definitions.get(check);
        of.map(|of| of.settings.clone()).unwrap_or_default()
    }

    pub(crate) fn count_run(&self) {
        self.0.runs.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether it is a startup check that was up: it need not run any more.
    pub(crate) fn has_started(&self, check: usize) -> bool {
        self.core()
            .states
            .get(check)
            .is_some_and(|state| state.started)
    }

    /// Takes in a result.
    pub(crate) fn observe(&self, check: usize, observation: Observation) {
        let now = self.0.clock.now();
        let mut core = self.core();
        let (Some(definition), Some(state)) =
            (self.0.definitions.get(check), core.states.get_mut(check))
        else {
            return;
        };
        if state.started {
            return;
        }
        let before = own(definition, state, now);
        if state.suppressed {
            state.hysteresis.reset();
        } else {
            state.hysteresis.observe(&observation);
        }
        state.last = Some((now, observation));
        let settled = state.hysteresis.settled();
        state.started =
            definition.kind == Kind::Startup && settled.is_some_and(|of| of.outcome.is_up());
        let after = own(definition, state, now);
        if (before.outcome, before.cause) != (after.outcome, after.cause) {
            self.refresh(&mut core, now);
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.0.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<View> {
        self.0
            .view
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn refresh(&self, core: &mut Core, now: Moment) -> Arc<View> {
        self.look_again(core, now, false)
    }

    /// Accounts for the time since the last view, counts service levels if it is time, makes a new view, and says what has changed.
    fn look_again(&self, core: &mut Core, now: Moment, count: bool) -> Arc<View> {
        let before = self.current();
        core.account(&before, now);
        if count
            && core
                .levels_at
                .is_none_or(|at| now.millis_since(at) >= LEVELS_MILLIS)
        {
            for change in core.count_levels(now) {
                // Nobody need listen.
                let _ = self.0.events.send(Event::Alert(change));
            }
        }
        let (view, holds_for) = look(core, &self.0.definitions, &self.0.graph, Some(&before), now);
        core.holds_for_millis = holds_for;
        let view = Arc::new(view);
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view.clone();
        for (was, is) in before.readings.iter().zip(&view.readings) {
            if was.outcome != is.outcome {
                // Nobody need listen.
                let _ = self.0.events.send(Event::Check(CheckChange {
                    unix_millis: now.unix_millis,
                    name: is.name.clone(),
                    kind: is.kind,
                    from: was.outcome,
                    to: is.outcome,
                    cause: is.cause.clone(),
                    caused_by: is.caused_by.clone(),
                    in_maintenance: is.in_maintenance,
                }));
            }
        }
        view
    }
}

/// Reports for a check that nobody runs. Clones report for the same one.
#[derive(Clone, Debug)]
pub struct Reporter {
    health: Health,
    check: usize,
}

impl Reporter {
    /// Takes in a result, as of now.
    pub fn report(&self, observation: Observation) {
        self.health.observe(self.check, observation);
    }
}

/// What a check says of itself. A result that is too old is forgotten, with all before it.
fn own(definition: &Definition, state: &mut State, now: Moment) -> Own {
    let new = |outcome, cause, left_millis| Own {
        outcome,
        cause,
        left_millis,
    };
    if let Source::Beats(heartbeat) = &definition.source {
        let (observation, left) = heartbeat.read(now);
        return new(
            observation.outcome,
            observation.cause,
            left.max(SILENT_MILLIS),
        );
    }
    if state.started {
        return new(Outcome::Pass, Cause::STARTED, u64::MAX);
    }
    let Some((at, _)) = &state.last else {
        return new(Outcome::Unknown, Cause::NOT_RUN, u64::MAX);
    };
    let age = now.millis_since(*at);
    match definition.settings.schedule.valid_millis().checked_sub(age) {
        Some(left @ 1..) => match state.hysteresis.settled() {
            Some(settled) => new(settled.outcome, settled.cause.clone(), left),
            None => new(Outcome::Unknown, Cause::SETTLING, left),
        },
        _ => {
            state.hysteresis.reset();
            new(Outcome::Unknown, Cause::STALE, u64::MAX)
        }
    }
}

/// Makes a view, and says for how many milliseconds no result gets too old.
fn look(
    core: &mut Core,
    definitions: &[Definition],
    graph: &Graph,
    before: Option<&View>,
    now: Moment,
) -> (View, u64) {
    let (mut good_for, mut holds_for) = (u64::MAX, u64::MAX);
    let mut readings: Vec<Option<Reading>> = definitions.iter().map(|_| None).collect();
    for &i in graph.order() {
        let (Some(definition), Some(state)) = (definitions.get(i), core.states.get_mut(i)) else {
            continue;
        };
        let Own {
            mut outcome,
            mut cause,
            left_millis,
        } = own(definition, state, now);
        good_for = good_for.min(left_millis);
        if definition.kind != Kind::Liveness {
            holds_for = holds_for.min(left_millis);
        }
        let hidden_by = |parent: &usize| {
            let parent = readings.get(*parent)?.as_ref()?;
            let failed = (parent.outcome == Outcome::Fail).then_some(&parent.name);
            parent.caused_by.as_ref().or(failed).cloned()
        };
        let caused_by = graph
            .parents(i)
            .iter()
            .find_map(hidden_by)
            .filter(|_| !state.started);
        let suppressed = caused_by.is_some();
        if suppressed {
            (outcome, cause) = (Outcome::Unknown, Cause::DEPENDENCY);
            // What it finds meanwhile says nothing of its own.
            state.hysteresis.reset();
        }
        state.suppressed = suppressed;
        let was = before
            .and_then(|view| view.readings.get(i))
            .filter(|was| was.outcome == outcome);
        let beat = match &definition.source {
            Source::Beats(heartbeat) => Some(heartbeat.last()),
            Source::Pull(_) | Source::Push => None,
        };
        let observed = state.last.as_ref().map(|(at, _)| *at).or(beat);
        let mut declared = core.ledger.declared().iter();
        let reading = Reading {
            name: definition.name.clone(),
            kind: definition.kind,
            outcome,
            cause,
            detail: state
                .last
                .as_ref()
                .and_then(|(_, last)| last.detail.clone()),
            caused_by,
            observed_unix_millis: observed.map(|at| at.unix_millis),
            valid_until_unix_millis: observed
                .filter(|_| left_millis != u64::MAX)
                .map(|_| now.unix_millis.saturating_add(left_millis)),
            since_unix_millis: was.map_or(now.unix_millis, |was| was.since_unix_millis),
            in_maintenance: declared
                .any(|of| of.maintenance.covers(&definition.name, now.unix_millis)),
            required: definition.settings.required,
            public: definition.settings.public,
            depends_on: state.depends_on.clone(),
            subsets: state.subsets.clone(),
        };
        if let Some(place) = readings.get_mut(i) {
            *place = Some(reading);
        }
    }
    let readings: Vec<Reading> = readings.into_iter().flatten().collect();
    let view = View {
        unix_millis: now.unix_millis,
        liveness: liveness(&readings),
        readiness: readiness(&readings),
        startup: Verdict::of(of_kind(&readings, Kind::Startup)),
        subsets: subsets(&readings),
        waiting_for: waiting_for(&readings, graph),
        readings,
        service_levels: core.levels.clone(),
        at: now,
        good_for_millis: good_for,
    };
    (view, holds_for)
}

fn of_kind(readings: &[Reading], kind: Kind) -> impl Iterator<Item = &Reading> {
    readings.iter().filter(move |reading| reading.kind == kind)
}

fn liveness(readings: &[Reading]) -> Verdict {
    if of_kind(readings, Kind::Liveness).next().is_none() {
        return Verdict {
            outcome: Outcome::Pass,
            cause: Cause::OK,
        };
    }
    Verdict::of(of_kind(readings, Kind::Liveness))
}

/// A service that has not started is not ready.
fn readiness(readings: &[Reading]) -> Verdict {
    let started = Verdict::of(of_kind(readings, Kind::Startup));
    let has_startup = of_kind(readings, Kind::Startup).next().is_some();
    if has_startup && !started.outcome.is_up() {
        return Verdict {
            outcome: Outcome::Unknown,
            cause: Cause::STARTING,
        };
    }
    Verdict::of(of_kind(readings, Kind::Readiness))
}

fn subsets(readings: &[Reading]) -> BTreeMap<Name, Verdict> {
    let mut sets: BTreeMap<Name, Vec<&Reading>> = BTreeMap::new();
    for reading in of_kind(readings, Kind::Readiness) {
        for subset in reading.subsets.iter() {
            sets.entry(subset.clone()).or_default().push(reading);
        }
    }
    let verdict = |(name, set): (Name, Vec<&Reading>)| (name, Verdict::of(set.into_iter()));
    sets.into_iter().map(verdict).collect()
}

/// What is not up though all that it needs is, and how much each of them holds up.
fn waiting_for(readings: &[Reading], graph: &Graph) -> Vec<Waiting> {
    let up = |i: &usize| {
        readings
            .get(*i)
            .is_some_and(|reading| reading.outcome.is_up())
    };
    let roots = graph.order().iter().copied().filter(|i| !up(i));
    let roots = roots.filter(|i| graph.parents(*i).iter().all(up));
    let waiting = |root: usize| {
        let mut below = vec![false; readings.len()];
        let mut holds_up: usize = 0;
        for &i in graph.order() {
            let held = graph
                .parents(i)
                .iter()
                .any(|parent| *parent == root || below.get(*parent).copied().unwrap_or_default());
            if let Some(place) = below.get_mut(i).filter(|_| held) {
                *place = true;
                holds_up = holds_up.saturating_add(1);
            }
        }
        let reading = readings.get(root)?;
        Some(Waiting {
            name: reading.name.clone(),
            cause: reading.cause.clone(),
            holds_up,
        })
    };
    roots.filter_map(waiting).take(MAX_WAITING).collect()
}

/// As many things as a start-up is said to wait for: each is a walk through the graph.
const MAX_WAITING: usize = 16;

impl Core {
    /// Counts what the last view said, until now or until it no longer held.
    fn account(&mut self, before: &View, now: Moment) {
        let wall = now.unix_millis.saturating_sub(before.at.unix_millis);
        let monotonic = now
            .monotonic_millis
            .saturating_sub(before.at.monotonic_millis);
        if wall.abs_diff(monotonic) > STEP_MILLIS {
            return;
        }
        let begin = before.at.unix_millis;
        let end = begin.saturating_add(wall.min(self.holds_for_millis).min(MEASURE_GAP_MILLIS));
        let within = |time: &u64| begin < *time && *time < end;
        let declared = self.ledger.declared().iter().filter(|of| of.in_time());
        let declared: Vec<Maintenance> = declared.map(|of| of.maintenance.clone()).collect();
        let mut cuts: Vec<u64> = declared
            .iter()
            .flat_map(|of| [of.begins_millis(), of.ends_millis()])
            .filter(within)
            .collect();
        cuts.extend([begin, end]);
        cuts.sort_unstable();
        for (i, members) in self.members.iter().enumerate() {
            for (from, to) in cuts.iter().zip(cuts.iter().skip(1)) {
                let state = measured(members, &before.readings, &declared, *from);
                self.ledger.account(i, *from, *to, state);
            }
        }
    }

    /// Counts service levels, and says which alerts have begun or ended.
    fn count_levels(&mut self, now: Moment) -> Vec<AlertChange> {
        let levels = self.ledger.service_levels(now.unix_millis);
        let before = std::mem::replace(&mut self.levels, levels.into());
        self.levels_at = Some(now);
        let mut changes = Vec::new();
        for (i, level) in self.levels.iter().enumerate() {
            for (k, alert) in level.alerts.iter().enumerate() {
                let was = before.get(i).and_then(|level| level.alerts.get(k));
                if was.is_some_and(|was| was.firing) != alert.firing {
                    changes.push(AlertChange {
                        unix_millis: now.unix_millis,
                        objective: level.objective.clone(),
                        severity: alert.severity,
                        long_secs: alert.long_secs,
                        firing: alert.firing,
                        burn: alert.long_burn,
                    });
                }
            }
        }
        changes
    }
}

/// What these checks together count as. That one is down outweighs that another one is under maintenance.
fn measured(
    members: &[usize],
    readings: &[Reading],
    declared: &[Maintenance],
    unix_millis: u64,
) -> Measured {
    let in_maintenance = |name: &Name| declared.iter().any(|of| of.covers(name, unix_millis));
    let (mut excluded, mut unknown) = (false, false);
    for reading in members.iter().filter_map(|i| readings.get(*i)) {
        if in_maintenance(&reading.name) || reading.caused_by.as_ref().is_some_and(in_maintenance) {
            excluded = true;
        } else if reading.outcome == Outcome::Fail || reading.caused_by.is_some() {
            return Measured::Bad;
        } else if !reading.outcome.is_up() {
            unknown = true;
        }
    }
    match (excluded, unknown) {
        (true, _) => Measured::Excluded,
        (false, true) => Measured::Nothing,
        (false, false) => Measured::Good,
    }
}
