//! How a set at any block comes out of restore points.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::bytes_as_text::Hex;
use crate::error::{Error, Result};
use crate::manifest::{BlockEntry, Content, Manifest, Position, SetSummary};
use crate::source::{Direction, Goal};

/// What to restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// What the restore point made last leads to.
    Latest,
    /// The block at this height in the chain of the restore point made last: never one of an abandoned branch.
    Height(u32),
    /// A block, also of an abandoned branch, or of a chain that the last restore point is not linked to.
    Block(Hex<32>),
}

/// Changes to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The restore point that has them; `None` for the base.
    pub point: Option<Arc<Manifest>>,
    /// How to apply them.
    pub direction: Direction,
    /// Those of these blocks, first and last.
    pub heights: (u32, u32),
    /// Other restore points that have changes of some of these blocks.
    pub others: Vec<Arc<Manifest>>,
}

impl Step {
    /// The same blocks by way of the others alone; `None` where they don't have all.
    pub(crate) fn by_others(&self) -> Option<Vec<Self>> {
        let heights = self.heights.0..=self.heights.1;
        let blocks = self.point.as_ref()?.content.blocks().iter();
        let blocks = blocks.filter(|block| heights.contains(&block.position.height));
        let mut steps = Vec::<Self>::new();
        for block in blocks {
            let height = block.position.height;
            let has = |point: &&Arc<Manifest>| {
                let mut blocks = point.content.blocks().iter();
                blocks.any(|own| own.position == block.position && own.previous == block.previous)
            };
            if let Some(step) = steps.last_mut()
                && step.point.as_ref().is_some_and(|point| has(&point))
            {
                step.heights.1 = height;
                continue;
            }
            let point = self.others.iter().find(has)?;
            let others = self.others.iter();
            let others = others.filter(|other| other.point != point.point);
            steps.push(Self {
                point: Some(point.clone()),
                direction: self.direction,
                heights: (height, height),
                others: others.cloned().collect(),
            });
        }
        if self.direction == Direction::Backwards {
            steps.reverse();
        }
        Some(steps)
    }
}

/// A way from a base to a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The set to begin with.
    pub base: Arc<Manifest>,
    /// What to apply to it, in order.
    pub steps: Vec<Step>,
    /// The block it leads to.
    pub position: Position,
    /// The set there.
    pub set: SetSummary,
}

impl Plan {
    pub(crate) fn goal(&self, network: &str) -> Goal {
        Goal {
            network: network.into(),
            position: self.position,
            set: self.set,
        }
    }

    /// The restore points that it needs.
    pub fn points(&self) -> Vec<Hex<16>> {
        let mut points = vec![self.base.point];
        for step in &self.steps {
            if let Some(point) = &step.point
                && !points.contains(&point.point)
            {
                points.push(point.point);
            }
        }
        points
    }

    /// The shortest way in blocks to what is asked for, by restore points of `stream`.
    ///
    /// # Errors
    /// `Unreachable` where there is none; it says what can be reached.
    pub fn find(points: &[Manifest], stream: &str, at: At) -> Result<Self> {
        Self::by_way_of(points, &[], stream, at)
    }

    /// The same, also by way of restore points that are not asked for: none of them is the last one.
    pub(crate) fn by_way_of(
        offered: &[Manifest],
        links: &[Manifest],
        stream: &str,
        at: At,
    ) -> Result<Self> {
        let offered = of_stream(offered, stream);
        let mut points = offered.clone();
        if !links.is_empty() {
            points.extend(of_stream(links, stream));
            points.sort_by_key(|point| (point.created_unix_millis, point.point));
        }
        let map = Map::of(&points);
        let latest = offered
            .iter()
            .filter_map(|point| Some((point, point.content.position()?)))
            .max_by_key(|(point, position)| (point.created_unix_millis, position.height));
        let (latest, tip) = latest.ok_or_else(|| Error::Unreachable {
            what: format!("there is no restore point of {stream:?}"),
        })?;
        let tip = (*latest.content.epoch(), tip.hash);
        let wanted = match at {
            At::Latest => tip,
            At::Height(height) => map.on_chain(tip, height)?,
            // What was known of it last.
            At::Block(hash) => {
                let epoch = map.epochs.get(&hash).and_then(|epochs| epochs.last());
                (epoch.copied().unwrap_or_default(), hash)
            }
        };
        map.plan(&points, wanted)
    }
}

pub(crate) fn of_stream(points: &[Manifest], stream: &str) -> Vec<Arc<Manifest>> {
    let points = points.iter().filter(|point| point.stream == stream);
    points.map(|point| Arc::new(point.clone())).collect()
}

/// Where a restore point leads to.
pub(crate) fn end(point: &Manifest) -> Option<Node> {
    let position = point.content.position()?;
    Some((*point.content.epoch(), position.hash))
}

