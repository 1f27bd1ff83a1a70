//! What the service is told. node-service.toml documents each key.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use groundtackle_backup::{DrillLevel, Retention};
use groundtackle_backup_s3::S3TargetConfig;
use groundtackle_chain::Network;
use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check::{CheckConfig, Maintenance, NotifyConfig, Objective};
use groundtackle_health_check_notify_discord::DiscordConfig;
use groundtackle_health_check_notify_pagerduty::PagerDutyConfig;
use groundtackle_health_check_notify_webhook::WebhookConfig;
use groundtackle_health_check_probes::Probe;
use groundtackle_health_check_utxo_store::UtxoStoreCheckConfig;
use groundtackle_release_gate_health::HealthEvidenceConfig;
use jiff::fmt::serde::unsigned_duration::friendly::compact as duration;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::failure::{Failure, Result, While};
use crate::store::StoreUrl;

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub data: PathBuf,
    #[serde(deserialize_with = "above_zero")]
    pub stop_within: Duration,
    pub log: Log,
    pub store: Store,
    pub blocks: Blocks,
    pub backup: Backup,
    pub disk: Disk,
    pub http: Http,
    pub grpc: Grpc,
    pub gate: Gate,
    pub telemetry: Telemetry,
    pub checks: Vec<CheckConfig<Probe>>,
    pub objectives: Vec<Objective>,
    pub maintenances: Vec<Maintenance>,
    pub notify: Vec<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    pub url: Option<StoreUrl>,
    pub password_file: Option<PathBuf>,
    pub journal: Option<PathBuf>,
    pub expect: UtxoStoreCheckConfig,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blocks {
    pub folder: Option<PathBuf>,
    pub network: Network,
    #[serde(deserialize_with = "above_zero")]
    pub every: Duration,
    pub flush_every: std::num::NonZeroU32,
    pub max_block_size: ByteSize,
    #[serde(with = "duration::required")]
    pub demo_pace: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Backup {
    pub folder: Option<PathBuf>,
    pub s3: Option<S3TargetConfig>,
    pub signer: Option<PathBuf>,
    pub recipients: Vec<String>,
    pub identities: Option<PathBuf>,
    #[serde(deserialize_with = "above_zero")]
    pub every: Duration,
    pub journal_keep_blocks: u32,
    #[serde(deserialize_with = "above_zero")]
    pub drill_every: Duration,
    #[serde(deserialize_with = "unattended")]
    pub drill_level: DrillLevel,
    #[serde(deserialize_with = "above_zero")]
    pub fail_age: Duration,
    pub warn_lag_blocks: u32,
    pub fail_lag_blocks: u32,
    pub retention: Option<Retention>,
    #[serde(deserialize_with = "above_zero")]
    pub prune_every: Duration,
    pub workers: std::num::NonZeroUsize,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    pub warn_below: ByteSize,
    pub fail_below: ByteSize,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    pub title: String,
    pub all_are_operators: Option<bool>,
    pub operator_token: Secret,
    pub operator_token_file: Option<PathBuf>,
    #[serde(with = "duration::required")]
    pub drain: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    pub listen: SocketAddr,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    pub policy: Option<PathBuf>,
    pub token: Secret,
    pub health: Option<HealthEvidenceConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    pub endpoint: Option<String>,
    pub headers: BTreeMap<String, Secret>,
    pub service_name: String,
    pub filter: String,
    #[serde(deserialize_with = "part")]
    pub sampled: f64,
    #[serde(deserialize_with = "above_zero")]
    pub metrics_every: Duration,
    #[serde(deserialize_with = "above_zero")]
    pub timeout: Duration,
}

/// Somebody who is told.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    pub by: By,
    #[serde(default)]
    pub how: NotifyConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum By {
    Webhook(WebhookConfig),
    Discord(DiscordConfig),
    #[serde(rename = "pagerduty")]
    PagerDuty(PagerDutyConfig),
}

fn above_zero<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let time: Duration = duration::required::deserialize(value)?;
    match time.is_zero() {
        true => Err(D::Error::custom("it has to be above zero: write 10s")),
        false => Ok(time),
    }
}

