//! The store's tables: made, migrated, and checked before anything is read from them.

use std::fmt::Write;

use groundtackle_utxo_store::digest::MuHash3072;
use groundtackle_utxo_store::{Error, Result, UnspendableRule};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::config::PostgresUtxoStoreConfig;
use crate::error::{BACKEND, Failed};
use crate::session::Server;

/// From one version to the next; the first makes the tables.
const MIGRATIONS: [&str; 2] = [
    include_str!("../migrations/0001.sql"),
    include_str!("../migrations/0002.sql"),
];

/// The version that this software reads and writes.
#[expect(clippy::cast_possible_truncation, reason = "a few migrations")]
pub(crate) const VERSION: u32 = MIGRATIONS.len() as u32;

/// As `server_version_num` counts.
const OLDEST_SERVER: i64 = 130_000;
const NEWEST_SERVER: i64 = 190_000;

/// The most partitions: more cost more to plan for than they save.
const MOST_PARTITIONS: u32 = 1024;

pub(crate) fn check_config(config: &PostgresUtxoStoreConfig) -> Result<()> {
    let name = &config.schema;
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty()
        || name.len() > 63
        || !name.chars().all(letter)
        || name.starts_with(|c: char| c.is_ascii_digit())
        || name.starts_with("pg_")
    {
        return Err(Error::invalid_request(format!(
            "schema {name:?} is no good name: use lower-case letters, digits and _, at most 63, no digit and no pg_ first"
        )));
    }
    if !(1..=crate::scan::MOST_PARTITIONS).contains(&config.scan_partitions) {
        return Err(Error::invalid_request(format!(
            "scan_partitions is {}, and must be 1 to {}",
            config.scan_partitions,
            crate::scan::MOST_PARTITIONS
        )));
    }
    if config.partitions > MOST_PARTITIONS {
        return Err(Error::invalid_request(format!(
            "partitions is {}, and at most {MOST_PARTITIONS} make sense",
            config.partitions
        )));
    }
    if config.answer_timeout <= config.statement_timeout
        || config.statement_timeout.is_zero()
        || config.lock_timeout.is_zero()
        || config.max_batch_items == 0
    {
        return Err(Error::invalid_request(
            "timeouts and max_batch_items must be above zero, and answer_timeout above statement_timeout",
        ));
    }
    config
        .retry
        .validate()
        .map_err(|error| Error::invalid_request(format!("retry: {error}")))
}

pub(crate) fn check_server_version(version: i64) -> Result<()> {
    if (OLDEST_SERVER..NEWEST_SERVER).contains(&version) {
        return Ok(());
    }
    Err(Error::invalid_request(format!(
        "the server is PostgreSQL {}, and this version of the store works with {} to {}; use such a server",
        version / 10_000,
        OLDEST_SERVER / 10_000,
        NEWEST_SERVER / 10_000 - 1,
    )))
}

/// Settings under which an acknowledged write can be lost, or the files damaged.
pub(crate) async fn unsafe_settings(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(
            "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name",
            &[],
        )
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

const fn rule_name(rule: UnspendableRule) -> &'static str {
    match rule {
        UnspendableRule::FalseReturn => "false-return",
        _ => "core",
    }
}

/// Makes the tables of `partitions` parts from a migration.
fn filled(migration: &str, partitions: u32) -> String {
    let mut sql = String::new();
    for line in migration.lines() {
        let Some(words) = line.strip_prefix("{partitions ") else {
            let (plain, parted) = match line.strip_suffix(" {partition_by};") {
                Some(plain) => (plain, true),
                None => (line, false),
            };
            sql.push_str(plain);
            if parted {
                sql.push_str(if partitions == 0 {
                    ";"
                } else {
                    " PARTITION BY HASH (txid);"
                });
            }
            sql.push('\n');
            continue;
        };
        let mut words = words.trim_end_matches('}').split(' ');
        let (Some(table), Some(fill)) = (words.next(), words.next()) else {
            continue;
        };
        // A text that is written to never fails.
        if partitions == 0 {
            let _ = writeln!(sql, "ALTER TABLE {table} SET (fillfactor = {fill});");
        }
        for part in 0..partitions {
            let _ = writeln!(
                sql,
                "CREATE TABLE {table}_{part} PARTITION OF {table} FOR VALUES WITH (MODULUS {partitions}, REMAINDER {part}) WITH (fillfactor = {fill});"
            );
        }
    }
    sql
}

