//! The file of services, and what follows from it before anything runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use groundtackle_health_check::{CheckConfig, Graph, HealthConfig, Kind, Name};
use groundtackle_health_check_probes::HttpProbe;
use serde::Deserialize;

use crate::Fault;

/// What the file says of a service beside its name, its schedule and what it needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The program, and its arguments.
    pub command: Vec<String>,
    /// Where it says that it has started.
    pub http: HttpProbe,
    /// How long it usually takes to start: the plan is made of it.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub takes: Duration,
    /// A service that takes longer is named. Default `"1m"`.
    #[serde(
        default = "minute",
        with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required"
    )]
    pub within: Duration,
}

const fn minute() -> Duration {
    Duration::from_secs(60)
}

/// All services, each after what it needs.
#[derive(Debug)]
pub struct Services(Vec<CheckConfig<Service>>);

impl Services {
    /// Unknown names and circles are refused with file, line and names.
    pub fn read(file: &Path) -> Result<Self, Fault> {
        let text = fs::read_to_string(file);
        let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
        let config: HealthConfig<Service> =
            HealthConfig::from_toml(&file.display().to_string(), &text)?;
        if let Some(other) = config.checks.iter().find(|of| of.kind != Kind::Startup) {
            return Err(format!(
                "{}: the kind of {:?} has to be startup",
                file.display(),
                other.name
            )
            .into());
        }
        let needs = config.checks.iter();
        let graph = Graph::new(needs.map(|of| (of.name.clone(), of.depends_on.clone())))?;
        let place: BTreeMap<_, _> = graph.start_order().zip(0..).collect();
        let mut services = config.checks;
        services.sort_by_key(|of| place.get(&of.name).copied());
        Ok(Self(services))
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &CheckConfig<Service>> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What one of them needs, directly or not.
    pub fn needed_by(self, name: &str) -> Result<Self, Fault> {
        let Some(of) = self.iter().find(|of| of.name.as_str() == name) else {
            return Err(format!("there is no service {name:?}").into());
        };
        let mut needed = of.depends_on.clone();
        for of in self.iter().rev().filter(|of| of.name.as_str() != name) {
            if needed.contains(&of.name) {
                needed.extend_from_slice(&of.depends_on);
            }
        }
        let kept = self.0.into_iter().filter(|of| needed.contains(&of.name));
        Ok(Self(kept.collect()))
    }

    /// Who needs it, directly or not, in the order of their start.
    pub fn held_up_by<'a>(&'a self, name: &'a Name) -> Vec<&'a Name> {
        let mut held = vec![name];
        for of in self.iter() {
            if of.depends_on.iter().any(|need| held.contains(&need)) {
                held.push(&of.name);
            }
        }
        held.split_off(1)
    }

    /// From when on each is ready if none takes longer than usual.
    pub fn planned(&self) -> BTreeMap<Name, Duration> {
        let mut ready = BTreeMap::new();
        for of in self.iter() {
            let begin = of
                .depends_on
                .iter()
                .filter_map(|need| ready.get(need))
                .max();
            let at = begin.copied().unwrap_or_default() + of.probe.takes;
            ready.insert(of.name.clone(), at);
        }
        ready
    }

    /// Who has to be faster for all to be ready earlier, first to last: from the one that was ready last back to what it waited for.
    pub fn critical_path(&self, ready: &BTreeMap<Name, Duration>) -> Vec<Name> {
        let last =
            |of: &mut dyn Iterator<Item = &Name>| of.max_by_key(|name| ready.get(*name)).cloned();
        let mut path = Vec::new();
        let mut next = last(&mut self.iter().map(|of| &of.name));
        while let Some(name) = next {
            let of = self.iter().find(|of| of.name == name);
            next = of.and_then(|of| last(&mut of.depends_on.iter()));
            path.insert(0, name);
        }
        path
    }
}

pub fn listed<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    let names: Vec<_> = names.into_iter().map(Name::as_str).collect();
    match names.is_empty() {
        true => "nothing".into(),
        false => names.join(", "),
    }
}

pub fn path(names: &[Name], ready: &BTreeMap<Name, Duration>) -> String {
    let step = |name: &Name| {
        format!(
            "{name} ({:.1?})",
            ready.get(name).copied().unwrap_or_default()
        )
    };
    names.iter().map(step).collect::<Vec<_>>().join(", ")
}
