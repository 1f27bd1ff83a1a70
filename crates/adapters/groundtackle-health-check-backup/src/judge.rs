//! What a catalogue is worth.

use std::time::Duration;

use groundtackle_health_check::Observation;
use jiff::fmt::friendly::{Designator, SpanPrinter};

use crate::catalogue::{Catalogue, Drill};
use crate::config::BackupCheckConfig;

/// The tip of the chain, where it is compared with.
#[derive(Debug)]
pub(crate) enum Tip {
    NotAsked,
    NotKnown(String),
    At(u32),
}

pub(crate) fn judge(
    config: &BackupCheckConfig,
    found: &Catalogue,
    tip: &Tip,
    now: u64,
) -> Observation {
    let parts = [
        point(config, found, now),
        lag(config, found, tip),
        proof(config, found, now),
        trouble(found.failed.as_ref(), now),
        trouble(found.missed.as_ref(), now),
        unusable(found),
        ahead(found),
    ];
    let seen = parts.into_iter().flatten().reduce(Observation::and);
    seen.unwrap_or_else(Observation::pass)
}

fn since(unix_millis: u64, now: u64) -> Duration {
    // By the clocks of two hosts, which may differ.
    Duration::from_millis(now.saturating_sub(unix_millis))
}

fn text(age: Duration) -> String {
    const PRINTER: SpanPrinter = SpanPrinter::new().designator(Designator::Compact);
    let seconds = age.as_secs();
    // Seconds are of no use to whoever reads of days.
    let seconds = match seconds {
        86_400.. => seconds - seconds % 3_600,
        3_600.. => seconds - seconds % 60,
        _ => seconds,
    };
    PRINTER.unsigned_duration_to_string(&Duration::from_secs(seconds))
}

/// What these limits say of an age or a distance.
fn limit<T: PartialOrd>(
    found: T,
    warn: Option<T>,
    fail: Option<T>,
    cause: &'static str,
) -> Observation {
    let above = |limit: Option<T>| limit.is_some_and(|limit| found > limit);
    if above(fail) {
        Observation::fail(cause)
    } else if above(warn) {
        Observation::warn(cause)
    } else {
        Observation::pass()
    }
}

fn point(config: &BackupCheckConfig, found: &Catalogue, now: u64) -> Option<Observation> {
    let stream = &config.stream;
    let Some(point) = found.point else {
        let detail = format!("there is no restore point of the stream {stream}");
        return Some(Observation::fail("no-backup").with_detail(detail));
    };
    let age = since(point.created_unix_millis, now);
    let seen = limit(age, config.warn_age, Some(config.fail_age), "stale-backup");
    let at = point.height.map(|height| format!(", block {height},"));
    let detail = format!(
        "the newest restore point{} is {} old",
        at.unwrap_or_default(),
        text(age)
    );
    Some(seen.with_detail(detail))
}

fn lag(config: &BackupCheckConfig, found: &Catalogue, tip: &Tip) -> Option<Observation> {
    let point = found.point?;
    let tip = match tip {
        Tip::NotAsked => return None,
        Tip::NotKnown(why) => return Some(Observation::unknown("tip-unknown").with_detail(why)),
        Tip::At(tip) => *tip,
    };
    let Some(height) = point.height else {
        let detail = "restore points of trees of files have no height to compare: take the limits in blocks out";
        return Some(Observation::unknown("no-height").with_detail(detail));
    };
    let behind = tip.saturating_sub(height);
    let (warn, fail) = (config.warn_lag_blocks, config.fail_lag_blocks);
    let seen = limit(behind, warn, fail, "behind");
    Some(seen.with_detail(format!("it is {behind} blocks behind the tip")))
}

fn proof(config: &BackupCheckConfig, found: &Catalogue, now: u64) -> Option<Observation> {
    let (warn, fail) = (config.warn_drill_age, config.fail_drill_age);
    match &found.proof {
        Some(drill) => {
            let age = since(drill.finished_unix_millis, now);
            let detail = format!(
                "a restore was last proven {} ago, by a drill of level {}",
                text(age),
                drill.level
            );
            Some(limit(age, warn, fail, "stale-proof").with_detail(detail))
        }
        None if fail.or(warn).is_some() => {
            let seen = match fail {
                Some(_) => Observation::fail("never-proven"),
                None => Observation::warn("never-proven"),
            };
            let level = config.drill_level;
            Some(seen.with_detail(format!("no drill of level {level} or above has passed")))
        }
        None => None,
    }
}

fn trouble(drill: Option<&Drill>, now: u64) -> Option<Observation> {
    let drill = drill?;
    let age = text(since(drill.finished_unix_millis, now));
    let level = drill.level;
    Some(if drill.is_missed() {
        let detail =
            format!("a drill of level {level} was missed, {age} ago, and none was held since");
        Observation::warn("drill-missed").with_detail(detail)
    } else {
        let reason = &drill.reason;
        let detail = format!("a drill of level {level} failed {age} ago: {reason}");
        Observation::fail("drill-failed").with_detail(detail)
    })
}

fn unusable(found: &Catalogue) -> Option<Observation> {
    let unusable = &found.unusable;
    if unusable.count == 0 {
        return None;
    }
    let detail = format!(
        "{} newer objects can't be used, and do not count: {}",
        unusable.count,
        unusable.reasons.join("; ")
    );
    Some(Observation::warn("unusable-object").with_detail(detail))
}

fn ahead(found: &Catalogue) -> Option<Observation> {
    if found.ahead == 0 {
        return None;
    }
    let detail = format!(
        "{} restore points or drills are in the future by this host's clock, and do not count as new",
        found.ahead
    );
    Some(Observation::warn("clock-ahead").with_detail(detail))
}

#[cfg(test)]
mod tests {
    use groundtackle_health_check::Outcome;

    use super::*;
    use crate::catalogue::Point;

    #[test]
    fn a_tree_of_files_has_no_height_to_compare() {
        let found = Catalogue {
            point: Some(Point {
                created_unix_millis: 0,
                height: None,
            }),
            ..Catalogue::default()
        };
        let hour = Duration::from_secs(3600);
        let config = BackupCheckConfig::new([], hour);
        let seen = judge(&config, &found, &Tip::NotAsked, 60_000);
        assert_eq!(seen.outcome, Outcome::Pass);
        assert_eq!(
            seen.detail.as_deref(),
            Some("the newest restore point is 1m old")
        );
        let config = config.with_fail_lag_blocks(Some(6));
        let seen = judge(&config, &found, &Tip::At(7), 60_000);
        assert_eq!(
            (seen.outcome, seen.cause.as_str()),
            (Outcome::Unknown, "no-height")
        );
    }

    #[test]
    fn ages_are_told_as_exactly_as_is_of_use() {
        for (seconds, told) in [
            (59, "59s"),
            (3_599, "59m 59s"),
            (3_661, "1h 1m"),
            (90_061, "25h"),
        ] {
            assert_eq!(text(Duration::from_secs(seconds)), told);
        }
    }
}
