//! The figures, each with what it says, of how many, and how many it could not be said of.

use std::collections::BTreeMap;
use std::fmt;

use groundtackle_release_gate::{Dora, Entry, Head, Incident, Record, Severity, Timestamp};
use serde::Serialize;

/// What `value` is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    PerDay,
    Seconds,
    Share,
}

#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub definition: &'static str,
    pub unit: Unit,
    /// `None`: it is not known. Zero is a value.
    pub value: Option<f64>,
    /// Of how many it is the value.
    pub samples: u64,
    pub of: &'static str,
    /// How many more there are, of which it is not known.
    pub unknown: u64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub environment: String,
    pub from: Timestamp,
    pub until: Timestamp,
    /// From when on the log says what was, if that is in the window: before, nothing is known.
    pub known_from: Option<Timestamp>,
    pub log: Head,
    pub figures: Vec<Figure>,
    /// Those that began in the window, whatever the environment: the log does not name theirs.
    pub incidents: BTreeMap<Severity, u64>,
}

impl Report {
    /// `None` if `until` is not after `from`.
    pub fn of(
        records: &[Record],
        log: Head,
        environment: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Self> {
        if until <= from {
            return None;
        }
        let begins = records.first().map(|first| first.at.max(from));
        let known_from = begins.filter(|begins| *begins < until);
        let dora = known_from.and_then(|known| Dora::of(records, environment, known, until));
        let known = known_from.map_or(until..until, |known| known..until);
        let incidents = latest(records);
        let incidents = incidents.filter(|incident| known.contains(&incident.opened_at));
        let incidents: Vec<_> = incidents.collect();
        let mut figures = deliveries(dora);
        figures.push(restored(&incidents));
        let mut by_severity = BTreeMap::new();
        for incident in incidents {
            *by_severity.entry(incident.severity).or_default() += 1;
        }
        Some(Self {
            environment: environment.into(),
            from,
            until,
            known_from,
            log,
            figures,
            incidents: by_severity,
        })
    }
}

/// The four of DORA, as the port counts them.
fn deliveries(dora: Option<Dora>) -> Vec<Figure> {
    let count = |of: fn(Dora) -> u64| dora.map_or(0, of);
    let seconds = |time: std::time::Duration| time.as_secs_f64();
    vec![
        Figure {
            name: "deployment frequency",
            definition: "deployments that ended, well or not, a day; rollbacks aside",
            unit: Unit::PerDay,
            value: dora.map(|dora| dora.deployments_per_day),
            samples: count(|dora| dora.deployments),
            of: "deployments",
            unknown: 0,
        },
        Figure {
            name: "lead time for changes",
            definition: "from a change to the end of the deployment that succeeded with it: the median of all changes",
            unit: Unit::Seconds,
            value: dora.and_then(|dora| dora.lead_time).map(seconds),
            samples: count(|dora| dora.changes),
            of: "changes; unknown: deployments that say none",
            unknown: count(|dora| dora.without_changes),
        },
        Figure {
            name: "change failure rate",
            definition: "deployments that failed, or that another one made good later, as a share of all",
            unit: Unit::Share,
            value: dora.and_then(|dora| dora.change_failure_rate),
            samples: count(|dora| dora.deployments),
            of: "deployments",
            unknown: 0,
        },
        Figure {
            name: "failed deployment recovery time",
            definition: "from the end of such a deployment to the end of what made it good: the median",
            unit: Unit::Seconds,
            value: dora.and_then(|dora| dora.recovery_time).map(seconds),
            samples: count(|dora| dora.failed.saturating_sub(dora.unrepaired)),
            of: "deployments that were made good; unknown: that were not",
            unknown: count(|dora| dora.unrepaired),
        },
    ]
}

/// Each incident as it was last recorded.
fn latest(records: &[Record]) -> impl Iterator<Item = &Incident> {
    let mut latest = BTreeMap::new();
    for record in records {
        if let Entry::Incident { incident } = &record.entry {
            latest.insert(&incident.id, incident);
        }
    }
    latest.into_values()
}

fn restored(incidents: &[&Incident]) -> Figure {
    let time = |incident: &&Incident| {
        let end = incident.resolved_at?;
        Some(
            end.duration_since(incident.opened_at)
                .as_secs_f64()
                .max(0.0),
        )
    };
    let mut times: Vec<f64> = incidents.iter().filter_map(time).collect();
    times.sort_by(f64::total_cmp);
    // The lower of two in the middle, as the port's medians.
    let middle = times.len().saturating_sub(1) / 2;
    Figure {
        name: "time to restore",
        definition: "from the beginning of an incident to its end: the median",
        unit: Unit::Seconds,
        value: times.get(middle).copied(),
        samples: times.len() as u64,
        of: "incidents that ended; unknown: that did not",
        unknown: incidents.len().saturating_sub(times.len()) as u64,
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match (self.value, self.unit) {
            (None, _) => "unknown".into(),
            (Some(value), Unit::PerDay) => format!("{value:.3} a day"),
            (Some(value), Unit::Seconds) => format!("{:.1} h", value / 3600.0),
            (Some(value), Unit::Share) => format!("{:.1} %", value * 100.0),
        };
        let Self {
            name,
            definition,
            samples,
            of,
            unknown,
            ..
        } = self;
        writeln!(f, "{name}: {value}")?;
        writeln!(f, "  {samples} known, {unknown} unknown, of {of}")?;
        writeln!(f, "  {definition}")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            environment,
            from,
            until,
            log,
            ..
        } = self;
        writeln!(
            f,
            "{environment}, from {from} until {until}; {} records, the last one {}",
            log.records, log.digest
        )?;
        match self.known_from {
            None => writeln!(f, "the log says nothing of this time")?,
            Some(known) if known > *from => {
                writeln!(f, "the log begins at {known}: the figures are from then on")?
            }
            Some(_) => {}
        }
        for figure in &self.figures {
            writeln!(f, "\n{figure}")?;
        }
        write!(f, "\nincidents that began:")?;
        for (severity, count) in &self.incidents {
            write!(f, " {count} {severity:?}")?;
        }
        write!(
            f,
            "{}",
            if self.incidents.is_empty() {
                " none is known"
            } else {
                ""
            }
        )
    }
}