fn shown(mut hash: Hex<32>) -> Hex<32> {
    hash.0.reverse();
    hash
}

/// A block, in an epoch.
pub(crate) type Node = (Hex<16>, Hex<32>);

/// Every block that restore points know.
#[derive(Debug, Default)]
pub(crate) struct Map<'a> {
    /// Blocks at which the set is known.
    sets: HashMap<Node, (Position, SetSummary)>,
    /// Blocks whose changes are known, and where.
    changes: HashMap<Node, (&'a BlockEntry, Vec<&'a Arc<Manifest>>)>,
    /// The epochs in which a block's changes are known, or its set is, the last one last.
    epochs: HashMap<Hex<32>, Vec<Hex<16>>>,
}

type Way = Vec<(Node, Direction)>;

/// Where a way from a base can end: the block that is wanted and those before it, from where it is reached forwards.
struct Goals {
    back: Vec<Node>,
    all: HashSet<Node>,
}

impl Goals {
    fn of(map: &Map<'_>, wanted: Node) -> Self {
        let back: Vec<_> = map.ancestors(wanted).collect();
        let all = back.iter().copied().collect();
        Self { back, all }
    }
}

impl<'a> Map<'a> {
    pub(crate) fn of(points: &'a [Arc<Manifest>]) -> Self {
        let mut map = Self::default();
        for point in points {
            let epoch = *point.content.epoch();
            let own = point.content.position().zip(point.content.set());
            let mut known: Vec<_> = own.map(|(at, set)| (*at, *set)).into_iter().collect();
            if let Content::Delta { from, from_set, .. } = &point.content {
                known.push((*from, *from_set));
            }
            for block in point.content.blocks() {
                known.push((block.position, block.set));
                let node = (epoch, block.position.hash);
                let holders = map.changes.entry(node);
                holders.or_insert((block, Vec::new())).1.push(point);
            }
            for (position, set) in known {
                map.sets.insert((epoch, position.hash), (position, set));
                let epochs = map.epochs.entry(position.hash).or_default();
                epochs.retain(|other| *other != epoch);
                epochs.push(epoch);
            }
        }
        map
    }

    /// The shortest way.
    pub(crate) fn plan(&self, points: &[Arc<Manifest>], wanted: Node) -> Result<Plan> {
        let (position, set) = self.sets.get(&wanted).ok_or_else(|| Error::Unreachable {
            what: format!(
                "no restore point knows the set at block {}",
                shown(wanted.1)
            ),
        })?;
        let goal = Goals::of(self, wanted);
        let ways = points
            .iter()
            .filter_map(|base| Some((base, self.way(base, &goal)?)));
        let best = ways.min_by_key(|(_, way)| way.len());
        let (base, way) = best.ok_or_else(|| Error::Unreachable {
            what: format!(
                "no base is linked to the block at height {}: blocks between them are in no restore point",
                position.height
            ),
        })?;
        Ok(Plan {
            base: base.clone(),
            steps: self.steps(base, &way),
            position: *position,
            set: *set,
        })
    }

    /// All that could be of use on any way.
    pub(crate) fn all_ways(&self, points: &[Arc<Manifest>], wanted: Node) -> Vec<Hex<16>> {
        let goal = Goals::of(self, wanted);
        let mut found = Vec::new();
        for base in points {
            let Some(way) = self.way(base, &goal) else {
                continue;
            };
            found.push(base.point);
            let holders = way.iter().filter_map(|(node, _)| self.changes.get(node));
            found.extend(holders.flat_map(|(_, holders)| holders.iter().map(|point| point.point)));
        }
        found
    }

    /// The epoch that a block's hash alone means.
    pub(crate) fn epoch_of(&self, hash: &Hex<32>) -> Option<&Hex<16>> {
        self.epochs.get(hash)?.last()
    }

