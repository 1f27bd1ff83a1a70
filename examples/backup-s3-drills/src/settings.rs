//! What the environment says. README.md lists each name.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use groundtackle_backup::Retention;
use groundtackle_backup_s3::{S3TargetConfig, Tls};

use crate::failure::{Failure, Result};

#[derive(Debug)]
pub struct Settings {
    pub s3: S3TargetConfig,
    pub store: PathBuf,
    pub journal: PathBuf,
    pub blocks: Option<PathBuf>,
    pub network: String,
    pub signer: PathBuf,
    pub recipients: PathBuf,
    /// None on a host that may not read backups.
    pub identities: Option<PathBuf>,
    pub every: Duration,
    pub drill_every: Duration,
    pub retention: Retention,
    pub metrics: PathBuf,
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn number<T: std::str::FromStr>(name: &str) -> Result<Option<T>> {
    let value = text(name).map(|value| value.parse());
    let wrong = |_| Failure::Config(format!("{name} must be a whole number"));
    value.transpose().map_err(wrong)
}

fn seconds(name: &str, default: u64) -> Result<Duration> {
    match number(name)?.unwrap_or(default) {
        0 => Err(Failure::Config(format!("{name} must be above 0"))),
        seconds => Ok(Duration::from_secs(seconds)),
    }
}

impl Settings {
    pub fn read() -> Result<Self> {
        let bucket = text("BACKUP_BUCKET").ok_or_else(|| {
            Failure::Config("BACKUP_BUCKET must name a bucket that exists".into())
        })?;
        // Credentials and region are the SDK's to find.
        let endpoint = text("AWS_ENDPOINT_URL_S3").or_else(|| text("AWS_ENDPOINT_URL"));
        let mut s3 = S3TargetConfig::new(bucket)
            .with_prefix(text("BACKUP_PREFIX").unwrap_or_default())
            .with_path_style(endpoint.is_some())
            .with_endpoint(endpoint);
        match text("BACKUP_TLS").as_deref() {
            None | Some("verify") => {}
            Some("off") => s3 = s3.with_tls(Tls::Off),
            Some(_) => return Err(Failure::Config("BACKUP_TLS is verify or off".into())),
        }
        let mut retention = Retention::default();
        retention.last = number("BACKUP_KEEP_LAST")?;
        retention.daily = number("BACKUP_KEEP_DAILY")?;
        retention.weekly = number("BACKUP_KEEP_WEEKLY")?;
        if retention == Retention::default() {
            (retention.last, retention.daily) = (Some(24), Some(30));
        }
        let data =
            PathBuf::from(text("BACKUP_DATA").unwrap_or_else(|| "backup-s3-drills-data".into()));
        let path = |name: &str, own: &str| text(name).map_or_else(|| data.join(own), PathBuf::from);
        Ok(Self {
            s3,
            store: path("BACKUP_STORE", "store"),
            journal: path("BACKUP_JOURNAL", "journal"),
            blocks: text("BACKUP_BLOCKS").map(PathBuf::from),
            network: text("BACKUP_NETWORK").unwrap_or_else(|| "main".into()),
            signer: path("BACKUP_SIGNER", "signer.key"),
            recipients: path("BACKUP_RECIPIENTS", "recipients.txt"),
            identities: text("BACKUP_IDENTITIES").map(PathBuf::from),
            every: seconds("BACKUP_EVERY_SECONDS", 3_600)?,
            drill_every: seconds("BACKUP_DRILL_EVERY_SECONDS", 86_400)?,
            retention,
            metrics: path("BACKUP_METRICS", "backup.prom"),
        })
    }
}
