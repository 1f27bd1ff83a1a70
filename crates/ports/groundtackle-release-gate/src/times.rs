//! Windows and freezes together.

use jiff::Timestamp;

use crate::gate::{Frozen, Opening};
use crate::hours::HORIZON;
use crate::policy::WindowKind;

/// How many changes are looked at: more than a minute's for every day there is.
const MAX_CHANGES: usize = 10_000;

/// Whether nothing denies, and something allows or nothing has to. Deny wins.
pub(crate) fn is_open(openings: &[&Opening], instant: Timestamp) -> bool {
    let mut has_to = false;
    let mut allowed = false;
    for opening in openings {
        let inside = opening.hours.contains(instant);
        match opening.kind {
            WindowKind::Deny if inside => return false,
            WindowKind::Deny => {}
            WindowKind::Allow => {
                has_to = true;
                allowed |= inside;
            }
        }
    }
    allowed || !has_to
}

/// The first instant, `from` included, at which it is open.
pub(crate) fn next_open(openings: &[&Opening], from: Timestamp) -> Option<Timestamp> {
    let limit = from.saturating_add(HORIZON).ok()?;
    let mut at = from;
    for _ in 0..MAX_CHANGES {
        if is_open(openings, at) {
            return Some(at);
        }
        at = next_change(openings, at).filter(|next| *next <= limit)?;
    }
    None
}

fn next_change(openings: &[&Opening], at: Timestamp) -> Option<Timestamp> {
    let changes = openings
        .iter()
        .filter_map(|opening| opening.hours.next_change(at));
    changes.min()
}

/// When it is first shut, or a freeze begins, after `from`, at which it is open; any instant after `until` if it is open for so
/// long.
pub(crate) fn closes(
    openings: &[&Opening],
    freezes: &[&Frozen],
    from: Timestamp,
    until: Timestamp,
) -> Timestamp {
    let begin = freezes
        .iter()
        .map(|freeze| freeze.from)
        .filter(|begin| *begin > from);
    let limit = begin.min().unwrap_or(Timestamp::MAX);
    let mut at = from;
    for _ in 0..MAX_CHANGES {
        let Some(next) = next_change(openings, at) else {
            return limit;
        };
        if next >= limit {
            return limit;
        }
        if !is_open(openings, next) || next > until {
            return next;
        }
        at = next;
    }
    at
}
