//! Which restore points lead to a set.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};
use crate::hex::Hex;
use crate::manifest::{BlockEntry, Manifest, Position, SetSummary};

/// The set to unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Where the restore point made last leads to.
    Latest,
    /// At this height of the chain of the restore point made last.
    Height(u32),
    /// At this block, by its hash in internal order; also of an abandoned branch.
    Block(Hex<32>),
}

/// Blocks of one restore point, in the order in which to apply them.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    pub(crate) point: &'a Manifest,
    pub(crate) backwards: bool,
    pub(crate) blocks: Vec<&'a BlockEntry>,
}

/// A block, in an epoch.
type Node = (Hex<16>, Hex<32>);

/// What the restore points know.
#[derive(Debug, Default)]
struct Known<'a> {
    sets: HashMap<Node, (Position, SetSummary)>,
    changes: HashMap<Node, (&'a BlockEntry, &'a Manifest)>,
    /// The epochs that know the set at a block, the one that said it last at the end.
    epochs: HashMap<Hex<32>, Vec<Hex<16>>>,
}

/// A base, the steps from there (those of the base's own blocks first), and where they lead. `points` are of one stream,
/// by ascending key; the last of `offered` is the latest.
pub(crate) fn find<'a>(
    points: &[&'a Manifest],
    offered: &[&'a Manifest],
    at: At,
) -> Result<(&'a Manifest, Vec<Step<'a>>, (Position, SetSummary))> {
    let known = Known::of(points);
    let age = |point: &&&Manifest| (point.created_unix_millis, point.end().0.height);
    let latest = offered.iter().max_by_key(age);
    let latest = latest.ok_or_else(|| Error::Unreachable("there is no restore point".into()))?;
    let tip = latest.end().0;
    let wanted = match at {
        At::Latest => (latest.epoch(), tip.hash),
        At::Height(height) => known.at_height((latest.epoch(), tip.hash), tip.height, height)?,
        At::Block(hash) => {
            let epoch = known.epochs.get(&hash).and_then(|epochs| epochs.last());
            let what = || {
                format!(
                    "no restore point knows the set at block {}",
                    hash.reversed()
                )
            };
            (*epoch.ok_or_else(|| Error::Unreachable(what()))?, hash)
        }
    };
    let bases = points.iter().filter(|point| point.is_base());
    let ways = bases.filter_map(|base| Some((*base, known.way(base, wanted)?)));
    let best = ways
        .min_by_key(|(_, way)| way.len())
        .zip(known.sets.get(&wanted));
    let ((base, way), goal) = best.ok_or_else(|| {
        Error::Unreachable("no base is linked to that block: some between are nowhere".into())
    })?;
    let mut steps = vec![Step {
        point: base,
        backwards: false,
        blocks: base.blocks().iter().collect(),
    }];
    for (block, point, backwards) in way {
        // Not to the base's own blocks: they come first, whatever follows.
        match steps.get_mut(1..).and_then(|steps| steps.last_mut()) {
            Some(step) if step.point.point == point.point && step.backwards == backwards => {
                step.blocks.push(block);
            }
            _ => steps.push(Step {
                point,
                backwards,
                blocks: vec![block],
            }),
        }
    }
    Ok((base, steps, *goal))
}

impl<'a> Known<'a> {
    fn of(points: &[&'a Manifest]) -> Self {
        let mut known = Self::default();
        for point in points {
            let epoch = point.epoch();
            let mut sets = vec![point.known()];
            for block in point.blocks() {
                sets.push((block.position, block.set));
                let node = (epoch, block.position.hash);
                known.changes.entry(node).or_insert((block, point));
            }
            for (position, set) in sets {
                known.sets.insert((epoch, position.hash), (position, set));
                let epochs = known.epochs.entry(position.hash).or_default();
                epochs.retain(|other| *other != epoch);
                epochs.push(epoch);
            }
        }
        known
    }

    /// A block and those before it in its epoch. The last one is where the changes begin.
    fn ancestors(&self, from: Node) -> impl Iterator<Item = Node> + '_ {
        let before = |node: &Node| Some((node.0, self.changes.get(node)?.0.previous));
        // Links that lead round would be a forgery.
        std::iter::successors(Some(from), before).take(self.changes.len().saturating_add(1))
    }

    /// The block at a height of the chain that ends in `tip`: in its epoch, and below that in the last one that knows the
    /// block where it begins.
    fn at_height(&self, tip: Node, tip_height: u32, wanted: u32) -> Result<Node> {
        let (mut from, mut lowest) = (tip, tip_height);
        let mut seen = HashSet::new();
        loop {
            let mut end = from;
            for (node, height) in self.ancestors(from).zip((0..=lowest).rev()) {
                if height == wanted && self.sets.contains_key(&node) {
                    return Ok(node);
                }
                (end, lowest) = (node, height);
            }
            seen.extend([from, end]);
            let epochs = self.epochs.get(&end.1).into_iter().flatten().rev();
            let mut others = epochs.map(|epoch| (*epoch, end.1));
            from = others.find(|node| !seen.contains(node)).ok_or_else(|| {
                Error::Unreachable(format!(
                    "height {wanted} is not in the chain of the last restore point, which has {lowest} to \
                     {tip_height}: name a block of another one by its hash"
                ))
            })?;
        }
    }

    /// From a base back to where the branches part, and forwards from there.
    fn way(
        &self,
        base: &Manifest,
        wanted: Node,
    ) -> Option<Vec<(&'a BlockEntry, &'a Manifest, bool)>> {
        let (position, set) = base.known();
        let from = (base.epoch(), position.hash);
        // Where nobody watched, a later base may have found another set there.
        self.sets.get(&from).filter(|(_, known)| *known == set)?;
        let to: Vec<_> = self.ancestors(wanted).collect();
        let on_the_way: HashSet<_> = to.iter().collect();
        let meets = self
            .ancestors(from)
            .find(|node| on_the_way.contains(node))?;
        let back = self.ancestors(from).take_while(|node| *node != meets);
        let forth: Vec<_> = to.into_iter().take_while(|node| *node != meets).collect();
        back.map(|node| (node, true))
            .chain(forth.into_iter().rev().map(|node| (node, false)))
            .map(|(node, backwards)| {
                let (block, point) = self.changes.get(&node)?;
                Some((*block, *point, backwards))
            })
            .collect()
    }
}
