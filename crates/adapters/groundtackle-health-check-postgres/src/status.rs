//! What the server says of itself, and what it means.

use std::time::Duration;

use groundtackle_core::ByteSize;
use groundtackle_health_check::Observation;
use groundtackle_health_check_client::Limits;
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::config::{PostgresCheckConfig, Role};

/// In one go, so that no other session's settings stay on the connection of a pooler. It ends by itself where its reader is gone.
///
/// Of sessions of others, a user without `pg_monitor` sees no kind: those in a database count.
/// A standby's lag is 0 where it has replayed all that it knows of, otherwise the age of the last transaction that it has replayed.
/// A standby tells its primary where it is: while that is behind, as long as it has not told anything else it may be so still.
pub(crate) const STATEMENT: &str = "
SET LOCAL statement_timeout = '10s';
WITH here AS (
    SELECT pg_catalog.pg_is_in_recovery() AS standby,
        CASE WHEN pg_catalog.pg_is_in_recovery()
            THEN coalesce(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
            ELSE pg_catalog.pg_current_wal_lsn() END AS lsn
), follows AS (
    SELECT r.status,
        pg_catalog.pg_wal_lsn_diff(greatest(here.lsn, r.latest_end_lsn), pg_catalog.pg_last_wal_replay_lsn()) AS bytes,
        extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) AS age
    FROM here LEFT JOIN pg_catalog.pg_stat_wal_receiver r ON true
), followers AS (
    SELECT count(*) FILTER (WHERE f.state IS NULL) AS hidden,
        count(*) FILTER (WHERE f.state = 'streaming' AND f.replay_lsn IS NOT NULL) AS streaming,
        max(pg_catalog.pg_wal_lsn_diff(here.lsn, f.replay_lsn)) AS bytes,
        max(CASE WHEN f.replay_lsn >= here.lsn THEN 0
            ELSE extract(epoch FROM greatest(f.replay_lag, pg_catalog.clock_timestamp() - f.reply_time)) END)
            FILTER (WHERE f.replay_lsn IS NOT NULL) AS seconds
    FROM here LEFT JOIN pg_catalog.pg_stat_replication f ON f.state IS NULL OR f.state IN ('streaming', 'catchup')
    WHERE f.pid IS NOT NULL
)
SELECT here.standby,
    pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
    pg_catalog.current_setting('max_connections')::int8
        - pg_catalog.current_setting('superuser_reserved_connections')::int8
        - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int8 AS slots,
    (SELECT count(*) FROM pg_catalog.pg_stat_activity a
        WHERE a.backend_type = 'client backend' OR (a.backend_type IS NULL AND a.datid IS NOT NULL)) AS used,
    (SELECT count(*) FROM pg_catalog.pg_stat_wal_receiver) AS receivers,
    follows.status AS receiver,
    CASE WHEN here.standby THEN greatest(follows.bytes, 0)::int8 END AS behind_bytes,
    CASE WHEN NOT here.standby THEN NULL
        WHEN follows.status = 'streaming' AND follows.bytes <= 0 THEN 0
        ELSE greatest(follows.age, 0) END AS behind_seconds,
    followers.hidden, followers.streaming,
    greatest(followers.bytes, 0)::int8 AS followers_bytes,
    greatest(followers.seconds, 0) AS followers_seconds
FROM here, follows, followers";

/// How far somebody is behind. `None`: it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Behind {
    bytes: Option<u64>,
    seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Status {
    standby: bool,
    read_only: bool,
    slots: u64,
    used: u64,
    /// Of a standby: whether something receives the log, and what it does, which not everybody may see.
    receives: bool,
    receiver: Option<String>,
    behind: Behind,
    /// Standbys of this server that this user may not see.
    hidden: u64,
    streaming: u64,
    followers: Behind,
}

impl Status {
    pub(crate) fn read(rows: &[SimpleQueryMessage]) -> Option<Self> {
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })?;
        let text = |name: &str| row.try_get(name).ok().flatten();
        let is = |name: &str| Some(text(name)? == "t");
        Some(Self {
            standby: is("standby")?,
            read_only: is("read_only")?,
            slots: number(row, "slots")?,
            used: number(row, "used")?,
            receives: number(row, "receivers")? > 0,
            receiver: text("receiver").map(Into::into),
            behind: Behind {
                bytes: number(row, "behind_bytes"),
                seconds: seconds(row, "behind_seconds"),
            },
            hidden: number(row, "hidden")?,
            streaming: number(row, "streaming")?,
            followers: Behind {
                bytes: number(row, "followers_bytes"),
                seconds: seconds(row, "followers_seconds"),
            },
        })
    }
}

fn number(row: &SimpleQueryRow, name: &str) -> Option<u64> {
    row.try_get(name).ok()??.parse().ok()
}

