//! Calls that are judged in memory: read, judge, lock, commit, carry out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use groundtackle_chain::Txid;
use groundtackle_core::fail_point;

use super::cells::{Cell, CellKey, Cells, Lock, Next, Phase, Stored, Write};
use super::codec;
use super::intent::{Contents, Intent, IntentState, Obstacles, Patience, TURNS, applied, turn_of};
use super::plan::{Aside, Plan, apart, parts_of, plan, put_due};
use super::view::{Mode, Own, Seen, View, as_applied, is_locked, page};
use super::{Attempts, CALL_CELLS, PART_BYTES, PendingUtxoStore, random};
use crate::draft::{Draft, MOST_ROUNDS, Operation, Reads, Run, Stop, run, too_deep};
use crate::error::{Error, Result};
use crate::verdict::Outcome;

/// How often others may be in a call's way before it fails.
const MOST_ATTEMPTS: u32 = 200;

/// Cells that are locked before others are shown that the call goes on.
const LOCK_STEP: usize = 1_024;

const MOST_PAUSE: Duration = Duration::from_millis(20);

/// What a call does besides what its draft says.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Cells that are taken away, which were read.
    pub(super) deleted: Vec<CellKey>,
    /// Transactions to look at in a pruning to a height.
    pub(super) due: Option<(u32, Vec<Txid>)>,
}

/// How getting hold of all that a plan needs ended.
enum Prepared {
    /// Nothing is in the way any more.
    Ready,
    /// Something was not as it was read.
    Again,
    /// Another call is in the way.
    Overtaken,
    /// Whether the intent was written is not known: it is left to whoever finds it.
    Doubtful,
    /// It was one write, and is done.
    Done,
}

/// What a call is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) operation: Operation,
    /// The tip is judged, or the confirmed set may change.
    pub(super) chain: bool,
}

impl From<Operation> for Kind {
    fn from(operation: Operation) -> Self {
        Self {
            operation,
            chain: operation.concerns_chain(),
        }
    }
}

impl<C: Cells> PendingUtxoStore<C> {
    /// Reads all that is asked for, and what that leads to. `false`: another call is in the way of one
    /// that holds something itself.
    pub(super) async fn fetch(&self, view: &mut View, reads: &Reads, chain: bool) -> Result<bool> {
        let mut patience = Patience::new(self.config.patience);
        let mut obstacles = Obstacles::default();
        let mut tears = 0;
        loop {
            view.round += 1;
            // Two that wait for each other don't go on.
            let goes_on = obstacles.is_empty();
            obstacles = Obstacles::default();
            if goes_on && !self.show_progress(view).await? {
                return Ok(false);
            }
            let (keys, values) = view.missing(reads, chain);
            for (key, stored) in &values {
                let Stored::Apart { id, .. } = stored else {
                    continue;
                };
                match self.stored(stored).await {
                    Ok(value) => drop(view.values.insert(*id, value)),
                    Err(error) => {
                        // Its cell may have been given another one since.
                        let now = self.read(&[*key]).await?.pop().flatten();
                        if now.as_ref().map(|cell| cell.stamp) == view.stamp(*key) {
                            return Err(error);
                        }
                        view.forget(*key);
                    }
                }
            }
            let cells = match view.mode {
                Mode::Look => self.read_as_committed(&keys).await?,
                Mode::Change => self.read(&keys).await?,
            };
            let lets_go = !view.held.is_empty() && !view.precedence;
            for (key, cell) in keys.iter().zip(cells) {
                if view.mode == Mode::Change
                    && let Some(cell) = &cell
                {
                    if let Some(lock) = cell.lock.as_ref().filter(|lock| lock.intent != view.id) {
                        // Two who wait for each other would wait for long.
                        if lets_go {
                            return Ok(false);
                        }
                        let locked = obstacles.intents.entry(lock.intent).or_default();
                        locked.push(*key);
                        view.forget(*key);
                        continue;
                    }
                    if let (CellKey::Page { txid, page: 0 }, Some(page)) = (*key, page(cell))
                        && page.phase != Phase::Live
                    {
                        obstacles.pending.push((txid, page.attempt));
                        view.forget(*key);
                        continue;
                    }
                }
                view.put(*key, cell);
            }
            view.decode(self.backend())?;
            if !obstacles.is_empty() {
                self.get_past(&obstacles, &mut patience).await?;
            }
            if !keys.is_empty() || !values.is_empty() {
                continue;
            }
            let torn = view.torn(reads);
            let mut pages = view.note_unheld(reads);
            if view.mode == Mode::Change {
                if torn.is_empty() {
                    return Ok(true);
                }
                // One was read before a change, and the other after it.
                tears += 1;
                if tears > MOST_ATTEMPTS {
                    return Err(
                        self.corrupt("a record", "a page of it is missing, or is not its own")
                    );
                }
                torn.into_iter().for_each(|key| view.forget(key));
                continue;
            }
            pages.extend(torn);
            if pages.is_empty() {
                return Ok(true);
            }
            // Records first, and then the pages: while a mark is not settled, its record says whether it
            // holds.
            let mut changed = false;
            for keys in [view.unheld.clone(), pages] {
                let keys: Vec<_> = keys.into_iter().collect();
                for (key, cell) in keys.iter().zip(self.read_as_committed(&keys).await?) {
                    if cell.as_ref() != view.cell(*key) {
                        changed = true;
                        view.put(*key, cell);
                    }
                }
            }
            if !changed {
                return Ok(true);
            }
            view.decode(self.backend())?;
        }
    }

