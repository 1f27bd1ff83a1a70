//! What the server must be like, and the store's settings in it.

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{Error, Result, UnspendableRule};
use redis::Value;

use crate::config::{Durability, RedisUtxoStoreConfig};
use crate::connection::Link;
use crate::error::{Again, Failed, corrupt};
use crate::read::{Keys, array, bytes};
use crate::record::{FORMAT, Token};
use crate::write::Change;

/// The first that checks before a script begins whether it may write.
const OLDEST_SERVER: (u32, u32) = (7, 0);

/// What is asked of a server.
pub(crate) struct Wanted {
    pub(crate) durability: Durability,
    pub(crate) trust: bool,
    pub(crate) cluster: bool,
}

impl RedisUtxoStoreConfig {
    pub(crate) const fn wanted(&self) -> Wanted {
        Wanted {
            durability: self.durability,
            trust: self.trust_server_settings,
            cluster: false,
        }
    }
}

/// The server as it says it is.
pub(crate) struct Server {
    info: String,
    /// `None` where the user may not ask.
    append_fsync: Option<(String, bool)>,
}

impl Server {
    pub(crate) async fn ask(link: &Link) -> Result<Self, Failed> {
        let action = "check the server";
        let info = match link.ask(action, &redis::cmd("INFO")).await? {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => return Err(corrupt("an answer", "INFO is no text").into()),
        };
        let mut server = Self {
            info,
            append_fsync: None,
        };
        server.check_version()?;
        let mut config = redis::cmd("CONFIG");
        config
            .arg("GET")
            .arg("appendfsync")
            .arg("no-appendfsync-on-rewrite");
        match link.ask(action, &config).await {
            Ok(answer) => server.append_fsync = Some(append_fsync(answer)?),
            // Without the right to, or with the command renamed.
            Err(failed) if failed.again == Again::No => {}
            Err(failed) => return Err(failed),
        }
        Ok(server)
    }

    pub(crate) fn value(&self, name: &str) -> &str {
        let lines = self.info.lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.next().unwrap_or_default().trim()
    }

    fn check_version(&self) -> Result<()> {
        let version = self.value("redis_version");
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if found < OLDEST_SERVER {
            return Err(Error::invalid_request(format!(
                "the server is Redis {version}, and the store needs {}.{} or newer; upgrade it",
                OLDEST_SERVER.0, OLDEST_SERVER.1
            )));
        }
        Ok(())
    }

    /// Why the store can't run there, if so.
    pub(crate) fn faults(&self, wanted: &Wanted) -> Vec<String> {
        let mut faults = Vec::new();
        let role = self.value("role");
        if role != "master" {
            faults.push(format!(
                "the server is a {role}; give the URL of the primary"
            ));
        }
        let mode = self.value("redis_mode");
        let expected = if wanted.cluster {
            "cluster"
        } else {
            "standalone"
        };
        if mode != expected {
            let way_out = match (wanted.cluster, mode) {
                (true, _) => {
                    "the store needs a Redis Cluster; use RedisUtxoStore for a single server"
                }
                (false, "cluster") => {
                    "the store needs a server of its own; use RedisClusterUtxoStore, or a server without cluster mode"
                }
                (false, _) => "the store needs a server of its own",
            };
            faults.push(format!("the server runs as {mode}, and {way_out}"));
        }
        let policy = self.value("maxmemory_policy");
        if policy != "noeviction" {
            faults.push(format!(
                "the server's maxmemory-policy is {policy}, so it could drop records of the store; set it to noeviction, in its configuration file too"
            ));
        }
        let (has, setting) = self.durability(wanted);
        if has < wanted.durability {
            let settings = match wanted.durability {
                Durability::Always => {
                    "appendonly yes, appendfsync always and no-appendfsync-on-rewrite no"
                }
                _ => "appendonly yes, appendfsync everysec and no-appendfsync-on-rewrite no",
            };
            faults.push(format!(
                "the server can lose what it acknowledges ({setting}); set {settings}, or lower `durability`"
            ));
        }
        faults
    }

    /// What the server keeps, and by which setting.
    fn durability(&self, wanted: &Wanted) -> (Durability, String) {
        if self.value("aof_enabled") != "1" {
            return (Durability::None, "appendonly no".into());
        }
        match &self.append_fsync {
            None if wanted.trust => (wanted.durability, String::new()),
            None => (
                Durability::None,
                "its user may not ask for appendfsync by CONFIG GET: allow that, or set `trust_server_settings`".into(),
            ),
            Some((_, true)) => (Durability::None, "no-appendfsync-on-rewrite yes".into()),
            Some((fsync, false)) => {
                let has = match fsync.as_str() {
                    "always" => Durability::Always,
                    "everysec" => Durability::EverySecond,
                    _ => Durability::None,
                };
                (has, format!("appendfsync {fsync}"))
            }
        }
    }

    /// Whether it can be told to wait for its disk.
    pub(crate) fn has_waitaof(&self) -> bool {
        let version = self.value("redis_version");
        let mut numbers = version
            .split('.')
            .map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(7), Some(2))
    }
}