    /// A block and those before it, as far as their changes are known in its epoch; the last one's are not.
    fn ancestors(&self, from: Node) -> impl Iterator<Item = Node> + '_ {
        let mut next = Some(from);
        // Links that lead round would be a forgery.
        let mut left = self.changes.len().saturating_add(1);
        std::iter::from_fn(move || {
            let node = next?;
            left = left.checked_sub(1)?;
            next = self
                .changes
                .get(&node)
                .map(|(block, _)| (node.0, block.previous));
            Some(node)
        })
    }

    /// The block at a height, in the last epoch that knows it.
    fn on_chain(&self, latest: Node, height: u32) -> Result<Node> {
        let tip = self
            .sets
            .get(&latest)
            .map_or(0, |(position, _)| position.height);
        let (mut at, mut lowest, mut from) = (tip, tip, latest);
        let mut seen = HashSet::new();
        loop {
            let mut end = from;
            for (node, below) in self.ancestors(from).zip((0..=at).rev()) {
                if below == height && self.sets.contains_key(&node) {
                    return Ok(node);
                }
                (end, lowest) = (node, below);
            }
            // Another epoch may go on below.
            seen.insert(end);
            let epochs = self.epochs.get(&end.1).into_iter().flatten().rev();
            let mut others = epochs.map(|epoch| (*epoch, end.1));
            match others.find(|node| !seen.contains(node)) {
                Some(node) => (from, at) = (node, lowest),
                None => break,
            }
            seen.insert(from);
        }
        let others: HashSet<_> = self
            .sets
            .values()
            .filter(|(position, _)| position.height == height)
            .map(|(position, _)| shown(position.hash).to_string())
            .collect();
        let hint = match others.is_empty() {
            true => String::new(),
            false => format!(
                "; restore points that are not linked to it have at that height {}: name the block",
                others.into_iter().collect::<Vec<_>>().join(", ")
            ),
        };
        Err(Error::Unreachable {
            what: format!(
                "height {height} is not in the chain of the last restore point, which reaches from {lowest} to {tip}{hint}"
            ),
        })
    }

    /// From a base back to where the branches part, and forwards from there.
    fn way(&self, base: &Manifest, goal: &Goals) -> Option<Way> {
        let Content::Base {
            epoch,
            position,
            set,
            ..
        } = &base.content
        else {
            return None;
        };
        let from = (*epoch, position.hash);
        // Where nobody watched, a later base may have found another set there.
        if self.sets.get(&from).is_none_or(|(_, known)| known != set) {
            return None;
        }
        let mut way = Way::new();
        let mut meets = None;
        for node in self.ancestors(from) {
            if goal.all.contains(&node) {
                meets = Some(node);
                break;
            }
            way.push((node, Direction::Backwards));
        }
        let meets = meets?;
        let forwards = goal.back.iter().copied().take_while(|node| *node != meets);
        let mut forwards: Vec<_> = forwards.map(|node| (node, Direction::Forwards)).collect();
        forwards.reverse();
        way.extend(forwards);
        Some(way)
    }

    /// Of restore points with the changes of the first block of a way the one that has most of those that follow in the same
    /// direction; of equals the oldest.
    fn longest(
        &self,
        holders: &[&Arc<Manifest>],
        way: &[(Node, Direction)],
    ) -> Option<Arc<Manifest>> {
        let mut left = holders.to_vec();
        let towards = way.first().map(|(_, direction)| direction);
        let ahead = way.iter().skip(1);
        for (node, _) in ahead.take_while(|(_, direction)| Some(direction) == towards) {
            if left.len() < 2 {
                break;
            }
            let next = self.changes.get(node).map_or(&[][..], |(_, next)| next);
            let names: HashSet<_> = next.iter().map(|point| point.point).collect();
            let mut go_on = left.clone();
            go_on.retain(|point| names.contains(&point.point));
            if go_on.is_empty() {
                break;
            }
            left = go_on;
        }
        left.first().map(|point| (*point).clone())
    }

    /// Blocks of one restore point together.
    fn steps(&self, base: &Manifest, way: &Way) -> Vec<Step> {
        let mut steps = Vec::<Step>::new();
        if let (Some(first), Some(last)) =
            (base.content.blocks().first(), base.content.blocks().last())
        {
            steps.push(Step {
                point: None,
                direction: Direction::Forwards,
                heights: (first.position.height, last.position.height),
                others: Vec::new(),
            });
        }
        for (at, (node, direction)) in way.iter().enumerate() {
            let Some((block, holders)) = self.changes.get(node) else {
                continue;
            };
            let height = block.position.height;
            let goes_on = steps.last_mut().filter(|step| {
                let next_to = match direction {
                    Direction::Forwards => step.heights.1.checked_add(1) == Some(height),
                    Direction::Backwards => height.checked_add(1) == Some(step.heights.0),
                };
                let same = |point: &Arc<Manifest>| {
                    holders.iter().any(|holder| holder.point == point.point)
                };
                step.direction == *direction && next_to && step.point.as_ref().is_some_and(same)
            });
            match goes_on {
                Some(step) if *direction == Direction::Forwards => step.heights.1 = height,
                Some(step) => step.heights.0 = height,
                None => steps.push(Step {
                    point: self.longest(holders, way.get(at..).unwrap_or_default()),
                    direction: *direction,
                    heights: (height, height),
                    others: Vec::new(),
                }),
            }
            if let Some(Step { point, others, .. }) = steps.last_mut() {
                let known = others.iter().chain(point.as_ref());
                let known: HashSet<_> = known.map(|point| point.point).collect();
                let new = holders
                    .iter()
                    .filter(|holder| !known.contains(&holder.point));
                others.extend(new.map(|holder| (*holder).clone()));
            }
        }
        steps
    }
}