/// Makes sure that the store is there, in this version.
pub(crate) async fn prepare(
    server: &Server,
    config: &PostgresUtxoStoreConfig,
) -> Result<(), Failed> {
    let client = server.connect().await?;
    let action = "open the store";
    let query = "SELECT current_setting('server_version_num')::bigint, pg_is_in_recovery()";
    let row = server.answer(action, client.query_one(query, &[])).await?;
    let failed = |error| crate::error::failed(action, error);
    check_server_version(row.try_get(0).map_err(failed)?)?;
    let standby: bool = row.try_get(1).map_err(failed)?;
    let off = server.answer(action, unsafe_settings(&client)).await?;
    if !off.is_empty() && !config.allow_unsafe_durability {
        return Err(Error::invalid_request(format!(
            "the server runs with {} off, so it can lose what it acknowledges or damage its files; turn on, or set allow_unsafe_durability",
            off.join(" and ")
        ))
        .into());
    }
    if standby {
        return Err(Error::backend(
            BACKEND,
            "open the store (the server is a standby that takes no writes; name the primary, or several hosts with target_session_attrs=read-write)",
            groundtackle_utxo_store::Retryability::Transient,
            "the server is in recovery",
        )
        .into());
    }
    // Two that open at the same time make one store.
    let begin = "BEGIN; SELECT pg_advisory_xact_lock(7021003)";
    server.answer(action, client.batch_execute(begin)).await?;
    let found = found(server, &client, config).await?;
    let from = match found {
        Some((version, _)) if version > i64::from(VERSION) => {
            return Err(Error::NewerFormat {
                store: format!("schema {}", config.schema),
                found: u32::try_from(version).unwrap_or(u32::MAX),
                supported: VERSION,
            }
            .into());
        }
        Some((_, rule)) if rule != rule_name(config.unspendable) => {
            return Err(Error::invalid_request(format!(
                "the store of schema {} was created with `unspendable` {rule}, which is fixed; the config says {}",
                config.schema,
                rule_name(config.unspendable)
            ))
            .into());
        }
        Some((version, _)) => usize::try_from(version).unwrap_or(0),
        None => 0,
    };
    if from < MIGRATIONS.len() {
        if !config.create {
            return Err(if found.is_none() {
                Error::NotFound {
                    store: format!("schema {} of the database", config.schema),
                }
            } else {
                Error::invalid_request(format!(
                    "schema {} has version {from} of the store, and this software {VERSION}; set `create` to migrate it",
                    config.schema
                ))
            }
            .into());
        }
        migrate(server, &client, config, from).await?;
    }
    server.answer(action, client.batch_execute("COMMIT")).await
}

/// The version and the rule of the store that is there.
async fn found(
    server: &Server,
    client: &Client,
    config: &PostgresUtxoStoreConfig,
) -> Result<Option<(i64, String)>, Failed> {
    let action = "open the store";
    let table = format!("{}.chain", config.schema);
    let values: [&(dyn ToSql + Sync); 1] = [&table];
    let there = client.query_one("SELECT to_regclass($1::text) IS NOT NULL", &values);
    let failed = |error| crate::error::failed(action, error);
    let there = server.answer(action, there).await?;
    if !there.try_get::<_, bool>(0).map_err(failed)? {
        return Ok(None);
    }
    let query = "SELECT schema_version, unspendable FROM chain";
    let row = server.answer(action, client.query_opt(query, &[])).await?;
    let row = row.ok_or_else(|| crate::error::corrupt("the table chain", "its row is missing"))?;
    Ok(Some((
        row.try_get(0).map_err(failed)?,
        row.try_get(1).map_err(failed)?,
    )))
}

async fn migrate(
    server: &Server,
    client: &Client,
    config: &PostgresUtxoStoreConfig,
    from: usize,
) -> Result<(), Failed> {
    let action = "create or migrate the store";
    let schema = &config.schema;
    // `IF NOT EXISTS` asks for the right to create schemas even where it exists.
    let query = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    let there = server
        .answer(action, client.query_opt(query, &[schema]))
        .await?;
    if there.is_none() {
        let create = format!("CREATE SCHEMA \"{schema}\"");
        server.answer(action, client.batch_execute(&create)).await?;
    }
    for migration in MIGRATIONS.iter().skip(from) {
        let sql = filled(migration, config.partitions);
        server.answer(action, client.batch_execute(&sql)).await?;
    }
    if from == 0 {
        let insert = "INSERT INTO chain (schema_version, unspendable, muhash) VALUES ($1, $2, $3)";
        let muhash = MuHash3072::new().to_bytes();
        let rule = rule_name(config.unspendable);
        let (version, muhash) = (i64::from(VERSION), muhash.as_slice());
        let values: [&(dyn ToSql + Sync); 3] = [&version, &rule, &muhash];
        server
            .answer(action, client.execute(insert, &values))
            .await?;
    } else {
        let update = format!("UPDATE chain SET schema_version = {VERSION}");
        server.answer(action, client.batch_execute(&update)).await?;
    }
    tracing::info!(
        schema,
        from,
        to = VERSION,
        "created or migrated a UTXO store on PostgreSQL"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_servers_are_refused() {
        assert!(check_server_version(150_018).is_ok());
        for version in [90_624, 120_022, 190_000] {
            let error = check_server_version(version).unwrap_err().to_string();
            assert!(error.contains("13 to 18"), "{error}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good = PostgresUtxoStoreConfig::new("postgres://localhost/x");
        assert!(check_config(&good).is_ok());
        for schema in [
            "",
            "Upper",
            "a b",
            "x\"; drop",
            "1st",
            "pg_own",
            &"x".repeat(64),
        ] {
            assert!(
                check_config(&good.clone().with_schema(schema.into())).is_err(),
                "{schema}"
            );
        }
        assert!(check_config(&good.clone().with_partitions(2000)).is_err());
        assert!(check_config(&good.clone().with_max_batch_items(0)).is_err());
        let short = good.with_answer_timeout(std::time::Duration::from_secs(1));
        assert!(check_config(&short).is_err());
    }
}