fn part<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    let part = f64::deserialize(value)?;
    match (0.0..=1.0).contains(&part) {
        true => Ok(part),
        false => Err(D::Error::custom("it is a part of all: from 0.0 to 1.0")),
    }
}

fn unattended<'de, D: Deserializer<'de>>(value: D) -> Result<DrillLevel, D::Error> {
    let level = DrillLevel::deserialize(value)?;
    match level > DrillLevel::Replay {
        true => Err(D::Error::custom(
            "it needs an empty store each time: take replay, and hold such drills by ops backup drill --scratch",
        )),
        false => Ok(level),
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "node-service-data".into(),
            stop_within: secs(25),
            log: Log::default(),
            store: Store::default(),
            blocks: Blocks::default(),
            backup: Backup::default(),
            disk: Disk::default(),
            http: Http::default(),
            grpc: Grpc::default(),
            gate: Gate::default(),
            telemetry: Telemetry::default(),
            checks: Vec::new(),
            objectives: Vec::new(),
            maintenances: Vec::new(),
            notify: Vec::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".into(),
        }
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            folder: None,
            network: Network::Main,
            every: secs(10),
            flush_every: std::num::NonZeroU32::new(500).unwrap_or(std::num::NonZeroU32::MIN),
            max_block_size: ByteSize::mib(32),
            demo_pace: Duration::from_millis(50),
        }
    }
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            folder: None,
            s3: None,
            signer: None,
            recipients: Vec::new(),
            identities: None,
            every: secs(60),
            journal_keep_blocks: 1_008,
            drill_every: secs(24 * 3_600),
            drill_level: DrillLevel::Replay,
            fail_age: secs(7 * 24 * 3_600),
            warn_lag_blocks: 6,
            fail_lag_blocks: 144,
            retention: None,
            prune_every: secs(24 * 3_600),
            workers: std::num::NonZeroUsize::new(2).unwrap_or(std::num::NonZeroUsize::MIN),
        }
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            warn_below: ByteSize::mib(4_096),
            fail_below: ByteSize::mib(512),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: local(8080),
            title: "node-service".into(),
            all_are_operators: None,
            operator_token: Secret::default(),
            operator_token_file: None,
            drain: Duration::ZERO,
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            listen: local(8081),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            service_name: "node-service".into(),
            filter: "node_service=info,groundtackle=debug".into(),
            sampled: 1.0,
            metrics_every: secs(30),
            timeout: secs(5),
        }
    }
}

impl Config {
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).when(format_args!("reading {name}"))?;
        Self::parse(&text).map_err(|problem| Failure::config(format!("{name}:{problem}")))
    }

    /// An error names line and key.
    fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.get(..at).unwrap_or_default();
            let number = before.matches('\n').count();
            let line = text.lines().nth(number).unwrap_or_default();
            let key = line.split('=').next().unwrap_or_default().trim();
            // The rest shows the text again, which may have a password in it.
            let problem = error.message().lines().next().unwrap_or_default();
            format!("{}: {key}: {problem}", number + 1)
        })?;
        if config.backup.folder.is_some() && config.backup.s3.is_some() {
            return Err(" backup: the repository is either in folder or in [backup.s3]".into());
        }
        if !config.backup.has_identities() && config.backup.drill_level >= DrillLevel::Read {
            return Err(
                " backup.drill_level: a drill that decrypts needs backup.identities; take bytes, and hold the others where the \
                 identities are"
                    .into(),
            );
        }
        Ok(config)
    }

    /// What lies in the service's own folder.
    pub fn own(&self, named: &Option<PathBuf>, name: &str) -> PathBuf {
        named.clone().unwrap_or_else(|| self.data.join(name))
    }

    pub fn journal(&self) -> PathBuf {
        self.own(&self.store.journal, "journal")
    }

    pub fn store_url(&self) -> Result<StoreUrl> {
        let ours = || format!("embedded:{}", self.data.join("store").display());
        let url: StoreUrl = match &self.store.url {
            Some(url) => url.clone(),
            None => ours().parse().map_err(Failure::config)?,
        };
        let Some(path) = &self.store.password_file else {
            return Ok(url);
        };
        url.with_password(secret(path)?)
            .map_err(|problem| Failure::config(format!("store.password_file: {problem}")))
    }
}