    /// Reads cells as they count now: those that a committed change has locked as they become.
    pub(super) async fn read_as_committed(&self, keys: &[CellKey]) -> Result<Vec<Option<Cell>>> {
        let mut cells = self.read(keys).await?;
        let mut unsure: Vec<usize> = (0..cells.len()).collect();
        for _ in 0..MOST_ATTEMPTS {
            let lock = |at: &usize| {
                let cell = cells.get(*at)?.as_ref()?;
                Some((*at, cell.lock.as_ref()?.intent, cell.stamp))
            };
            let locked: Vec<_> = unsure.iter().filter_map(lock).collect();
            if locked.is_empty() {
                break;
            }
            let ids: BTreeSet<u64> = locked.iter().map(|(_, id, _)| *id).collect();
            let mut states = HashMap::new();
            for id in ids {
                let intent = self.intent(id).await?;
                states.insert(id, intent.map(|(_, intent)| intent.state));
            }
            // What is committed may be another plan than the one that was seen; what is gone was carried out or
            // undone since, or its lock came late, and means nothing.
            let open = |(_, id, _): &(usize, u64, u64)| {
                let state = states.get(id).copied().flatten();
                !matches!(state, Some(IntentState::Preparing | IntentState::Aborted))
            };
            let again: Vec<_> = locked.into_iter().filter(open).collect();
            let names: Vec<_> = again
                .iter()
                .filter_map(|(at, ..)| keys.get(*at))
                .copied()
                .collect();
            unsure.clear();
            for ((at, id, stamp), now) in again.into_iter().zip(self.read(&names).await?) {
                let same = now.as_ref().map(|cell| cell.stamp) == Some(stamp);
                let committed = states.get(&id).copied().flatten().is_some();
                if !same {
                    unsure.push(at);
                }
                if let Some(cell) = cells.get_mut(at) {
                    *cell = match same && committed {
                        true => now.and_then(as_applied),
                        false => now,
                    };
                }
            }
        }
        Ok(cells)
    }

    /// Answers from what is there, without changing anything.
    pub(super) async fn look<I: Sync, T: Send>(
        &self,
        operation: Operation,
        items: &[I],
        mut reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        let mut view = View::new(Mode::Look);
        for _ in 0..MOST_ROUNDS {
            self.fetch(&mut view, &reads, false).await?;
            let loaded = view.loaded(self.backend(), &reads)?;
            match run(&loaded, self.config.unspendable, items, &judge) {
                Run::Incomplete(more) => reads.extend(more),
                Run::Done(outcomes, _) => return Ok(outcomes),
            }
        }
        Err(too_deep(operation))
    }

