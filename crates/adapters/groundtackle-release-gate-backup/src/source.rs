use std::sync::Arc;

use async_trait::async_trait;
use groundtackle_backup::{
    At, DrillOutcome, DrillRecord, EvidenceFound, Points, Repository, Target, Trust, Used,
};
use groundtackle_release_gate::{
    Error, Evidence, EvidenceSource, Fact, Request, Result, Retryability, Timestamp,
};

use crate::config::{BackupEvidenceConfig, StreamRule};

const BACKEND: &str = "backup";

/// A repository of backups as evidence: what is in it, and how its drills ended.
#[derive(Debug)]
pub struct BackupEvidence {
    name: String,
    target: Arc<dyn Target>,
    trust: Trust,
    streams: Vec<StreamRule>,
}

impl BackupEvidence {
    /// Of the repository in a target, which is opened each time it is asked.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for signers that are none.
    pub fn new(target: Arc<dyn Target>, config: BackupEvidenceConfig) -> Result<Self> {
        let trust = Trust::new(config.signers)
            .map_err(|error| Error::invalid_request(format!("`signers`: {error}")))?;
        Ok(Self {
            name: format!("{BACKEND} {}", config.name),
            target,
            trust,
            streams: config.streams,
        })
    }

    /// Reading changes nothing, so that nothing may have been applied.
    fn failed(&self, action: &str, error: groundtackle_backup::Error) -> Error {
        let retryability = match error.retryability() {
            Retryability::Indeterminate => Retryability::Transient,
            known => known,
        };
        Error::backend(
            BACKEND,
            format!("{action} of {}", self.name),
            retryability,
            error,
        )
    }

    /// The last restore point, if it can be restored.
    fn backup(&self, points: &Points, stream: &StreamRule) -> Result<Option<Evidence>> {
        let own = points.usable.iter();
        let last = own
            .filter(|point| point.stream == stream.name)
            .max_by_key(|point| point.created_unix_millis);
        let Some(last) = last else { return Ok(None) };
        // One that nothing leads to is listed, and is no backup; nor is it known which is the last where one can't be read.
        if !last.content.is_tree() {
            let action = format!(
                "finding the way to the last restore point {:?}",
                stream.name
            );
            let plan = points.plan(&stream.name, At::Latest);
            plan.map_err(|error| self.failed(&action, error))?;
        }
        let is_gone = |used: &&Used| {
            let mut all = points.usable.iter().chain(&points.forgotten);
            !all.any(|point| point.point == used.point)
        };
        if let Some(Used { point: gone, .. }) = last.content.uses().iter().find(is_gone) {
            let what = format!("the last restore point {:?} of {}", stream.name, self.name);
            let detail = format!("it uses the restore point {gone}, which is not there");
            return Err(Error::corrupt(what, detail));
        }
        let fact = Fact::Backup {
            name: stream.name.clone(),
        };
        let at = timestamp(last.created_unix_millis);
        Ok(Some(Evidence::new(&self.name, at, fact)))
    }

    /// The last drill that says anything.
    fn drill(&self, found: &EvidenceFound, stream: &StreamRule) -> Result<Option<Evidence>> {
        let whole = |drill: &DrillRecord| {
            drill.level >= stream.drill_level && (stream.shares || drill.share.is_none())
        };
        let own = found.usable.iter().filter(|evidence| {
            let drill = &evidence.drill;
            // What failed below the level is wrong above it, too.
            drill.stream == stream.name && (drill.outcome != DrillOutcome::Passed || whole(drill))
        });
        let Some(last) = own.max_by_key(|evidence| evidence.drill.finished_unix_millis) else {
            return Ok(None);
        };
        // Keys begin with the time at which the drill ended: one that can't be read may be of a drill that failed later.
        let later = found.unusable.iter().find(|(key, _)| *key > last.object);
        if let Some((key, error)) = later {
            let what = format!("the evidence {key} of {}", self.name);
            return Err(Error::corrupt(
                what,
                format!("a later drill may have failed: {error}"),
            ));
        }
        let fact = Fact::Drill {
            name: stream.name.clone(),
            passed: last.drill.outcome == DrillOutcome::Passed,
        };
        let at = timestamp(last.drill.finished_unix_millis);
        Ok(Some(Evidence::new(&self.name, at, fact)))
    }
}

#[async_trait]
impl EvidenceSource for BackupEvidence {
    fn name(&self) -> &str {
        &self.name
    }

    async fn collect(&self, _request: &Request) -> Result<Vec<Evidence>> {
        let opened = Repository::open(self.target.clone(), self.trust.clone()).await;
        let repository = opened.map_err(|error| self.failed("opening the repository", error))?;
        let points = repository.points().await;
        let points = points.map_err(|error| self.failed("reading the restore points", error))?;
        let drills = repository.evidence().await;
        let drills = drills.map_err(|error| self.failed("reading the drills", error))?;
        let mut found = Vec::new();
        for stream in &self.streams {
            found.extend(self.backup(&points, stream)?);
            found.extend(self.drill(&drills, stream)?);
        }
        Ok(found)
    }
}

fn timestamp(unix_millis: u64) -> Timestamp {
    let millis = i64::try_from(unix_millis).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}
