//! For the fuzz target and the corpus test: what must hold of whatever a server, or a config, says.

#![allow(clippy::unwrap_used, reason = "a check asserts")]

use std::time::Duration;

use groundtackle_core::{ByteSize, Secret};
use groundtackle_health_check::Outcome;

use crate::ask::{Said, place};
use crate::config::{RedisCheckConfig, Role};
use crate::info::judge;

/// `INFO`, and after a zero `CLUSTER INFO`, and after another one a URL: whatever they are, what is not well is told, in the same
/// way however lines end; nothing of a URL that is refused is shown.
pub fn redis_info(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let info = parts.next().unwrap_or_default();
    let cluster = parts.next();
    let said = |end: &str| Said {
        info: info.replace("\r\n", "\n").replace('\n', end),
        cluster: cluster.map(|cluster| cluster.replace("\r\n", "\n").replace('\n', end)),
    };
    let strict = RedisCheckConfig {
        role: Some(Role::Replica),
        warn_replicas_below: 2,
        fail_replicas_below: 1,
        warn_lag: Some(Duration::from_secs(10)),
        fail_lag: Some(Duration::from_secs(20)),
        warn_lag_bytes: Some(ByteSize::mib(1)),
        fail_lag_bytes: Some(ByteSize::mib(2)),
        ..RedisCheckConfig::default()
    };
    for config in [RedisCheckConfig::default(), strict] {
        let seen = judge(&config, &said("\r\n"));
        assert_eq!(seen.outcome == Outcome::Pass, seen.detail.is_none());
        assert_eq!(judge(&config, &said("\n")), seen);
    }
    if let Some(url) = parts.next()
        && let Err(why) = place(&Secret::from(url))
    {
        assert!(!why.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Replays the fuzz target's corpus, without a fuzzer.
    #[test]
    fn corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/corpus/redis_info");
        if !corpus.is_dir() {
            eprintln!("SKIPPED: {} is not there", corpus.display());
            return;
        }
        let mut count = 0;
        for entry in fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            // Shown if the check fails.
            eprintln!("{}", path.display());
            redis_info(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", corpus.display());
    }
}