    /// Carries a call out as if no other one ran beside it.
    pub(super) async fn change<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        self.change_with(kind, items, reads, judge, |_| Ok(Extra::default()))
            .await
    }

    /// The same, with changes to cells that no draft knows.
    pub(super) async fn change_with<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        mut reads: Reads,
        judge: impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync,
        extra: impl Fn(&View) -> Result<Extra> + Send + Sync,
    ) -> Result<Vec<Outcome<T>>> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = match kind.chain {
            true => self.chain_turn.acquire().await.ok(),
            false => None,
        };
        for attempt in 0..MOST_ATTEMPTS {
            let mut view = View::new(Mode::Change);
            // A change of the set has many cells to lock, and would lose against smaller ones for ever.
            view.precedence = kind.chain;
            let done = self
                .attempt(kind, items, &mut reads, &judge, &extra, &mut view)
                .await;
            match done {
                Ok(Some(outcomes)) => return Ok(outcomes),
                Ok(None) => self.abandon(&view).await?,
                Err(error) => {
                    // So that others need not wait; if this fails too, they will.
                    let _ = self.abandon(&view).await;
                    return Err(error);
                }
            }
            let most = MOST_PAUSE.min(Duration::from_micros(100 << attempt.min(10)));
            let pause = random() % u64::try_from(most.as_micros()).unwrap_or(1).max(1);
            tokio::time::sleep(Duration::from_micros(pause)).await;
        }
        Err(Error::overloaded(
            self.backend(),
            format!(
                "{} (others change the same records all the time)",
                kind.operation.action()
            ),
        ))
    }

    async fn attempt<I: Sync, T: Send>(
        &self,
        kind: Kind,
        items: &[I],
        reads: &mut Reads,
        judge: &(impl Fn(&mut Draft<'_>, &I) -> Result<T, Stop> + Send + Sync),
        extra: &(impl Fn(&View) -> Result<Extra> + Send + Sync),
        view: &mut View,
    ) -> Result<Option<Vec<Outcome<T>>>> {
        let mut chain = kind.chain;
        let mut doubts = self.attempts();
        for _ in 0..MOST_ROUNDS {
            if !self.fetch(view, reads, chain).await? {
                return Ok(None);
            }
            let loaded = view.loaded(self.backend(), reads)?;
            let (outcomes, changes) = match run(&loaded, self.config.unspendable, items, judge) {
                Run::Incomplete(more) => {
                    reads.extend(more);
                    continue;
                }
                Run::Done(outcomes, changes) => (outcomes, changes),
            };
            if changes.confirmed_set_changes() && !chain {
                chain = true;
                continue;
            }
            let mut plan = match plan(view, self.backend(), &changes)? {
                Ok(plan) => plan,
                Err(more) => {
                    reads.extend(more);
                    continue;
                }
            };
            let extra = extra(view)?;
            if let Some((height, txids)) = &extra.due {
                put_due(&mut plan.writes, &mut plan.aside, *height, txids);
            }
            for key in extra.deleted {
                if let Some(body) = view.cell(key).and_then(|cell| cell.body.as_ref()) {
                    plan.old.extend(apart(body));
                    plan.writes.insert(key, Next::Delete);
                }
            }
            match self.prepare(view, &plan, &mut doubts).await? {
                // All that it names is drawn anew too.
                Prepared::Doubtful => view.begin_anew(),
                Prepared::Done => return Ok(Some(outcomes)),
                Prepared::Again => view.stale_before = true,
                Prepared::Overtaken => return Ok(None),
                Prepared::Ready if plan.writes.is_empty() && view.intent.is_none() => {
                    return Ok(Some(outcomes));
                }
                Prepared::Ready => {
                    let committed = self.commit(view).await?;
                    return Ok(committed.then_some(outcomes));
                }
            }
        }
        Err(too_deep(kind.operation))
    }

    /// Looks again at cells that must be as they were read; from then on they are as they are now.
    async fn validate(&self, view: &mut View, keys: &[CellKey]) -> Result<Option<Prepared>> {
        let mut answer = None;
        let mut cells = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CALL_CELLS) {
            cells.extend(self.read(keys).await?);
            if !self.show_progress(view).await? {
                return Ok(Some(Prepared::Overtaken));
            }
        }
        for (key, cell) in keys.iter().zip(cells) {
            if is_locked(cell.as_ref(), view.id) {
                if !view.precedence {
                    return Ok(Some(Prepared::Overtaken));
                }
                // It is waited for when it is read again.
                view.forget(*key);
                answer = Some(Prepared::Again);
                continue;
            }
            if cell.as_ref().map(|cell| cell.stamp) == view.stamp(*key) {
                continue;
            }
            answer = Some(Prepared::Again);
            let page = cell.as_ref().and_then(page);
            if page.is_some_and(|page| page.head.is_some() && page.phase != Phase::Live) {
                // It is waited for when it is read again.
                view.forget(*key);
            } else {
                view.put(*key, cell);
            }
        }
        Ok(answer)
    }

    /// Locks what changes, and makes sure of the rest. What was found changed is read again, while the
    /// locks are kept, so that there is an end to it.
    async fn prepare(
        &self,
        view: &mut View,
        plan: &Plan,
        doubts: &mut Attempts,
    ) -> Result<Prepared> {
        let unlocked: Vec<CellKey> = view
            .relied
            .iter()
            .filter(|key| !plan.writes.contains_key(key))
            .copied()
            .collect();
        let alone = plan.aside.0.is_empty() && plan.old.is_empty() && view.intent.is_none();
        // What is not there is made under an intent: a late write of it would come true again once another
        // one has removed it.
        let there = |(key, _): (&CellKey, _)| view.cell(*key).is_some();
        let alone = alone && plan.writes.first_key_value().is_some_and(there);
        if let (true, true, true, Some((key, next))) = (
            alone,
            unlocked.is_empty() && view.unheld.is_empty(),
            plan.writes.len() == 1,
            plan.writes.first_key_value(),
        ) {
            return self.write_alone(view, *key, next).await;
        }
        if plan.writes.is_empty() && view.intent.is_none() {
            let alone = unlocked.len() + view.unheld.len() <= 1;
            return if alone {
                Ok(Prepared::Ready)
            } else {
                self.validate_all(view, &unlocked).await
            };
        }
        let mut wanted = plan.writes.clone();
        if view.stale_before {
            let kept = unlocked.iter().filter(|key| view.cell(**key).is_some());
            wanted.extend(kept.map(|key| (*key, Next::Keep)));
        }
        for key in &view.held {
            wanted.entry(*key).or_insert(Next::Keep);
        }
        match self.name_cells(view, &wanted, plan, doubts).await? {
            Some(true) => {}
            Some(false) => return Ok(Prepared::Overtaken),
            None => return Ok(Prepared::Doubtful),
        }
        fail_point("pending.intended");
        for (id, value) in &plan.aside.0 {
            self.write_parts(*id, value).await?;
            if !self.show_progress(view).await? {
                return Ok(Prepared::Overtaken);
            }
        }
        let mut writes = Vec::new();
        for (key, next) in wanted {
            let now = view.cell(key);
            let lock = Lock {
                intent: view.id,
                next,
            };
            if now.is_some_and(|cell| cell.lock.as_ref() == Some(&lock)) {
                continue;
            }
            let cell = Cell {
                stamp: random(),
                lock: Some(lock),
                body: now.and_then(|cell| cell.body.clone()),
            };
            writes.push(Write {
                key,
                expect: now.map(|cell| cell.stamp),
                cell: Some(cell),
            });
        }
        let mut done = Vec::with_capacity(writes.len());
        let mut doubtful = false;
        // What is there is locked by its stamp. A lock on what is not there would come true again once
        // another one has removed what this change makes there: it is sent once, or the change begins anew.
        let there = |write: &Write| write.expect.is_some();
        writes.sort_by_key(there);
        for step in writes
            .chunk_by(|a, b| there(a) == there(b))
            .flat_map(|step| step.chunks(LOCK_STEP))
        {
            if step.first().is_some_and(there) {
                done.extend(self.write(step).await?);
            } else {
                for locked in self.write_once(step, doubts).await? {
                    doubtful |= locked.is_none();
                    done.push(locked == Some(true));
                }
            }
            if doubtful || !self.show_progress(view).await? {
                // What was locked since is unlocked with the rest.
                view.held.extend(writes.iter().map(|write| write.key));
                return Ok(Prepared::Overtaken);
            }
        }
        fail_point("pending.locked");
        let mut stale = Vec::new();
        for (write, done) in writes.into_iter().zip(done) {
            if done {
                view.held.insert(write.key);
                // The decoded head still counts: only the lock is new.
                let round = view.round;
                let cell = write.cell;
                view.cells.insert(write.key, Seen { cell, round });
            } else {
                stale.push(write.key);
            }
        }
        if !stale.is_empty() {
            if stale.iter().any(|key| view.held.contains(key)) {
                // Someone took the lock away: the intent was given up.
                return Ok(Prepared::Overtaken);
            }
            return Ok(match self.validate(view, &stale).await? {
                Some(Prepared::Overtaken) => Prepared::Overtaken,
                _ => Prepared::Again,
            });
        }
        let unlocked: Vec<_> = unlocked
            .into_iter()
            .filter(|key| !view.held.contains(key))
            .collect();
        self.validate_all(view, &unlocked).await
    }

    /// First the records without which marks don't hold, and then what has the marks.
    async fn validate_all(&self, view: &mut View, keys: &[CellKey]) -> Result<Prepared> {
        let held = &view.held;
        let unheld = view.unheld.iter().filter(|key| !held.contains(key));
        let unheld: Vec<_> = unheld.copied().collect();
        for keys in [unheld.as_slice(), keys] {
            if keys.is_empty() {
                continue;
            }
            if let Some(prepared) = self.validate(view, keys).await? {
                return Ok(prepared);
            }
        }
        Ok(Prepared::Ready)
    }

    /// A change to one cell, with nothing else to rely on.
    async fn write_alone(&self, view: &mut View, key: CellKey, next: &Next) -> Result<Prepared> {
        let body = match next {
            Next::Put(body) => Some(body.clone()),
            Next::Delete | Next::Keep => None,
        };
        let write = Write {
            key,
            expect: view.stamp(key),
            cell: body.map(|body| Cell {
                stamp: random(),
                lock: None,
                body: Some(body),
            }),
        };
        match self.write_surely(&write).await? {
            Some(true) => return Ok(Prepared::Done),
            Some(false) => {}
            None => return Err(self.overtaken("change a record")),
        }
        let validated = self.validate(view, &[key]).await?;
        Ok(validated.unwrap_or(Prepared::Again))
    }

    /// Writes the intent, or adds cells to it; `false` where it was given up, `None` where it is not known
    /// whether it was written.
    async fn name_cells(
        &self,
        view: &mut View,
        wanted: &BTreeMap<CellKey, Next>,
        plan: &Plan,
        doubts: &mut Attempts,
    ) -> Result<Option<bool>> {
        let all_named = wanted.keys().all(|key| view.named.contains(key));
        let new = plan.aside.names();
        let same = |own: &Own| own.contents.new == new && own.contents.old == plan.old;
        if all_named && view.intent.as_ref().is_some_and(same) {
            return Ok(Some(true));
        }
        view.named.extend(wanted.keys());
        let before = view.intent.take();
        let expect = before.as_ref().map(|own| own.stamp);
        let mut dropped = Vec::new();
        if let Some(Own {
            intent, contents, ..
        }) = before
        {
            dropped.extend(contents.dropped);
            dropped.extend(contents.new);
            dropped.extend(parts_of(&intent.contents));
        }
        let contents = Contents {
            keys: view.named.iter().copied().collect(),
            dropped,
            new,
            old: plan.old.clone(),
        };
        let mut aside = Aside::default();
        let intent = Intent {
            state: IntentState::Preparing,
            contents: aside.store(codec::pack_contents(&contents), PART_BYTES),
        };
        for (id, value) in &aside.0 {
            self.write_parts(*id, value).await?;
        }
        let cell = intent.cell();
        let stamp = cell.stamp;
        let write = Write {
            key: CellKey::Intent(view.id),
            expect,
            cell: Some(cell),
        };
        view.intent = Some(Own {
            stamp,
            intent,
            contents,
        });
        match expect {
            Some(_) => self.write_one(write).await.map(Some),
            None => {
                let written = self.write_once(&[write], doubts).await?;
                Ok(written.first().copied().flatten())
            }
        }
    }

    /// Lets those who wait for this call's locks know that it goes on; `false` where it was given up.
    async fn show_progress(&self, view: &mut View) -> Result<bool> {
        if view.shown.elapsed() < self.config.patience / 4 {
            return Ok(true);
        }
        let Some(own) = &mut view.intent else {
            return Ok(true);
        };
        let cell = own.intent.cell();
        let expect = Some(std::mem::replace(&mut own.stamp, cell.stamp));
        let write = Write {
            key: CellKey::Intent(view.id),
            expect,
            cell: Some(cell),
        };
        let written = self.write_one(write).await?;
        view.shown = Instant::now();
        Ok(written)
    }

    /// Makes the change count, and carries it out. `false`: it was given up by another one.
    async fn commit(&self, view: &mut View) -> Result<bool> {
        let Some(Own {
            stamp,
            mut intent,
            contents,
        }) = view.intent.take()
        else {
            return Ok(false);
        };
        intent.state = IntentState::Committed;
        let write = Write {
            key: CellKey::Intent(view.id),
            expect: Some(stamp),
            cell: Some(intent.cell()),
        };
        if !self.write_commit(view.id, write).await? {
            return Ok(false);
        }
        fail_point("pending.committed");
        if let Err(error) = self.carry_out(view, &intent, &contents).await {
            // It counts, so that this is no failure of the call.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a change that counts is left to others to be carried out"
            );
        }
        Ok(true)
    }

    /// Puts all that a committed change has locked in place.
    async fn carry_out(&self, view: &View, intent: &Intent, contents: &Contents) -> Result<()> {
        let mut all_done = true;
        for turn in TURNS {
            let mut writes = Vec::new();
            for key in &view.held {
                let cell = view.cell(*key);
                if let Some((cell, lock)) = cell.and_then(|cell| Some((cell, cell.lock.as_ref()?)))
                    && turn_of(key, &lock.next) == turn
                {
                    writes.push(applied(*key, cell.clone()));
                }
            }
            all_done &= self.write(&writes).await?.iter().all(|done| *done);
            fail_point("pending.carried-out");
        }
        if all_done {
            self.forget_intent(view.id, intent, contents).await
        } else {
            // Another one helps.
            self.finish(view.id, intent).await
        }
    }

    /// `false`: another one has given the intent up.
    async fn write_commit(&self, id: u64, write: Write) -> Result<bool> {
        if let Some(done) = self.write_surely(&write).await? {
            return Ok(done);
        }
        // It was committed or given up since; another one may be about to finish it.
        let intent = self.intent(id).await;
        match intent.map_err(|error| error.after_effect(self.backend(), "commit a change"))? {
            Some((_, intent)) => Ok(intent.state == IntentState::Committed),
            None => Err(self.overtaken("commit a change")),
        }
    }

    /// Takes back what an attempt holds that came to nothing.
    async fn abandon(&self, view: &View) -> Result<()> {
        if view.intent.is_some() || !view.held.is_empty() {
            self.resolve_intent(view.id, None).await?;
            if let Some(own) = &view.intent {
                // Values that were written after another one had given the intent up.
                self.delete_parts(&own.contents.new).await?;
            }
            // Locks that were set after another one had given the intent up.
            let held: Vec<_> = view.held.iter().copied().collect();
            self.unlock(view.id, &held).await?;
        }
        Ok(())
    }
}