fn seconds(row: &SimpleQueryRow, name: &str) -> Option<f64> {
    let seconds: f64 = row.try_get(name).ok()??.parse().ok()?;
    seconds.is_finite().then_some(seconds)
}

/// All that was found, the worst first.
pub(crate) fn judge(config: &PostgresCheckConfig, status: &Status) -> Observation {
    let parts = [
        role(config, status),
        connections(config, status),
        standby(config, status),
        followers(config, status),
    ];
    let found = parts.into_iter().flatten();
    found.fold(Observation::pass(), Observation::and)
}

fn role(config: &PostgresCheckConfig, status: &Status) -> Option<Observation> {
    let wrong = |detail: &str| Some(Observation::fail("wrong-role").with_detail(detail));
    match (config.role, status.standby) {
        (Some(Role::Primary), true) => return wrong("it is a standby, and should be a primary"),
        (Some(Role::Standby), false) => return wrong("it is a primary, and should be a standby"),
        _ => {}
    }
    (config.writable && (status.standby || status.read_only)).then(|| {
        let why = if status.standby {
            "it is a standby"
        } else {
            "default_transaction_read_only is on"
        };
        Observation::fail("read-only").with_detail(format!("it takes no writes: {why}"))
    })
}

fn connections(config: &PostgresCheckConfig, status: &Status) -> Option<Observation> {
    let Status { slots, used, .. } = status;
    let limits = Limits {
        warn: config.warn_connections_pct,
        fail: config.fail_connections_pct,
    };
    let detail = format!("{used} of {slots} connections are in use");
    limits.full("connections", *used, *slots, &detail)
}

fn not_permitted(what: &str) -> Observation {
    let detail = format!("this user may not see {what}; grant it pg_monitor");
    Observation::unknown("not-permitted").with_detail(detail)
}

fn standby(config: &PostgresCheckConfig, status: &Status) -> Option<Observation> {
    if !status.standby {
        return None;
    }
    match &status.receiver {
        None if status.receives => return Some(not_permitted("what it receives")),
        Some(state) if state == "streaming" => {}
        _ if !config.must_stream => {}
        state => {
            let state = state.as_deref().unwrap_or("nothing");
            let detail = format!(
                "it does not stream from another server ({state} runs); for one that is fed from an archive set must_stream to false"
            );
            return Some(Observation::fail("not-streaming").with_detail(detail));
        }
    }
    lag(config, status.behind, "it")
}

fn followers(config: &PostgresCheckConfig, status: &Status) -> Option<Observation> {
    let limits = [config.warn_lag, config.fail_lag];
    let sizes = [config.warn_lag_bytes, config.fail_lag_bytes];
    let wanted = config.warn_standbys_below.max(config.fail_standbys_below);
    let asked =
        wanted > 0 || limits.iter().any(Option::is_some) || sizes.iter().any(Option::is_some);
    if status.hidden > 0 && asked {
        return Some(not_permitted("its standbys"));
    }
    let few = Limits {
        warn: config.warn_standbys_below,
        fail: config.fail_standbys_below,
    };
    let few = few.few(
        "standbys-missing",
        status.streaming,
        "standbys stream from it",
    );
    // Without any there is none that could be behind.
    let none = status.followers == Behind::default();
    let late = (!none)
        .then(|| lag(config, status.followers, "a standby"))
        .flatten();
    few.into_iter().chain(late).reduce(Observation::and)
}

fn lag(config: &PostgresCheckConfig, behind: Behind, who: &str) -> Option<Observation> {
    let Behind { bytes, seconds } = behind;
    let longer = |limit: Option<Duration>| {
        limit.map(|limit| seconds.map(|seconds| seconds > limit.as_secs_f64()))
    };
    let further =
        |limit: Option<ByteSize>| limit.map(|limit| bytes.map(|bytes| bytes > limit.bytes()));
    let told = |of: Option<u64>| of.map_or("an unknown number of".into(), |of| of.to_string());
    let time = seconds.map_or("unknown".into(), |seconds| format!("{seconds:.1} s"));
    let detail = format!("{who} is {} bytes behind, in time {time}", told(bytes));
    let fails = [longer(config.fail_lag), further(config.fail_lag_bytes)];
    let warns = [longer(config.warn_lag), further(config.warn_lag_bytes)];
    if fails.contains(&Some(Some(true))) {
        return Some(Observation::fail("replication-lag").with_detail(detail));
    }
    // A limit that can't be looked at.
    if fails.contains(&Some(None)) || warns.contains(&Some(None)) {
        return Some(Observation::unknown("not-told").with_detail(detail));
    }
    warns
        .contains(&Some(Some(true)))
        .then(|| Observation::warn("replication-lag").with_detail(detail))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
