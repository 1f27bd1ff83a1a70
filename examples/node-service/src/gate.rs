//! Whether a release may go out now, by what this service knows of itself; each answer goes to a signed log first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use groundtackle_health_check::{Health, Name};
use groundtackle_release_gate::{
    Decision, Entry, Error, Evidence, EvidenceSource, Gate, Head, PolicyFormat, Retryability,
    Signer, Timestamp, verify,
};
use groundtackle_release_gate_backup::{BackupEvidence, BackupEvidenceConfig, StreamRule};
use groundtackle_release_gate_health::{HealthEvidence, HealthEvidenceConfig, ItemRule};
use groundtackle_release_gate_http::{HttpGateConfig, Recorder, Webhook, router};

use crate::backup::{Backups, STREAM};
use crate::config::Config;
use crate::failure::{Result, While};
use crate::keys::{self, Missing};

const POLICY: &str = include_str!("../policy.toml");

/// The routes `/check` and `/flagger`.
pub fn routes(config: &Config, health: &Health, backups: &Backups) -> Result<Router> {
    let (name, text) = match &config.gate.policy {
        Some(path) => {
            let text = fs::read_to_string(path);
            let text = text.when(format_args!("reading {}", path.display()))?;
            (path.display().to_string(), text)
        }
        None => ("policy.toml".into(), POLICY.into()),
    };
    let gate = Gate::read(&name, &text, PolicyFormat::of(&name)).when("reading the policy")?;
    let token = match config.gate.token.expose() {
        "" => keys::random(&config.data.join("keys/gate.token"), Missing::Make)?.0,
        _ => config.gate.token.clone(),
    };
    let evidence = match &config.gate.health {
        Some(evidence) => evidence.clone(),
        None => built_in()?,
    };
    let rule = StreamRule {
        drill_level: backups.config.drill_level,
        ..StreamRule::new(STREAM)
    };
    let proof = BackupEvidenceConfig::new("backups", vec![backups.signer], vec![rule]);
    let sources: Vec<Arc<dyn EvidenceSource>> = vec![
        Arc::new(HealthEvidence::new(health.clone(), evidence).when("reading gate.health")?),
        Arc::new(BackupEvidence::new(backups.target.clone(), proof).when("reading the backups")?),
    ];
    let path = config.data.join("gate.log");
    let missing = match path.exists() {
        true => Missing::Refuse,
        false => Missing::Make,
    };
    let seed = keys::random(&config.data.join("keys/gate.key"), missing)?.1;
    let opened = Log::open(&path, Signer::from_seed(&seed));
    let log = opened.when(format_args!("opening {}", path.display()))?;
    let recorder = Arc::new(SignedLog(Arc::new(Mutex::new(log))));
    let config = HttpGateConfig::default().with_token(token);
    Ok(router(Webhook::new(gate, sources, recorder), config))
}

/// What the built-in policy asks of this service's checks.
fn built_in() -> Result<HealthEvidenceConfig> {
    let mut config = HealthEvidenceConfig::new("production");
    config.items.push(ItemRule {
        id: "store-is-well".into(),
        check: Name::try_from("store").when("naming a check")?,
        owner: "operator".into(),
    });
    Ok(config)
}

#[derive(Debug)]
struct SignedLog(Arc<Mutex<Log>>);

#[async_trait]
impl Recorder for SignedLog {
    async fn record(
        &self,
        decision: &Decision,
        evidence: &[Evidence],
    ) -> groundtackle_release_gate::Result<()> {
        let entry = Entry::Decision {
            decision: Box::new(decision.clone()),
            evidence: evidence.to_vec(),
        };
        let verdict = decision.verdict.to_string();
        let log = self.0.clone();
        // One after the other: each record holds the digest of the one before.
        let append = move || {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.append(entry).inspect_err(|error| {
                tracing::warn!(%error, "an answer of the gate could not be recorded");
            })
        };
        let appended = tokio::task::spawn_blocking(append).await;
        appended.map_err(|error| failed(io::Error::other(error)))??;
        tracing::info!(verdict, "the gate answered");
        Ok(())
    }
}

fn failed(error: io::Error) -> Error {
    let action = "writing to the log";
    Error::backend("gate.log", action, Retryability::Indeterminate, error)
}

/// A record is acknowledged once its line and then the head that counts it are on disk. What a crash leaves behind the head
/// was told to nobody: it counts if it is whole, and is cut off if not.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    signer: Signer,
    /// None after a failure: what is on disk is not known, and is read again.
    open: Option<(File, Head)>,
}

impl Log {
    fn open(path: &Path, signer: Signer) -> groundtackle_release_gate::Result<Self> {
        let mut log = Self {
            path: path.into(),
            signer,
            open: None,
        };
        log.open = Some(log.read()?);
        Ok(log)
    }

    fn read(&self) -> groundtackle_release_gate::Result<(File, Head)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(&self.path).map_err(failed)?;
        // Two processes would each follow the other's record.
        file.try_lock().map_err(|error| failed(error.into()))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let trusted = [self.signer.public()];
        if bytes.is_empty() && !self.head_path().exists() {
            self.write_head(Head::EMPTY)?;
        }
        // A head that is missing was taken away: it is written before the first record.
        let head = fs::read_to_string(self.head_path()).map_err(failed)?;
        let head = Head::open(head.trim_end(), &trusted)?;
        let verified = verify(&bytes, &trusted, Some(&head))?;
        let whole = verified.whole_bytes as u64;
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        Ok((file, verified.head))
    }

    fn append(&mut self, entry: Entry) -> groundtackle_release_gate::Result<()> {
        let (mut file, head) = match self.open.take() {
            Some(open) => open,
            None => self.read()?,
        };
        let (line, next) = head.append(entry, Timestamp::now(), &self.signer)?;
        file.write_all(&line).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        self.write_head(next)?;
        self.open = Some((file, next));
        Ok(())
    }

    fn head_path(&self) -> PathBuf {
        self.path.with_extension("log.head")
    }

    /// A reader sees the one before or this one, whole.
    fn write_head(&self, head: Head) -> groundtackle_release_gate::Result<()> {
        let (path, text) = (self.head_path(), head.seal(&self.signer)?);
        let replace = || {
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            writeln!(file, "{text}")?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        replace().map_err(failed)
    }
}
