//! A config of checks, objectives and maintenances.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::builder::Builder;
use crate::check::{Check, Kind, Schedule, Settings};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::health::Health;
use crate::maintenance::Maintenance;
use crate::objective::Objective;
use crate::outcome::Name;

/// What to watch, as data. `P` is what a check does, which adapters define; `S` what else the program that reads this is told in the
/// same file.
///
/// ```
/// use groundtackle_health_check::HealthConfig;
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Probe { connect_to: String }
///
/// let config: HealthConfig<Probe> = HealthConfig::from_toml("health.toml", r#"
///     [[checks]]
///     name = "database"
///     kind = "readiness"
///     subsets = ["storage"]
///     schedule = { period = "5s", timeout = "1s" }
///     probe = { connect_to = "127.0.0.1:5432" }
///
///     [[objectives]]
///     name = "available"
///     target = 0.999
///     window = { rolling_days = 30 }
/// "#)?;
/// assert_eq!(config.checks[0].probe.connect_to, "127.0.0.1:5432");
/// # Ok::<(), groundtackle_health_check::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig<P, S = NoService> {
    /// The checks: at least one.
    pub checks: Vec<CheckConfig<P>>,
    /// The service levels to keep.
    #[serde(default = "Vec::new")]
    pub objectives: Vec<Objective>,
    /// Maintenances, declared when the process that reads this starts, or earlier if its ledger knows them.
    #[serde(default)]
    pub maintenances: Vec<Maintenance>,
    /// What the program itself needs: where it listens, whom it tells. Default: nothing.
    #[serde(default)]
    pub service: S,
}

/// Nothing is told to the program that reads a config.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoService {}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckConfig<P> {
    /// What it is called.
    pub name: Name,
    /// `"readiness"` or `"startup"`. Liveness comes from the process itself.
    pub kind: Kind,
    /// When it runs, and what its results are worth.
    #[serde(default)]
    pub schedule: Schedule,
    /// What it needs, by name. Default: nothing.
    #[serde(default = "Vec::new")]
    pub depends_on: Vec<Name>,
    /// The named subsets that it is part of. Default: none.
    #[serde(default = "Vec::new")]
    pub subsets: Vec<Name>,
    /// Whether the service can't work without it. Default true.
    #[serde(default = "yes")]
    pub required: bool,
    /// Whether strangers may see its name and outcome. Default false.
    #[serde(default)]
    pub public: bool,
    /// What it does.
    pub probe: P,
}

const fn yes() -> bool {
    true
}

impl<P> CheckConfig<P> {
    /// All but the probe.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::default()
            .with_schedule(self.schedule.clone())
            .with_depends_on(self.depends_on.clone())
            .with_subsets(self.subsets.clone())
            .with_required(self.required)
            .with_public(self.public)
    }
}

impl<P: DeserializeOwned, S: DeserializeOwned + Default> HealthConfig<P, S> {
    /// Reads it from a TOML text and checks it. `file` is what errors call it.
    ///
    /// # Errors
    /// `Config`, with the line and the key: for an unknown key, a value that can't be, a name that is there twice or that nothing has,
    /// a circle of dependencies, a period below its timeout, an empty set.
    pub fn from_toml(file: &str, text: &str) -> Result<Self> {
        let at = |span: Option<std::ops::Range<usize>>| {
            let before = text
                .get(..span.map_or(0, |span| span.start))
                .unwrap_or_default();
            before.matches('\n').count().saturating_add(1)
        };
        let config_error = |line, key: String, problem: String| Error::Config {
            file: file.into(),
            line,
            key,
            problem,
        };
        let table = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            config_error(
                at(error.span()),
                key_at(text, offset),
                one_line(error.message()),
            )
        })?;
        let config: Self = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let path = path_at(table.get_ref(), offset).unwrap_or_else(|| key_at(text, offset));
            config_error(at(error.span()), path, one_line(error.message()))
        })?;
        config.check().map_err(|(path, error)| {
            let (line, key) = locate(table.get_ref(), &path);
            config_error(at(line), key, error.to_string())
        })?;
        Ok(config)
    }
}

/// Where in a config: keys, and numbers in lists.
type Path = Vec<Step>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Key(&'static str),
    Item(usize),
}

