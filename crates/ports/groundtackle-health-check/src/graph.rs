//! What depends on what.

use std::collections::{BTreeSet, HashMap};

use crate::error::{Error, Result};
use crate::outcome::Name;

/// A dependency graph without circles, in an order in which each thing comes after all that it needs.
///
/// ```
/// use groundtackle_health_check::{Graph, Name};
///
/// let name = |text: &str| Name::try_from(text);
/// let services = [
///     (name("rpc")?, vec![name("validator")?]),
///     (name("validator")?, vec![name("utxo store")?]),
///     (name("utxo store")?, vec![]),
/// ];
/// let graph = Graph::new(services)?;
/// let order: Vec<_> = graph.start_order().map(Name::as_str).collect();
/// assert_eq!(order, ["utxo store", "validator", "rpc"]);
/// # Ok::<(), groundtackle_health_check::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    names: Vec<Name>,
    parents: Vec<Vec<usize>>,
    order: Vec<usize>,
}

impl Graph {
    /// Each name, with the names of what it needs. Of what can start at the same time, what was named first comes first.
    ///
    /// # Errors
    /// `Duplicate`, `NotFound` for a dependency that is not in the set, `Cycle` with the names in it.
    pub fn new(nodes: impl IntoIterator<Item = (Name, Vec<Name>)>) -> Result<Self> {
        let (names, needs): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
        let mut index = HashMap::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            if index.insert(name.clone(), i).is_some() {
                let name = name.clone();
                return Err(Error::Duplicate {
                    what: "check",
                    name,
                });
            }
        }
        let mut parents = Vec::with_capacity(names.len());
        for (name, needs) in names.iter().zip(needs) {
            let of = |need: &Name| {
                index.get(need).copied().ok_or_else(|| Error::NotFound {
                    what: format!("check {:?}, depends_on", name.as_str()),
                    wanted: "check",
                    name: need.as_str().into(),
                })
            };
            let of: BTreeSet<usize> = needs.iter().map(of).collect::<Result<_>>()?;
            parents.push(of.into_iter().collect());
        }
        let order = sorted(&parents).map_err(|path| Error::Cycle {
            path: path.iter().filter_map(|i| names.get(*i).cloned()).collect(),
        })?;
        Ok(Self {
            names,
            parents,
            order,
        })
    }

    /// The names, each after all that it needs.
    pub fn start_order(&self) -> impl Iterator<Item = &Name> {
        self.order.iter().filter_map(|i| self.names.get(*i))
    }

    /// Indices in the order of registration, each after its parents.
    pub(crate) fn order(&self) -> &[usize] {
        &self.order
    }

    pub(crate) fn parents(&self, i: usize) -> &[usize] {
        self.parents.get(i).map_or(&[], Vec::as_slice)
    }
}

/// Kahn's algorithm, smallest index first; or a circle, each needing the next.
fn sorted(parents: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut children = vec![Vec::new(); parents.len()];
    let mut missing: Vec<usize> = parents.iter().map(Vec::len).collect();
    for (i, of) in parents.iter().enumerate() {
        for parent in of {
            if let Some(children) = children.get_mut(*parent) {
                children.push(i);
            }
        }
    }
    let free = missing
        .iter()
        .enumerate()
        .filter(|(_, missing)| **missing == 0);
    let mut free: BTreeSet<usize> = free.map(|(i, _)| i).collect();
    let mut order = Vec::with_capacity(parents.len());
    while let Some(next) = free.pop_first() {
        order.push(next);
        for child in children.get(next).into_iter().flatten() {
            if let Some(missing) = missing.get_mut(*child) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    free.insert(*child);
                }
            }
        }
    }
    if order.len() == parents.len() {
        return Ok(order);
    }
    // What is left has a parent that is left: going up must come by some place twice.
    let done: BTreeSet<usize> = order.into_iter().collect();
    let mut path: Vec<usize> = Vec::new();
    let mut at = (0..parents.len()).find(|i| !done.contains(i));
    while let Some(here) = at {
        if let Some(begin) = path.iter().position(|seen| *seen == here) {
            return Err(path.split_off(begin));
        }
        path.push(here);
        let up = parents.get(here).into_iter().flatten();
        at = up.copied().find(|parent| !done.contains(parent));
    }
    Err(path)
}
