//! Which restore points to keep.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::manifest::{Content, Manifest};
use crate::plan::{Map, Node, Plan, end, of_stream};
use crate::repository::Points;

const HOUR_MILLIS: u64 = 3_600_000;
const DAY_MILLIS: u64 = 24 * HOUR_MILLIS;

/// What it keeps, how many, and what a time is counted by.
type Rule = (Reason, u32, fn(u64) -> u64);

/// How many restore points to keep. Each rule keeps the newest one of each of the newest so many hours, days, … that have
/// any; what one rule keeps, stays. Times are those of the restore points, in UTC; weeks begin on Monday. What was
/// [written in another form](crate::Repository::back_up_instead_of) counts once: the base and the longest changes of it stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// The newest so many.
    pub last: Option<u32>,
    /// The newest one of each hour, so many hours.
    pub hourly: Option<u32>,
    /// Of each day.
    pub daily: Option<u32>,
    /// Of each week.
    pub weekly: Option<u32>,
    /// Of each month.
    pub monthly: Option<u32>,
    /// Of each year.
    pub yearly: Option<u32>,
    /// The newest one of each so many blocks of height (of `height / every_blocks`), without a limit.
    pub every_blocks: Option<u32>,
}

/// Why a restore point is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reason {
    /// It is the last one of all, which is never dropped.
    Newest,
    /// [`Retention::last`].
    Last,
    /// [`Retention::hourly`].
    Hourly,
    /// [`Retention::daily`].
    Daily,
    /// [`Retention::weekly`].
    Weekly,
    /// [`Retention::monthly`].
    Monthly,
    /// [`Retention::yearly`].
    Yearly,
    /// [`Retention::every_blocks`].
    EveryBlocks,
}

/// What a [`Retention`] says of the restore points of a stream. Each list is oldest first, and each point is in one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Chosen {
    /// Kept, and why.
    pub keep: Vec<(Hex<16>, Vec<Reason>)>,
    /// Kept since the way to others that are kept leads over them.
    pub needed: Vec<Hex<16>>,
    /// To be forgotten.
    pub go: Vec<Hex<16>>,
}

impl Retention {
    /// Chooses among the restore points of a stream that are offered. Pure: nothing is read or written.
    ///
    /// The last restore point always stays; and whatever stays can be restored as before, to the same set, if all of `go`
    /// is removed.
    ///
    /// # Errors
    /// `InvalidRequest` if no rule is set: all would go; or for `every_blocks` of 0.
    pub fn choose(&self, points: &Points, stream: &str) -> Result<Chosen> {
        if self.every_blocks == Some(0) {
            return Err(Error::invalid_request(
                "every_blocks is 0: say how many blocks one restore point is to stand for",
            ));
        }
        let counted = self.rules().iter().any(|(_, count, _)| *count > 0);
        if !counted && self.every_blocks.is_none() {
            return Err(Error::invalid_request(
                "no rule says what to keep, so all would go: set last, hourly, daily, weekly, monthly, yearly or \
                 every_blocks",
            ));
        }
        let offered = of_stream(&points.usable, stream);
        let reasons = self.reasons(&offered);
        let keep = reasons.keys().copied().collect();
        let stays = what_stays(&offered, &of_stream(&points.forgotten, stream), keep);
        let mut chosen = Chosen::default();
        for point in &offered {
            match reasons.get(&point.point) {
                Some(reasons) => chosen.keep.push((point.point, reasons.clone())),
                None if stays.contains(&point.point) => chosen.needed.push(point.point),
                None => chosen.go.push(point.point),
            }
        }
        Ok(chosen)
    }

    /// Those that count by time.
    fn rules(&self) -> [Rule; 6] {
        let of = |count: Option<u32>| count.unwrap_or_default();
        [
            (Reason::Last, of(self.last), |time| time),
            (Reason::Hourly, of(self.hourly), |time| time / HOUR_MILLIS),
            (Reason::Daily, of(self.daily), |time| time / DAY_MILLIS),
            // 1970 began on a Thursday.
            (Reason::Weekly, of(self.weekly), |time| {
                (time / DAY_MILLIS).saturating_add(3) / 7
            }),
            (Reason::Monthly, of(self.monthly), |time| month(time).1),
            (Reason::Yearly, of(self.yearly), |time| month(time).0),
        ]
    }

    /// What the rules keep. Points are in the order of their keys.
    fn reasons(&self, points: &[Arc<Manifest>]) -> BTreeMap<Hex<16>, Vec<Reason>> {
        let mut newest_first: Vec<_> = points.iter().collect();
        newest_first.sort_by_key(|point| (point.created_unix_millis, height(point)));
        newest_first.reverse();
        let mut forms = BTreeMap::<_, Vec<_>>::new();
        for point in &newest_first {
            forms.entry(form_of(point)).or_default().push(*point);
        }
        let mut counted = HashSet::new();
        newest_first.retain(|point| counted.insert(form_of(point)));
        let mut reasons = BTreeMap::<_, Vec<_>>::new();
        let mut keep = |point: &Manifest, reason| {
            let same = forms.get(&form_of(point)).map_or(&[][..], |same| same);
            let base = same.iter().find(|point| is_base(point));
            let changes = same.iter().filter(|point| !is_base(point));
            // Of equals the newest.
            let longest = changes
                .rev()
                .max_by_key(|point| point.content.blocks().len());
            for point in base.into_iter().chain(longest) {
                reasons
                    .entry(point.point)
                    .or_insert_with(Vec::new)
                    .push(reason);
            }
        };
        if let Some(newest) = newest_first.first() {
            keep(newest, Reason::Newest);
        }
        for (reason, mut left, of_time) in self.rules() {
            let mut before = None;
            for point in &newest_first {
                let time = Some(of_time(point.created_unix_millis));
                if before == time && reason != Reason::Last {
                    continue;
                }
                let Some(fewer) = left.checked_sub(1) else {
                    break;
                };
                (left, before) = (fewer, time);
                keep(point, reason);
            }
        }
        if let Some(blocks) = self.every_blocks {
            let mut seen = HashSet::new();
            for point in newest_first {
                if seen.insert(height(point).checked_div(blocks)) {
                    keep(point, Reason::EveryBlocks);
                }
            }
        }
        reasons
    }
}