impl<P, S> HealthConfig<P, S> {
    fn check(&self) -> Result<(), (Path, Error)> {
        use Step::{Item, Key};
        if self.checks.is_empty() {
            let error = Error::Empty {
                what: "checks".into(),
                way_out: "a service of which nothing is checked is never ready: add a check",
            };
            return Err((vec![Key("checks")], error));
        }
        for (i, check) in self.checks.iter().enumerate() {
            let of = |path: &[Step]| [&[Key("checks"), Item(i)], path].concat();
            let what = format!("check {:?}", check.name.as_str());
            if check.kind == Kind::Liveness {
                let problem = "is liveness, which the process's own heartbeat says and no probe; take readiness or startup";
                return Err((of(&[Key("kind")]), Error::invalid(what, "kind", problem)));
            }
            check.schedule.validate(&what).map_err(|error| {
                let Error::Invalid { key, .. } = error else {
                    return (of(&[]), error);
                };
                (of(&[Key("schedule"), Key(key)]), error)
            })?;
            if self
                .checks
                .iter()
                .take(i)
                .any(|other| other.name == check.name)
            {
                let name = check.name.clone();
                return Err((
                    of(&[Key("name")]),
                    Error::Duplicate {
                        what: "check",
                        name,
                    },
                ));
            }
        }
        let index = |name: &str| {
            self.checks
                .iter()
                .position(|check| check.name.as_str() == name)
        };
        let nodes = self
            .checks
            .iter()
            .map(|check| (check.name.clone(), check.depends_on.clone()));
        Graph::new(nodes).map_err(|error| {
            let check = match &error {
                Error::Cycle { path } => path.first().and_then(|name| index(name.as_str())),
                Error::NotFound { name, .. } => {
                    let needs = |check: &CheckConfig<P>| {
                        check.depends_on.iter().any(|need| need.as_str() == name)
                    };
                    self.checks.iter().position(needs)
                }
                _ => None,
            };
            (
                vec![
                    Key("checks"),
                    Item(check.unwrap_or_default()),
                    Key("depends_on"),
                ],
                error,
            )
        })?;
        for (i, objective) in self.objectives.iter().enumerate() {
            let of = |key| vec![Key("objectives"), Item(i), Key(key)];
            objective.validate().map_err(|error| match error {
                Error::Invalid { key, .. } => (of(key), error),
                error => (of("alerts"), error),
            })?;
            if self
                .objectives
                .iter()
                .take(i)
                .any(|other| other.name == objective.name)
            {
                let name = objective.name.clone();
                return Err((
                    of("name"),
                    Error::Duplicate {
                        what: "objective",
                        name,
                    },
                ));
            }
            let is_in = |check: &CheckConfig<P>| {
                check.kind == Kind::Readiness
                    && objective
                        .subset
                        .as_ref()
                        .map_or(check.required, |subset| check.subsets.contains(subset))
            };
            if !self.checks.iter().any(is_in) {
                let error = Error::Empty {
                    what: format!(
                        "the set of checks of objective {:?}",
                        objective.name.as_str()
                    ),
                    way_out: "name a subset that readiness checks are part of",
                };
                return Err((of("subset"), error));
            }
        }
        for (i, maintenance) in self.maintenances.iter().enumerate() {
            let of = |key| vec![Key("maintenances"), Item(i), Key(key)];
            maintenance
                .validate()
                .map_err(|error| (of("ends"), error))?;
            if self
                .maintenances
                .iter()
                .take(i)
                .any(|other| other.name == maintenance.name)
            {
                let name = maintenance.name.clone();
                return Err((
                    of("name"),
                    Error::Duplicate {
                        what: "maintenance",
                        name,
                    },
                ));
            }
            if let Some(name) = maintenance
                .checks
                .iter()
                .find(|name| index(name.as_str()).is_none())
            {
                let error = Error::NotFound {
                    what: format!("maintenance {:?}", maintenance.name.as_str()),
                    wanted: "check",
                    name: name.as_str().into(),
                };
                return Err((of("checks"), error));
            }
        }
        Ok(())
    }

    /// Puts it together, with a check made of each probe.
    pub fn into_builder<C: Check>(self, mut check: impl FnMut(P) -> C) -> Builder {
        let mut builder = Health::builder();
        for of in self.checks {
            let settings = of.settings();
            let made = check(of.probe);
            builder = match of.kind {
                Kind::Startup => builder.startup(of.name, settings, made),
                Kind::Readiness | Kind::Liveness => builder.readiness(of.name, settings, made),
            };
        }
        builder = self
            .objectives
            .into_iter()
            .fold(builder, Builder::objective);
        self.maintenances
            .into_iter()
            .fold(builder, Builder::maintenance)
    }
}

/// The first line of a parser's message: the rest shows the text again, which may have a password in it.
fn one_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().into()
}

/// The key in the line of this offset.
fn key_at(text: &str, offset: usize) -> String {
    let begin = text
        .get(..offset)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |at| at.saturating_add(1));
    let line = text
        .get(begin..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    line.split('=').next().unwrap_or_default().trim().into()
}

/// The path of the innermost key whose name or value this offset is in.
fn path_at(table: &DeTable<'_>, offset: usize) -> Option<String> {
    for (key, value) in table.iter() {
        let name = key.get_ref();
        if key.span().contains(&offset) {
            return Some(name.to_string());
        }
        if let Some(inner) = path_in(value.get_ref(), offset) {
            return Some(format!("{name}{inner}"));
        }
        if value.span().contains(&offset) {
            return Some(name.to_string());
        }
    }
    None
}

fn path_in(value: &DeValue<'_>, offset: usize) -> Option<String> {
    match value {
        DeValue::Table(table) => path_at(table, offset).map(|path| format!(".{path}")),
        DeValue::Array(items) => items.iter().enumerate().find_map(|(i, item)| {
            let inner = path_in(item.get_ref(), offset);
            let here = item.span().contains(&offset).then(String::new);
            Some(format!("[{i}]{}", inner.or(here)?))
        }),
        _ => None,
    }
}

/// Where a path is, as far as it goes, and its text. What is a default has the place of what it is part of.
fn locate(table: &DeTable<'_>, path: &[Step]) -> (Option<std::ops::Range<usize>>, String) {
    let mut key = String::new();
    let mut span = None;
    let mut value: Option<&DeValue<'_>> = None;
    for step in path {
        match *step {
            Step::Key(name) => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(name);
                let of = match value {
                    None if span.is_none() => Some(table),
                    value => value.and_then(DeValue::as_table),
                };
                let found = of.and_then(|of| of.iter().find(|(key, _)| key.get_ref() == name));
                if let Some((at, _)) = found {
                    span = Some(at.span());
                }
                value = found.map(|(_, value)| value.get_ref());
            }
            Step::Item(i) => {
                key.push_str(&format!("[{i}]"));
                let found = value
                    .and_then(DeValue::as_array)
                    .and_then(|items| items.get(i));
                if let Some(item) = found {
                    span = Some(item.span());
                }
                value = found.map(toml::Spanned::get_ref);
            }
        }
    }
    (span, key)
}
