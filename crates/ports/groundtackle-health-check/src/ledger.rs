//! What was up and down, minute by minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::error::{Error, Result};
use crate::maintenance::Declared;
use crate::objective::{Objective, ServiceLevel, minute};
use crate::outcome::Name;

pub(crate) const MINUTE_MILLIS: u64 = 60_000;

/// One minute of one objective. What is missing to 60,000 was not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Milliseconds for which it was up.
    pub good_millis: u16,
    /// For which it was down.
    pub bad_millis: u16,
    /// Under maintenance that was declared in time.
    pub excluded_millis: u16,
}

impl Bucket {
    /// Adds as much of it as the minute has left.
    fn add(&mut self, state: Measured, millis: u64) {
        let known = [self.good_millis, self.bad_millis, self.excluded_millis];
        let known: u64 = known.into_iter().map(u64::from).sum();
        let more = millis.min(MINUTE_MILLIS.saturating_sub(known));
        let more = u16::try_from(more).unwrap_or_default();
        let part = match state {
            Measured::Good => &mut self.good_millis,
            Measured::Bad => &mut self.bad_millis,
            Measured::Excluded => &mut self.excluded_millis,
            Measured::Nothing => return,
        };
        *part = part.saturating_add(more);
    }
}

/// What a moment counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measured {
    Good,
    Bad,
    Excluded,
    Nothing,
}

/// One fact of a ledger. Of two about the same minute, the later one holds: it counts what the earlier one did, too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LedgerEntry {
    /// What a minute of an objective was.
    Minute {
        /// The objective's name.
        objective: Name,
        /// The minute since 1970.
        minute: u32,
        /// What it was.
        bucket: Bucket,
    },
    /// A maintenance was declared.
    Maintenance(Declared),
}

/// Where a ledger outlives its process. Calls block: they are made from threads that may wait.
pub trait LedgerStorage: Debug + Send + Sync + 'static {
    /// Hands out all entries, in the order in which they were written.
    ///
    /// **Atomicity**: what an `append` acknowledged comes whole; what was being appended when the process was killed comes whole
    /// or not at all.
    ///
    /// # Errors
    /// `Ledger`, and `LedgerDamaged` if bytes in the middle can't be what was written.
    fn load(&self, each: &mut dyn FnMut(LedgerEntry)) -> Result<()>;

    /// Adds entries, durably.
    ///
    /// **Atomicity**: all of them or none. **Idempotency**: entries are facts, so appending them twice says the same.
    ///
    /// # Errors
    /// `Ledger`. An `Indeterminate` one is appended again.
    fn append(&self, entries: &[LedgerEntry]) -> Result<()>;

    /// Puts these entries in the place of all others.
    ///
    /// **Atomicity**: the old ones or the new ones, also if the process is killed. **Idempotency**: yes.
    ///
    /// # Errors
    /// `Ledger`; then the old ones are there.
    fn replace(&self, entries: &[LedgerEntry]) -> Result<()>;
}

/// A ledger in memory, of some objectives.
#[derive(Debug)]
pub(crate) struct Ledger {
    books: Vec<Book>,
    declared: Vec<Declared>,
}

#[derive(Debug)]
struct Book {
    objective: Objective,
    minutes: BTreeMap<u32, Bucket>,
    /// Not stored yet.
    dirty: BTreeSet<u32>,
}

impl Ledger {
    pub(crate) fn new(objectives: &[Objective]) -> Self {
        let book = |objective: &Objective| Book {
            objective: objective.clone(),
            minutes: BTreeMap::new(),
            dirty: BTreeSet::new(),
        };
        Self {
            books: objectives.iter().map(book).collect(),
            declared: Vec::new(),
        }
    }

    pub(crate) fn restore(&mut self, entry: LedgerEntry) {
        match entry {
            LedgerEntry::Minute {
                objective,
                minute,
                bucket,
            } => {
                let book = self
                    .books
                    .iter_mut()
                    .find(|book| book.objective.name == objective);
                if let Some(book) = book {
                    book.minutes.insert(minute, bucket);
                }
            }
            LedgerEntry::Maintenance(declared) => self.declared.push(declared),
        }
    }