const fn is_base(point: &Manifest) -> bool {
    matches!(point.content, Content::Base { .. })
}

/// What is the same of two forms of one restore point. A tree has no other form, nor has a set that nobody watched: another one at
/// the same block may differ.
fn form_of(point: &Manifest) -> (u64, Option<Node>, Option<Hex<16>>) {
    let alone = *point.content.epoch() == Hex::default();
    let name = alone.then_some(point.point);
    (point.created_unix_millis, end(point), name)
}

fn height(point: &Manifest) -> u32 {
    point
        .content
        .position()
        .map_or(0, |position| position.height)
}

/// The year, and a number that only times of one month have. Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>), for days since 1970: years that begin in March, in
/// eras of 400. No step can overflow: a u64 of milliseconds is below 2^38 days.
const fn month(unix_millis: u64) -> (u64, u64) {
    let days = unix_millis / DAY_MILLIS + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // 0 is March.
    let month = (5 * day_of_year + 2) / 153;
    let year = year_of_era + era * 400;
    (year + (month >= 10) as u64, year * 12 + month)
}

/// Ways by what is offered, or else by all.
struct Ways<'a>([(Map<'a>, &'a [Arc<Manifest>]); 2]);

impl<'a> Ways<'a> {
    fn of(offered: &'a [Arc<Manifest>], all: &'a [Arc<Manifest>]) -> Self {
        Self([offered, all].map(|points| (Map::of(points), points)))
    }

    fn plan(&self, point: &Manifest) -> Option<Plan> {
        let wanted = end(point)?;
        let mut plans = self.0.iter();
        plans.find_map(|(map, points)| map.plan(points, wanted).ok())
    }

    /// The epoch in which the hash of a block alone leads to a set.
    fn meant(&self, point: &Manifest) -> Option<Hex<16>> {
        let (_, hash) = end(point)?;
        self.0.iter().find_map(|(map, points)| {
            let epoch = *map.epoch_of(&hash)?;
            map.plan(points, (epoch, hash)).ok().map(|_| epoch)
        })
    }
}

fn and_links(offered: &[Arc<Manifest>], links: &[Arc<Manifest>]) -> Vec<Arc<Manifest>> {
    let mut all = [offered, links].concat();
    all.sort_by_key(|point| (point.created_unix_millis, point.point));
    all
}

/// The names of `keep`, and of those without which something of what stays could not be restored, or to another set.
fn what_stays(
    offered: &[Arc<Manifest>],
    links: &[Arc<Manifest>],
    keep: HashSet<Hex<16>>,
) -> HashSet<Hex<16>> {
    let all = and_links(offered, links);
    let before = Ways::of(offered, &all);
    let by_name: BTreeMap<_, _> = offered.iter().map(|point| (point.point, point)).collect();
    let mut stays = keep;
    loop {
        let mut open: Vec<_> = stays.iter().copied().collect();
        while let Some(name) = open.pop() {
            let plan = by_name.get(&name).and_then(|point| before.plan(point));
            let needs = plan.iter().flat_map(Plan::points);
            open.extend(
                needs.filter(|needed| by_name.contains_key(needed) && stays.insert(*needed)),
            );
        }
        let left: Vec<_> = offered
            .iter()
            .filter(|point| stays.contains(&point.point))
            .cloned()
            .collect();
        let left_and_links = and_links(&left, links);
        let after = Ways::of(&left, &left_and_links);
        let same = |point: &&Arc<Manifest>| {
            let set = |ways: &Ways<'_>| ways.plan(point).map(|plan| plan.set);
            let known = set(&before);
            // Another epoch's set may be known of the block as well.
            let meant = before.meant(point);
            let still = match after.meant(point) {
                Some(epoch) => meant != Some(*point.content.epoch()) || meant == Some(epoch),
                None => meant.is_none(),
            };
            (known.is_none() || set(&after) == known) && still
        };
        // Only where points contradict each other, or one block has several epochs: then all that speak of it stay.
        let lost: Vec<_> = left.iter().filter(|point| !same(point)).collect();
        if lost.is_empty() {
            return stays;
        }
        let mut grew = false;
        for (_, block) in lost.iter().filter_map(|point| end(point)) {
            for other in offered.iter().filter(|point| speaks_of(point, &block)) {
                grew |= stays.insert(other.point);
            }
        }
        if !grew {
            return by_name.into_keys().collect();
        }
    }
}

fn speaks_of(point: &Manifest, block: &Hex<32>) -> bool {
    let from = match &point.content {
        Content::Delta { from, .. } => Some(from),
        Content::Base { position, .. } => Some(position),
        Content::Tree { .. } => None,
    };
    let blocks = point.content.blocks().iter().map(|block| &block.position);
    from.into_iter()
        .chain(blocks)
        .any(|position| position.hash == *block)
}