impl Http {
    pub fn operator_token(&self) -> Result<Secret> {
        match &self.operator_token_file {
            Some(path) => secret(path),
            None => Ok(self.operator_token.clone()),
        }
    }
}

/// What is kept apart from the config, without the end of its line.
fn secret(path: &Path) -> Result<Secret> {
    let text = fs::read_to_string(path);
    Ok(text
        .when(format_args!("reading {}", path.display()))?
        .trim_end()
        .into())
}

impl Backup {
    /// Without, the key that reads is where it is meant to be: not here.
    pub fn has_identities(&self) -> bool {
        self.identities.is_some() || self.recipients.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic, reason = "a test asserts")]
mod tests {
    use toml::{Table, Value};

    use super::*;

    const FILE: &str = include_str!("../node-service.toml");

    /// With the keys that are only examples: `#key = …` and `#[table]`, where prose has a space behind its `#`.
    fn all_keys() -> String {
        let lines = FILE.lines().map(|line| match line.strip_prefix('#') {
            Some(example) if !example.starts_with([' ', '#']) => example,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_file_has_the_defaults() {
        let read = Config::parse(FILE).expect("node-service.toml parses");
        assert_eq!(format!("{read:#?}"), format!("{:#?}", Config::default()));
    }

    #[test]
    fn the_examples_of_the_file_parse() {
        // Either of two places.
        let text = all_keys().replacen("folder = \"/mnt/backups\"\n", "", 1);
        Config::parse(&text).expect("the examples parse");
        let problem = Config::parse(&all_keys())
            .map(|_| ())
            .expect_err("two places");
        assert!(problem.contains("either in folder or in"), "{problem}");
    }

    #[test]
    fn each_key_of_the_file_is_documented() {
        let mut documented = false;
        for line in FILE.lines() {
            let example = line.strip_prefix('#').unwrap_or(line);
            let key = example.split('=').next().unwrap_or_default().trim();
            let is_key = example.contains('=') && !example.starts_with(' ') && !key.contains(' ');
            assert!(!is_key || documented, "{line:?} has no comment before it");
            // A list of examples goes on below its comment.
            documented = line.starts_with("# ") || line.starts_with("#    ");
        }
    }

    /// What other crates read and document.
    const THEIRS: [&str; 6] = [
        "s3",
        "health",
        "checks",
        "objectives",
        "maintenances",
        "notify",
    ];

    /// Puts a key that is not known into each table, and looks for what the error says is known.
    #[test]
    fn the_file_has_every_key() {
        let whole: Table = all_keys().parse().expect("TOML");
        let mut probed = 0;
        let paths = tables(&Value::Table(whole.clone())).into_iter();
        for path in paths.filter(|path| !path.iter().any(|step| THEIRS.contains(&step.as_str()))) {
            let mut asked = Value::Table(whole.clone());
            let table = at(&mut asked, &path);
            table.insert("nonsense".into(), Value::Boolean(true));
            let there: Vec<String> = table.keys().cloned().collect();
            let error = asked
                .try_into::<Config>()
                .map(|_| ())
                .expect_err("nonsense");
            let error = error.message().to_owned();
            // Headers may have any name.
            let Some((_, known)) = error.split_once("unknown field `nonsense`, expected") else {
                continue;
            };
            probed += 1;
            for key in known.split('`').skip(1).step_by(2) {
                let there = there.iter().any(|there| there == key);
                assert!(there, "{path:?} of node-service.toml lacks {key}");
            }
        }
        assert!(probed >= 11, "{probed}");
    }

    fn tables(value: &Value) -> Vec<Vec<String>> {
        let inner: Vec<(String, &Value)> = match value {
            Value::Table(table) => table
                .iter()
                .map(|(key, value)| (key.clone(), value))
                .collect(),
            Value::Array(items) => {
                let numbered = items.iter().enumerate();
                numbered.map(|(i, item)| (i.to_string(), item)).collect()
            }
            _ => return Vec::new(),
        };
        let mut found: Vec<_> = value.is_table().then(Vec::new).into_iter().collect();
        for (step, value) in inner {
            for mut path in tables(value) {
                path.insert(0, step.clone());
                found.push(path);
            }
        }
        found
    }

    fn at<'a>(value: &'a mut Value, path: &[String]) -> &'a mut Table {
        let found = path.iter().fold(value, |value, step| match value {
            Value::Array(items) => items
                .get_mut(step.parse::<usize>().expect("a number"))
                .expect("an item"),
            value => value.get_mut(step).expect("a key"),
        });
        found.as_table_mut().expect("a table")
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key_and_without_secrets() {
        for (text, says) in [
            ("data = 5", "1: data: "),
            (
                "[backup]\n\nevery = \"0s\"",
                "3: every: it has to be above zero",
            ),
            (
                "[backup]\ndrill_level = \"load\"",
                "2: drill_level: it needs an empty store",
            ),
            (
                "[http]\nlisen = \"127.0.0.1:1\"",
                "2: lisen: unknown field `lisen`",
            ),
            (
                "[telemetry]\nsampled = 1.5",
                "2: sampled: it is a part of all",
            ),
            (
                "[store]\nurl = \"postgres://me:geheim@host/db?nonsense=1\"",
                "2: url: ",
            ),
            ("[http\nlisten = 1", "1: [http: "),
            (
                "[backup]\nrecipients = [\"age1nobody\"]",
                " backup.drill_level: a drill that decrypts",
            ),
        ] {
            let problem = Config::parse(text).map(|_| ()).expect_err(text);
            assert!(problem.starts_with(says), "{text}: {problem}");
            assert!(!problem.contains("geheim"), "{problem}");
        }
        let shown = format!(
            "{:?}",
            Config::parse("[gate]\ntoken = \"geheim\"").expect("a token")
        );
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn a_password_comes_from_its_file_and_an_embedded_store_takes_none() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("password");
        fs::write(&file, "geheim\n").expect("a file");
        let with = |url: &str| {
            let text = format!("[store]\nurl = \"{url}\"\npassword_file = {file:?}");
            Config::parse(&text).expect("a config").store_url()
        };
        for url in [
            "postgres://me:other@host/db",
            "rediss://me@host",
            "rediss+cluster://me@host",
            "aerospike://host/utxo?user=me",
        ] {
            let password = match with(url).expect("a password") {
                StoreUrl::Postgres(config, _) => config.password,
                StoreUrl::Redis(config, _) => config.password,
                StoreUrl::RedisCluster(config, _) => config.password,
                StoreUrl::Aerospike(config, _) => config.password,
                StoreUrl::Embedded(..) => None,
            };
            let password = password.as_ref().map(Secret::expose);
            assert_eq!(password, Some("geheim"), "{url}");
        }
        let refused = with("embedded:/store")
            .expect_err("no password")
            .to_string();
        assert!(refused.contains("store.password_file"), "{refused}");
        fs::remove_file(&file).expect("the file goes");
        let refused = with("rediss://me@host").expect_err("no file").to_string();
        assert!(refused.contains("reading"), "{refused}");
    }
}