    /// Counts `[from, to)` as what it was.
    pub(crate) fn account(&mut self, book: usize, from: u64, to: u64, state: Measured) {
        let Some(book) = self.books.get_mut(book) else {
            return;
        };
        if state == Measured::Nothing {
            return;
        }
        let mut from = from;
        while from < to {
            let number = minute(from);
            let end = u64::from(number)
                .saturating_add(1)
                .saturating_mul(MINUTE_MILLIS)
                .min(to);
            if end <= from {
                return;
            }
            let bucket = book.minutes.entry(number).or_default();
            let before = *bucket;
            bucket.add(state, end.saturating_sub(from));
            if *bucket != before {
                book.dirty.insert(number);
            }
            from = end;
        }
    }

    /// Declares it, unless it is known: then the earlier declaration holds. Says whether it is new.
    pub(crate) fn declare(&mut self, declared: Declared) -> Option<&Declared> {
        let known = self
            .declared
            .iter()
            .any(|known| known.maintenance == declared.maintenance);
        if known {
            return None;
        }
        self.declared.push(declared);
        self.declared.last()
    }

    pub(crate) fn declared(&self) -> &[Declared] {
        &self.declared
    }

    pub(crate) fn service_levels(&self, unix_millis: u64) -> Vec<ServiceLevel> {
        let level = |book: &Book| {
            let buckets = |from: u32, to: u32| {
                // `BTreeMap::range` panics if it ends before it begins.
                book.minutes
                    .range(from..to.max(from))
                    .map(|(minute, bucket)| (*minute, *bucket))
            };
            book.objective.service_level(unix_millis, buckets)
        };
        self.books.iter().map(level).collect()
    }

    /// What is to be stored: minutes that are over, or with `all` also the one under way.
    pub(crate) fn unstored(&self, unix_millis: u64, all: bool) -> Vec<LedgerEntry> {
        let now = minute(unix_millis);
        let of_book = |book: &Book| -> Vec<LedgerEntry> {
            let due = book.dirty.iter().filter(|minute| all || **minute < now);
            due.filter_map(|minute| entry(book, *minute)).collect()
        };
        self.books.iter().flat_map(of_book).collect()
    }

    /// Says that these are stored. What has changed since stays to be stored.
    pub(crate) fn stored(&mut self, entries: &[LedgerEntry]) {
        for entry in entries {
            let LedgerEntry::Minute {
                objective,
                minute,
                bucket,
            } = entry
            else {
                continue;
            };
            let book = self
                .books
                .iter_mut()
                .find(|book| book.objective.name == *objective);
            if let Some(book) = book
                && book.minutes.get(minute) == Some(bucket)
            {
                book.dirty.remove(minute);
            }
        }
    }

    /// Drops what no window reaches any more.
    pub(crate) fn trim(&mut self, unix_millis: u64) {
        let now = minute(unix_millis);
        let mut longest = 0;
        for book in &mut self.books {
            let kept = book.objective.kept_minutes();
            longest = longest.max(kept);
            let first = now.saturating_sub(kept);
            book.minutes = book.minutes.split_off(&first);
            book.dirty = book.dirty.split_off(&first);
        }
        let first = u64::from(now.saturating_sub(longest)).saturating_mul(MINUTE_MILLIS);
        self.declared
            .retain(|declared| declared.maintenance.ends_millis() >= first);
    }

    /// All there is, for a new storage.
    pub(crate) fn entries(&self) -> Vec<LedgerEntry> {
        let minutes = self.books.iter().flat_map(|book| {
            book.minutes
                .keys()
                .filter_map(|minute| entry(book, *minute))
        });
        minutes
            .chain(self.declared.iter().cloned().map(LedgerEntry::Maintenance))
            .collect()
    }
}

fn entry(book: &Book, minute: u32) -> Option<LedgerEntry> {
    Some(LedgerEntry::Minute {
        objective: book.objective.name.clone(),
        minute,
        bucket: *book.minutes.get(&minute)?,
    })
}

/// As many objectives as a process may have: each keeps up to 92 days of minutes.
pub(crate) const MAX_OBJECTIVES: usize = 16;

pub(crate) fn validate(objectives: &[Objective]) -> Result<()> {
    if objectives.len() > MAX_OBJECTIVES {
        return Err(Error::TooMany {
            what: "objectives",
            limit: MAX_OBJECTIVES,
        });
    }
    let mut names = BTreeSet::new();
    for objective in objectives {
        objective.validate()?;
        if !names.insert(&objective.name) {
            let name = objective.name.clone();
            return Err(Error::Duplicate {
                what: "objective",
                name,
            });
        }
    }
    Ok(())
}