fn append_fsync(answer: Value) -> Result<(String, bool)> {
    let (mut fsync, mut paused) = (String::new(), false);
    let mut words = array(answer)?.into_iter().map(|value| {
        let bytes = bytes(value)?.unwrap_or_default();
        Ok::<_, Error>(String::from_utf8_lossy(&bytes).into_owned())
    });
    while let (Some(name), Some(value)) = (words.next().transpose()?, words.next().transpose()?) {
        match name.as_str() {
            "appendfsync" => fsync = value,
            "no-appendfsync-on-rewrite" => paused = value == "yes",
            _ => {}
        }
    }
    Ok((fsync, paused))
}

pub(crate) const fn rule_name(rule: UnspendableRule) -> &'static str {
    match rule {
        UnspendableRule::FalseReturn => "false-return",
        _ => "core",
    }
}

/// Whether the store is there, in this format and with these settings.
pub(crate) async fn check_settings(
    link: &Link,
    keys: &Keys,
    config: &RedisUtxoStoreConfig,
) -> Result<bool, Failed> {
    let mut command = redis::cmd("HMGET");
    command
        .arg(keys.settings())
        .arg("format")
        .arg("unspendable");
    let mut answers = array(link.ask("open the store", &command).await?)?.into_iter();
    let mut next = || {
        let bytes = answers.next().map(bytes).transpose()?.flatten();
        Ok::<_, Error>(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    };
    let (Some(format), rule) = (next()?, next()?.unwrap_or_default()) else {
        return Ok(false);
    };
    let found: u32 = format
        .parse()
        .map_err(|_| corrupt("the store's format", "it is no number"))?;
    if found != u32::from(FORMAT) {
        return Err(Error::NewerFormat {
            store: format!("prefix {}", config.prefix),
            found,
            supported: FORMAT.into(),
        }
        .into());
    }
    let asked = rule_name(config.unspendable);
    if rule != asked {
        return Err(Error::invalid_request(format!(
            "the store was created with unspendable {rule}, which is fixed, and the config says {asked}; set it to {rule}"
        ))
        .into());
    }
    Ok(true)
}

/// An empty store.
pub(crate) fn creation(keys: &Keys, token: Token, config: &RedisUtxoStoreConfig) -> Change {
    let mut change = Change::new(keys);
    change.expect(keys.settings(), b"chain", None);
    change.chain(keys, token, None, &MuHash3072::new());
    for (field, value) in [
        ("unspendable", rule_name(config.unspendable).to_owned()),
        ("format", FORMAT.to_string()),
    ] {
        change.set(keys.settings(), field.into(), value.into());
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(info: &[(&str, &str)], append_fsync: Option<(&str, bool)>) -> Server {
        let mut all = vec![
            ("redis_version", "7.0.15"),
            ("redis_mode", "standalone"),
            ("role", "master"),
            ("maxmemory_policy", "noeviction"),
            ("aof_enabled", "1"),
        ];
        for (name, value) in info {
            all.retain(|(other, _)| other != name);
            all.push((name, value));
        }
        Server {
            info: all
                .iter()
                .map(|(name, value)| format!("{name}:{value}\r\n"))
                .collect(),
            append_fsync: append_fsync.map(|(fsync, paused)| (fsync.to_owned(), paused)),
        }
    }

    #[test]
    fn each_fault_of_a_server_is_named() {
        let config = RedisUtxoStoreConfig::default();
        let always = Some(("always", false));
        assert_eq!(server(&[], always).faults(&config.wanted()), [""; 0]);
        for (info, fsync, says) in [
            (("role", "slave"), always, "primary"),
            (("redis_mode", "cluster"), always, "RedisClusterUtxoStore"),
            (("maxmemory_policy", "allkeys-lru"), always, "noeviction"),
            (("maxmemory_policy", "volatile-ttl"), always, "noeviction"),
            (("aof_enabled", "0"), always, "appendonly no"),
            (
                ("role", "master"),
                Some(("everysec", false)),
                "appendfsync always",
            ),
            (("role", "master"), Some(("no", false)), "appendfsync no"),
            (
                ("role", "master"),
                Some(("always", true)),
                "no-appendfsync-on-rewrite yes",
            ),
            (("role", "master"), None, "trust_server_settings"),
        ] {
            let faults = server(&[info], fsync).faults(&config.wanted());
            assert!(faults.len() == 1 && faults[0].contains(says), "{faults:?}");
        }
        let trusting = config.clone().with_trust_server_settings(true);
        assert_eq!(server(&[], None).faults(&trusting.wanted()), [""; 0]);
        let less = config.with_durability(Durability::EverySecond);
        assert_eq!(
            server(&[], Some(("everysec", false))).faults(&less.wanted()),
            [""; 0]
        );
        assert_eq!(
            server(&[], Some(("no", false)))
                .faults(&less.wanted())
                .len(),
            1
        );
        let none = less.with_durability(Durability::None);
        assert_eq!(
            server(&[("aof_enabled", "0")], None).faults(&none.wanted()),
            [""; 0]
        );
    }

    #[test]
    fn old_servers_are_refused() {
        for version in ["6.2.14", "6.9", "", "x"] {
            let error = server(&[("redis_version", version)], None).check_version();
            assert!(
                error.unwrap_err().to_string().contains("upgrade"),
                "{version}"
            );
        }
        for (version, waitaof) in [
            ("7.0.0", false),
            ("7.2.4", true),
            ("8.0", true),
            ("10.1", true),
        ] {
            let server = server(&[("redis_version", version)], None);
            assert!(server.check_version().is_ok(), "{version}");
            assert_eq!(server.has_waitaof(), waitaof, "{version}");
        }
    }
}
